"""Reading the resource table from outside: its changelog, `state.expected`, is there for anybody."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition

from reconciler.machines.head import Head, decode_head
from reconciler.values.errors import ReconcilerError
from reconciler.wire.changelog import ExpectedHead
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from reconciler.wire.topics import TopicNames
from streams.settings import Settings

_STALLED_S = 20.0
_BATCH = 10_000


class TableUnreadable(ReconcilerError):
    """The changelog can't be read, or holds what we can't read."""


def read_heads(settings: Settings, codec: Codec) -> Iterator[Head]:
    """The head of every resource, as of the end of the topic when it is reached; each once, in no order that means anything.

    Raises TableUnreadable.
    """
    topic = TopicNames(settings.topic_prefix).expected
    latest: dict[bytes, bytes | None] = {}
    consumer = Consumer(
        {
            **settings.client_config(),
            "group.id": f"{settings.application_id}-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    try:
        _read_all(consumer, topic, latest)
    finally:
        consumer.close()
    for key, value in latest.items():
        if value is not None:
            head = _head_of(topic, key, value, codec)
            if head is not None:
                yield head


def _read_all(consumer: Consumer, topic: str, latest: dict[bytes, bytes | None]) -> None:
    found = consumer.list_topics(topic, timeout=_STALLED_S).topics[topic]
    if found.error is not None:
        raise TableUnreadable(f"the topic {topic} can't be read ({found.error}); run `reconciler topics verify`")
    left = set(found.partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
    progress = time.monotonic()
    while left:
        for message in consumer.consume(_BATCH, 0.2):
            error = message.error()
            if error is None:
                progress = time.monotonic()
                latest[message.key() or b""] = message.value()
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition() or 0)
            else:
                raise TableUnreadable(f"the topic {topic} can't be read: {error}; check the brokers")
        if time.monotonic() - progress > _STALLED_S:
            raise TableUnreadable(f"the topic {topic} gave nothing for {_STALLED_S:.0f} s; check the brokers")


def _head_of(topic: str, key: bytes, value: bytes, codec: Codec) -> Head | None:
    """The head of a changelog record; None for what a partition keeps about itself."""
    try:
        record = codec.decode(value)
        if not isinstance(record, ExpectedHead):
            return None
        return decode_head(record.state)
    except (DecodeError, msgspec.DecodeError) as error:
        raise TableUnreadable(f"{topic}: the head of {key!r} can't be read: {error}") from None
