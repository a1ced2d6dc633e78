"""One bulk read of a target: never raises, never takes longer than its time-out, whatever the adapter does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from reconciler.records import Observation
from reconciler.targets.port import Target
from streams.sampler.answers import Answer, answers, strays, unknown
from streams.sampler.clock import Clock

logger = logging.getLogger(__name__)

_MESSAGE_CHARACTERS = 200
_SLICE = 50
"""Answers that are checked before the event loop gets its turn: some milliseconds with large resources."""


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
        self._abandoned: set[asyncio.Task[list[Observation]]] = set()

    @property
    def abandoned(self) -> int:
        """Reads that timed out, were cancelled, and have not ended yet all the same."""
        return len(self._abandoned)

    async def read(self, resources: Sequence[str]) -> list[Answer]:
        """One answer a resource, in the order asked."""
        asked_at = self._clock.now()
        call = asyncio.create_task(self._observe(list(resources)))
        try:
            await asyncio.wait((call,), timeout=self._timeout_s)
        finally:
            if not call.done():
                self._abandon(call)
        if not call.done():
            reason = f"The target gave no answer within {self._timeout_s:g} s."
            return [unknown(resource, "timeout", reason, asked_at) for resource in resources]
        fault = _fault(call)
        if fault is not None:
            return [unknown(resource, "failed", fault, asked_at) for resource in resources]
        given = call.result()
        count = strays(resources, given)
        if count:
            self._on_strays(count)
        read = []
        for answer in answers(resources, given, asked_at, self._max_bytes):
            read.append(answer)
            if len(read) % _SLICE == 0:
                await asyncio.sleep(0)
        return read

    async def _observe(self, resources: list[str]) -> list[Observation]:
        """The adapter's call, so that what it raises before it has begun to wait is its failure too."""
        return await self._target.observe(resources)

    def _abandon(self, call: asyncio.Task[list[Observation]]) -> None:
        """Cancels a read without waiting for it: an adapter that doesn't heed this must not hold up its target's others."""
        self._abandoned.add(call)
        call.add_done_callback(self._ended)
        call.cancel()

    def _ended(self, call: asyncio.Task[list[Observation]]) -> None:
        self._abandoned.discard(call)
        if not call.cancelled() and call.exception() is not None:
            logger.debug("a read that had timed out ended with an error", exc_info=call.exception())


def _fault(call: asyncio.Task[list[Observation]]) -> str | None:
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
