"""Making the answer to a question: dossiers of the table, in parts that fit into records.

What an answer takes of memory is bounded by a part, not by the answer: a large one is measured first, and read once more
while it is sent. The event loop gets its turn between any two resources.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Final, TypeAlias

import msgspec

from reconciler.records import Dossier

PART_BYTES: Final = 512 * 1024
PART_DOSSIERS: Final = 500
PART_NAMES: Final = 5_000
_SLICE: Final = 50
"""Resources whose offsets are asked of the index at once."""

Offsets: TypeAlias = dict[str, dict[str, int]]
"""Where the actions of resources stand in the ledger."""

OffsetsOf: TypeAlias = Callable[[Sequence[str]], Awaitable[Offsets]]
DossierOf: TypeAlias = Callable[[str, dict[str, int]], Dossier | None]
"""The dossier of a resource, None where the table has none."""


class Part(msgspec.Struct, frozen=True):
    """One part of an answer: some of the operations that matched, and of the resources; their dossiers where those are in
    hand."""

    matched: list[str]
    resources: list[str]
    dossiers: list[Dossier] | None = None


async def parts_of(
    matched: Sequence[str], resources: Sequence[str], offsets_of: OffsetsOf, dossier_of: DossierOf
) -> list[Part]:
    """The parts of an answer: at least one, also where there is nothing to tell."""
    told = [list(matched[start : start + PART_NAMES]) for start in range(0, len(matched), PART_NAMES)]
    groups, first = await _groups(resources, offsets_of, dossier_of)
    nothing: list[str] = []
    parts = [Part(names, group) for names, group in zip_longest(told, groups, fillvalue=nothing)]
    if len(parts) == 1 and first is not None:
        return [Part(parts[0].matched, parts[0].resources, first)]
    return parts


async def _groups(
    resources: Sequence[str], offsets_of: OffsetsOf, dossier_of: DossierOf
) -> tuple[list[list[str]], list[Dossier] | None]:
    """The resources in groups that fit into one record each, and the dossiers of the first where it is the only one."""
    groups: list[list[str]] = []
    names: list[str] = []
    first: list[Dossier] | None = []
    size = 0
    for piece in _slices(resources):
        offsets = await offsets_of(piece)
        for resource in piece:
            dossier = dossier_of(resource, offsets.get(resource, {}))
            if dossier is None:
                continue
            bytes_of_it = len(msgspec.json.encode(dossier))
            if names and (size + bytes_of_it > PART_BYTES or len(names) == PART_DOSSIERS):
                groups.append(names)
                names, first, size = [], None, 0
            names.append(resource)
            size += bytes_of_it
            if first is not None:
                first.append(dossier)
            await asyncio.sleep(0)
    groups.append(names)
    return groups, first


async def dossiers_of(part: Part, offsets_of: OffsetsOf, dossier_of: DossierOf) -> list[Dossier]:
    """The dossiers of a part."""
    if part.dossiers is not None:
        return part.dossiers
    dossiers: list[Dossier] = []
    for piece in _slices(part.resources):
        offsets = await offsets_of(piece)
        for resource in piece:
            dossier = dossier_of(resource, offsets.get(resource, {}))
            if dossier is not None:
                dossiers.append(dossier)
            await asyncio.sleep(0)
    return dossiers


def _slices(resources: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(resources), _SLICE):
        yield resources[start : start + _SLICE]
