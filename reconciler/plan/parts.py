"""A plan in parts, for a record that has a greatest size: ten thousand commands don't fit into one message.

A part is a plan of which some lists hold only some of their items; waves keep their places. ``part`` and ``parts`` say which
of how many it is, and aren't there where one part is all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from reconciler.values.json_value import Json, canonical

PART_BYTES: Final = 400_000
"""How much of a plan goes into one part, as JSON."""


def parts_of(plan: dict[str, Json], part_bytes: int = PART_BYTES) -> list[dict[str, Json]]:
    """The parts of a plan's JSON form."""
    if len(canonical(plan)) <= part_bytes:
        return [plan]
    lists = {name: value for name, value in plan.items() if isinstance(value, list)}
    first = {name: [] if name in lists else value for name, value in plan.items()}
    parts, size = [first], 0
    for name, place, item in _items(lists):
        length = len(canonical(item))
        if size and size + length > part_bytes:
            parts.append({other: [] for other in lists})
            size = 0
        size += length
        _put(parts[-1], name, place, item)
    return [{**part, "part": number, "parts": len(parts)} for number, part in enumerate(parts, 1)]


def joined(parts: Iterable[dict[str, Json]]) -> dict[str, Json]:
    """The whole plan of its parts, in their order."""
    whole: dict[str, Json] = {}
    for part in parts:
        lists = {name: value for name, value in part.items() if isinstance(value, list)}
        for name, value in part.items():
            if name not in ("part", "parts") and name not in whole:
                whole[name] = [] if name in lists else value
        for name, place, item in _items(lists):
            _put(whole, name, place, item)
    return whole


def _items(lists: dict[str, list[Json]]) -> Iterator[tuple[str, int | None, Json]]:
    """Every item of every list; of waves every command, with its wave."""
    for name, items in lists.items():
        for place, item in enumerate(items):
            if name == "waves":
                yield from ((name, place, command) for command in item)
            else:
                yield name, None, item


def _put(part: dict[str, Json], name: str, place: int | None, item: Json) -> None:
    items = part[name]
    if place is None:
        items.append(item)
        return
    while len(items) <= place:
        items.append([])
    items[place].append(item)
