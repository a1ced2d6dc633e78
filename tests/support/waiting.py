"""Waiting for a condition: polled against a deadline, so that no test's correctness rests on a sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_POLL_INTERVAL_S = 0.05

Answer = TypeVar("Answer")


def wait_until(condition: Callable[[], Answer], *, deadline_s: float, what: str) -> Answer:
    """The first truthy answer of `condition`. Raises TimeoutError, naming `what`, when there is none within `deadline_s`."""
    end = time.monotonic() + deadline_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise TimeoutError(f"{what}: not within {deadline_s:g} s; the last answer was {answer!r}")
        time.sleep(_POLL_INTERVAL_S)


async def wait_until_async(condition: Callable[[], Awaitable[Answer]], *, deadline_s: float, what: str) -> Answer:
    """`wait_until` for a condition that is awaited."""
    end = time.monotonic() + deadline_s
    while True:
        answer = await condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise TimeoutError(f"{what}: not within {deadline_s:g} s; the last answer was {answer!r}")
        await asyncio.sleep(_POLL_INTERVAL_S)
