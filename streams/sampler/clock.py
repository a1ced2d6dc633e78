"""The sampler's clocks, given from outside so that tests hold them."""

from __future__ import annotations

import time
from typing import Protocol

from reconciler.values.instant import Instant


class Clock(Protocol):
    """Two clocks: one that says what time it is, and one that never goes back."""

    def now(self) -> Instant:
        """The wall clock, in microseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Instant:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()
