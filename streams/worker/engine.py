"""The engine: which partitions are ours, and their processes.

It is told by Faust's recovery which partitions are assigned, takes them over, and gives up those that went; between a
revocation and the next recovery it takes no new work. It runs without Faust as well, which is how its tests drive it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from reconciler.machines.protocol import HistoryReader
from reconciler.wire.codec import Codec
from reconciler.wire.partition import partition_of
from streams.metrics import WorkerMetrics
from streams.runner.batch import BatchRunner
from streams.runner.effects import EffectWriter
from streams.runner.pipeline import Pipeline
from streams.settings import Settings
from streams.store.recovery import StoreFactory, Takeover
from streams.transport.chunk import Chunk
from streams.worker.process import PartitionProcess, Work
from streams.worker_services import PartitionNotOwned

logger = logging.getLogger(__name__)

_MOST_WRITERS = 16


class EngineListener(Protocol):
    """Who is told of what the engine owns. The calls return at once and don't raise."""

    def on_assigned(self, partitions: frozenset[int]) -> None: ...
    def on_revoked(self, partitions: frozenset[int]) -> None: ...
    def on_touched(self, partition: int, states: Mapping[str, object]) -> None: ...
    def on_folded(self, chunk: Chunk, folded: Sequence[bool]) -> None: ...


class Engine:
    """Owns partitions of one pipeline. To be used from the event loop."""

    def __init__(
        self,
        *,
        settings: Settings,
        pipeline: Pipeline,
        codec: Codec,
        effects: EffectWriter,
        stores: StoreFactory,
        metrics: WorkerMetrics,
        owner: str,
        listeners: Sequence[EngineListener] = (),
    ) -> None:
        self.pipeline = pipeline
        self._settings = settings
        self._codec = codec
        self._effects = effects
        self._metrics = metrics
        self._listeners = list(listeners)
        self._takeover = Takeover(settings, pipeline, codec, stores, owner)
        self._processes: dict[int, PartitionProcess] = {}
        self._generation: int | None = None
        self._ready = False
        self._not_ready_since = time.monotonic()
        self._recovering = asyncio.Lock()
        self._executor = ThreadPoolExecutor(min(_MOST_WRITERS, settings.partitions), "write")
        self._takeover_thread = ThreadPoolExecutor(1, "recovery")

    def listen(self, listener: EngineListener) -> None:
        """Adds somebody who is told from now on."""
        self._listeners.append(listener)

    @property
    def ready(self) -> bool:
        """Whether all that is assigned is recovered and at work."""
        return self._ready

    def not_ready_s(self) -> float:
        """For how long it hasn't been ready; 0 when it is."""
        return 0.0 if self._ready else time.monotonic() - self._not_ready_since

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that are owned, recovered and at work."""
        return frozenset(self._processes) if self._ready else frozenset()

    async def submit(self, work: Work) -> None:
        """Hands a chunk to its partition's process; drops it when the partition is not ours any more."""
        process = self._processes.get(work.chunk.partition) if self._ready else None
        if process is None:
            work.dropped()
        else:
            await process.put(work)

    def suspend(self) -> None:
        """A rebalance or the end has begun: nothing new is begun, what is in flight is finished."""
        if self._ready:
            self._not_ready_since = time.monotonic()
            self._ready = False
            self._tell_revoked(frozenset(self._processes))
        for process in self._processes.values():
            process.drop_waiting()

    async def recover(self, partitions: frozenset[int], generation: int, alive: Callable[[], bool]) -> None:
        """Makes these partitions ours and ready. Raises what `Takeover.run` raises; RecoveryAborted leaves it suspended."""
        async with self._recovering:
            kept = self._kept(partitions, generation)
            await asyncio.gather(*(process.idle() for process in self._processes.values()))
            lost = [process for number, process in self._processes.items() if number not in kept]
            for process in lost:
                del self._processes[process.partition]
            await asyncio.gather(*(process.close() for process in lost))
            # What is taken over below is known of this generation, also if the next comes before the end.
            self._generation = generation
            new = partitions - kept
            owned, report = await asyncio.get_running_loop().run_in_executor(
                self._takeover_thread, self._takeover.run, new, alive
            )
            for item in owned:
                self._processes[item.partition] = PartitionProcess(
                    item,
                    BatchRunner(
                        pipeline=self.pipeline,
                        codec=self._codec,
                        effects=self._effects,
                        table=item.table,
                        partition=item.partition,
                        partitions=self._settings.partitions,
                        epoch=item.mark.epoch,
                        consumed=item.mark.consumed,
                        now=item.mark.now,
                        group=self._settings.application_id,
                        dead_letter_max_bytes=self._settings.dead_letter_max_bytes,
                        max_bytes=self._settings.batch_max_bytes,
                    ),
                    max_records=self._settings.batch_max_records,
                    executor=self._executor,
                    metrics=self._metrics,
                    on_touched=self._tell_touched,
                    on_folded=self._tell_folded,
                )
            self._metrics.recoveries.inc()
            self._metrics.recovered_records.inc(report.records)
            self._metrics.stale_records.inc(report.stale_records)
            self._metrics.rebuilt_stores.inc(len(report.rebuilt))
            self._metrics.recovery_seconds.observe(report.seconds)
            logger.info(
                "recovered partitions %s (kept %s): %d changelog records in %.2f s, %d stores rebuilt, epochs %s",
                sorted(new),
                sorted(kept),
                report.records,
                report.seconds,
                len(report.rebuilt),
                {item.partition: item.mark.epoch for item in owned},
            )

    def _kept(self, partitions: frozenset[int], generation: int) -> frozenset[int]:
        """The partitions that go on with the state in memory.

        Behind the fence that is always right: had another owned one meanwhile, our producer would be refused. Without a
        fence only if there was no generation in between.
        """
        followed = self._generation is not None and generation == self._generation + 1
        if self._settings.fence == "transactional" or followed:
            return partitions & self._processes.keys()
        return frozenset()

    async def takeover_ended(self) -> None:
        """Returns when no takeover is under way, or after half of the time that a rebalance has: partitions should not be
        given to others before our claims to them have reached the brokers, or these would put the new owners off."""
        longest_s = self._settings.rebalance_timeout_s / 2
        try:
            async with asyncio.timeout(longest_s), self._recovering:
                return
        except TimeoutError:
            logger.warning(
                "a takeover goes on after %.0f s; who gets its partitions may have to start again", longest_s
            )

    def resume(self) -> None:
        """Everything is in place, the consumer included: work may come."""
        self._ready = True
        self._metrics.partitions.set(len(self._processes))
        assigned = frozenset(self._processes)
        for listener in self._listeners:
            listener.on_assigned(assigned)

    def _tell_revoked(self, partitions: frozenset[int]) -> None:
        self._metrics.partitions.set(0)
        for listener in self._listeners:
            listener.on_revoked(partitions)

    def _tell_touched(self, partition: int, states: Mapping[str, object]) -> None:
        for listener in self._listeners:
            listener.on_touched(partition, states)

    def _tell_folded(self, chunk: Chunk, folded: Sequence[bool]) -> None:
        for listener in self._listeners:
            listener.on_folded(chunk, folded)

    async def close(self) -> None:
        """Finishes what is in flight and gives everything back."""
        self.suspend()
        await asyncio.gather(*(process.close() for process in self._processes.values()))
        self._processes.clear()
        self._executor.shutdown()
        self._takeover_thread.shutdown()

    # -- reading

    def partition_of(self, resource: str) -> int:
        """The partition that a key belongs to."""
        return partition_of(resource.encode(), self._settings.partitions)

    def heads(self, partition: int) -> Iterator[tuple[str, object]]:
        """As `WorkerContext.heads`."""
        process = self._owned(partition)
        for resource, state in process.table.heads():
            if self._owned(partition) is not process:
                raise PartitionNotOwned(f"partition {partition} was revoked")
            yield resource, state

    def head(self, partition: int, resource: str) -> object | None:
        """As `WorkerContext.head`."""
        return self._owned(partition).table.peek(resource.encode())

    def history(self, partition: int, resource: str) -> HistoryReader:
        """As `WorkerContext.history`."""
        return self._owned(partition).table.history_of(resource.encode())

    def consumed(self, partition: int, topic: str) -> int:
        """As `WorkerContext.consumed`."""
        return self._owned(partition).consumed(topic)

    def _owned(self, partition: int) -> PartitionProcess:
        process = self._processes.get(partition) if self._ready else None
        if process is None:
            raise PartitionNotOwned(f"partition {partition} is not owned by this worker, or not recovered yet")
        return process

    def due(self, now: int, limit: int) -> list[tuple[int, bytes, int]]:
        """(partition, key, due_at) of what has come due, at most `limit` a partition."""
        if not self._ready:
            return []
        return [
            (number, key, due_at)
            for number, process in self._processes.items()
            for key, due_at in process.timers.pop_due(now, limit)
        ]
