"""The port: one hand at a time works on a command, and what it did is there for the next.

Before a write goes out its intent is kept: what the target looked like, and what it will look like. Whoever finds an intent
without a decision, because the one before was stopped or got no answer, can then tell whether the write arrived.
"""

from __future__ import annotations

from typing import Protocol

from reconciler.records import Record
from reconciler.targets.first_outcome import FirstOutcome


class Intent(Record, frozen=True, kw_only=True):
    """A write that was about to be sent."""

    guard: str | None
    """The version that it was made for; None: the resource wasn't there."""
    wanted: str
    """A digest of what stands at the places that it writes, once it is done."""


class Entry(Record, frozen=True, kw_only=True):
    """What is known of a command."""

    intent: Intent | None = None
    first: FirstOutcome | None = None


class Held(Exception):
    """Somebody else is at work on the command, or has taken it over."""


class StoreUnavailable(Exception):
    """The store can't be reached, so nothing may be written."""


class DedupStore(Protocol):
    """Keeps what is known of commands."""

    shared: bool
    """Whether it outlives the process, and other processes see it."""

    async def claim(self, command_id: str, owner: str, lease_s: float) -> Entry:
        """Takes the command for this owner until `release`, or the lease's end. Raises Held, StoreUnavailable."""
        ...

    async def keep(self, command_id: str, owner: str, entry: Entry) -> None:
        """Writes down what is known. Raises Held where the lease ended and another took over, StoreUnavailable."""
        ...

    async def release(self, command_id: str, owner: str) -> None:
        """Gives the command free; never fails, as the lease ends by itself."""
        ...

    async def close(self) -> None:
        """Gives back connections."""
        ...
