"""The times of a contract as the sampler uses them. Pure; everything in microseconds."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Protocol

import msgspec

from reconciler.machines.sampling import SamplingNeeds
from reconciler.values.instant import SECOND, Instant


class SampleTiming(msgspec.Struct, frozen=True):
    """The times that rule the sampling of one resource type, in microseconds."""

    period: int
    """Every resource is read once in it."""
    settle: int
    """After a write, until an observation can be judged."""
    heartbeat: int
    """What is published again after this long, though it didn't change."""


class ContractTiming(Protocol):
    """The part of a contract that rules sampling, in seconds."""

    @property
    def sample_every_s(self) -> float: ...
    @property
    def settle_s(self) -> float: ...
    @property
    def pre_state_max_age_s(self) -> float: ...


def sample_timing(timing: ContractTiming, heartbeat_periods: int) -> SampleTiming:
    """The times of a contract.

    The heartbeat comes after so many periods, but always twice within the age up to which an observation may serve as the
    pre-state of an action: what didn't change must not grow too old to be a pre-state only because nobody says so.
    """
    return _sample_timing(timing.sample_every_s, timing.settle_s, timing.pre_state_max_age_s, heartbeat_periods)


@lru_cache(maxsize=1024)
def _sample_timing(every_s: float, settle_s: float, pre_state_max_age_s: float, heartbeat_periods: int) -> SampleTiming:
    period = max(1, round(every_s * SECOND))
    heartbeat = min(heartbeat_periods * period, round(pre_state_max_age_s * SECOND / 2))
    return SampleTiming(period=period, settle=round(settle_s * SECOND), heartbeat=heartbeat)


RECORD_CLOCK: Final = 1_000
"""Records carry their time in whole milliseconds, and no observation counts as later than its record: one that was made at an
instant may count as made a millisecond before."""


def ready_at(needs: SamplingNeeds, timing: SampleTiming) -> Instant | None:
    """From when on an observation of the resource can be judged; None where it always can."""
    if needs.last_write_at is None and needs.in_flight_until is None:
        return None
    settled_at = 0 if needs.last_write_at is None else needs.last_write_at + timing.settle
    return max(settled_at, needs.in_flight_until or 0) + RECORD_CLOCK
