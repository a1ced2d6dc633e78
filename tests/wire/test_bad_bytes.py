"""Whatever the bytes are, `Codec.decode` gives a record or a DecodeError that says what is wrong, at a bounded cost."""

from __future__ import annotations

import json
import time
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.records import Action, Record
from reconciler.values.errors import InputError
from reconciler.wire.codec import MAX_RECORD_BYTES, Codec, schema_header
from reconciler.wire.errors import DecodeError, RecordTooLargeError, UnknownSchemaError
from reconciler.wire.schema_folder import packaged_folder
from tests.wire import strategies
from tests.wire.avro_bytes import long, string

CODEC = Codec.packaged()
FOLDER = packaged_folder()
HEADER = schema_header(FOLDER.latest("action").id)
JUNE_2026 = 1_780_272_000_000_000


def action_bytes(
    *,
    operation_id: bytes = string("o"),
    stage: bytes = long(2),
    operation: bytes = long(2),
    resource: bytes = string("crm/contact/42"),
    before: bytes = long(0),
    set_: bytes = string("{}"),
    unset: bytes = long(0),
    run_id: bytes = string("r"),
    actor: bytes = long(0),
    compensation: bytes = long(0),
    traceparent: bytes = long(0),
    origin: bytes = long(0),
    reverses: bytes = long(0),
) -> bytes:
    parts = [operation_id, string("a"), stage, operation, resource, long(JUNE_2026), before, set_, unset, run_id]
    parts += [string("s"), long(0), actor, long(0), compensation, long(0), long(0), string(""), string(""), string("")]
    return HEADER + b"".join([*parts, traceparent, origin, reverses])


def test_the_bytes_that_these_tests_break_are_good() -> None:
    assert isinstance(CODEC.decode(action_bytes()), Action)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (None, "the value is null"),
        (b"", "the value is empty"),
        (b"\x01\x52\x43\x00\x01", "begins with the byte 0x01, not with 0x00 and a schema id"),
        (b'{"action_id": "5f"}', "must write the Confluent wire format"),
        (b"\x00\x52", "ends after 2 bytes, inside its schema id"),
        (b"\x00\x00\x00\x00\x07abc", "the schema id 7 is unknown here, and no registry is configured"),
        (HEADER, "operation_id: the bytes end before the record does"),
        (action_bytes() + b"\0", "1 bytes are left over after the record"),
        (action_bytes()[:-1], "reverses: the bytes end before the record does"),
        (action_bytes(operation_id=long(3 * 2**30)), "operation_id: claims a length of 3221225472 bytes"),
        (action_bytes(operation_id=long(-5)), "operation_id: claims a length of -5 bytes"),
        (action_bytes(operation_id=string(b"\xff")), "operation_id: is not UTF-8"),
        (action_bytes(stage=long(0)), "stage: holds a symbol that this version doesn't know"),
        (action_bytes(stage=long(5)), "stage: holds the symbol number 5, of 5"),
        (action_bytes(operation=long(-1)), "operation: holds the symbol number -1, of 5"),
        (action_bytes(resource=string("contact-42")), "resource: the resource 'contact-42' must be system/type/id"),
        (action_bytes(before=long(2)), "before: holds the union branch 2, of 2"),
        (action_bytes(before=long(-1) + string("{}")), "before: holds the union branch -1, of 2"),
        (action_bytes(set_=string("{")), "set: is not JSON"),
        (action_bytes(set_=string("")), "set: is not JSON"),
        (action_bytes(set_=string("null")), "set: must be the text of a JSON object"),
        (action_bytes(set_=string("[]")), "set: must be the text of a JSON object"),
        (action_bytes(set_=string('{"/a": NaN}')), "set: is not JSON"),
        (action_bytes(set_=string('{"/a": 1e999}')), "set: is not JSON"),
        (action_bytes(set_=string('{"/a": 18446744073709551616}')), "set: the integer 18446744073709551616 is beyond"),
        (action_bytes(set_=string('{"/a": ' + "[" * 101 + "]" * 101 + "}")), "set: is nested more than 100 levels"),
        (action_bytes(set_=string('{"/a": ' + "[" * 5000 + "]" * 5000 + "}")), "set: is n"),
        (action_bytes(set_=string('{"phone": 1}')), "set: the path 'phone' must be empty or begin with '/'"),
        (action_bytes(set_=string('{"/a~2": 1}')), "set: the path '/a~2' has a '~'"),
        (action_bytes(set_=string('{"/a": 1}'), unset=long(1) + string("/a") + long(0)), "in both `set` and `unset`"),
        (action_bytes(unset=long(10**10)), "unset: claims 10000000000 items"),
        (action_bytes(unset=long(1) + string("a") + long(0)), "unset: the path 'a' must be empty or begin"),
        (action_bytes(run_id=string("")), "run_id: must not be empty"),
        (action_bytes(actor=long(1) + string("ana") + long(99)), "actor.kind: claims a length of 99 bytes"),
        (action_bytes(compensation=long(1) + string("x") + string("3")), "compensation.arguments: must be the text of"),
    ],
)
def test_bad_bytes_are_refused_in_words(payload: bytes | None, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(payload)
    assert message in str(caught.value)
    assert isinstance(caught.value, InputError)


def test_an_unknown_schema_has_an_error_of_its_own() -> None:
    with pytest.raises(UnknownSchemaError):
        CODEC.decode(b"\x00\x7f\xff\xff\xff")


def test_size_is_judged_before_anything_is_read() -> None:
    payload = action_bytes() + bytes(MAX_RECORD_BYTES)
    began = time.process_time()
    with pytest.raises(RecordTooLargeError, match=r"has 10\d{5} bytes, more than the limit of 1048576"):
        CODEC.decode(payload)
    assert time.process_time() - began < 0.1


def test_the_limit_is_a_setting() -> None:
    small = Codec.packaged(max_record_bytes=100)
    assert isinstance(small.decode(action_bytes()), Action)
    with pytest.raises(RecordTooLargeError, match="limit of 100"):
        small.decode(action_bytes(set_=string(json.dumps({"/a": "x" * 100}))))


def dense_action(arrays: int) -> bytes:
    """Bytes that make as many Python objects as bytes can: an array of empty arrays inside the JSON text."""
    return action_bytes(set_=string('{"/a": [' + ",".join(["[]"] * arrays) + "]}"))


def test_the_memory_of_the_densest_action_is_bounded_by_its_size() -> None:
    payload = dense_action(30_000)
    tracemalloc.start()
    try:
        CODEC.decode(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * len(payload)


def test_the_densest_action_of_the_largest_size_is_read_in_bounded_time() -> None:
    payload = dense_action(340_000)
    assert MAX_RECORD_BYTES * 0.9 < len(payload) <= MAX_RECORD_BYTES
    began = time.process_time()
    assert isinstance(CODEC.decode(payload), Action)
    assert time.process_time() - began < 10


PAYLOADS = strategies.RECORDS.map(lambda record: CODEC.encode("any", record))


@given(PAYLOADS, st.data())
@settings(deadline=None, max_examples=200)
def test_mutations_give_a_record_or_a_decode_error(payload: bytes, data: st.DataObject) -> None:
    broken = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken)))
        match data.draw(st.sampled_from(["change", "insert", "delete", "cut", "claim"])):
            case "change":
                broken[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "insert":
                broken[at:at] = data.draw(st.binary(max_size=6))
            case "delete":
                del broken[at : at + data.draw(st.integers(1, 6))]
            case "cut":
                del broken[at:]
            case "claim":
                broken[at : at + 1] = long(data.draw(st.sampled_from([-1, 2**31, 2**40, 2**62, -(2**62)])))
    check_total(bytes(broken))


@given(st.binary(max_size=200), st.sampled_from(sorted(FOLDER.by_id)))
@settings(deadline=None, max_examples=200)
def test_random_bytes_give_a_record_or_a_decode_error(body: bytes, schema_id: int) -> None:
    check_total(schema_header(schema_id) + body)


def check_total(payload: bytes) -> None:
    """Anything but a record or a DecodeError fails the test by itself."""
    with suppress(DecodeError):
        assert isinstance(CODEC.decode(payload), Record)
