"""What the tables' changelog topics carry: an envelope that anybody can read, around what the machine made of it.

Heads and history entries are written for every action, so their bytes are joined by hand here: the machine's own bytes go
in as they are, behind an envelope of a few dozen bytes. Tests hold the result against fastavro.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from reconciler.records import Record
from reconciler.values.errors import InputError
from reconciler.wire.errors import DecodeError, EncodeError
from reconciler.wire.strict_reader import AvroSchema, read_bytes, read_int, read_long, read_string

_MIN_LONG, _MAX_LONG = -(2**63), 2**63 - 1
_PREFIX_BYTES: Final = 5  # the magic byte and the schema id
_EMPTY_ARRAY: Final = b"\x00"


class SourceOffset(Record, frozen=True, kw_only=True):
    """How far one source partition has been consumed into a value: the offset of the last record that went into it."""

    topic: str
    partition: int
    offset: int


class ExpectedHead(Record, frozen=True, kw_only=True):
    """What a table holds for one resource or rollback, except for its history. ``state`` is the machine's encoding: JSON text."""

    table: str
    resource: str
    machine_version: int
    epoch: int = 0
    sources: list[SourceOffset] = msgspec.field(default_factory=list)
    state: bytes


class HistoryEntry(Record, frozen=True, kw_only=True):
    """One operation in the history of one resource. ``entry`` is the machine's encoding: JSON text. ``resource`` is empty
    for what a partition keeps about itself."""

    table: str
    resource: str
    entry_id: str
    machine_version: int
    epoch: int = 0
    entry: bytes


def avro_long(value: int) -> bytes:
    """An integer in Avro's zigzag coding. Raises EncodeError beyond 64 bits."""
    if not _MIN_LONG <= value <= _MAX_LONG:
        raise EncodeError(f"the integer {value} is beyond 64 bits")
    rest = (value << 1) ^ (value >> 63)
    if rest < 0x80:
        return _SMALL[rest]
    coded = bytearray()
    while rest > 0x7F:
        coded.append(rest & 0x7F | 0x80)
        rest >>= 7
    coded.append(rest)
    return bytes(coded)


_SMALL: Final = tuple(bytes((value,)) for value in range(0x80))


def avro_string(text: str) -> bytes:
    """A text in Avro's coding. Raises EncodeError where it has lone surrogates."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise EncodeError(f"the text {text[:40]!r} has a lone surrogate, which UTF-8 can't say") from None
    return avro_long(len(raw)) + raw


def encode_head(
    header: bytes,
    table: str,
    resource: str,
    machine_version: int,
    epoch: int,
    sources: Sequence[SourceOffset],
    state: bytes,
) -> bytes:
    """The wire bytes of a head. ``header`` is the magic byte and the schema id (`Codec.header`)."""
    return b"".join(
        (
            header,
            avro_string(table),
            avro_string(resource),
            avro_long(machine_version),
            avro_long(epoch),
            _sources(sources),
            avro_long(len(state)),
            state,
        )
    )


def encode_history_entry(
    header: bytes, table: str, resource: str, entry_id: str, machine_version: int, epoch: int, entry: bytes
) -> bytes:
    """The wire bytes of a history entry. ``header`` is the magic byte and the schema id (`Codec.header`)."""
    return b"".join(
        (
            header,
            avro_string(table),
            avro_string(resource),
            avro_string(entry_id),
            avro_long(machine_version),
            avro_long(epoch),
            avro_long(len(entry)),
            entry,
        )
    )


def _sources(sources: Sequence[SourceOffset]) -> bytes:
    if not sources:
        return _EMPTY_ARRAY
    parts = [avro_long(len(sources))]
    for source in sources:
        parts += avro_string(source.topic), avro_long(source.partition), avro_long(source.offset)
    parts.append(_EMPTY_ARRAY)
    return b"".join(parts)


_HEAD_FIELDS: Final = ("table", "resource", "machine_version", "epoch", "sources", "state")
_ENTRY_FIELDS: Final = ("table", "resource", "entry_id", "machine_version", "epoch", "entry")


def reads_head(schema: AvroSchema) -> bool:
    """Whether a schema is laid out as `read_head` reads it."""
    return tuple(field["name"] for field in schema["fields"]) == _HEAD_FIELDS


def reads_history_entry(schema: AvroSchema) -> bool:
    """Whether a schema is laid out as `read_history_entry` reads it."""
    return tuple(field["name"] for field in schema["fields"]) == _ENTRY_FIELDS


def read_head(data: bytes) -> ExpectedHead | None:
    """The head of whole wire bytes, or None where the strict reader must say what is unusual about them."""
    try:
        table, at = read_string(data, _PREFIX_BYTES)
        resource, at = read_string(data, at)
        machine_version, at = read_int(data, at)
        epoch, at = read_long(data, at)
        sources, at = _read_sources(data, at)
        state, at = read_bytes(data, at)
    except (IndexError, InputError):
        return None
    if at != len(data) or not _is_utf8(state):
        return None
    return ExpectedHead(
        table=table, resource=resource, machine_version=machine_version, epoch=epoch, sources=sources, state=state
    )


def read_history_entry(data: bytes) -> HistoryEntry | None:
    """The history entry of whole wire bytes, or None where the strict reader must say what is unusual about them."""
    try:
        table, at = read_string(data, _PREFIX_BYTES)
        resource, at = read_string(data, at)
        entry_id, at = read_string(data, at)
        machine_version, at = read_int(data, at)
        epoch, at = read_long(data, at)
        entry, at = read_bytes(data, at)
    except (IndexError, InputError):
        return None
    if at != len(data) or not _is_utf8(entry):
        return None
    return HistoryEntry(
        table=table, resource=resource, entry_id=entry_id, machine_version=machine_version, epoch=epoch, entry=entry
    )


def _read_sources(data: bytes, at: int) -> tuple[list[SourceOffset], int]:
    sources: list[SourceOffset] = []
    count, at = read_long(data, at)
    if count == 0:
        return sources, at
    if count < 0:
        raise DecodeError("has its sources in a block that tells its size")
    for _ in range(min(count, len(data))):
        topic, at = read_string(data, at)
        partition, at = read_int(data, at)
        offset, at = read_long(data, at)
        sources.append(SourceOffset(topic=topic, partition=partition, offset=offset))
    if data[at] != 0:
        raise DecodeError("has its sources in several blocks")
    return sources, at + 1


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def head_bytes(header: bytes, head: ExpectedHead) -> bytes:
    """`encode_head` of a record."""
    return encode_head(header, head.table, head.resource, head.machine_version, head.epoch, head.sources, head.state)


def history_entry_bytes(header: bytes, entry: HistoryEntry) -> bytes:
    """`encode_history_entry` of a record."""
    return encode_history_entry(
        header, entry.table, entry.resource, entry.entry_id, entry.machine_version, entry.epoch, entry.entry
    )
