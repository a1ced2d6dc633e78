"""The consumer's own books: what was read, what is done, what is committed.

Faust's acknowledgement list commits past unfinished messages (#606) and records commits that the broker refused (#316);
neither is used here. Three rules stand instead: chunks of a partition follow one another without a gap; only a finished
batch moves what may be committed; and only the broker's yes moves what is recorded as committed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class OffsetGap(Exception):
    """Records were skipped, or came out of order."""


class Ledger(Generic[P]):
    """Offsets by topic partition; all offsets are of the next record. `clock` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next_read: dict[P, int] = {}
        self._done: dict[P, int] = {}
        self._committed: dict[P, int] = {}
        self._uncommitted_since: dict[P, float] = {}

    def sought(self, positions: Mapping[P, int]) -> None:
        """The consumer was put to these committed offsets: reading goes on exactly there."""
        self._next_read.update(positions)
        self._committed.update(positions)
        for place in positions:
            self._done.pop(place, None)
            self._uncommitted_since.pop(place, None)

    def read(self, place: P, start: int, end: int) -> None:
        """A chunk was read. Raises OffsetGap unless it begins where the last one ended, or where reading was put."""
        expected = self._next_read.get(place)
        if expected is None:
            raise OffsetGap(f"{place} was read at {start} before it was sought")
        if start != expected or end < start:
            raise OffsetGap(f"{place} was to be read on from {expected}, but what came is [{start}, {end})")
        self._next_read[place] = end

    def finished(self, place: P, end: int) -> None:
        """All records before `end` are durable. Raises OffsetGap when this would go backwards."""
        before = self._done.get(place, self._committed.get(place, 0))
        if end < before:
            raise OffsetGap(f"{place} was finished up to {before} and then to {end}")
        if end == before:
            return
        self._done[place] = end
        self._uncommitted_since.setdefault(place, self._clock())

    def committable(self, assigned: Iterable[P]) -> dict[P, int]:
        """What the broker should be told, of these partitions."""
        return {
            place: self._done[place]
            for place in assigned
            if place in self._done and self._done[place] > self._committed.get(place, -1)
        }

    def accepted(self, offsets: Mapping[P, int]) -> None:
        """The broker accepted a commit of these offsets."""
        now = self._clock()
        for place, offset in offsets.items():
            self._committed[place] = offset
            if self._done.get(place, offset) == offset:
                self._uncommitted_since.pop(place, None)
            else:
                self._uncommitted_since[place] = now

    def forget(self, places: Iterable[P]) -> None:
        """These partitions are no longer ours; to be called after the last commit for them, not before."""
        for place in places:
            for book in (self._next_read, self._done, self._committed, self._uncommitted_since):
                book.pop(place, None)

    def done(self, place: P) -> int | None:
        """Up to where a partition is finished; None before it was sought."""
        return self._done.get(place, self._committed.get(place))

    def committed(self, place: P) -> int | None:
        """Up to where the broker knows of it."""
        return self._committed.get(place)

    def places(self) -> tuple[P, ...]:
        """The partitions in the books."""
        return tuple(self._next_read)

    def oldest_uncommitted_s(self) -> float:
        """Age of the oldest finished work that isn't committed; 0 when there is none."""
        # A copy: the watchdog asks from its own thread.
        since = list(self._uncommitted_since.values())
        return max(0.0, self._clock() - min(since)) if since else 0.0
