"""One command of a resource at a time, resources beside each other, and places for so many of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Work = TypeVar("Work")


class Lanes(Generic[Work]):
    """A queue for each key, worked off by one task as long as there is something in it. Belongs to one event loop."""

    def __init__(self, work: Callable[[Work], Awaitable[None]]) -> None:
        self._work = work
        self._queues: dict[str, deque[Work]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, key: str, work: Work) -> None:
        """Puts work behind what the key has already."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(work)
            return
        self._queues[key] = deque([work])
        task = asyncio.create_task(self._run(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: str) -> None:
        queue = self._queues[key]
        try:
            while queue:
                await self._work(queue.popleft())
        finally:
            del self._queues[key]


class Places:
    """Room for so many works at a time. A work that doesn't end keeps its place, and is counted as stuck."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._size = size
        self._stuck = 0
        self._changed = asyncio.Condition()

    @property
    def taken(self) -> int:
        """How many works have a place."""
        return self._size - self._free

    async def take(self) -> bool:
        """Waits for a place; False where all are kept by works that are stuck, so that waiting could last for ever."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._free > 0 or self._stuck >= self._size)
            if self._free == 0:
                return False
            self._free -= 1
            return True

    async def give_back(self, *, was_stuck: bool) -> None:
        """A work has ended."""
        async with self._changed:
            self._free += 1
            self._stuck -= was_stuck
            self._changed.notify_all()

    async def stick(self) -> None:
        """A work was given up, though it has not ended."""
        async with self._changed:
            self._stuck += 1
            self._changed.notify_all()
