"""From records to commands, and to dead letters."""

from __future__ import annotations

import pytest

from reconciler.records import Change, Command, Outcome
from reconciler.sdk.consumer.reading import Received, dead_letter, read_command
from reconciler.wire.errors import DecodeError
from tests.sdk.support import CODEC

TOPIC = "reversal.crm"
COMMAND = Command(
    command_id="c1",
    resource="crm/contact/42",
    action="patch",
    changes=[Change(path="/phone", op="set", value="2", expect="3")],
)
VALUE = CODEC.encode(TOPIC, COMMAND)
OUTCOME = CODEC.encode(
    "reversal.outcomes", Outcome(command_id="c1", resource="crm/contact/42", status="applied", occurred_at=1)
)


def record(key: bytes | None = b"crm/contact/42", value: bytes | None = VALUE, **rest: object) -> Received:
    return Received(TOPIC, 3, 17, key, value, **rest)  # type: ignore[arg-type]


def test_a_command_is_read() -> None:
    assert read_command(record(), CODEC) == COMMAND


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (record(value=None), "null"),
        (record(value=b""), "empty"),
        (record(value=b"\x01" + VALUE[1:]), "0x01"),
        (record(value=VALUE[:-1]), "bytes"),
        (record(value=VALUE + b"\0"), "left over"),
        (record(value=b"\0\0\0\0\0" + VALUE[5:]), "schema id"),
        (record(value=OUTCOME), "Outcome"),
        (record(key=None), "key is null"),
        (record(key=b"crm/contact/43"), "not the command's resource"),
        (record(key=b"\xff"), "not the command's resource"),
    ],
)
def test_whatever_is_wrong_is_a_decode_error(wrong: Received, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        read_command(wrong, CODEC)


def test_a_dead_letter_says_where_it_came_from_and_why() -> None:
    headers = (("traceparent", b"old"), ("traceparent", b"new"), ("__dlq.errors.topic", b"elsewhere"))
    letter = dead_letter(
        record(key=None, value=b"\xff\x00", headers=headers), DecodeError("is broken"), topic="dead", group="g"
    )
    assert (letter.topic, letter.key, letter.value) == ("dead", None, b"\xff\x00")
    assert len(letter.headers) == len(dict(letter.headers))
    assert dict(letter.headers) == {
        "traceparent": b"new",
        "__dlq.errors.topic": b"reversal.crm",
        "__dlq.errors.partition": b"3",
        "__dlq.errors.offset": b"17",
        "__dlq.errors.group": b"g",
        "__dlq.errors.exception": b"DecodeError",
        "__dlq.errors.message": b"is broken",
        "__dlq.errors.attempt": b"1",
        "effect-id": b"reversal.crm/3/17",
    }


def test_a_dead_letter_counts_its_attempts_and_marks_a_null() -> None:
    first = dead_letter(record(value=None), DecodeError("null"), topic="dead", group="g")
    assert dict(first.headers)["reconciler.null-value"] == b"true"
    again = dead_letter(record(value=None, headers=first.headers), DecodeError("null"), topic="dead", group="g")
    assert dict(again.headers)["__dlq.errors.attempt"] == b"2"
    strange = record(headers=(("__dlq.errors.attempt", b"many"),))
    assert dict(dead_letter(strange, DecodeError("x"), topic="d", group="g").headers)["__dlq.errors.attempt"] == b"1"


def test_the_last_value_of_a_header_counts() -> None:
    assert record(headers=(("a", b"1"), ("a", b"2"))).header("a") == "2"
    assert record().header("a") is None
