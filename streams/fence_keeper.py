"""Fences kept in Redis: while a run is rolled back, and after, the SDK refuses to begin its further actions.

A service of the process that drives rollbacks. The fences are computed from the states of the rollbacks alone: at the start
from all of them, then from each that changes; and they are set again every while, so that a Redis that was emptied has them
back. Without Redis the check is lost and nothing else: late actions are then folded, and reversed or reported.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import redis

from reconciler.machines.rollback import Head, fences_of
from reconciler.sdk.fences import KEEP_S, AsyncRedisFence
from reconciler.values.instant import SECOND
from streams.cancelling import raise_if_cancelled
from streams.transport.chunk import Chunk
from streams.worker_services import PartitionNotOwned, WorkerContext

logger = logging.getLogger(__name__)

_SET_AGAIN_EVERY_S: Final = 30.0
_PAUSE_S: Final = 2.0
_SLICE: Final = 100
"""Heads that are looked at before the event loop gets its turn."""


class FenceKeeper:
    """Implements `WorkerService`."""

    name = "fences"

    def __init__(self, redis_url: str, *, set_again_every_s: float = _SET_AGAIN_EVERY_S) -> None:
        self._redis_url = redis_url
        self._set_again_every_s = set_again_every_s
        self._to_load: set[int] = set()
        self._touched: dict[int, dict[str, object]] = {}
        self._fenced: dict[int, dict[str, list[str]]] = {}
        """The runs that each rollback fences, by partition."""
        self._lifted: set[str] = set()
        self._news = asyncio.Event()

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """Their rollbacks are read as soon as the run comes to it."""
        self._to_load |= partitions
        self._news.set()

    def on_revoked(self, partitions: frozenset[int]) -> None:
        """Their fences stand; the next owner looks after them."""
        for partition in partitions:
            self._to_load.discard(partition)
            self._touched.pop(partition, None)
            self._fenced.pop(partition, None)

    def on_touched(self, partition: int, states: Mapping[str, object]) -> None:
        """Of states that change again before the run comes to them, only the last counts."""
        self._touched.setdefault(partition, {}).update(states)
        self._news.set()

    def on_folded(self, chunk: Chunk, folded: Sequence[bool]) -> None:
        """Nothing to do: states are what counts here."""

    async def run(self, context: WorkerContext) -> None:
        """Keeps the fences until it is cancelled."""
        self.on_assigned(context.partitions)
        fence = AsyncRedisFence(self._redis_url)
        is_failing = False
        try:
            while True:
                await self._take_news(context)
                try:
                    await self._set(fence)
                    if is_failing:
                        logger.info("fences are kept again")
                    is_failing = False
                except (redis.RedisError, OSError) as error:
                    if not is_failing:
                        logger.warning("fences can't be kept, actions of rolled back runs may begin: Redis: %s", error)
                    is_failing = True
                raise_if_cancelled()
                await self._wait(_PAUSE_S if is_failing else self._set_again_every_s)
        finally:
            await fence.close()

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except TimeoutError:
            return

    async def _take_news(self, context: WorkerContext) -> None:
        self._news.clear()
        while self._to_load:
            partition = self._to_load.pop()
            try:
                await self._load(context, partition)
            except PartitionNotOwned:
                self._fenced.pop(partition, None)
        while self._touched:
            partition, states = self._touched.popitem()
            for number, state in enumerate(states.values(), 1):
                self._take(partition, state)
                if number % _SLICE == 0:
                    await asyncio.sleep(0)

    async def _load(self, context: WorkerContext, partition: int) -> None:
        for number, (_, state) in enumerate(context.heads(partition), 1):
            self._take(partition, state)
            if number % _SLICE == 0:
                await asyncio.sleep(0)

    def _take(self, partition: int, state: object) -> None:
        assert isinstance(state, Head)
        fenced = self._fenced.setdefault(partition, {})
        before = fenced.pop(state.rollback_id, [])
        now = [] if _is_old(state) else fences_of(state)
        if now:
            fenced[state.rollback_id] = now
        self._lifted.update(set(before) - set(now))
        self._lifted.difference_update(now)

    def _reasons(self) -> dict[str, str]:
        """Every run that is fenced, and why."""
        return {
            run_id: f"it is rolled back ({rollback_id})"
            for fenced in self._fenced.values()
            for rollback_id, runs in fenced.items()
            for run_id in runs
        }

    async def _set(self, fence: AsyncRedisFence) -> None:
        """Lifts what is no longer fenced by any rollback that is known here, and sets the rest. Raises redis.RedisError."""
        reasons = self._reasons()
        for run_id in list(self._lifted):
            # One that another worker's rollback fences is set again by that worker before long.
            if run_id not in reasons:
                await fence.lift(run_id)
            self._lifted.discard(run_id)
        await _fence_all(fence, reasons.items())


async def _fence_all(fence: AsyncRedisFence, reasons: Iterable[tuple[str, str]]) -> None:
    for run_id, reason in reasons:
        await fence.fence(run_id, reason)


def _is_old(head: Head) -> bool:
    """Whether nobody can still be waiting to go on with what this rolled back."""
    asked_at = None if head.request is None else head.request.requested_at
    return asked_at is not None and time.time() - asked_at / SECOND > KEEP_S
