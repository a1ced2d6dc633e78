"""Cancellations that a library has lost."""

from __future__ import annotations

import asyncio


def raise_if_cancelled() -> None:
    """Raises CancelledError in a task that was cancelled and goes on all the same. To be called in every turn of a loop that is
    ended by cancellation alone.

    Before Python 3.12, `asyncio.wait_for` hides a cancellation that comes just as what it waits for is done (gh-86296); Redis'
    client sends with it.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
