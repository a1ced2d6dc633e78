"""Virtual time: what is to happen, in the order of its instants."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from reconciler.values.instant import Instant, parse_instant

BEGINNING: Final[Instant] = parse_instant("2026-05-03T10:00:00Z")


class Schedule:
    """A clock that jumps from one event to the next. Of two events at one instant, the one that was planned first is first."""

    def __init__(self, start: Instant = BEGINNING) -> None:
        self.now = start
        self._planned: list[tuple[Instant, int, Callable[[], object]]] = []
        self._count = 0

    def clock(self) -> Instant:
        """The instant, for those who take a clock."""
        return self.now

    def at(self, instant: Instant, call: Callable[[], object]) -> None:
        """Plans a call; one for the past comes next."""
        self._count += 1
        heapq.heappush(self._planned, (max(instant, self.now), self._count, call))

    def after(self, duration: int, call: Callable[[], object]) -> None:
        """Plans a call so many microseconds from now."""
        self.at(self.now + duration, call)

    def run(self, until: Instant) -> None:
        """Lets everything happen that is planned up to an instant, which is then the time."""
        while self._planned and self._planned[0][0] <= until:
            self.now, _, call = heapq.heappop(self._planned)
            call()
        self.now = max(self.now, until)
