"""From a Kafka record to a command, or to the reason why it can't be one."""

from __future__ import annotations

from typing import Final, cast

import msgspec
from confluent_kafka import Message as KafkaMessage

from reconciler.records import Command
from reconciler.sdk.spool import Message
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError

ERROR_PREFIX: Final = "__dlq.errors."
"""Kafka's own prefix for the headers of dead letters (KIP-1191)."""

_HEADER_CHARACTERS: Final = 2_000


class Received(msgspec.Struct, frozen=True):
    """One record as it came."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    def header(self, name: str) -> str | None:
        """The last value of a header, where there is one."""
        values = [value for key, value in self.headers if key == name]
        return values[-1].decode(errors="replace") if values else None


def received(message: KafkaMessage) -> Received:
    """A record of confluent-kafka's, which tells only with its methods."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None
    pairs = cast("list[tuple[str, bytes | str | None]]", message.headers() or [])
    headers = tuple((name, _bytes(value) or b"") for name, value in pairs)
    return Received(topic, partition, offset, _bytes(message.key()), _bytes(message.value()), headers)


def read_command(record: Received, codec: Codec) -> Command:
    """The command of a record. Raises DecodeError for a record that isn't one, and RegistryDownError, of its kind, where that
    can't be said just now."""
    command = codec.decode(record.value)
    if not isinstance(command, Command):
        raise DecodeError(f"the record is of the kind {type(command).__name__}; only commands belong here")
    if record.key is None:
        raise DecodeError("the key is null; it must be the command's resource", field="key")
    if record.key != command.resource.encode():
        shown = record.key[:80].decode(errors="replace")
        raise DecodeError(f"the key {shown!r} is not the command's resource {command.resource!r}", field="key")
    return command


def dead_letter(record: Received, error: Exception, *, topic: str, group: str) -> Message:
    """The record for the dead letters: the raw bytes, where they came from, and what is wrong with them.

    The record's own headers go with it, one value a name, so that it can be driven again as it was. One that was driven
    again before says so by its attempt, which is counted on.
    """
    told = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "group": group,
        "exception": type(error).__name__,
        "message": str(error)[:_HEADER_CHARACTERS],
        "attempt": str(_attempt(record) + 1),
    }
    headers = dict(record.headers) | {ERROR_PREFIX + name: text.encode(errors="replace") for name, text in told.items()}
    headers["effect-id"] = f"{record.topic}/{record.partition}/{record.offset}".encode()
    if record.value is None:
        headers["reconciler.null-value"] = b"true"
    return Message(topic, record.key, record.value, tuple(headers.items()))


def _attempt(record: Received) -> int:
    text = record.header(ERROR_PREFIX + "attempt") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _bytes(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode()
