"""Chance that repeats itself: every throw is a function of the seed, and every fault has a name by which it can be left out.

Only `Random.random` is used, which gives the same numbers on every version of Python.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeVar

from reconciler.values.instant import SECOND, Instant

T = TypeVar("T")

MILLISECOND: Final = SECOND // 1000


class Chance:
    """One stream of throws, apart from all others."""

    __slots__ = ("_throw",)

    def __init__(self, *names: object) -> None:
        self._throw = random.Random("/".join(map(str, names))).random

    def hits(self, rate: float) -> bool:
        """True in so many of all cases (0 to 1)."""
        return self._throw() < rate

    def below(self, count: int) -> int:
        """One of 0 … count - 1."""
        return int(self._throw() * count)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], at_most: int) -> list[T]:
        """One to so many of the items, each once."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(1 + self.below(min(at_most, len(left))))]

    def duration(self, low_s: float, high_s: float) -> int:
        """Microseconds between two numbers of seconds, rather few than many."""
        throw = self._throw()
        return int((low_s + (high_s - low_s) * throw * throw) * SECOND)

    def instant(self, low: Instant, high: Instant) -> Instant:
        """An instant between two."""
        return low + int(self._throw() * (high - low))


class Faults:
    """Decides which opportunity for a fault becomes one.

    Opportunities of a kind are counted, and have a stream of their own: leaving a fault out moves no other of its kind. With
    `only`, none but those named in it strike.
    """

    def __init__(self, seed: int, rates: Mapping[str, float], only: Collection[str] | None = None) -> None:
        self._seed = seed
        self._rates = rates
        self._only = None if only is None else frozenset(only)
        self._streams: dict[str, Chance] = {}
        self._counts: dict[str, int] = {}
        self.struck: list[str] = []
        """The names of those that did, in order."""
        self.is_over = False
        """From then on nothing fails any more."""

    def strike(self, kind: str) -> Chance | None:
        """The chance that settles the fault's details, or None where all goes well this time."""
        rate = self._rates.get(kind, 0.0)
        if self.is_over or not rate:
            return None
        stream = self._streams.get(kind)
        if stream is None:
            stream = self._streams[kind] = Chance(self._seed, kind)
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        if not stream.hits(rate):
            return None
        return self.detail(f"{kind}#{number}")

    def detail(self, name: str) -> Chance | None:
        """The chance of something that happens once, such as `edit#3`; None where it is to be left out."""
        if self._only is not None and name not in self._only:
            return None
        self.struck.append(name)
        return Chance(self._seed, name)
