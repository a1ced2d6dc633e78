"""The port to a target system: a small async protocol that every adapter implements.

An adapter never raises for what a target does to it: an observation that can't be had is an observation with
``exists=None`` and a reason, a command that can't be applied is an outcome. It raises only for a broken configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from reconciler.records import Command, Observation, Outcome, Record


class TargetDescription(Record, frozen=True, kw_only=True):
    """What a target is, for people and for the sampler's bounds."""

    system: str
    kind: str
    can_apply: bool
    can_scan: bool
    compare_and_set: bool
    deduplicates: bool
    bulk_size: int
    """How many resources one `observe` call may name."""


class ScanPage(Record, frozen=True, kw_only=True):
    """One page of all the resources of a target; ``cursor`` None is the last."""

    observations: list[Observation]
    cursor: str | None = None


@runtime_checkable
class Target(Protocol):
    """A target system as we reach it."""

    def describe(self) -> TargetDescription:
        """What this target is. No I/O."""
        ...

    async def observe(self, resources: Sequence[str]) -> list[Observation]:
        """One observation a resource key, in the order asked. What can't be read is unknown (``exists=None``) with its reason;
        a resource that the target says isn't there has ``exists=False``. Never raises for the target's failures."""
        ...

    async def close(self) -> None:
        """Gives back connections."""
        ...


@runtime_checkable
class ScanningTarget(Target, Protocol):
    """A target that can list what it holds."""

    async def scan(self, cursor: str | None) -> ScanPage:
        """One page, from the start where cursor is None. A failed page raises TargetUnavailable: a partial list is no list."""
        ...


@runtime_checkable
class ApplyingTarget(Target, Protocol):
    """A target that we host the reversal for."""

    async def apply(self, command: Command) -> Outcome:
        """Applies a command with compare-and-set, once however often it is given (by ``command_id``), and says what became
        of it, with what was observed after. Every change applies, or none."""
        ...


class TargetUnavailable(Exception):
    """The target could not be read just now."""
