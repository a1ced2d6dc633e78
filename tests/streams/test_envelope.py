"""Changelog values: what is joined by hand is what the codec reads, and nothing of another table or key passes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.wire.changelog import ExpectedHead, HistoryEntry, SourceOffset
from reconciler.wire.codec import Codec
from streams.store import envelope as installed
from streams.store.envelope import ChangelogMismatch, EntryEnvelope, HeadEnvelope
from streams.store.port import Mark
from tests.support.compiled import from_source

CODEC = Codec.packaged()
TOPICS = ("workflow.actions", "state.observations", "timers")
HEAD_HEADER = CODEC.header("state.expected", ExpectedHead)
ENTRY_HEADER = CODEC.header("history", HistoryEntry)

resources = st.from_regex(r"[a-z]{1,9}/[a-z]{1,9}/[a-z0-9_]{0,200}x", fullmatch=True)
# Where the number of bytes changes, and the greatest that there is.
edges = st.sampled_from([2**bits + step for bits in (6, 13, 20, 27, 34, 62) for step in (-1, 0)])
offsets = st.lists(st.integers(-1, 2**63 - 1) | edges, min_size=3, max_size=3)
longs = st.integers(0, 2**63 - 1) | edges


# Where the module is compiled, its source is held to the same.
MODULES = pytest.mark.parametrize("module", [installed, from_source(installed)], ids=["as installed", "source"])


def heads(table: str = "resources", partition: int = 7) -> HeadEnvelope:
    return HeadEnvelope(CODEC, HEAD_HEADER, table, 3, TOPICS, partition)


def entries(table: str = "resources") -> EntryEnvelope:
    return EntryEnvelope(CODEC, ENTRY_HEADER, table, 3, 7)


@MODULES
@given(key=resources, epoch=longs, sources=offsets, text=st.text())
def test_a_head_is_read_by_the_codec_and_by_hand(
    module: Any, key: str, epoch: int, sources: list[int], text: str
) -> None:
    envelope = module.HeadEnvelope(CODEC, HEAD_HEADER, "resources", 3, TOPICS, 7)
    envelope.set_epoch(epoch)
    state = text.encode(errors="replace")
    value = envelope.encode(key.encode(), sources, state)
    assert envelope.decode(key.encode(), value) == (epoch, sources, state)
    assert CODEC.decode(value) == ExpectedHead(
        table="resources",
        resource=key,
        machine_version=3,
        epoch=epoch,
        sources=[
            SourceOffset(topic=topic, partition=7, offset=offset)
            for topic, offset in zip(TOPICS, sources, strict=True)
            if offset >= 0
        ],
        state=state,
    )


@MODULES
@given(
    resource=resources,
    entry_id=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1),
    epoch=longs,
    text=st.text() | st.integers(2**13, 2**14).map("x".__mul__),
)
def test_an_entry_is_read_by_the_codec_and_by_hand(
    module: Any, resource: str, entry_id: str, epoch: int, text: str
) -> None:
    envelope = module.EntryEnvelope(CODEC, ENTRY_HEADER, "resources", 3, 7)
    envelope.set_epoch(epoch)
    key, entry = module.entry_key(resource.encode(), entry_id), text.encode(errors="replace")
    value = envelope.encode(key, entry)
    assert envelope.decode(key, value) == (epoch, entry)
    assert CODEC.decode(value) == HistoryEntry(
        table="resources", resource=resource, entry_id=entry_id, machine_version=3, epoch=epoch, entry=entry
    )


def test_a_head_framed_by_another_schema_id_takes_the_general_way() -> None:
    value = heads().encode(b"crm/contact/1", [4, -1, 9], b"{}")
    other = HeadEnvelope(CODEC, b"\0\0\0\0\1", "resources", 3, TOPICS, 7)
    assert other.decode(b"crm/contact/1", value) == (0, [4, -1, 9], b"{}")
    entry = entries().encode(b"crm/contact/1\0a", b"{}")
    assert EntryEnvelope(CODEC, b"\0\0\0\0\1", "resources", 3, 7).decode(b"crm/contact/1\0a", entry) == (0, b"{}")


@pytest.mark.parametrize("header", [HEAD_HEADER, b"\0\0\0\0\1"], ids=["by hand", "general"])
def test_row_08_a_head_of_another_table_or_key_is_refused(header: bytes) -> None:
    """Without this, a stray record would be applied to whatever table is being recovered."""
    value = heads().encode(b"crm/contact/1", [1, -1, -1], b"{}")
    with pytest.raises(ChangelogMismatch):
        HeadEnvelope(CODEC, header, "resources", 3, TOPICS, 7).decode(b"crm/contact/2", value)
    with pytest.raises(ChangelogMismatch):
        HeadEnvelope(CODEC, header, "rollbacks", 3, TOPICS, 7).decode(b"crm/contact/1", value)


@pytest.mark.parametrize("header", [ENTRY_HEADER, b"\0\0\0\0\1"], ids=["by hand", "general"])
def test_row_08_an_entry_of_another_table_or_key_is_refused(header: bytes) -> None:
    """As above, for the history."""
    value = entries().encode(b"crm/contact/1\0a", b"{}")
    with pytest.raises(ChangelogMismatch):
        EntryEnvelope(CODEC, header, "resources", 3, 7).decode(b"crm/contact/1\0b", value)
    with pytest.raises(ChangelogMismatch):
        EntryEnvelope(CODEC, header, "rollbacks", 3, 7).decode(b"crm/contact/1\0a", value)


def test_every_truncation_is_refused() -> None:
    value = heads().encode(b"crm/contact/1", [1, 2, 3], b'{"a":1}')
    for length in range(len(value)):
        with pytest.raises(ChangelogMismatch):
            heads().decode(b"crm/contact/1", value[:length])
    entry = entries().encode(b"crm/contact/1\0a", b'{"a":1}')
    for length in range(len(entry)):
        with pytest.raises(ChangelogMismatch):
            entries().decode(b"crm/contact/1\0a", entry[:length])


def test_sources_of_other_partitions_and_topics_are_not_ours() -> None:
    value = heads(partition=6).encode(b"crm/contact/1", [4, 5, 6], b"{}")
    assert heads(partition=7).decode(b"crm/contact/1", value)[1] == [-1, -1, -1]


def test_a_mark_survives() -> None:
    mark = Mark(epoch=4, consumed={"workflow.actions": 17}, now=99, owner="worker-1")
    envelope = entries()
    envelope.set_epoch(4)
    assert envelope.decode_mark(envelope.encode_mark(mark)) == mark
    assert isinstance(CODEC.decode(envelope.encode_mark(mark)), HistoryEntry)
    other = EntryEnvelope(CODEC, b"\0\0\0\0\1", "resources", 3, 7)
    assert other.decode_mark(envelope.encode_mark(mark)) == mark
    with pytest.raises(ChangelogMismatch):
        envelope.decode_mark(envelope.encode(envelope.mark_key, b"[]"))
