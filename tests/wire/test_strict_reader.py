"""The strict reader: what it reads it reads as fastavro does; what fastavro lets pass it refuses; nothing is made by a claim."""

from __future__ import annotations

import io
import time
import tracemalloc
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.wire.errors import DecodeError
from reconciler.wire.strict_reader import UnreadableSchemaError, compile_reader, read_whole
from tests.wire.avro_bytes import long, string

NODE: dict[str, Any] = {
    "type": "record",
    "name": "Node",
    "namespace": "test",
    "fields": [
        {"name": "nothing", "type": "null"},
        {"name": "flag", "type": "boolean"},
        {"name": "small", "type": "int"},
        {"name": "large", "type": "long"},
        {"name": "single", "type": "float"},
        {"name": "double", "type": "double"},
        {"name": "raw", "type": "bytes"},
        {"name": "text", "type": "string"},
        {"name": "fixed", "type": {"type": "fixed", "name": "Four", "size": 4}},
        {"name": "again", "type": ["null", "Four"]},
        {"name": "enum", "type": {"type": "enum", "name": "Colour", "symbols": ["red", "green"]}},
        {"name": "union", "type": ["null", "string", "long"]},
        {"name": "array", "type": {"type": "array", "items": ["null", "test.Colour"]}},
        {"name": "map", "type": {"type": "map", "values": {"type": "array", "items": "int"}}},
        {
            "name": "inner",
            "type": {"type": "record", "name": "Inner", "fields": [{"name": "four", "type": "Four"}]},
        },
    ],
}
VALUES = st.fixed_dictionaries(
    {
        "nothing": st.none(),
        "flag": st.booleans(),
        "small": st.integers(-(2**31), 2**31 - 1),
        "large": st.integers(-(2**63), 2**63 - 1),
        "single": st.floats(width=32, allow_nan=False),
        "double": st.floats(allow_nan=False),
        "raw": st.binary(max_size=200),
        "text": st.text(max_size=100),
        "fixed": st.binary(min_size=4, max_size=4),
        "again": st.none() | st.binary(min_size=4, max_size=4),
        "enum": st.sampled_from(["red", "green"]),
        "union": st.none() | st.text(max_size=4) | st.integers(-(2**63), 2**63 - 1),
        "array": st.lists(st.none() | st.sampled_from(["red", "green"]), max_size=5),
        "map": st.dictionaries(st.text(max_size=4), st.lists(st.integers(-9, 9), max_size=3), max_size=3),
        "inner": st.fixed_dictionaries({"four": st.binary(min_size=4, max_size=4)}),
    }
)
PARSED = fastavro.parse_schema(NODE)
READ_NODE = compile_reader(NODE)


def read(schema: Any, payload: bytes) -> Any:
    return read_whole(compile_reader(schema), payload, 0)


def written(value: Any) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, PARSED, value)
    return body.getvalue()


@given(VALUES)
@settings(deadline=None)
def test_reads_what_fastavro_writes(value: dict[str, Any]) -> None:
    payload = written(value)
    assert read_whole(READ_NODE, payload, 0) == fastavro.schemaless_reader(io.BytesIO(payload), PARSED, None) == value


@given(VALUES, st.data())
@settings(deadline=None)
def test_what_it_reads_of_broken_bytes_fastavro_reads_alike(value: dict[str, Any], data: st.DataObject) -> None:
    payload = bytearray(written(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
    broken = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    try:
        ours = read_whole(READ_NODE, broken, 0)
    except DecodeError:
        return
    theirs = fastavro.schemaless_reader(io.BytesIO(broken), PARSED, None)
    assert repr(ours) == repr(theirs)  # NaN is not equal to itself, its text is


GIGABYTES = 5 * 2**30


@pytest.mark.parametrize(
    ("schema", "payload", "message"),
    [
        ("string", long(GIGABYTES) + b"abc", "claims a length of 5368709120 bytes, of which 3 are there"),
        ("string", long(2**62) + b"abc", "of which 3 are there"),
        ("bytes", long(GIGABYTES), "of which 0 are there"),
        ("string", long(-1) + b"abc", "claims a length of -1 bytes"),
        ("bytes", long(-(2**63)), "claims a length of -9223372036854775808 bytes"),
        ("string", string(b"\xff\xfe"), "is not UTF-8"),
        ("string", string(b"\xed\xa0\x80"), "is not UTF-8"),  # a lone surrogate
        ("string", string(b"\xc0\x80"), "is not UTF-8"),  # NUL, written too long
        ("string", string("abc") + b"x", "1 bytes are left over after the record"),
        ("string", b"", "the bytes end before the record does"),
        ("long", b"\x80", "the bytes end before the record does"),
        ("long", b"\xff" * 9 + b"\x02", "more than 64 bits"),
        ("long", b"\xff" * 40, "more than 64 bits"),
        ("long", b"\x80" * 1_000_000, "more than 64 bits"),
        ("int", long(2**31), "more than 32 bits"),
        ("int", long(-(2**31) - 1), "more than 32 bits"),
        ("boolean", b"\x02", "holds the byte 2 where a boolean"),
        ("double", b"1234567", "the bytes end before the record does"),
        ({"type": "fixed", "name": "F", "size": 4}, b"123", "the bytes end before the record does"),
        ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, long(2), "holds the symbol number 2, of 2"),
        ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, long(-1), "holds the symbol number -1, of 2"),
        (["null", "string"], long(2), "holds the union branch 2, of 2"),
        (["null", "string"], long(-1) + string("a"), "holds the union branch -1, of 2"),
        ({"type": "array", "items": "string"}, long(10**9) + b"\0\0", "claims 1000000000 items, for which 2 bytes"),
        ({"type": "array", "items": "string"}, long(-(2**63)) + long(0), "items, for which 0 bytes are not enough"),
        ({"type": "array", "items": "string"}, long(-1) + long(9) + b"\0\0", "claims a block of 9 bytes, of which 2"),
        ({"type": "array", "items": "string"}, long(-1) + long(-9) + b"\0\0", "claims a block of -9 bytes"),
        ({"type": "array", "items": "string"}, long(1) + string("a"), "the bytes end before the record does"),
        ({"type": "map", "values": "null"}, long(10**12) + b"\0", "claims 1000000000000 items"),
        ({"type": "map", "values": "long"}, long(1) + b"\0", "claims 1 items, for which 1 bytes are not enough"),
    ],
)
def test_refuses_in_words(schema: Any, payload: bytes, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read(schema, payload)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "record", "name": "Empty", "fields": []},
        {"type": "record", "name": "Nulls", "fields": [{"name": "a", "type": "null"}]},
        {"type": "fixed", "name": "Zero", "size": 0},
    ],
)
def test_arrays_of_nothing_are_refused_with_their_schema(items: Any) -> None:
    """Seven bytes could claim a billion of them, and nothing in the bytes would contradict it."""
    with pytest.raises(UnreadableSchemaError, match="items of no bytes"):
        compile_reader({"type": "array", "items": items})


def test_a_schema_that_contains_itself_is_refused() -> None:
    with pytest.raises(UnreadableSchemaError, match=r"contains itself"):
        compile_reader({"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]})


def test_a_schema_nested_too_deep_is_refused() -> None:
    schema: Any = "string"
    for _ in range(1000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(UnreadableSchemaError, match="levels deep"):
        compile_reader(schema)


# The densest payload that a schema with arrays allows: empty texts, in blocks of one.
DENSE = compile_reader({"type": "array", "items": "string"})
DENSE_ITEM = long(1) + string("")


def test_memory_is_that_of_the_bytes() -> None:
    payload = DENSE_ITEM * 50_000 + long(0)
    tracemalloc.start()
    try:
        assert len(read_whole(DENSE, payload, 0)) == 50_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * len(payload)


def test_time_is_that_of_the_bytes() -> None:
    payload = DENSE_ITEM * 500_000 + long(0)
    began = time.process_time()
    assert len(read_whole(DENSE, payload, 0)) == 500_000
    assert time.process_time() - began < 10


def test_a_claim_costs_no_memory() -> None:
    reader = compile_reader({"type": "array", "items": {"type": "map", "values": "bytes"}})
    claims = [long(2**40), long(1) + long(2**40), long(1) + long(1) + string("k") + long(2**40)]
    tracemalloc.start()
    try:
        for claim in claims:
            with pytest.raises(DecodeError):
                read_whole(reader, claim + bytes(64), 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_an_error_names_its_place() -> None:
    schema = {
        "type": "record",
        "name": "Outer",
        "fields": [
            {
                "name": "changes",
                "type": {
                    "type": "array",
                    "items": {"type": "record", "name": "Change", "fields": [{"name": "path", "type": "string"}]},
                },
            }
        ],
    }
    with pytest.raises(DecodeError) as caught:
        read(schema, long(2) + string("/a") + long(2**40) + b"\0")
    assert caught.value.field == "changes[1].path"
