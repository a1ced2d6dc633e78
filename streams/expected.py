"""Reading the resource table from outside: its changelog, `state.expected`, is there for anybody."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from reconciler.machines.head import Head, decode_head
from reconciler.wire.changelog import ExpectedHead
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from reconciler.wire.topics import TopicNames
from streams.reading import TopicUnreadable, read_topic
from streams.settings import Settings


def read_heads(settings: Settings, codec: Codec) -> Iterator[Head]:
    """The head of every resource, as of the end of the topic when it is reached; each once, in no order that means anything.

    Raises TopicUnreadable.
    """
    topic = TopicNames(settings.topic_prefix).expected
    latest: dict[bytes, bytes | None] = {}
    for found in read_topic(settings, topic):
        latest[found.key or b""] = found.value
    for key, value in latest.items():
        if value is not None:
            head = _head_of(topic, key, value, codec)
            if head is not None:
                yield head


def _head_of(topic: str, key: bytes, value: bytes, codec: Codec) -> Head | None:
    """The head of a changelog record; None for what a partition keeps about itself."""
    try:
        record = codec.decode(value)
        if not isinstance(record, ExpectedHead):
            return None
        return decode_head(record.state)
    except (DecodeError, msgspec.DecodeError) as error:
        raise TopicUnreadable(f"{topic}: the head of {key!r} can't be read: {error}") from None
