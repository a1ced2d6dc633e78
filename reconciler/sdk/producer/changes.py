"""What an action wrote, from two trees; and what stood there before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from reconciler.json_form import nested_fields
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, check_value, parse, same
from reconciler.values.pointer import Tokens, path_of


class Written(NamedTuple):
    """The writes of an action, each path in one of the two."""

    set: dict[str, Json]
    unset: list[str]


def own_copy(value: Json) -> Json:
    """A copy that later changes of the caller's value don't reach. Raises InputError for what is no exact JSON value."""
    check_value(value)
    return parse(canonical(value))


def tree_of(fields: Mapping[str, Json]) -> dict[str, Json]:
    """The nested tree of fields that are given as plain nested JSON, as paths, or as both. Raises InputError."""
    return nested_fields(own_copy(dict(fields)))


def changes_between(before: dict[str, Json], after: dict[str, Json]) -> Written:
    """The fewest and smallest writes that lead from one tree to the other: objects in both are compared member by member."""
    written = Written({}, [])
    _compare((), before, after, written)
    return written


def _compare(place: Tokens, before: dict[str, Json], after: dict[str, Json], written: Written) -> None:
    for name in sorted(before.keys() | after.keys()):
        here = (*place, name)
        old, new = before.get(name, ABSENT), after.get(name, ABSENT)
        if new is ABSENT:
            written.unset.append(path_of(here))
        elif isinstance(old, dict) and isinstance(new, dict):
            _compare(here, old, new, written)
        elif not same(old, new):
            written.set[path_of(here)] = new


def members(tree: dict[str, Json]) -> dict[str, Json]:
    """A tree as one path a top-level member: how a created or deleted resource is told."""
    return {path_of((name,)): value for name, value in tree.items()}


def values_before(tree: dict[str, Json], written: Iterable[Tokens]) -> dict[str, Json]:
    """What an action's `before` has to say about the places that it wrote.

    A place that was absent is left out. Where something above it was no object, that is what the write replaced, and is
    named instead.
    """
    before: dict[str, Json] = {}
    for tokens in written:
        depth, value = _deepest(tree, tokens)
        if value is not ABSENT:
            before[path_of(tokens[:depth])] = value
    return before


def _deepest(tree: dict[str, Json], tokens: Tokens) -> tuple[int, Json | Absent]:
    node: Json = tree
    for depth, token in enumerate(tokens):
        if not isinstance(node, dict):
            return depth, node
        if token not in node:
            return depth, ABSENT
        node = node[token]
    return len(tokens), node
