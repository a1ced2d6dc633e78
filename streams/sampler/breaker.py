"""The circuit breaker of one target: pure decisions, without a clock.

    closed ──failures running──▶ open ──after its pause──▶ half-open ──probe succeeded──▶ closed
                                   ▲                            │
                                   └─────── probe failed ───────┘   (and the pause doubles)

Every call that was admitted must be ended with `succeeded`, `failed` or `abandoned`. Calls that began before the breaker last
changed its state say nothing about the state it is in: their ends are ignored.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from reconciler.values.instant import SECOND, Instant

State: TypeAlias = Literal["closed", "half_open", "open"]


class BreakerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, and for how long, in microseconds."""

    failures: int = 5
    """Calls that fail, running, after which it opens."""
    pause_first: int = 10 * SECOND
    pause_cap: int = 120 * SECOND


class Permit(msgspec.Struct, frozen=True):
    """The admission of one call."""

    age: int
    is_probe: bool


class Breaker:
    """Keeps a target that doesn't answer from being asked again and again."""

    def __init__(self, limits: BreakerLimits) -> None:
        self._limits = limits
        self._state: State = "closed"
        self._age = 0  # grows with each change of state
        self._failures = 0
        self._pause = limits.pause_first
        self._opens_at: Instant = 0
        self._probing = False

    @property
    def state(self) -> State:
        """As of the last call."""
        return self._state

    def ready_in(self, now: Instant) -> int | None:
        """Microseconds until a call would be admitted, 0 for at once; None while that hangs on a probe that is under way."""
        if self._state == "open":
            # Never longer than the pause, also where the clock was set back meanwhile.
            return min(max(0, self._opens_at - now), self._pause)
        return None if self._probing else 0

    def admit(self, now: Instant) -> Permit | None:
        """Admits a call, or doesn't. A half-open breaker admits one at a time."""
        if self.ready_in(now) != 0:
            return None
        if self._state == "open":
            self._enter("half_open")
        self._probing = self._state == "half_open"
        return Permit(self._age, self._probing)

    def succeeded(self, permit: Permit) -> None:
        """The target answered."""
        if permit.age != self._age:
            return
        self._failures = 0
        if permit.is_probe:
            self._pause = self._limits.pause_first
            self._enter("closed")

    def failed(self, permit: Permit, now: Instant) -> None:
        """The target didn't answer, or with an error."""
        if permit.age != self._age:
            return
        self._failures += 1
        if permit.is_probe:
            self._pause = min(2 * self._pause, self._limits.pause_cap)
        if permit.is_probe or self._failures >= self._limits.failures:
            self._opens_at = now + self._pause
            self._enter("open")

    def abandoned(self, permit: Permit) -> None:
        """The call ended in a way that says nothing about the target."""
        if permit.age == self._age:
            self._probing = False

    def _enter(self, state: State) -> None:
        self._state = state
        self._age += 1
        self._failures = 0
        self._probing = False
