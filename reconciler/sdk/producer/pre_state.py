"""The state of a resource before an action, from whatever the caller can ask: a target, or a function."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from reconciler.records import Observation
from reconciler.sdk.producer.changes import tree_of
from reconciler.targets.port import Target
from reconciler.values.errors import InputError
from reconciler.values.json_value import ABSENT, Absent, Json

Answer: TypeAlias = Observation | Mapping[str, Json] | Absent | None
"""What an observing function may say: an observation, the fields (nested, as paths, or both), ABSENT where the resource isn't
there, None where that can't be said."""

Observe: TypeAlias = Target | Callable[[str], Answer]
"""Where a `Producer` learns the state of a resource: a target, or a function of the resource's key."""

AsyncObserve: TypeAlias = Target | Callable[[str], Answer | Awaitable[Answer]]
"""The same for an `AsyncProducer`: the function may be a coroutine function."""


async def observed(observe: AsyncObserve, resource: str) -> Observation:
    """The observation of a resource. What a function raises goes through; a target doesn't raise."""
    if isinstance(observe, Target):
        (observation,) = await observe.observe([resource])
        return observation
    answer = observe(resource)
    if inspect.isawaitable(answer):
        answer = await answer
    return as_observation(resource, answer)


def as_observation(resource: str, answer: Answer) -> Observation:
    """The observation that a function's answer means. Raises InputError for one that means nothing."""
    if isinstance(answer, Observation):
        return answer
    if answer is None:
        return Observation(resource=resource, exists=None, reason="the function that observes it did not know")
    if answer is ABSENT:
        return Observation(resource=resource, exists=False)
    if isinstance(answer, Mapping):
        return Observation(resource=resource, exists=True, fields=tree_of(answer))
    raise InputError(
        f"the function that observes {resource} returned {type(answer).__name__}; it must return an Observation, a mapping "
        "of fields, ABSENT or None"
    )


class TargetLoop:
    """An event loop in a thread of its own, from the first use on: a target's connections belong to one loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._used: dict[int, Target] = {}

    def observe(self, target: Target, resource: str) -> Observation:
        """Asks a target, and waits for its answer."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="reconciler-targets", daemon=True)
                self._thread.start()
            self._used[id(target)] = target
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(observed(target, resource), loop).result()

    def close(self) -> None:
        """Closes the targets that were used here and ends the loop."""
        with self._lock:
            if self._loop is None or self._thread is None:
                return
            asyncio.run_coroutine_threadsafe(self._close_targets(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    async def _close_targets(self) -> None:
        for target in self._used.values():
            await target.close()
        self._used.clear()
