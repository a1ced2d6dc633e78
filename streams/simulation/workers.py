"""Worker processes that own partitions, work on them by the real batch protocol, and end in the middle of it.

Batches are stepped by the real runner over the real table, written by the real `write_batch`, and partitions are taken over by
the real recovery. What is made here is what surrounds them: the polls, the commits, the crashes, the pauses in which another
worker takes over, and the ticker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import Message

from reconciler.records import Timer
from reconciler.values.instant import SECOND, Instant
from reconciler.wire.codec import Codec
from streams.runner.batch import MOST_AHEAD, Batch, BatchRunner
from streams.runner.effects import EffectWriter
from streams.runner.pipeline import Pipeline
from streams.runner.timers import Timers
from streams.runner.writing import write_batch
from streams.settings import Settings
from streams.simulation.broker import Broker
from streams.simulation.chance import MILLISECOND, Chance, Faults
from streams.simulation.schedule import Schedule
from streams.simulation.trace import Trace
from streams.store.changelog import ChangelogReader, Place, Span
from streams.store.memory import MemoryStore
from streams.store.port import Checkpoint, PartitionStore
from streams.store.producer import BatchWrite, Fenced, Outgoing, Written
from streams.store.recovery import OwnedPartition, StoreFactory, Takeover
from streams.store.table import PartitionTable
from streams.transport.chunk import Chunk

T = TypeVar("T")

SESSION_S: Final = 10
"""After so long a silent worker loses its partitions."""

TICK_S: Final = 5
_MOST_TIMERS: Final = 500
_POLL_S: Final = (0.005, 0.3)
_MOST_RECORDS: Final = 12


class Crashed(Exception):
    """The process ends here and now; the message says where in its work it stood."""


class Lane(NamedTuple):
    """A pipeline and how its effects are written."""

    pipeline: Pipeline
    effects: EffectWriter


class Consumed(NamedTuple):
    """A batch that was written for good: what a replay must repeat."""

    chunks: list[Chunk]
    latest: Instant


class Producer:
    """Implements `BatchProducer` by a transaction that may break off before its end or lose its producer after it."""

    def __init__(self, broker: Broker, faults: Faults, lane: Pipeline, partition: int) -> None:
        self._broker = broker
        self._faults = faults
        self._lane = lane
        self._partition = partition
        self._id = f"{lane.name}-{partition}"
        self._claim = 0
        self.on_committed: Callable[[list[Outgoing]], object] = lambda _effects: None

    def claim(self) -> None:
        self._claim = self._broker.claim(self._id)

    def write(self, batch: BatchWrite) -> Written:
        self._broker.check_claim(self._id, self._claim)
        effects = list(batch.effects)
        heads = [Outgoing(self._lane.heads, key, value, self._partition) for key, value in batch.heads]
        history = [Outgoing(self._lane.history, key, value, self._partition) for key, value in batch.history]
        history.append(Outgoing(self._lane.history, *batch.mark, self._partition))
        if self._faults.strike("crash-after-effects") is not None:
            self._broker.abort(effects)
            raise Crashed("with its effects sent and its transaction open")
        if self._faults.strike("crash-after-changelog") is not None:
            self._broker.abort([*effects, *heads, *history])
            raise Crashed("with all of its transaction sent, before the end of it")
        ends = self._commit([*effects, *heads, *history])
        self.on_committed(effects)
        if self._faults.strike("crash-before-store") is not None:
            raise Crashed("after its transaction, before its store was written")
        heads_end = ends[self._lane.heads, self._partition] if heads else None
        return Written(heads_end, ends[self._lane.history, self._partition])

    def _commit(self, records: list[Outgoing]) -> dict[tuple[str, int], int]:
        ends: dict[tuple[str, int], int] = {}
        for record in records:
            partition, offset = self._broker.append(record)
            ends[record.topic, partition] = offset + 1
        for topic, partition in ends:
            self._broker.log(topic, partition).skip(1)  # the marker that ends the transaction
        return ends

    def close(self) -> None:
        """Nothing is held open."""


class Disk(MemoryStore):
    """A partition's store on a worker's disk: it outlives the process."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    def write(self, heads: Any, entries: Any, checkpoint: Checkpoint) -> None:
        super().write(heads, entries, checkpoint)
        if checkpoint.heads and self._faults.strike("crash-after-store") is not None:
            raise Crashed("after its store was written")

    def close(self) -> None:
        """What is written stays."""


class _Disks(StoreFactory):
    """The stores on one worker's disk."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._disks: dict[int, Disk] = {}

    def open(self, partition: int) -> Disk:
        disk = self._disks.get(partition)
        if disk is None:
            disk = self._disks[partition] = Disk(self._faults)
        return disk

    def lose(self) -> None:
        """Somebody gives the process another machine."""
        self._disks.clear()


class _Reader(ChangelogReader):
    """Reads changelogs out of the broker, of a compacted one only what is newest under each key."""

    def __init__(self, broker: Broker, is_compacted: bool) -> None:
        self._broker = broker
        self._is_compacted = is_compacted

    def spans(self, places: list[Place]) -> dict[Place, Span]:
        return {place: Span(0, self._broker.log(*place).end) for place in places}

    def read(self, starts: Mapping[Place, int]) -> Iterator[tuple[list[Message], dict[Place, int]]]:
        for place, start in starts.items():
            log = self._broker.log(*place)
            records = log.read(start, len(log.records))
            if self._is_compacted:
                newest = {record.key: record.offset for record in log.records}
                records = [record for record in records if newest[record.key] == record.offset]
            messages = [Message(*place, record.offset, record.key, record.value) for record in records]
            yield messages, {place: log.end}

    def close(self) -> None:
        """Nothing is held open."""


class _Takeover(Takeover):
    """The real recovery, with the simulated broker instead of Kafka's clients."""

    def __init__(self, fleet: Fleet, pipeline: Pipeline, stores: StoreFactory, owner: str) -> None:
        super().__init__(fleet.settings, pipeline, fleet.codec, stores, owner)
        self._fleet = fleet

    def _producer(self, partition: int) -> Producer:
        return Producer(self._fleet.broker, self._fleet.faults, self._pipeline, partition)

    def _reader(self, alive: Callable[[], bool]) -> ChangelogReader:
        return _Reader(self._fleet.broker, self._fleet.is_compacted)

    def _in_parallel(self, action: Callable[[Any], T], loading: dict[int, Any]) -> list[T]:
        return [action(item) for item in loading.values()]


class Process:
    """One worker process. What it owned is lost with it; its disk stays."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self.name = name
        self.is_alive = True
        self.life = 1
        """Counts its starts: what an earlier life has planned doesn't happen any more."""
        self.owned: list[Owner] = []
        self._disks = {lane.pipeline.name: _Disks(fleet.faults) for lane in fleet.lanes}
        self._takeovers = {
            lane.pipeline.name: _Takeover(fleet, lane.pipeline, self._disks[lane.pipeline.name], name)
            for lane in fleet.lanes
        }

    def take_over(self, lane: Lane, partition: int) -> OwnedPartition:
        """Recovers a partition. Raises Crashed."""
        (owned,), _ = self._takeovers[lane.pipeline.name].run([partition], lambda: True)
        return owned

    def disk(self, pipeline: str, partition: int) -> Disk:
        """A partition's store."""
        return self._disks[pipeline].open(partition)

    def end(self) -> None:
        """Ends at once."""
        self.is_alive = False
        self.life += 1
        for owner in self.owned:
            owner.is_over = True
        self.owned = []

    def lose_disks(self) -> None:
        """What was on its disk is gone."""
        for disks in self._disks.values():
            disks.lose()


class Owner:
    """A partition that a process works on, until it loses it or ends."""

    def __init__(self, fleet: Fleet, process: Process, lane: Lane, owned: OwnedPartition) -> None:
        self.process = process
        self._life = process.life
        self.lane = lane
        self.partition = owned.partition
        self.table = owned.table
        self.store = process.disk(lane.pipeline.name, owned.partition)
        self.is_over = False
        self.is_busy = False
        self._fleet = fleet
        self._owned = owned
        self._checkpoint = owned.checkpoint
        self._timers = Timers(owned.table.due())
        self._is_polling = False
        self._is_ticking = False
        self._runner = BatchRunner(
            pipeline=lane.pipeline,
            codec=fleet.codec,
            effects=lane.effects,
            table=owned.table,
            partition=owned.partition,
            partitions=fleet.broker.partitions,
            epoch=owned.mark.epoch,
            consumed=owned.mark.consumed,
            now=owned.mark.now,
            group="reconciler",
            dead_letter_max_bytes=fleet.settings.dead_letter_max_bytes,
            max_bytes=fleet.settings.batch_max_bytes,
        )
        self._positions = {
            topic: fleet.committed.get((topic, owned.partition), 0) for topic in lane.pipeline.input_topics
        }
        self._tick_later()
        self.wake()

    @property
    def name(self) -> str:
        return f"{self.lane.pipeline.name}/{self.partition}"

    # -- batches

    def is_behind(self) -> bool:
        """Whether there is anything that it hasn't consumed."""
        return self.is_busy or any(
            position < self._fleet.broker.log(topic, self.partition).end for topic, position in self._positions.items()
        )

    def consumed(self, topic: str) -> int:
        """Up to where an input topic is in the table."""
        return self._positions[topic]

    def wake(self) -> None:
        """Something may have arrived."""
        if not (self.is_over or self._is_polling or self.is_busy):
            self._is_polling = True
            self._fleet.schedule.after(self._fleet.chance.duration(*_POLL_S), self._poll)

    def _poll(self) -> None:
        self._is_polling = False
        if self.is_over or self.is_busy:
            return
        chunks = self._chunks()
        if not chunks:
            return
        fleet = self._fleet
        latest = fleet.schedule.now + MOST_AHEAD
        batch = self._runner.run(chunks, latest)
        if fleet.faults.strike("crash-after-stepping") is not None:
            fleet.crash(self.process, f"{self.name}: after stepping a batch")
            return
        self.is_busy = True
        pause = 1 * MILLISECOND
        if (chance := fleet.faults.strike("pause")) is not None:
            pause = chance.duration(SESSION_S / 2, SESSION_S * 6)
            fleet.trace.add(
                self.process.name, "{}: hangs for {:.0f} s before it writes a batch", self.name, pause / 1e6
            )
            fleet.schedule.after(SESSION_S * SECOND, lambda: fleet.overtake(self))
        fleet.schedule.after(pause, lambda: self._write(latest, batch))

    def _chunks(self) -> list[Chunk]:
        """What a few fetches bring: some topics lag behind, and the order between topics is anybody's guess."""
        chunks: list[Chunk] = []
        fleet = self._fleet
        for topic, position in self._positions.items():
            log = fleet.broker.log(topic, self.partition)
            if position >= log.end:
                continue
            if (chance := fleet.faults.strike("lagging")) is not None:
                fleet.schedule.after(chance.duration(0.5, 20), self.wake)
                continue
            records = log.read(position, 1 + fleet.chance.below(_MOST_RECORDS))
            end = records[-1].offset + 1 if records else log.end
            chunks.append(Chunk(topic, self.partition, position, end, list(records), 1))
        return [] if not chunks else fleet.chance.some(chunks, len(chunks))

    def _write(self, latest: Instant, batch: Batch) -> None:
        if self.process.life != self._life:
            return
        fleet = self._fleet
        producer = self._owned.producer
        assert isinstance(producer, Producer)
        # What found no room in the batch is read again, as the next.
        chunks = [part.chunk for part in batch.parts]
        consumed = Consumed(chunks, latest)
        producer.on_committed = lambda effects: fleet.on_written(self, consumed, effects)
        try:
            if batch.effects or batch.counts.folded:
                self._checkpoint = write_batch(self._owned, self._checkpoint, batch, 0.0)
        except Crashed as crash:
            fleet.crash(self.process, f"{self.name}: {crash}")
            return
        except Fenced:
            fleet.crash(self.process, f"{self.name}: fenced, another worker has taken over")
            return
        self.is_busy = False
        for key, _, due_at in batch.changes.checkpointed_heads:
            self._timers.set(key, due_at)
        self.table.settle()
        for chunk in chunks:
            self._positions[chunk.topic] = chunk.end
        if batch.changes.touched:
            fleet.on_touched(self, batch.changes.touched)
        if fleet.faults.strike("crash-before-commit") is not None:
            fleet.crash(self.process, f"{self.name}: before it committed a batch")
            return
        if fleet.faults.strike("uncommitted") is None:
            self.commit()
        self._tick_later()
        self.wake()

    def commit(self) -> None:
        """Commits all that is finished."""
        for topic, position in self._positions.items():
            self._fleet.committed[topic, self.partition] = position

    # -- timers

    def _tick_later(self) -> None:
        if not self._is_ticking and len(self._timers):
            self._is_ticking = True
            self._fleet.schedule.after(TICK_S * SECOND, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        if self.is_over:
            return
        now, topic = self._fleet.schedule.now, self.lane.pipeline.timers
        for key, due_at in self._timers.pop_due(now, _MOST_TIMERS):
            value = self._fleet.codec.encode(topic, Timer(resource=key.decode(), due_at=due_at))
            timestamp_ms = -(-max(now, due_at) // MILLISECOND)
            self._fleet.broker.send("ticker", Outgoing(topic, key, value, self.partition, (), timestamp_ms))
        self._tick_later()


class Fleet:
    """All worker processes, and who of them owns what."""

    def __init__(
        self,
        *,
        schedule: Schedule,
        faults: Faults,
        trace: Trace,
        broker: Broker,
        codec: Codec,
        settings: Settings,
        lanes: list[Lane],
        seed: int,
        workers: int,
        is_compacted: bool,
        on_touched: Callable[[Owner, Mapping[str, object]], object],
        on_moved: Callable[[Owner], object],
        owner_type: type[Owner],
    ) -> None:
        self.schedule = schedule
        self.faults = faults
        self.trace = trace
        self.broker = broker
        self.codec = codec
        self.settings = settings
        self.lanes = lanes
        self.is_compacted = is_compacted
        self.chance = Chance(seed, "fleet")
        self.committed: dict[tuple[str, int], int] = {}
        """The group's offsets."""
        self.consumed: dict[tuple[str, int], list[Consumed]] = {}
        """What was worked off for good, by pipeline and partition, in its order."""
        self.written: dict[tuple[str, int], list[Outgoing]] = {}
        """The effects of that, likewise."""
        self.on_touched = on_touched
        self._on_moved = on_moved
        self._owner_type = owner_type
        self._owners: dict[tuple[str, int], Owner | None] = {
            (lane.pipeline.name, partition): None for lane in lanes for partition in range(broker.partitions)
        }
        self._lanes = {lane.pipeline.name: lane for lane in lanes}
        self.processes = [Process(self, f"worker-{number}") for number in range(1, workers + 1)]
        for lane in lanes:
            for topic in lane.pipeline.input_topics:
                broker.listen(topic, lambda partition, name=lane.pipeline.name: self._wake(name, partition))  # type: ignore[misc]
        self.rebalance()

    def owner(self, pipeline: str, partition: int) -> Owner | None:
        """Who works on a partition now."""
        return self._owners[pipeline, partition]

    def owners(self) -> list[Owner]:
        """All who work now."""
        return [owner for owner in self._owners.values() if owner is not None and not owner.is_over]

    def recovered(self, owner: Owner) -> tuple[PartitionTable, PartitionStore]:
        """An owner's partition as a new process would recover it, from the changelog alone. It ends the owner."""
        stranger = Process(self, "stranger")
        owned = stranger.take_over(owner.lane, owner.partition)
        return owned.table, stranger.disk(owner.lane.pipeline.name, owner.partition)

    def state(self, pipeline: str, partition: int, key: str) -> object | None:
        """The state under a key as its owner knows it; None where there is none, or nobody owns it just now."""
        owner = self._owners[pipeline, partition]
        return None if owner is None or owner.is_over else owner.table.peek(key.encode())

    def _wake(self, name: str, partition: int) -> None:
        owner = self._owners[name, partition]
        if owner is not None:
            owner.wake()

    def on_written(self, owner: Owner, consumed: Consumed, effects: list[Outgoing]) -> None:
        """A batch is written for good."""
        place = owner.lane.pipeline.name, owner.partition
        self.consumed.setdefault(place, []).append(consumed)
        self.written.setdefault(place, []).extend(effects)

    # -- owners come and go

    def rebalance(self) -> None:
        """Gives what nobody works on to those who live."""
        for (name, partition), owner in list(self._owners.items()):
            living = [process for process in self.processes if process.is_alive]
            if living and (owner is None or owner.is_over):
                self._assign(name, partition, living[(partition + len(name)) % len(living)])

    def _assign(self, name: str, partition: int, process: Process) -> None:
        lane = self._lanes[name]
        try:
            owned = process.take_over(lane, partition)
        except Crashed as crash:
            self.crash(process, f"{name}/{partition}: while it took over, {crash}")
            return
        owner = self._owner_type(self, process, lane, owned)
        process.owned.append(owner)
        self._owners[name, partition] = owner
        self.trace.add(process.name, "owns {} in epoch {}", owner.name, owned.mark.epoch)
        self._on_moved(owner)

    def move(self, chance: Chance) -> None:
        """A rebalance takes a partition from one worker and gives it to another, in order."""
        name, partition = chance.pick(list(self._owners))
        owner = self._owners[name, partition]
        others = [
            process
            for process in self.processes
            if process.is_alive and (owner is None or process is not owner.process)
        ]
        if owner is None or owner.is_over or owner.is_busy or not others:
            return
        if chance.hits(0.7):
            owner.commit()
        self.trace.add("group", "moves {} away from {}", owner.name, owner.process.name)
        self._take_away(owner)
        self._assign(name, partition, chance.pick(others))

    def overtake(self, owner: Owner) -> None:
        """A worker that hangs loses its partition, and doesn't know it."""
        others = [process for process in self.processes if process.is_alive and process is not owner.process]
        if owner.is_over or not owner.is_busy or not others:
            return
        self.trace.add("group", "{} hangs: {} is taken from it", owner.process.name, owner.name)
        self._take_away(owner)
        self._assign(owner.lane.pipeline.name, owner.partition, self.chance.pick(others))

    def _take_away(self, owner: Owner) -> None:
        owner.is_over = True
        owner.process.owned.remove(owner)
        self._owners[owner.lane.pipeline.name, owner.partition] = None

    def crash(self, process: Process, where: str) -> None:
        """A process ends, and its supervisor starts it again."""
        self.trace.add(process.name, "ends ({})", where)
        process.end()
        self.schedule.after(SESSION_S * SECOND, self.rebalance)
        self.schedule.after(self.chance.duration(1, 40), lambda: self._start(process))

    def _start(self, process: Process) -> None:
        if process.is_alive:
            return
        process.is_alive = True
        if self.faults.strike("disk-lost") is not None:
            self.trace.add(process.name, "starts on an empty disk")
            process.lose_disks()
        else:
            self.trace.add(process.name, "starts")
        self.rebalance()
