"""Reading a topic from outside, as anybody may: whole, or as it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Self, cast

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from reconciler.values.errors import ReconcilerError
from streams.settings import Settings

_STALLED_S: Final = 20.0
_POLL_S: Final = 0.2
_READ_POLL_S: Final = 0.05  # the end of a topic doesn't end a poll
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


class TopicReader:
    """Reads topics one after the other with one client. Every method raises TopicUnreadable."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = _consumer(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def partitions(self, topic: str) -> set[int]:
        """The partitions of a topic."""
        return _partitions(self._consumer, topic)

    def begin(self, topic: str, partition: int) -> int:
        """The offset at which a partition begins: above 0, older records are gone."""
        try:
            return int(self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_STALLED_S)[0])
        except KafkaException as error:
            raise TopicUnreadable(
                f"the topic {topic} can't be read: {error.args[0].str()}; check the brokers"
            ) from None

    def read(self, topic: str, partitions: Iterable[int]) -> Iterator[Found]:
        """Every record of some partitions, up to their ends as of when these are reached, in the order of each. What isn't
        read of it must not be wanted any more: the next read takes the client."""
        left = set(partitions)
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in sorted(left)])
        progress = time.monotonic()
        while left:
            for message in self._consumer.consume(_BATCH, _READ_POLL_S):
                progress = time.monotonic()
                if _is_end(message):
                    left.discard(message.partition() or 0)
                else:
                    yield _found(message)
            if time.monotonic() - progress > _STALLED_S:
                raise TopicUnreadable(f"the topic {topic} gave nothing for {_STALLED_S:.0f} s; check the brokers")


def read_topic(settings: Settings, topic: str) -> Iterator[Found]:
    """Every record of a topic up to its end as of when that is reached, in the order of each partition. Raises TopicUnreadable."""
    with TopicReader(settings) as reader:
        yield from reader.read(topic, reader.partitions(topic))


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
            "fetch.wait.max.ms": 20,  # where a topic ends is told by a fetch that finds nothing
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
