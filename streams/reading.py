"""Reading a topic from outside, as anybody may: whole, or as it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from reconciler.values.errors import ReconcilerError
from streams.settings import Settings

_STALLED_S: Final = 20.0
_POLL_S: Final = 0.2
_BATCH: Final = 10_000

Headers = tuple[tuple[str, bytes | None], ...]


class TopicUnreadable(ReconcilerError):
    """A topic can't be read now, or holds what we can't read."""


class Found(msgspec.Struct, frozen=True):
    """A record as it stands in its topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    def header(self, name: str) -> str | None:
        """The text of a header, None where there is none."""
        for header, value in self.headers:
            if header == name and value is not None:
                return value.decode(errors="replace")
        return None


def partitions_of(settings: Settings, topic: str) -> set[int]:
    """The partitions of a topic. Raises TopicUnreadable."""
    consumer = _consumer(settings)
    try:
        return _partitions(consumer, topic)
    finally:
        consumer.close()


def begin_of(settings: Settings, topic: str, partition: int) -> int:
    """The offset at which a partition begins: above 0, older records are gone. Raises TopicUnreadable."""
    consumer = _consumer(settings)
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_STALLED_S)[0])
    except KafkaException as error:
        raise TopicUnreadable(f"the topic {topic} can't be read: {error.args[0].str()}; check the brokers") from None
    finally:
        consumer.close()


def read_topic(settings: Settings, topic: str, partitions: Iterable[int] | None = None) -> Iterator[Found]:
    """Every record of a topic, or of some of its partitions, up to its end as of when that is reached, in the order of each
    partition. Raises TopicUnreadable."""
    consumer = _consumer(settings)
    try:
        left = _partitions(consumer, topic)
        if partitions is not None:
            left &= set(partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
        progress = time.monotonic()
        while left:
            for message in consumer.consume(_BATCH, _POLL_S):
                progress = time.monotonic()
                if _is_end(message):
                    left.discard(message.partition() or 0)
                else:
                    yield _found(message)
            if time.monotonic() - progress > _STALLED_S:
                raise TopicUnreadable(f"the topic {topic} gave nothing for {_STALLED_S:.0f} s; check the brokers")
    finally:
        consumer.close()


def follow(settings: Settings, topics: Sequence[str], *, from_start: bool = False) -> Iterator[Found | None]:
    """What comes to these topics, for as long as it is asked for; None whenever nothing came for a moment.

    Raises TopicUnreadable.
    """
    consumer = _consumer(settings)
    try:
        places = []
        for topic in topics:
            for partition in sorted(_partitions(consumer, topic)):
                place = TopicPartition(topic, partition, 0)
                # Asked for here and not left to the client: what comes between now and its first fetch isn't missed.
                place.offset = 0 if from_start else consumer.get_watermark_offsets(place, timeout=_STALLED_S)[1]
                places.append(place)
        consumer.assign(places)
        while True:
            messages = consumer.consume(_BATCH, _POLL_S)
            for message in messages:
                if not _is_end(message):
                    yield _found(message)
            if not messages:
                yield None
    finally:
        consumer.close()


def _consumer(settings: Settings) -> Consumer:
    return Consumer(
        {
            **settings.client_config(),
            "group.id": f"{settings.application_id}-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "log_level": 0,  # what is wrong is raised in a sentence of ours
        }
    )


def _partitions(consumer: Consumer, topic: str) -> set[int]:
    try:
        found = consumer.list_topics(topic, timeout=_STALLED_S).topics[topic]
    except KafkaException as error:
        raise TopicUnreadable(
            f"no broker answers ({error.args[0].str()}); check RECONCILER_BOOTSTRAP_SERVERS"
        ) from None
    if found.error is not None:
        raise TopicUnreadable(f"the topic {topic} can't be read ({found.error}); run `reconciler topics verify`")
    return set(found.partitions)


def _is_end(message: Message) -> bool:
    """Whether it tells the end of a partition instead of a record. Raises TopicUnreadable for what tells a failure."""
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF:
        return True
    raise TopicUnreadable(f"the topic {message.topic()} can't be read: {error.str()}; check the brokers")


def _found(message: Message) -> Found:
    pairs = cast("list[tuple[str, Any]]", message.headers() or [])
    return Found(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple((name, _bytes(value)) for name, value in pairs),
    )


def _bytes(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
