"""The readers by hand accept nothing that the strict reader refuses, and read the rest alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reconciler.records import Record
from reconciler.values.instant import parse_instant
from reconciler.wire import action_reader, changelog
from reconciler.wire.codec import Codec
from reconciler.wire.conversion import Conversion
from reconciler.wire.errors import DecodeError
from reconciler.wire.schema_folder import packaged_folder
from reconciler.wire.strict_reader import compile_reader, read_whole
from tests.support.compiled import from_source
from tests.wire import strategies
from tests.wire.avro_bytes import long
from tests.wire.test_round_trip import exactly

CODEC = Codec.packaged()
FOLDER = packaged_folder()
AS_SOURCE = from_source(action_reader)
"""Where the module is compiled, its source is held to the same."""
ACTION_READERS = pytest.mark.parametrize("reader", [action_reader, AS_SOURCE], ids=["as installed", "source"])
BY_HAND: list[tuple[str, Callable[[bytes], Record | None]]] = [
    ("action", action_reader.read_action),
    ("action", AS_SOURCE.read_action),
    ("expected_head", changelog.read_head),
    ("history_entry", changelog.read_history_entry),
]
STRICT = {
    name: (compile_reader(FOLDER.latest(name).schema), Conversion(FOLDER.latest(name).schema).record)
    for name, _ in BY_HAND
}


def strictly(name: str, payload: bytes) -> Record | None:
    read, convert = STRICT[name]
    try:
        return convert(read_whole(read, payload, 5))
    except DecodeError:
        return None


@pytest.mark.parametrize(("name", "by_hand"), BY_HAND)
@given(data=st.data())
@settings(deadline=None)
def test_what_is_usual_is_read_by_hand(
    name: str, by_hand: Callable[[bytes], Record | None], data: st.DataObject
) -> None:
    record = data.draw(strategies.BY_SCHEMA[name])
    read = by_hand(CODEC.encode("any", record))
    assert read is not None
    assert exactly(read) == exactly(record)


@pytest.mark.parametrize(("name", "by_hand"), BY_HAND)
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_nothing_is_read_by_hand_that_is_refused_strictly(
    name: str, by_hand: Callable[[bytes], Record | None], data: st.DataObject
) -> None:
    payload = bytearray(CODEC.encode("any", data.draw(strategies.BY_SCHEMA[name])))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(5, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        assume(len(payload) > 5)
    broken = bytes(payload)
    read = by_hand(broken)
    if read is not None:
        expected = strictly(name, broken)
        assert expected is not None
        assert exactly(read) == exactly(expected)


@ACTION_READERS
def test_every_byte_of_an_action_broken_in_every_way(reader: Any) -> None:
    payload = CODEC.encode("any", strategies.full_action())
    accepted = 0
    for at in range(5, len(payload)):
        for byte in range(256):
            broken = payload[:at] + bytes((byte,)) + payload[at + 1 :]
            read = reader.read_action(broken)
            if read is not None:
                accepted += 1
                expected = strictly("action", broken)
                assert expected is not None, (at, byte)
                assert exactly(read) == exactly(expected), (at, byte)
    assert accepted > len(payload)  # most changes of a letter are another good action


@ACTION_READERS
@pytest.mark.parametrize("number", [2**31, 2**63 - 1, 2**63, 2**64, 2**70, -(2**31), -(2**63) + 1, -(2**63), -(2**64)])
def test_an_integer_beyond_what_a_machine_counts(reader: Any, number: int) -> None:
    payload = CODEC.encode("any", strategies.full_action())
    for at in range(5, len(payload)):
        broken = payload[:at] + long(number) + payload[at + 1 :]
        read = reader.read_action(broken)
        if read is not None:
            expected = strictly("action", broken)
            assert expected is not None, at
            assert exactly(read) == exactly(expected), at


@ACTION_READERS
@pytest.mark.parametrize("year", [1, 900, 1900, 1969, 1970, 1978, 1980, 2026, 3110, 3112, 9999])
def test_instants_of_all_times(reader: Any, year: int) -> None:
    action = msgspec.structs.replace(
        strategies.full_action(), occurred_at=parse_instant(f"{year:04}-06-01T12:30:15.123457Z")
    )
    assert reader.read_action(CODEC.encode("any", action)) == action


@ACTION_READERS
def test_a_schema_laid_out_otherwise_is_not_read_by_hand(reader: Any) -> None:
    schema = FOLDER.latest("action").schema
    assert reader.reads(schema)
    for change in (_swap_fields, _add_symbol, _add_field):
        other: dict[str, Any] = copy.deepcopy(schema)
        change(other)
        assert not reader.reads(other)


def _swap_fields(schema: dict[str, Any]) -> None:
    fields = schema["fields"]
    fields[9], fields[10] = fields[10], fields[9]


def _add_symbol(schema: dict[str, Any]) -> None:
    schema["fields"][2]["type"]["symbols"].insert(1, "paused")


def _add_field(schema: dict[str, Any]) -> None:
    schema["fields"].append({"name": "note", "type": "string", "default": ""})
