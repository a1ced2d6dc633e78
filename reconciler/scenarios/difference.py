"""What is expected against what was computed, part by part, as a person wants to read it.

A mapping is compared by the keys that are expected, a list whole and in its order, its members likewise; anything else is
equal or not. Where the text `absent` is expected, nothing may be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from reconciler.values.json_value import ABSENT, Absent, Json, canonical

NOTHING: Final = "absent"
_LONGEST: Final = 2_000  # characters of one side that are shown


class Difference(msgspec.Struct, frozen=True):
    """One place where two results differ; each side as JSON, or ABSENT where nothing is."""

    place: str
    expected: Json | Absent
    actual: Json | Absent

    def told(self) -> list[str]:
        """The difference as lines of text."""
        return [f"{self.place}", f"  expected  {_shown(self.expected)}", f"  but got   {_shown(self.actual)}"]


def differences(expected: Json | Absent, actual: Json | Absent, place: str) -> Iterator[Difference]:
    """Every difference, in the order of what is expected."""
    if expected is ABSENT or (expected == NOTHING and actual is ABSENT):
        if actual is not ABSENT:
            yield Difference(place, ABSENT, actual)
    elif isinstance(expected, dict) and isinstance(actual, dict):
        for name, value in expected.items():
            yield from differences(value, actual.get(name, ABSENT), f"{place}.{name}" if place else name)
    elif isinstance(expected, list) and isinstance(actual, list):
        for index in range(max(len(expected), len(actual))):
            one = expected[index] if index < len(expected) else ABSENT
            other = actual[index] if index < len(actual) else ABSENT
            yield from differences(one, other, f"{place}[{index}]")
    elif actual is ABSENT or canonical(expected) != canonical(actual):
        yield Difference(place, ABSENT if expected == NOTHING else expected, actual)


def exact(expected: Json, actual: Json | Absent, place: str) -> Iterator[Difference]:
    """The same for mappings that are whole: what isn't expected may not be there."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in {**expected, **actual}:
            one, other = expected.get(name, ABSENT), actual.get(name, ABSENT)
            if one is ABSENT or other is ABSENT:
                yield Difference(f"{place}.{name}", one, other)
            else:
                yield from exact(one, other, f"{place}.{name}")
    elif actual is ABSENT or canonical(expected) != canonical(actual):
        yield Difference(place, expected, actual)


def _shown(value: Json | Absent) -> str:
    if value is ABSENT:
        return "nothing"
    text = canonical(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
