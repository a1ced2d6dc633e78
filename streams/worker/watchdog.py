"""What looks after a worker from a thread of its own, and ends it when it no longer gets on.

Consumers of Kafka have been seen to die without a word (rows 5 and 6 in docs/worker.md); a worker that is stuck holds its
partitions from others. Four things are looked at: the event loop's turning, the age of finished work that isn't committed,
partitions with waiting records and no progress, and rebalances that don't end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from streams.exits import ExitCode
from streams.log_ends import Place
from streams.settings import Settings

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_ENDS_EVERY_S = 5.0


class Observed(Protocol):
    """What the watchdog looks at. Called from its thread: plain reads only."""

    def not_ready_s(self) -> float:
        """For how long the worker hasn't been ready."""
        ...

    def uncommitted_s(self) -> float:
        """Age of the oldest finished work that isn't committed."""
        ...

    def done(self) -> Mapping[Place, int]:
        """Up to where each partition in our hands is finished."""
        ...


class Verdict(NamedTuple):
    """Why the worker must end."""

    code: ExitCode
    sentence: str


class Watchdog:
    """`look` is the whole judgement; `start` makes a thread that calls it, and `end` with its verdict."""

    def __init__(
        self,
        settings: Settings,
        observed: Observed,
        ends: Callable[[Iterable[Place]], Mapping[Place, int]],
        end: Callable[[ExitCode, str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._observed = observed
        self._ends = ends
        self._end = end
        self._clock = clock
        self._beaten_at = clock()
        self._ends_at = float("-inf")
        self._known_ends: dict[Place, int] = {}
        self._progress: dict[Place, tuple[int, float]] = {}
        self._stopped = threading.Event()

    def lags(self) -> dict[Place, int]:
        """Records that wait, by topic and partition, as of the last look."""
        done = self._observed.done()
        return {place: max(0, end - done[place]) for place, end in self._known_ends.copy().items() if place in done}

    def beat(self) -> None:
        """The event loop turns."""
        self._beaten_at = self._clock()

    async def beating(self) -> None:
        """Beats from the event loop until it is cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(_LOOK_EVERY_S)

    def start(self) -> None:
        """Begins to look."""
        self.beat()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Ends looking, as for an orderly end of the worker."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            verdict = self.look()
            if verdict is not None and not self._stopped.is_set():
                self._end(verdict.code, verdict.sentence)
                return

    def look(self) -> Verdict | None:
        """One look at everything."""
        return self._loop_verdict() or self._rebalance_verdict() or self._commit_verdict() or self._progress_verdict()

    def _loop_verdict(self) -> Verdict | None:
        age_s = self._clock() - self._beaten_at
        if age_s <= self._settings.loop_max_age_s:
            return None
        return Verdict(ExitCode.STALLED, f"the event loop hasn't turned for {age_s:.0f} s")

    def _rebalance_verdict(self) -> Verdict | None:
        age_s = self._observed.not_ready_s()
        if age_s <= self._settings.rebalance_max_age_s:
            return None
        return Verdict(ExitCode.STALLED, f"a rebalance with its recovery hasn't ended for {age_s:.0f} s")

    def _commit_verdict(self) -> Verdict | None:
        age_s = self._observed.uncommitted_s()
        if age_s <= self._settings.commit_max_age_s or self._observed.not_ready_s() > 0:
            return None
        return Verdict(ExitCode.COMMIT, f"finished work of {age_s:.0f} s ago isn't committed yet")

    def _progress_verdict(self) -> Verdict | None:
        now = self._clock()
        if self._observed.not_ready_s() > 0:
            self._progress.clear()
            return None
        done = self._observed.done()
        self._refresh_ends(done, now)
        for place, offset in done.items():
            before, since = self._progress.get(place, (None, now))
            if offset != before or offset >= self._known_ends.get(place, offset):
                self._progress[place] = (offset, now)
            elif now - since > self._settings.progress_max_age_s:
                waiting = self._known_ends[place] - offset
                return Verdict(
                    ExitCode.STALLED,
                    f"{place[0]}/{place[1]} has {waiting} records waiting and made no progress for {now - since:.0f} s",
                )
        for place in self._progress.keys() - done.keys():
            del self._progress[place]
        return None

    def _refresh_ends(self, places: Iterable[Place], now: float) -> None:
        if now - self._ends_at < _ENDS_EVERY_S:
            return
        self._ends_at = now
        self._known_ends = dict(self._ends(places))
