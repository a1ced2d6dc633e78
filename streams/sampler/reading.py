"""One bulk read or one page of a target: never raises, never takes longer than its time-out, whatever the adapter does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from reconciler.records import Observation
from reconciler.targets.port import ScanningTarget, ScanPage, Target
from reconciler.values.instant import Instant
from streams.sampler.answers import Answer, Result, answers, strays, unknown
from streams.sampler.clock import Clock

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MESSAGE_CHARACTERS = 200
_SLICE = 50
"""Answers that are checked before the event loop gets its turn: some milliseconds with large resources."""


class Failure(msgspec.Struct, frozen=True):
    """Why a target could not be read."""

    result: Result
    reason: str


class Page(msgspec.Struct, frozen=True):
    """A page of a scan."""

    answers: list[Answer]
    """About the resources that are wanted; some may be unknown."""
    size: int
    """How many resources the target named, wanted or not."""
    cursor: str | None
    """Where it goes on; None at the end."""


class Reader:
    """Reads one target."""

    def __init__(
        self, target: Target, *, timeout_s: float, max_bytes: int, clock: Clock, on_strays: Callable[[int], None]
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._on_strays = on_strays
        self._abandoned: set[asyncio.Task[Any]] = set()

    @property
    def abandoned(self) -> int:
        """Reads that timed out, were cancelled, and have not ended yet all the same."""
        return len(self._abandoned)

    async def read(self, resources: Sequence[str]) -> list[Answer]:
        """One answer a resource, in the order asked."""
        asked_at = self._clock.now()
        given = await self._outcome(self._observe(list(resources)))
        if isinstance(given, Failure):
            return [unknown(resource, given.result, given.reason, asked_at) for resource in resources]
        count = strays(resources, given)
        if count:
            self._on_strays(count)
        return await self._checked(resources, given, asked_at)

    async def page(self, cursor: str | None, is_wanted: Callable[[str], bool]) -> Page | Failure:
        """One page of all that the target has: what it says of the resources that are wanted."""
        asked_at = self._clock.now()
        given: object = await self._outcome(self._scan(cursor))
        if isinstance(given, Failure):
            return given
        if not isinstance(given, ScanPage) or not isinstance(given.observations, list):
            return Failure("malformed", "The adapter answered with something that is no page.")
        items: list[Any] = given.observations
        named = dict.fromkeys(item.resource for item in items if isinstance(item, Observation))
        wanted = [resource for resource in named if is_wanted(resource)]
        return Page(await self._checked(wanted, given.observations, asked_at), len(given.observations), given.cursor)

    async def _checked(self, resources: Sequence[str], given: object, asked_at: Instant) -> list[Answer]:
        checked = []
        for answer in answers(resources, given, asked_at, self._max_bytes):
            checked.append(answer)
            if len(checked) % _SLICE == 0:
                await asyncio.sleep(0)
        return checked

    async def _observe(self, resources: list[str]) -> list[Observation]:
        """The adapter's call, so that what it raises before it has begun to wait is its failure too."""
        return await self._target.observe(resources)

    async def _scan(self, cursor: str | None) -> ScanPage:
        assert isinstance(self._target, ScanningTarget)
        return await self._target.scan(cursor)

    async def _outcome(self, work: Coroutine[Any, Any, T]) -> T | Failure:
        call = asyncio.create_task(work)
        try:
            await asyncio.wait((call,), timeout=self._timeout_s)
        finally:
            if not call.done():
                self._abandon(call)
        if not call.done():
            return Failure("timeout", f"The target gave no answer within {self._timeout_s:g} s.")
        fault = _fault(call)
        return call.result() if fault is None else Failure("failed", fault)

    def _abandon(self, call: asyncio.Task[Any]) -> None:
        """Cancels a read without waiting for it: an adapter that doesn't heed this must not hold up its target's others."""
        self._abandoned.add(call)
        call.add_done_callback(self._ended)
        call.cancel()

    def _ended(self, call: asyncio.Task[Any]) -> None:
        self._abandoned.discard(call)
        if not call.cancelled() and call.exception() is not None:
            logger.debug("a read that had timed out ended with an error", exc_info=call.exception())


def _fault(call: asyncio.Task[Any]) -> str | None:
    """Why a call that is done has no answer; None where it has one."""
    if call.cancelled():
        return "The adapter cancelled the read by itself."
    error = call.exception()
    if error is None:
        return None
    if isinstance(error, TimeoutError):
        return "The target gave no answer in the adapter's own time."
    lines = str(error).strip().splitlines() or [""]
    return f"The adapter failed: {type(error).__name__}: {lines[0][:_MESSAGE_CHARACTERS]}".rstrip(": ")
