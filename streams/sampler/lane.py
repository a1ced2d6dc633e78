"""The lane of one target: its own schedule, budget, breaker and tasks, so that no target waits for another.

A thin shell. What is read next, whether it may be, what an answer means and whether it is published are decided by the pure
modules beside this one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from reconciler.records import Observation
from reconciler.targets.port import ScanningTarget, Target
from reconciler.values.instant import SECOND
from streams.cancelling import raise_if_cancelled
from streams.sampler.answers import Answer
from streams.sampler.breaker import Breaker, Permit
from streams.sampler.budget import Budget
from streams.sampler.clock import Clock
from streams.sampler.metrics import SamplerMetrics
from streams.sampler.publication import Published, why_publish
from streams.sampler.reading import Reader
from streams.sampler.scanning import Scans
from streams.sampler.schedule import Schedule, Seat
from streams.sampler.settings import SamplerSettings
from streams.sampler.slots import Slots

logger = logging.getLogger(__name__)

Publish: TypeAlias = Callable[[Observation], Awaitable[None]]
"""Publishes an observation, and returns when the brokers have it; raises where they don't."""

_ISOLATED_AFTER = 3
"""A read of nothing but resources that failed as often as this, running, says nothing about the target."""
_LONGEST_PAUSE_S = 5.0
"""How long a lane sleeps at most before it looks at the clock again, which may have been set."""
_AFTER_FAULT_S = 1.0
_SLICE = 50
"""Answers that are published at a time, so that a large bulk doesn't keep the event loop to itself."""


class Lane:
    """Samples one target for as long as `run` runs. To be used from one event loop."""

    def __init__(
        self,
        system: str,
        target: Target,
        *,
        budget: Budget,
        slots: Slots,
        scan_slots: Slots,
        publish: Publish,
        settings: SamplerSettings,
        clock: Clock,
        metrics: SamplerMetrics,
    ) -> None:
        """`slots` and `scan_slots` bound the reads that are under way at a time: those by name, and those page by page."""
        limits = settings.limits_of(system)
        self._system = system
        self._budget = budget
        self._publish = publish
        self._clock = clock
        self._metrics = metrics
        self._bulk_size = max(1, min(target.describe().bulk_size, limits.burst))
        self._reader = Reader(
            target,
            timeout_s=limits.timeout_s,
            max_bytes=settings.max_observation_bytes,
            clock=clock,
            on_strays=metrics.strays.labels(system).inc,
        )
        self._breaker = Breaker(settings.breaker_limits())
        self._slots = slots
        self._scan_slots = scan_slots
        self._reads: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self.schedule = Schedule(settings.pace())
        self._scans = self._scans_of(target, limits.scan_every_s)

    def _scans_of(self, target: Target, every_s: float | None) -> Scans | None:
        if every_s is None:
            return None
        if not (isinstance(target, ScanningTarget) and target.describe().can_scan):
            logger.warning("the target %s can't be scanned, though its scan_every_s says so", self._system)
            return None
        return Scans(
            self._system,
            every=round(every_s * SECOND),
            page_size=self._bulk_size,
            schedule=self.schedule,
            reader=self._reader,
            breaker=self._breaker,
            afford=self._afford,
            slots=self._scan_slots,
            tell=self._tell,
            clock=self._clock,
            metrics=self._metrics,
        )

    def wake(self) -> None:
        """The schedule has changed."""
        self._news.set()

    async def run(self) -> None:
        """Samples until it is cancelled. An error of our own is logged and counted, and the lane goes on."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_doing(self._dispatch), name=f"sampler-{self._system}-dispatch")
                if self._scans is not None:
                    tasks.create_task(self._keep_doing(self._scans.run_next), name=f"sampler-{self._system}-scans")
        finally:
            for read in self._reads:
                read.cancel()
            await asyncio.gather(*self._reads, return_exceptions=True)

    async def _keep_doing(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            raise_if_cancelled()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - the lane must outlive it, and nothing is hidden
                self._fault("the lane of %s failed and goes on", error)
                await asyncio.sleep(_AFTER_FAULT_S)

    def measure(self) -> None:
        """Sets the gauges."""
        metrics, system = self._metrics, self._system
        metrics.resources.labels(system).set(len(self.schedule))
        metrics.lag_s.labels(system).set(self.schedule.lag(self._clock.now()) / SECOND)
        metrics.budget_rate.labels(system).set(self._budget.rate())
        metrics.abandoned.labels(system).set(self._reader.abandoned)
        for state in ("closed", "half_open", "open"):
            metrics.breaker.labels(system, state).set(self._breaker.state == state)

    async def _dispatch(self) -> None:
        """Waits for the next bulk read that is due and may be made, and starts it."""
        seats, permit = await self._next()
        read = asyncio.create_task(self._sample(seats, permit), name=f"sampler-{self._system}-read")
        self._reads.add(read)
        read.add_done_callback(self._ended)

    async def _next(self) -> tuple[list[Seat], Permit]:
        """The next bulk read, with a slot for it."""
        while True:
            raise_if_cancelled()
            self._news.clear()
            pause = self._pause()
            if pause is None or pause > 0:
                await self._sleep(pause)
                continue
            # Not before something is due: others may be waiting for the slot.
            await self._slots.acquire()
            try:
                taken = await self._take()
            except BaseException:
                self._slots.release()
                raise
            if taken is not None:
                return taken
            self._slots.release()

    async def _take(self) -> tuple[list[Seat], Permit] | None:
        """What is due now, once the budget allows it; None where nothing is any more, or the target must be left alone."""
        if self._pause() != 0:
            return None
        # A breaker that isn't closed lets one resource through, to see whether the target answers again.
        limit = self._bulk_size if self._breaker.state == "closed" else 1
        seats = self.schedule.take(self._clock.now(), limit)
        try:
            await self._afford(len(seats))
            permit = self._breaker.admit(self._clock.now())
        except BaseException:
            self.schedule.put_back(seats)
            raise
        current = [seat for seat in seats if self.schedule.is_current(seat)]  # a partition may have gone meanwhile
        if permit is not None and current:
            return current, permit
        if permit is not None:
            self._breaker.abandoned(permit)
        self.schedule.put_back(current)
        return None

    def _pause(self) -> float | None:
        """Seconds until something may be read; None where that hangs on something that will wake us."""
        now = self._clock.now()
        due, ready_in = self.schedule.next_due(), self._breaker.ready_in(now)
        return None if due is None or ready_in is None else max(due - now, ready_in, 0) / SECOND

    async def _sleep(self, pause: float | None) -> None:
        try:
            async with asyncio.timeout(_LONGEST_PAUSE_S if pause is None else min(pause, _LONGEST_PAUSE_S)):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _afford(self, count: int) -> None:
        while count and (wait_s := await self._budget.take(count)) > 0:
            self._metrics.budget_wait_s.labels(self._system).inc(wait_s)
            await asyncio.sleep(min(wait_s, _LONGEST_PAUSE_S))

    async def _sample(self, seats: list[Seat], permit: Permit) -> None:
        """One bulk read with all that follows from it. Each seat is given back to the schedule, whatever happens."""
        done = 0
        try:
            answers = await self._read(seats, permit)
            for begin in range(0, len(seats), _SLICE):
                part = list(zip(seats, answers, strict=True))[begin : begin + _SLICE]
                told = await asyncio.gather(*(self._tell(seat, answer) for seat, answer in part))
                for (seat, answer), is_told in zip(part, told, strict=True):
                    self._give_back(seat, answer if is_told else None)
                    done += 1
        except Exception as error:  # noqa: BLE001 - the lane must outlive it, and nothing is hidden
            self._fault("a read of %s failed and is tried again", error)
            for seat in seats[done:]:
                self._give_back(seat, None)
        finally:
            self._breaker.abandoned(permit)

    def _give_back(self, seat: Seat, answer: Answer | None) -> None:
        now = self._clock.now()
        if answer is None or answer.digest is None:
            self.schedule.failed(seat, now)
        else:
            self.schedule.succeeded(seat, answer.observation.observed_at or 0, now)

    async def _read(self, seats: Sequence[Seat], permit: Permit) -> list[Answer]:
        with self._metrics.call_s.labels(self._system).time():
            answers = await self._reader.read([seat.resource for seat in seats])
        for answer in answers:
            self._metrics.observations.labels(self._system, answer.result).inc()
        self._judge(seats, answers, permit)
        return answers

    def _judge(self, seats: Sequence[Seat], answers: Sequence[Answer], permit: Permit) -> None:
        """What a read says about the target's health."""
        before = self._breaker.state
        if any(answer.digest is not None for answer in answers):
            self._breaker.succeeded(permit)
        elif permit.is_probe or any(seat.failures < _ISOLATED_AFTER for seat in seats):
            self._breaker.failed(permit, self._clock.now())
        after = self._breaker.state
        if before == "closed" != after:
            logger.warning("the target %s is left alone for a while: %s", self._system, answers[0].observation.reason)
        elif before != "closed" == after:
            logger.info("the target %s answers again", self._system)

    async def _tell(self, seat: Seat, answer: Answer) -> bool:
        """Publishes an answer where it is news; False where it should have been and could not."""
        if not self.schedule.is_current(seat):
            return True
        why = why_publish(seat.published, answer, seat.needs, seat.timing, self._clock.now())
        if why is None:
            self._metrics.unchanged.labels(self._system).inc()
            return True
        try:
            await self._publish(answer.observation)
        except Exception as error:  # noqa: BLE001 - whatever the producer raises: it is not published, and tried again
            self._metrics.publish_failures.labels(self._system).inc()
            logger.warning(
                "an observation of %s could not be published: %s: %s", self._system, type(error).__name__, error
            )
            return False
        seat.published = Published(answer.digest, answer.observation.observed_at or 0, self._clock.now())
        self._metrics.published.labels(self._system, why).inc()
        return True

    def _ended(self, read: asyncio.Task[None]) -> None:
        self._reads.discard(read)
        self._slots.release()
        self._news.set()

    def _fault(self, message: str, error: Exception) -> None:
        self._metrics.faults.labels(self._system).inc()
        logger.error(message, self._system, exc_info=error)
