"""Reading a whole target page by page: for targets that list many resources in one call, and would otherwise be asked about each.

A scan only adds: what it names counts as read, and is published where it is news. What it doesn't name, or can't tell, is read as
if there were no scans, so that a page that is cut short or a target that hides something makes nothing absent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeAlias

from reconciler.values.instant import SECOND
from streams.sampler.answers import Answer
from streams.sampler.breaker import Breaker
from streams.sampler.clock import Clock
from streams.sampler.metrics import SamplerMetrics
from streams.sampler.reading import Failure, Page, Reader
from streams.sampler.schedule import Schedule, Seat, fraction, next_slot
from streams.sampler.slots import Slots

End: TypeAlias = Literal["complete", "failed", "breaker", "late"]
"""How a scan ended: with the last page; with a page that failed; because the breaker isn't closed; because the next one is due."""

_LONGEST_PAUSE_S = 5.0
_SLICE = 50

Tell: TypeAlias = Callable[[Seat, Answer], Awaitable[bool]]
Afford: TypeAlias = Callable[[int], Awaitable[None]]


class Scans:
    """The scans of one target."""

    def __init__(
        self,
        system: str,
        *,
        every: int,
        page_size: int,
        schedule: Schedule,
        reader: Reader,
        breaker: Breaker,
        afford: Afford,
        slots: Slots,
        tell: Tell,
        clock: Clock,
        metrics: SamplerMetrics,
    ) -> None:
        self._system = system
        self._every = every
        self._page_size = page_size
        self._schedule = schedule
        self._reader = reader
        self._breaker = breaker
        self._afford = afford
        self._slots = slots
        self._tell = tell
        self._clock = clock
        self._metrics = metrics

    async def run_next(self) -> None:
        """Waits for the next scan's time, which a hash of the system's name chooses, and makes it."""
        begins_at = next_slot(fraction(self._system), self._every, self._clock.now())
        while (wait := begins_at - self._clock.now()) > 0:
            await asyncio.sleep(min(wait / SECOND, _LONGEST_PAUSE_S))
            begins_at = min(begins_at, self._clock.now() + self._every)  # the clock may have been set back
        if len(self._schedule):
            end = await self._scan(give_up_at=self._clock.monotonic() + self._every / SECOND)
            self._metrics.scans.labels(self._system, end).inc()

    async def _scan(self, give_up_at: float) -> End:
        cursor: str | None = None
        while self._clock.monotonic() < give_up_at:
            if self._breaker.state != "closed":
                return "breaker"
            await self._slots.acquire()
            try:
                page = await self._page(cursor)
            finally:
                self._slots.release()
            if not isinstance(page, Page):
                return page
            await self._take_in(page.answers)
            self._metrics.scanned.labels(self._system, "yes").inc(len(page.answers))
            self._metrics.scanned.labels(self._system, "no").inc(page.size - len(page.answers))
            for beyond in range(self._page_size, page.size, self._page_size):  # a page that is larger than was paid for
                await self._afford(min(self._page_size, page.size - beyond))
            if page.cursor is None:
                return "complete"
            cursor = page.cursor
        return "late"

    async def _page(self, cursor: str | None) -> Page | End:
        """The next page, or how the scan ends without it."""
        await self._afford(self._page_size)
        permit = self._breaker.admit(self._clock.now())
        if permit is None:
            return "breaker"
        try:
            page = await self._reader.page(cursor, lambda resource: self._schedule.find(resource) is not None)
            if isinstance(page, Failure):
                self._breaker.failed(permit, self._clock.now())
                return "failed"
            self._breaker.succeeded(permit)
            return page
        finally:
            self._breaker.abandoned(permit)

    async def _take_in(self, answers: Sequence[Answer]) -> None:
        present = [answer for answer in answers if answer.observation.exists]
        for begin in range(0, len(present), _SLICE):
            await asyncio.gather(*(self._take(answer) for answer in present[begin : begin + _SLICE]))
            await asyncio.sleep(0)

    async def _take(self, answer: Answer) -> None:
        seat = self._schedule.find(answer.observation.resource)
        if seat is None:
            return
        self._schedule.occupy(seat)
        is_told = False
        try:
            is_told = await self._tell(seat, answer)
        finally:
            if is_told:
                observed_at = answer.observation.observed_at or 0
                self._schedule.scanned(seat, observed_at, self._clock.now(), self._every)
            else:
                self._schedule.failed(seat, self._clock.now())
