"""What becomes of a record that can't be used: its raw bytes, with where it was found and why, on the dead letters' topic."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.values.traceparent import usable_traceparent
from streams.store.producer import Outgoing
from streams.transport.chunk import RawRecord

_ATTEMPT = "__dlq.errors.attempt"
_HEADER_TEXT_LIMIT = 2_000


def dead_letter(
    *,
    dead_letters_topic: str,
    record: RawRecord,
    topic: str,
    partition: int,
    group: str,
    exception: str,
    message: str,
    max_bytes: int,
) -> Outgoing:
    """The dead letter of a record. Its key is the record's own, its headers those of KIP-1191 and the reason.

    A record that was driven again from the dead letters says so by its attempt, which is counted on. Bytes beyond
    `max_bytes` are cut, and the header `reconciler.truncated` gives the whole length: the record itself stays in its topic.
    """
    value = record.value
    headers = [
        ("__dlq.errors.topic", topic),
        ("__dlq.errors.partition", str(partition)),
        ("__dlq.errors.offset", str(record.offset)),
        ("__dlq.errors.group", group),
        ("__dlq.errors.exception", exception),
        ("__dlq.errors.message", message[:_HEADER_TEXT_LIMIT]),
        (_ATTEMPT, str(_attempt(record.headers) + 1)),
        ("effect-id", f"{topic}/{partition}/{record.offset}"),
    ]
    if value is None:
        headers.append(("reconciler.null-value", "true"))
    elif len(value) > max_bytes:
        headers.append(("reconciler.truncated", str(len(value))))
        value = value[:max_bytes]
    traceparent = usable_traceparent(header_value(record.headers, "traceparent"))
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    raw = [(name, text.encode(errors="replace")) for name, text in headers]
    return Outgoing(dead_letters_topic, record.key, value, headers=raw)


def header_value(headers: Sequence[tuple[str, bytes | None]], name: str) -> str | None:
    """The text of a header, None where there is none or no text."""
    for header, value in headers:
        if header == name and value is not None:
            return value.decode(errors="replace")
    return None


def _attempt(headers: Sequence[tuple[str, bytes | None]]) -> int:
    text = header_value(headers, _ATTEMPT)
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else 0
