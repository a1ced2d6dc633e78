"""Random JSON and places in it, drawn by whole numbers only: strategies made anew for each draw take most of a test's time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias, TypeVar

from hypothesis import strategies as st

from reconciler.values.json_value import Absent, Json

Place: TypeAlias = tuple[str, ...]

_NAMES = ("a", "b", "c", "", "a/b", "~")
_SCALARS: tuple[Json, ...] = (None, True, 0, 1, 1.0, -0.0, "1", "", "x", [], [1], [1, {"a": None}], 2**53 + 1)

_T = TypeVar("_T")


@cache
def _numbers(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, count - 1)


class Dice:
    """Throws of one hypothesis `draw`."""

    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        self._draw = draw

    def below(self, count: int) -> int:
        return self._draw(_numbers(count))

    def one_in(self, count: int) -> bool:
        return self.below(count) == count - 1

    def pick(self, items: Sequence[_T]) -> _T:
        return items[self.below(len(items))]

    def some(self, items: Sequence[_T], at_least: int = 0) -> list[_T]:
        """Some of the items, in any order."""
        left, taken = list(items), []
        for _ in range(at_least + self.below(len(left) - at_least + 1)):
            taken.append(left.pop(self.below(len(left))))
        return taken

    def value(self, depth: int = 2) -> Json:
        return self.object(depth - 1) if depth and self.below(2) else self.pick(_SCALARS)

    def object(self, depth: int = 2) -> dict[str, Json]:
        return {self.pick(_NAMES): self.value(depth) for _ in range(self.below(4))}

    def anywhere(self) -> Place:
        return tuple(self.pick(_NAMES) for _ in range(1 + self.below(3)))

    def place(self, document: Json | Absent) -> Place:
        """A place in the document, or next to what is there, or anywhere."""
        there = places_in(document)
        match self.below(4) if there else 3:
            case 0 | 1:
                return self.pick(there)
            case 2:
                return (*self.pick(there), self.pick(_NAMES))
            case _:
                return self.anywhere()


def places_in(value: Json | Absent, tokens: Place = ()) -> list[Place]:
    """Every place at which something is, below the top."""
    if not isinstance(value, dict):
        return []
    found = []
    for name, member in value.items():
        found += [(*tokens, name), *places_in(member, (*tokens, name))]
    return found
