"""Rollbacks from outside: what was published of them, what people say to them, and what is left to decide."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from reconciler.plan.parts import joined
from reconciler.records import RollbackEvent, RollbackRequest, StepConflict
from reconciler.values.errors import InputError, ReconcilerError
from reconciler.values.json_value import Json
from reconciler.wire.changelog import HistoryEntry
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from reconciler.wire.partition import PARTITIONER, partition_of
from reconciler.wire.topics import TopicNames
from streams.runner.pipeline import check_rollback_id
from streams.settings import Settings
from streams.store.envelope import entry_key

_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.2
_BATCH: Final = 2_000
_conflicts_decoder: Final = msgspec.json.Decoder(list[StepConflict])


class BrokersFailed(ReconcilerError):
    """The brokers don't answer, or refuse."""


class NotTaken(ReconcilerError):
    """What was said to a rollback could not be used: it stands among the dead letters, with the reason."""


class Place(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


class Rollbacks:
    """Reads and writes the topics of rollbacks. Every method raises BrokersFailed."""

    def __init__(self, settings: Settings, codec: Codec) -> None:
        self._settings = settings
        self._codec = codec
        self._topics = TopicNames(settings.topic_prefix)

    # -- reading

    def events(self, rollback_id: str | None = None) -> list[RollbackEvent]:
        """Everything that was published, of one rollback or of all, by rollback in its order."""
        with self._consumer() as consumer:
            partitions = self._partitions(consumer, self._topics.rollback_events)
            wanted = partitions if rollback_id is None else [_partition(rollback_id, partitions)]
            found = [
                event
                for message in _whole(consumer, self._topics.rollback_events, wanted)
                if (event := self._event(message)) is not None and rollback_id in (None, event.rollback_id)
            ]
        return _in_order(found)

    def follow(self, rollback_id: str, after: int = 0) -> Iterator[RollbackEvent | None]:
        """The events of a rollback from a sequence number on, as they come; None whenever a while has passed without one."""
        topic = self._topics.rollback_events
        last = after
        with self._consumer() as consumer:
            partition = _partition(rollback_id, self._partitions(consumer, topic))
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
            while True:
                for message in consumer.consume(_BATCH, _POLL_S):
                    if message.error() is not None:
                        _check_end(message)
                        continue
                    event = self._event(message)
                    if event is not None and event.rollback_id == rollback_id and event.sequence > last:
                        last = event.sequence
                        yield event
                yield None

    def conflicts(self, rollback_id: str) -> dict[str, list[StepConflict]]:
        """The conflicts that a person has yet to decide, by resource, as the table has them: unmasked."""
        from reconciler.machines.rollback.head import CONFLICTS  # noqa: PLC0415  the machine is slow to load

        topic = self._topics.rollback_history
        prefix = entry_key(rollback_id.encode(), CONFLICTS)
        latest: dict[bytes, bytes | None] = {}
        with self._consumer() as consumer:
            partition = _partition(rollback_id, self._partitions(consumer, topic))
            for message in _whole(consumer, topic, [partition]):
                key = message.key() or b""
                if key.startswith(prefix):
                    latest[key] = message.value()
        return {
            key[len(prefix) :].decode(): _conflicts_decoder.decode(self._entry(value))
            for key, value in sorted(latest.items())
            if value is not None
        }

    def _entry(self, value: bytes) -> bytes:
        record = self._codec.decode(value)
        assert isinstance(record, HistoryEntry)
        return record.entry

    def _event(self, message: Message) -> RollbackEvent | None:
        try:
            record = self._codec.decode(message.value())
        except DecodeError as error:
            raise BrokersFailed(
                f"the topic {message.topic()} holds at {message.partition()}/{message.offset()} what can't be read: {error}"
            ) from None
        return record if isinstance(record, RollbackEvent) else None

    # -- speaking

    def say(self, request: RollbackRequest, wait_s: float) -> RollbackEvent | None:
        """Sends a request, and waits until the rollback has reacted to it: gives the event, None where none came in time.

        Raises NotTaken with the reason where it was refused, InputError for an id that can't name a rollback.
        """
        check_rollback_id(request.rollback_id)
        events, letters = self._topics.rollback_events, self._topics.dead_letters
        with self._consumer() as consumer:
            places = [
                TopicPartition(topic, _partition(request.rollback_id, self._partitions(consumer, topic)))
                for topic in (events, letters)
            ]
            for place in places:
                _, place.offset = consumer.get_watermark_offsets(place, _TIMEOUT_S)
            consumer.assign(places)
            sent = self._send(request)
            end = time.monotonic() + wait_s
            while time.monotonic() < end:
                for message in consumer.consume(_BATCH, _POLL_S):
                    if message.error() is not None:
                        _check_end(message)
                    elif message.topic() == letters:
                        _check_letter(message, sent)
                    elif message.key() == request.rollback_id.encode():
                        return self._event(message)
        return None

    def _send(self, request: RollbackRequest) -> Place:
        topic = self._topics.rollback_requests
        delivered: list[Message] = []
        failures: list[str] = []

        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                delivered.append(message)
            else:
                failures.append(error.str())

        producer = Producer({**self._settings.client_config(), "partitioner": PARTITIONER, "acks": "all"})
        headers: list[tuple[str, str | bytes | None]] = []
        if request.traceparent is not None:
            headers.append(("traceparent", request.traceparent.encode()))
        value = self._codec.encode(topic, request)
        producer.produce(topic, value, request.rollback_id.encode(), on_delivery=report, headers=headers)
        producer.flush(_TIMEOUT_S)
        if not delivered:
            why = failures[0] if failures else "no answer in time"
            raise BrokersFailed(f"the brokers did not take the request ({why}); check them and say it again")
        (message,) = delivered
        return Place(topic, message.partition() or 0, message.offset() or 0)

    # -- clients

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        consumer = Consumer(
            {
                **self._settings.client_config(),
                "group.id": f"{self._settings.application_id}-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
            }
        )
        try:
            yield consumer
        except KafkaException as error:
            raise BrokersFailed(
                f"the brokers at {self._settings.bootstrap_servers} don't answer ({error.args[0].str()}); check "
                "RECONCILER_BOOTSTRAP_SERVERS"
            ) from None
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer, topic: str) -> list[int]:
        found = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
        if found.error is not None or not found.partitions:
            raise BrokersFailed(f"the topic {topic} isn't there; make it with `reconciler topics create`")
        return sorted(found.partitions)


def plan_of(events: Iterable[RollbackEvent]) -> dict[str, Json] | None:
    """The plan that was published last, put together of its parts; None before there is one. Raises InputError where a part
    is missing."""
    parts: list[dict[str, Json]] = []
    for event in events:
        if event.plan is not None:
            if event.plan.get("part", 1) == 1:
                parts = []
            parts.append(event.plan)
    if not parts:
        return None
    expected = parts[0].get("parts", 1)
    if len(parts) != expected:
        raise InputError(f"of the plan's {expected} parts only {len(parts)} are there; ask again in a moment")
    return joined(parts)


def _in_order(events: Iterable[RollbackEvent]) -> list[RollbackEvent]:
    """By rollback and sequence, each once, rollbacks in the order in which they began."""
    by_id: dict[str, dict[int, RollbackEvent]] = {}
    for event in events:
        by_id.setdefault(event.rollback_id, {})[event.sequence] = event
    ordered = [[of_one[number] for number in sorted(of_one)] for of_one in by_id.values()]
    ordered.sort(key=lambda of_one: (of_one[0].occurred_at, of_one[0].rollback_id))
    return [event for of_one in ordered for event in of_one]


def _partition(rollback_id: str, partitions: list[int]) -> int:
    return partition_of(rollback_id.encode(), len(partitions))


def _whole(consumer: Consumer, topic: str, partitions: Iterable[int]) -> Iterator[Message]:
    """Everything in some partitions up to their present ends."""
    left = set(partitions)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
    progress = time.monotonic()
    while left:
        for message in consumer.consume(_BATCH, _POLL_S):
            progress = time.monotonic()
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition() or 0)
            else:
                raise KafkaException(error)
        if time.monotonic() - progress > _TIMEOUT_S:
            raise BrokersFailed(f"the topic {topic} gave nothing for {_TIMEOUT_S:.0f} s; check the brokers")


def _check_end(message: Message) -> None:
    """Raises KafkaException for an error that isn't just the end of a partition."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise KafkaException(error)


def _check_letter(message: Message, sent: Place) -> None:
    """Raises NotTaken where a dead letter is what was sent."""
    raw: Any = message.headers() or []
    headers: Mapping[str, bytes] = dict(raw)
    found = [headers.get(f"__dlq.errors.{name}", b"").decode() for name in ("topic", "partition", "offset")]
    if found == [sent.topic, str(sent.partition), str(sent.offset)]:
        reason = headers.get("__dlq.errors.message", b"").decode(errors="replace")
        raise NotTaken(f"the request was not taken: {reason}")
