"""The dead letters as people see them: what is there and why, and driving it again once its cause is mended.

A dead letter that was driven again stays in its topic, like every record. What says that it was is a *marker* behind it: a
record without a value, with the place of the letter in a header.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from reconciler.values.errors import InputError, ReconcilerError
from reconciler.wire.partition import PARTITIONER
from reconciler.wire.topics import MAX_DEAD_LETTER_BYTES, TopicNames
from streams.reading import Found, Headers, read_topic
from streams.settings import Settings

MARKER: Final = "reconciler.redriven"
TRUNCATED: Final = "reconciler.truncated"
NULL_VALUE: Final = "reconciler.null-value"

_PREFIX: Final = "__dlq.errors."
_ATTEMPT: Final = _PREFIX + "attempt"
_OURS: Final = frozenset({"effect-id", NULL_VALUE, TRUNCATED, "reconciler.forwarded-from"})
_DELIVERY_S: Final = 30.0


class NotRedriven(ReconcilerError):
    """The brokers did not take what was to be driven again."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that could not be used, and why."""

    letter_id: str
    """Its own place among the dead letters, ``partition/offset``: what people call it by."""
    record: Found
    topic: str
    """Where it was found, with partition and offset."""
    partition: int
    offset: int
    exception: str
    message: str
    attempt: int
    redriven: bool = False

    @property
    def value(self) -> bytes | None:
        """The bytes as they were found."""
        return None if self.record.header(NULL_VALUE) is not None else self.record.value

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are here; if not, the record itself is still in its topic, as long as that keeps it."""
        return self.record.header(TRUNCATED) is None


def read_dead_letters(settings: Settings) -> list[DeadLetter]:
    """All that are kept, the oldest first, each with whether it was driven again. Raises TopicUnreadable."""
    letters: dict[str, DeadLetter] = {}
    redriven: set[str] = set()
    for found in read_topic(settings, TopicNames(settings.topic_prefix).dead_letters):
        marked = found.header(MARKER)
        if marked is not None:
            redriven.add(marked)
        else:
            letter = _letter(found)
            letters[letter.letter_id] = letter
    return sorted(
        (msgspec.structs.replace(each, redriven=each.letter_id in redriven) for each in letters.values()),
        key=lambda each: (each.record.timestamp_ms, each.record.partition, each.record.offset),
    )


def _letter(found: Found) -> DeadLetter:
    return DeadLetter(
        letter_id=f"{found.partition}/{found.offset}",
        record=found,
        topic=found.header(_PREFIX + "topic") or "",
        partition=_number(found, "partition"),
        offset=_number(found, "offset"),
        exception=found.header(_PREFIX + "exception") or "",
        message=found.header(_PREFIX + "message") or "",
        attempt=_number(found, "attempt"),
    )


def _number(found: Found, name: str) -> int:
    text = found.header(_PREFIX + name) or ""
    return int(text) if text.isascii() and text.isdigit() else 0


def chosen(letters: Sequence[DeadLetter], ids: Sequence[str]) -> list[DeadLetter]:
    """Those with these ids. Raises InputError naming the first that isn't there."""
    by_id = {letter.letter_id: letter for letter in letters}
    for letter_id in ids:
        if letter_id not in by_id:
            raise InputError(f"there is no dead letter {letter_id!r}; `reconciler dlq list` shows those that there are")
    return [by_id[letter_id] for letter_id in ids]


def redrive(settings: Settings, letters: Sequence[DeadLetter]) -> Iterator[DeadLetter]:
    """Sends each back to the topic where it was found, as it was, with its attempt counted; gives each once the brokers have it.

    Raises InputError for one that can't be sent, before any is; NotRedriven where the brokers don't take one: those given
    before it are sent and marked.
    """
    for letter in letters:
        _check(letter)
    producer = Producer(
        {
            **settings.client_config(),
            "partitioner": PARTITIONER,
            "enable.idempotence": True,
            "message.max.bytes": 2 * MAX_DEAD_LETTER_BYTES,
            "log_level": 0,
        }
    )
    dead_letters = TopicNames(settings.topic_prefix).dead_letters
    for letter in letters:
        # Without a key, only the partition says where it belongs.
        partition = letter.partition if letter.record.key is None else None
        _send(producer, letter.topic, letter.record.key, letter.value, _headers(letter), partition)
        marker = ((MARKER, letter.letter_id.encode()),)
        _send(producer, dead_letters, letter.record.key, None, marker, letter.record.partition)
        yield letter


def _check(letter: DeadLetter) -> None:
    if not letter.topic:
        raise InputError(f"the dead letter {letter.letter_id} doesn't say where it was found; it can't be driven again")
    if not letter.is_whole:
        raise InputError(
            f"the dead letter {letter.letter_id} was cut, since it was too large; the whole record is at "
            f"{letter.topic}/{letter.partition}/{letter.offset}"
        )


def _headers(letter: DeadLetter) -> Headers:
    """Its own headers, without those that made it a dead letter; the attempt stays, so that it is counted on."""
    own = [
        (name, value)
        for name, value in letter.record.headers
        if name not in _OURS and (name == _ATTEMPT or not name.startswith(_PREFIX))
    ]
    return tuple(own)


def _send(
    producer: Producer, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None
) -> None:
    failures: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error.str())

    options: dict[str, Any] = {} if partition is None else {"partition": partition}
    deadline = time.monotonic() + _DELIVERY_S
    try:
        producer.produce(topic, value, key, headers=list(headers), on_delivery=delivered, **options)
    except KafkaException as error:
        raise NotRedriven(f"the record can't go back to {topic}: {error.args[0].str()}") from None
    left = producer.flush(max(0.0, deadline - time.monotonic()))
    if left or failures:
        why = failures[0] if failures else "no answer in time"
        raise NotRedriven(f"the brokers did not take a record for {topic} ({why}); check them and drive it again")
