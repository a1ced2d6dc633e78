"""One owned partition at work: chunks in, batches written one after the other.

All input topics of the partition come through here, so that their batches never overlap. What waits is taken together:
one transaction then pays for several chunks.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from reconciler.values.instant import SECOND
from streams.exits import ExitCode, end_process
from streams.metrics import WorkerMetrics
from streams.runner.batch import MOST_AHEAD, Batch, BatchRunner
from streams.runner.timers import Timers
from streams.runner.writing import write_batch
from streams.store.port import Checkpoint
from streams.store.producer import Fenced
from streams.store.recovery import OwnedPartition
from streams.transport.chunk import Chunk

_WAITING_CHUNKS = 3
"""How many chunks may wait: one is being fetched while one is worked on."""


class Work:
    """A chunk, or what is left of it, whether it may still be worked on, and what to call when all of it is durable, or when it
    was dropped."""

    __slots__ = ("chunk", "dropped", "finished", "is_current")

    def __init__(
        self,
        chunk: Chunk,
        is_current: Callable[[], bool],
        finished: Callable[[], Any],
        dropped: Callable[[], Any],
    ) -> None:
        self.chunk = chunk
        self.is_current = is_current
        self.finished = finished
        self.dropped = dropped


class PartitionProcess:
    """Works until it is closed. Every error in a batch ends the operating system's process."""

    def __init__(
        self,
        owned: OwnedPartition,
        runner: BatchRunner,
        *,
        max_records: int,
        executor: Executor,
        metrics: WorkerMetrics,
        on_touched: Callable[[int, Mapping[str, object]], None],
        on_folded: Callable[[Chunk, Sequence[bool]], None],
    ) -> None:
        self.partition = owned.partition
        self.table = owned.table
        self.timers = Timers(owned.table.due())
        self._owned = owned
        self._runner = runner
        self._max_records = max_records
        self._executor = executor
        self._metrics = metrics
        self._on_touched = on_touched
        self._on_folded = on_folded
        self._checkpoint = owned.checkpoint
        self._waiting: deque[Work] = deque()
        self._room = asyncio.Event()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.create_task(self._work(), name=f"partition-{owned.partition}")

    async def put(self, work: Work) -> None:
        """Hands over a chunk; waits while enough are waiting. Drops it if a rebalance begins meanwhile."""
        while len(self._waiting) >= _WAITING_CHUNKS:
            self._room.clear()
            await self._room.wait()
        if not work.is_current():
            work.dropped()
            return
        self._waiting.append(work)
        self._arrived.set()

    def drop_waiting(self) -> None:
        """Forgets what waits; the batch in flight goes on. What is dropped will be read again."""
        dropped = list(self._waiting)
        self._waiting.clear()
        self._room.set()
        for work in dropped:
            work.dropped()

    async def idle(self) -> None:
        """Returns when no batch is in flight."""
        await self._idle.wait()

    def consumed(self, topic: str) -> int:
        """Up to which offset of an input everything is durable."""
        mark = self._checkpoint.mark
        return 0 if mark is None else mark.consumed.get(topic, 0)

    async def close(self) -> None:
        """Ends the work, after the batch in flight, and gives back store and producer."""
        self.drop_waiting()
        await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._executor, self._owned.close)

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            self._idle.clear()
            taken = self._take()
            self._room.set()
            try:
                await self._do(taken)
            except Fenced as error:
                end_process(ExitCode.FENCED, f"partition {self.partition}: {error}")
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - nothing of the batch can be trusted
                end_process(ExitCode.BATCH, f"partition {self.partition}: a batch failed: {error!r}", error)
            finally:
                self._idle.set()

    def _take(self) -> deque[Work]:
        taken = deque([self._waiting.popleft()])
        records = len(taken[0].chunk.records)
        while self._waiting and records + len(self._waiting[0].chunk.records) <= self._max_records:
            records += len(self._waiting[0].chunk.records)
            taken.append(self._waiting.popleft())
        return taken

    async def _do(self, taken: deque[Work]) -> None:
        """One batch after the other, until all is durable, or a rebalance begins: what is left then will be read again."""
        while taken:
            rest = await self._do_batch([work.chunk for work in taken])
            while len(taken) > len(rest):
                taken.popleft().finished()
            if rest:
                taken[0].chunk = rest[0]
                if not taken[0].is_current():
                    for work in taken:
                        work.dropped()
                    return

    async def _do_batch(self, chunks: list[Chunk]) -> list[Chunk]:
        """Gives back what found no room in the batch."""
        started = time.perf_counter()
        latest = round(time.time() * SECOND) + MOST_AHEAD
        batch = self._runner.run(chunks, latest)
        stepped = time.perf_counter()
        if batch.effects or batch.counts.folded:
            loop = asyncio.get_running_loop()
            self._checkpoint = await loop.run_in_executor(self._executor, self._write, batch)
        touched = batch.changes.touched
        for key, _, due_at in batch.changes.checkpointed_heads:
            self.timers.set(key, due_at)
        self.table.settle()
        self._count(batch, time.perf_counter() - started, stepped - started)
        if touched:
            self._on_touched(self.partition, touched)
        for part in batch.parts:
            self._on_folded(part.chunk, part.is_folded)
        return batch.rest

    def _write(self, batch: Batch) -> Checkpoint:
        return write_batch(self._owned, self._checkpoint, batch, time.time())

    def _count(self, batch: Batch, seconds: float, step_seconds: float) -> None:
        topics = {part.chunk.topic for part in batch.parts}
        self._metrics.count_batch(topics.pop() if len(topics) == 1 else "several", batch.counts)
        self._metrics.batch_seconds.observe(seconds)
        self._metrics.step_seconds.observe(step_seconds)
        self._metrics.batch_records.observe(sum(len(part.chunk.records) for part in batch.parts))
