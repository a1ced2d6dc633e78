"""Taking over partitions: fence first, then the local store, then what the changelog has beyond it, then the claim.

The order matters. Once a partition's producer is claimed, nobody else can write its changelog, so its end is its end. The
claim at last, a mark with the next epoch, is the first thing that the new owner writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from confluent_kafka import Message

from reconciler.wire.changelog import ExpectedHead, HistoryEntry
from reconciler.wire.codec import Codec
from streams.runner.pipeline import Pipeline
from streams.settings import Settings
from streams.store.changelog import ChangelogReader, Place, RecoveryAborted, RecoveryStalled, Span
from streams.store.envelope import ChangelogMismatch, EntryEnvelope, HeadEnvelope
from streams.store.memory import MemoryStore
from streams.store.port import Checkpoint, EntryChange, HeadChange, Mark, PartitionStore
from streams.store.producer import BatchProducer, BatchWrite, PlainProducer, TransactionalProducer
from streams.store.rocks import RocksStores
from streams.store.table import PartitionTable

logger = logging.getLogger(__name__)

R = TypeVar("R")

_MOST_THREADS = 32


@dataclass
class OwnedPartition:
    """A partition that was taken over, ready to be worked on."""

    partition: int
    table: PartitionTable
    producer: BatchProducer
    head_envelope: HeadEnvelope
    entry_envelope: EntryEnvelope
    checkpoint: Checkpoint
    mark: Mark

    def close(self) -> None:
        """Gives back the store and the producer."""
        self.producer.close()
        self.table.close()


@dataclass
class RecoveryReport:
    """What a recovery did, for logs and metrics."""

    partitions: tuple[int, ...]
    records: int = 0
    rebuilt: list[int] = field(default_factory=list)
    stale_records: int = 0
    seconds: float = 0.0


@dataclass
class _Loading:
    """A partition on its way."""

    partition: int
    store: PartitionStore
    heads: HeadEnvelope
    entries: EntryEnvelope
    producer: BatchProducer
    ends: dict[str, int] = field(default_factory=dict)
    mark: Mark | None = None
    epochs: dict[str, int] = field(default_factory=dict)


class StoreFactory:
    """Opens the local stores that the settings ask for."""

    def __init__(self, settings: Settings, pipeline: Pipeline, cluster_id: str) -> None:
        topics = f"{pipeline.heads} {pipeline.history}"
        identity = f"{cluster_id} {settings.application_id} {pipeline.name} {topics} {settings.partitions}"
        folder = settings.data_dir / "tables" / pipeline.name
        self._rocks = RocksStores(folder, identity) if settings.store == "rocksdb" else None

    def open(self, partition: int) -> PartitionStore:
        """The store of a partition."""
        return MemoryStore() if self._rocks is None else self._rocks.open(str(partition))


class Takeover:
    """Takes over partitions of a pipeline. Blocking: for a thread, one call at a time."""

    def __init__(self, settings: Settings, pipeline: Pipeline, codec: Codec, stores: StoreFactory, owner: str) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._codec = codec
        self._stores = stores
        self._owner = owner

    def run(self, partitions: Iterable[int], alive: Callable[[], bool]) -> tuple[list[OwnedPartition], RecoveryReport]:
        """The partitions, recovered and claimed. Raises RecoveryAborted when `alive()` says so; then nothing stays open.

        Raises RecoveryStalled the second time that nothing comes, ChangelogMismatch, Fenced, Undelivered.
        """
        started = time.monotonic()
        report = RecoveryReport(tuple(sorted(partitions)))
        loading: dict[int, _Loading] = {}
        try:
            for partition in report.partitions:
                if not alive():
                    raise RecoveryAborted
                loading[partition] = self._open(partition)
            self._in_parallel(lambda item: item.producer.claim(), loading)
            self._load(loading, alive, report)
            if not alive():
                raise RecoveryAborted
            owned = self._in_parallel(self._claimed, loading)
        except BaseException:
            for item in loading.values():
                item.producer.close()
                item.store.close()
            raise
        report.seconds = time.monotonic() - started
        return owned, report

    def _in_parallel(self, action: Callable[[_Loading], R], loading: dict[int, _Loading]) -> list[R]:
        """One after another, a dozen claims take seconds."""
        if not loading:
            return []
        with ThreadPoolExecutor(min(_MOST_THREADS, len(loading)), "takeover") as threads:
            return list(threads.map(action, loading.values()))

    def _open(self, partition: int) -> _Loading:
        pipeline = self._pipeline
        version = pipeline.machine_version
        return _Loading(
            partition=partition,
            store=self._stores.open(partition),
            heads=HeadEnvelope(
                self._codec,
                self._codec.header(pipeline.heads, ExpectedHead),
                pipeline.name,
                version,
                pipeline.input_topics,
                partition,
            ),
            entries=EntryEnvelope(
                self._codec, self._codec.header(pipeline.history, HistoryEntry), pipeline.name, version, partition
            ),
            producer=self._producer(partition),
        )

    def _producer(self, partition: int) -> BatchProducer:
        settings, pipeline = self._settings, self._pipeline
        if settings.fence == "none":
            return PlainProducer(settings, pipeline.heads, pipeline.history, partition)
        transactional_id = f"{pipeline.topics.prefix}{settings.application_id}-{pipeline.name}-{partition}"
        return TransactionalProducer(settings, transactional_id, pipeline.heads, pipeline.history, partition)

    # -- reading

    def _reader(self, alive: Callable[[], bool]) -> ChangelogReader:
        return ChangelogReader(self._settings, alive)

    def _load(self, loading: dict[int, _Loading], alive: Callable[[], bool], report: RecoveryReport) -> None:
        reader = self._reader(alive)
        try:
            starts = self._starts(reader, loading, report)
            try:
                self._read(reader, starts, loading, report)
            except RecoveryStalled as stall:
                logger.warning("%s; the partitions are read again from the changelog's start", stall)
                reader.close()
                reader = self._reader(alive)
                for partition in stall.partitions:
                    self._wipe(loading[partition], report)
                again = [place for place in starts if place.partition in stall.partitions]
                spans = reader.spans(again)
                self._read(reader, {place: spans[place].low for place in again}, loading, report)
            self._check_inputs(reader, loading)
        finally:
            reader.close()

    def _check_inputs(self, reader: ChangelogReader, loading: dict[int, _Loading]) -> None:
        """Raises ChangelogMismatch for an input topic that ends before what the table has consumed of it.

        It was made anew under the old name: its records would all be taken for replays, and be skipped.
        """
        consumed = {
            Place(topic, item.partition): offset
            for item in loading.values()
            if item.mark is not None
            for topic, offset in item.mark.consumed.items()
            if topic in self._pipeline.input_topics
        }
        for place, span in reader.spans(list(consumed)).items():
            if consumed[place] > span.high:
                raise ChangelogMismatch(
                    f"the table has consumed {place.topic}/{place.partition} up to {consumed[place]}, but it ends at "
                    f"{span.high}: the topic was made anew; use a new topic_prefix, or another application_id with new "
                    "changelogs"
                )

    def _starts(
        self, reader: ChangelogReader, loading: dict[int, _Loading], report: RecoveryReport
    ) -> dict[Place, int]:
        pipeline = self._pipeline
        places = [Place(topic, partition) for partition in loading for topic in (pipeline.heads, pipeline.history)]
        spans = reader.spans(places)
        starts: dict[Place, int] = {}
        for partition, item in loading.items():
            heads, history = Place(pipeline.heads, partition), Place(pipeline.history, partition)
            checkpoint = item.store.checkpoint()
            problem = checkpoint and self._problem(checkpoint, spans[heads], spans[history])
            if problem:
                logger.warning("the store of partition %d %s; it is rebuilt from the changelog", partition, problem)
                checkpoint = None
            if checkpoint is None:
                self._wipe(item, report)
                starts[heads], starts[history] = spans[heads].low, spans[history].low
            else:
                item.mark = checkpoint.mark
                epoch = 0 if checkpoint.mark is None else checkpoint.mark.epoch
                item.epochs = {heads.topic: epoch, history.topic: epoch}
                starts[heads], starts[history] = checkpoint.heads, checkpoint.history
            item.ends = {heads.topic: starts[heads], history.topic: starts[history]}
        return starts

    def _problem(self, checkpoint: Checkpoint, heads: Span, history: Span) -> str | None:
        """Why a store can't be gone on with, None if it can."""
        age_s = time.time() - checkpoint.written_at
        if age_s > self._settings.store_max_age_s:
            return f"was last written {age_s / 3600:.1f} h ago, so it may have missed deletions"
        for what, offset, span in (("heads", checkpoint.heads, heads), ("history", checkpoint.history, history)):
            if offset > span.high:
                return f"is ahead of its changelog ({what}: {offset}, the log ends at {span.high})"
            if offset < span.low:
                return f"is behind its changelog's beginning ({what}: {offset}, the log begins at {span.low})"
        return None

    def _wipe(self, item: _Loading, report: RecoveryReport) -> None:
        item.store.wipe()
        item.mark, item.epochs, item.ends = None, {}, {}
        report.rebuilt.append(item.partition)

    def _read(
        self, reader: ChangelogReader, starts: dict[Place, int], loading: dict[int, _Loading], report: RecoveryReport
    ) -> None:
        for place, start in starts.items():
            loading[place.partition].ends[place.topic] = start
        for records, ends in reader.read(starts):
            by_partition: dict[int, list[Message]] = {}
            for record in records:
                by_partition.setdefault(record.partition() or 0, []).append(record)
            for place in ends:
                by_partition.setdefault(place.partition, [])
            for partition, group in by_partition.items():
                item = loading[partition]
                done = {place.topic: end for place, end in ends.items() if place.partition == partition}
                self._apply(item, group, done, report)
            report.records += len(records)

    def _apply(self, item: _Loading, records: list[Message], ends: dict[str, int], report: RecoveryReport) -> None:
        """Writes what was read to the store, each key once."""
        heads: dict[bytes, HeadChange] = {}
        entries: dict[bytes, EntryChange] = {}
        for record in records:
            key, value, topic = record.key(), record.value(), str(record.topic())
            item.ends[topic] = (record.offset() or 0) + 1
            place = f"{topic}/{item.partition} at {record.offset()}"
            if key is None:
                raise ChangelogMismatch(f"a record without a key stands in {place}")
            if topic == self._pipeline.heads:
                head = self._head_change(item, key, value, place, report)
                if head is not None:
                    heads[key] = head
            elif key == item.entries.mark_key:
                self._take_mark(item, topic, value, place, report)
            else:
                entry = self._entry_change(item, topic, key, value, report)
                if entry is not None:
                    entries[key] = entry
        item.ends.update(ends)
        checkpoint = Checkpoint(
            heads=item.ends[self._pipeline.heads],
            history=item.ends[self._pipeline.history],
            mark=item.mark,
            written_at=time.time(),
        )
        item.store.write(list(heads.values()), list(entries.values()), checkpoint)

    def _head_change(
        self, item: _Loading, key: bytes, value: bytes | None, place: str, report: RecoveryReport
    ) -> HeadChange | None:
        if value is None:
            raise ChangelogMismatch(f"a null value stands in {place}: heads are never deleted")
        epoch, _, state = item.heads.decode(key, value)
        if self._is_stale(item, self._pipeline.heads, epoch, report):
            return None
        machine = self._pipeline.machine
        return key, value, machine.due_at(machine.decode(key.decode(), state))

    def _take_mark(self, item: _Loading, topic: str, value: bytes | None, place: str, report: RecoveryReport) -> None:
        if value is None:
            raise ChangelogMismatch(f"a mark that is null stands in {place}")
        mark = item.entries.decode_mark(value)
        if not self._is_stale(item, topic, mark.epoch, report):
            item.mark = mark

    def _entry_change(
        self, item: _Loading, topic: str, key: bytes, value: bytes | None, report: RecoveryReport
    ) -> EntryChange | None:
        if value is None:
            return key, None
        epoch, entry = item.entries.decode(key, value)
        return None if self._is_stale(item, topic, epoch, report) else (key, entry)

    def _is_stale(self, item: _Loading, topic: str, epoch: int, report: RecoveryReport) -> bool:
        """Whether a record is of an earlier owner than one that was read before it. Behind a fence this can't happen."""
        if epoch < item.epochs.get(topic, 0):
            report.stale_records += 1
            return True
        item.epochs[topic] = epoch
        return False

    # -- the claim

    def _claimed(self, item: _Loading) -> OwnedPartition:
        pipeline = self._pipeline
        before = item.mark
        mark = Mark(
            epoch=max(item.epochs.values(), default=0) + 1,
            consumed={} if before is None else before.consumed,
            now=0 if before is None else before.now,
            owner=self._owner,
        )
        item.heads.set_epoch(mark.epoch)
        item.entries.set_epoch(mark.epoch)
        written = item.producer.write(BatchWrite((), (), (), (item.entries.mark_key, item.entries.encode_mark(mark))))
        checkpoint = Checkpoint(
            heads=item.ends[pipeline.heads],
            history=written.history_end or item.ends[pipeline.history],
            mark=mark,
            written_at=time.time(),
        )
        item.store.write((), (), checkpoint)
        return OwnedPartition(
            partition=item.partition,
            table=PartitionTable(
                pipeline.machine, item.store, item.heads, len(pipeline.inputs), self._settings.cache_max_bytes
            ),
            producer=item.producer,
            head_envelope=item.heads,
            entry_envelope=item.entries,
            checkpoint=checkpoint,
            mark=mark,
        )
