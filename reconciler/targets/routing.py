"""From resource keys to what an adapter asks its target for: sorted by type, with what can't be asked answered at once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence

from reconciler.records import Observation
from reconciler.targets.answers import unknown
from reconciler.values.errors import InputError
from reconciler.values.instant import Instant
from reconciler.values.resource_key import ResourceKey, parse_resource_key


def addressed(resource: str, system: str, types: Collection[str]) -> ResourceKey | str:
    """The parts of a key that this target answers for, or the reason why it doesn't."""
    try:
        key = parse_resource_key(resource)
    except InputError as error:
        return str(error)
    if key.system != system:
        return f"this target is the system {system!r}, not {key.system!r}"
    if key.type not in types:
        return f"the configuration of {system!r} says nothing about the type {key.type!r}"
    return key


def by_type(
    resources: Sequence[str], system: str, types: Collection[str], observed_at: Instant
) -> tuple[dict[str, dict[str, str]], dict[str, Observation]]:
    """Type -> id -> resource key for what can be asked, and the unknown observations of the rest."""
    wanted: dict[str, dict[str, str]] = {}
    answered: dict[str, Observation] = {}
    for resource in resources:
        key = addressed(resource, system, types)
        if isinstance(key, str):
            answered[resource] = unknown(resource, key, observed_at)
        elif (first := wanted.setdefault(key.type, {}).setdefault(key.id, resource)) != resource:
            answered[resource] = unknown(resource, f"the resource is written as {first!r} too", observed_at)
    return wanted, answered


def chunks(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The ids in portions of at most `size`."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def write_cursor(*parts: str) -> str:
    """A scan's place as text."""
    return json.dumps(parts)


def read_cursor(cursor: str, count: int) -> list[str]:
    """The parts of a place that `write_cursor` wrote. Raises InputError for any other text."""
    try:
        parts = json.loads(cursor)
    except ValueError:
        parts = None
    if not isinstance(parts, list) or len(parts) != count or not all(isinstance(part, str) for part in parts):
        raise InputError(f"the cursor {cursor[:80]!r} is none that this target gave; begin the scan again without one")
    return parts
