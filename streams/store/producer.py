"""Writing what a batch makes, and the fence before a worker that was overtaken.

One transactional producer a partition, claimed before the partition's changelog is read: from then on the brokers refuse
whatever an earlier owner still tries to write. Effects, heads, history and mark of a batch are one transaction; the
source offsets are committed by the consumer's group afterwards, never by the transaction, so nothing rests on more of
Kafka's transactions than the fence (see docs/worker.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from reconciler.wire.codec import MAX_STATE_BYTES
from reconciler.wire.partition import PARTITIONER
from streams.settings import Settings

logger = logging.getLogger(__name__)

ANY_PARTITION = -1
_Report: TypeAlias = Callable[[KafkaError | None, Message], None]
_RECORD_OVERHEAD_BYTES = 64 * 1024
_QUEUE_MESSAGES = 1_000_000
_QUEUE_KBYTES = 512 * 1024
_FULL_QUEUE_POLL_S = 0.05

_FENCED_CODES = frozenset(
    code
    for name in ("_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH")
    if isinstance(code := getattr(KafkaError, name, None), int)
)


class Fenced(Exception):
    """Another worker owns the partition now."""


class Undelivered(Exception):
    """The brokers did not acknowledge what a batch makes."""


class Outgoing(NamedTuple):
    """One record to send. `partition` is ANY_PARTITION where the key decides; `timestamp_ms` 0 is the time of sending."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = ANY_PARTITION
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int = 0


class BatchWrite(NamedTuple):
    """What one batch makes, in the order of its writing."""

    effects: Sequence[Outgoing]
    heads: Sequence[tuple[bytes, bytes]]
    history: Iterable[tuple[bytes, bytes | None]]
    """Gone through once."""
    mark: tuple[bytes, bytes]


class Written(NamedTuple):
    """The changelog offsets after a batch; None where it wrote nothing to that topic."""

    heads_end: int | None
    history_end: int | None


class BatchProducer(Protocol):
    """Writes the batches of one partition. Its methods block: they are called from a thread."""

    def claim(self) -> None:
        """Puts the fence before all earlier owners. Raises Fenced, Undelivered."""
        ...

    def write(self, batch: BatchWrite) -> Written:
        """Returns when the brokers have all of it. Raises Fenced, Undelivered; then nothing more may be written."""
        ...

    def close(self) -> None: ...


class _Changelogs(NamedTuple):
    heads: str
    history: str
    partition: int


class TransactionalProducer:
    """Implements `BatchProducer` with a transaction a batch."""

    def __init__(self, settings: Settings, transactional_id: str, heads: str, history: str, partition: int) -> None:
        self._timeout_s = settings.delivery_timeout_s
        self._changelogs = _Changelogs(heads, history, partition)
        self._producer = Producer(
            {
                **producer_config(settings),
                "transactional.id": transactional_id,
                "transaction.timeout.ms": round(settings.delivery_timeout_s * 1000),
                "message.timeout.ms": round(settings.delivery_timeout_s * 1000),
            }
        )

    def claim(self) -> None:
        self._guarded(lambda: self._producer.init_transactions(self._timeout_s))

    def write(self, batch: BatchWrite) -> Written:
        ends = _Ends()
        self._guarded(lambda: self._send(batch, ends))
        return ends.written(batch)

    def _send(self, batch: BatchWrite, ends: _Ends) -> None:
        self._producer.begin_transaction()
        deadline = time.monotonic() + self._timeout_s
        for item in batch.effects:
            _produce(self._producer, item, deadline)
        _produce_changelog(self._producer, self._changelogs, batch, ends, deadline, with_reports=False)
        # It waits for every acknowledgement, and fails if one is missing.
        self._producer.commit_transaction(self._timeout_s)

    def _guarded(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except KafkaException as error:
            raise _translated(error) from error

    def close(self) -> None:
        # Nothing is in flight between batches: a purge keeps close() from waiting on a broker that is gone.
        self._producer.purge()
        self._producer.close()


class PlainProducer:
    """Implements `BatchProducer` without a fence, step by step: effects, then changelog, then the mark, each acknowledged.

    For the embedded broker. The mark comes last, so that a partial write is never taken for a whole one.
    """

    def __init__(self, settings: Settings, heads: str, history: str, partition: int) -> None:
        self._timeout_s = settings.delivery_timeout_s
        self._changelogs = _Changelogs(heads, history, partition)
        self._errors: list[KafkaError] = []
        self._producer = Producer(
            {
                **producer_config(settings),
                "message.timeout.ms": round(settings.delivery_timeout_s * 1000),
            }
        )

    def claim(self) -> None:
        """Nothing holds back an earlier owner."""

    def write(self, batch: BatchWrite) -> Written:
        ends = _Ends()
        deadline = time.monotonic() + self._timeout_s
        for item in batch.effects:
            _produce(self._producer, item, deadline, self._on_delivery)
        self._flush("effects")
        changelog = batch._replace(mark=(b"", b""))
        _produce_changelog(self._producer, self._changelogs, changelog, ends, deadline, with_reports=True)
        self._flush("changelog")
        _produce_mark(self._producer, self._changelogs, batch.mark, ends, deadline)
        self._flush("mark")
        if ends.errors:
            raise Undelivered(str(ends.errors[0]))
        return ends.written(batch)

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._errors.append(error)

    def _flush(self, what: str) -> None:
        left = self._producer.flush(self._timeout_s)
        if left or self._errors:
            raise Undelivered(f"{what}: {left} records are not acknowledged, errors {self._errors[:1]}")

    def close(self) -> None:
        self._producer.purge()
        self._producer.close()


class _Ends:
    """Collects the offsets of the last changelog records; those of a partition come in order."""

    def __init__(self) -> None:
        self.heads = -1
        self.history = -1
        self.errors: list[KafkaError] = []

    def on_head(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.errors.append(error)
            return
        self.heads = max(self.heads, message.offset() or 0)

    def on_history(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.errors.append(error)
            return
        self.history = max(self.history, message.offset() or 0)

    def written(self, batch: BatchWrite) -> Written:
        if (batch.heads and self.heads < 0) or self.history < 0:
            raise Undelivered("the brokers accepted a batch without saying where its changelog records are")
        return Written(self.heads + 1 if batch.heads else None, self.history + 1)


def _produce_changelog(
    producer: Producer, names: _Changelogs, batch: BatchWrite, ends: _Ends, deadline: float, *, with_reports: bool
) -> None:
    """Sends heads, history and mark. Without reports only the last of each topic says where it stands, which is what costs
    least: that all of them arrived must then be told by something else."""
    heads, reports = batch.heads, with_reports
    _produce_all(producer, names.heads, names.partition, heads[:-1], ends.on_head if reports else None, deadline)
    _produce_all(producer, names.heads, names.partition, heads[-1:], ends.on_head, deadline)
    _produce_all(
        producer, names.history, names.partition, batch.history, ends.on_history if reports else None, deadline
    )
    if batch.mark[0]:
        _produce_mark(producer, names, batch.mark, ends, deadline)


def _produce_all(
    producer: Producer,
    topic: str,
    partition: int,
    records: Iterable[tuple[bytes, bytes | None]],
    report: _Report | None,
    deadline: float,
) -> None:
    produce = producer.produce
    for key, value in records:
        try:
            produce(topic, value, key, partition, report)
        except BufferError:
            _produce_patiently(producer, (topic, value, key, partition, report), deadline)


def _produce_mark(
    producer: Producer, names: _Changelogs, mark: tuple[bytes, bytes], ends: _Ends, deadline: float
) -> None:
    _produce_patiently(producer, (names.history, mark[1], mark[0], names.partition, ends.on_history), deadline)


def _produce(producer: Producer, item: Outgoing, deadline: float, report: Any = None) -> None:
    arguments = (item.topic, item.value, item.key, item.partition, report, None, item.timestamp_ms, list(item.headers))
    _produce_patiently(producer, arguments, deadline)


def _produce_patiently(producer: Producer, arguments: tuple[Any, ...], deadline: float) -> None:
    """Sends, and waits while the producer's queue is full."""
    while True:
        try:
            producer.produce(*arguments)
            return
        except BufferError:
            if time.monotonic() > deadline:
                raise Undelivered("the producer's queue stays full; the brokers take nothing") from None
            producer.poll(_FULL_QUEUE_POLL_S)


def _translated(error: KafkaException) -> Exception:
    reason: KafkaError = error.args[0]
    if reason.code() in _FENCED_CODES:
        return Fenced(f"another worker has taken over: {reason.str()}")
    return Undelivered(reason.str())


def producer_config(settings: Settings) -> dict[str, Any]:
    """What all our producers have in common."""
    return {
        **settings.client_config(),
        "partitioner": PARTITIONER,
        "acks": "all",
        "enable.idempotence": True,
        # A batch ends with a flush, which doesn't wait for this; within one it lets messages gather.
        "linger.ms": 5,
        "compression.type": "lz4",
        "message.max.bytes": MAX_STATE_BYTES + _RECORD_OVERHEAD_BYTES,
        "queue.buffering.max.messages": _QUEUE_MESSAGES,
        "queue.buffering.max.kbytes": _QUEUE_KBYTES,
        "allow.auto.create.topics": settings.fence == "none",
        "client.id": f"{settings.application_id}-{settings.instance_id or 'worker'}",
    }
