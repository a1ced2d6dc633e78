"""The three-way merge: for each node that an undo changes, what must happen at the target.

With B expected before the undo, D expected after it and A actual, at each node where B and D differ: A = D, nothing to
do; A = B, set D; else a conflict. Three more conflicts: taking away an object in which A has what B doesn't account for,
writing below a node where A is no object though B knew one there, and a deleted resource that stands there again and
differs from the snapshot. Objects are compared as objects and their members one by one; arrays and scalars whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import msgspec

from reconciler.contracts.model import Contract
from reconciler.history.members import equal_members
from reconciler.history.tree import (
    BASE,
    Gone,
    Leaf,
    Node,
    Object,
    Unknown,
    equal,
    is_whole,
    known_value,
    member_of,
    node_of,
)
from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.normalise import equivalent
from reconciler.values.pointer import Tokens, path_of, value_at

Resolution: TypeAlias = Literal["manual", "expected", "actual", "merged"]


class Conflict(msgspec.Struct, frozen=True):
    """Somebody else changed this place since: undoing it would destroy their edit."""

    tokens: Tokens
    before: Json | Absent
    after: Json | Absent
    actual: Json | Absent


class Resolved(msgspec.Struct, frozen=True):
    """How a conflict was decided. `value` is what `merged` puts there."""

    resolution: Resolution
    value: Json | Absent = ABSENT


class Wanted(msgspec.Struct, frozen=True):
    """A change that the target needs: from `actual` to `value`. `step` is what a counter is to be raised by instead."""

    tokens: Tokens
    value: Json | Absent
    actual: Json | Absent
    step: int | float | None = None


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """The merge of one resource. At most one of `removal` and `creation` holds, and `wanted` is then the one at the root."""

    wanted: tuple[Wanted, ...]
    conflicts: tuple[tuple[Conflict, Resolution], ...]
    unchanged: tuple[Tokens, ...]
    unknown: tuple[Tokens, ...]
    """Places whose value before the undone write nobody knows."""
    removal: bool = False
    creation: bool = False


Decide: TypeAlias = Callable[[Conflict], Resolved]


def merge(before: Node, after: Node, actual: Json | Absent, contract: Contract, decide: Decide) -> Merged:
    """Merges an undo with the actual state: the whole tree of the resource, or ABSENT where it doesn't exist."""
    work = _Merge(contract, decide)
    work.resource(before, after, actual)
    wanted = tuple(sorted(work.wanted.values(), key=lambda item: item.tokens))
    return Merged(
        wanted=wanted,
        conflicts=tuple(
            (item, resolved.resolution) for _, (item, resolved) in sorted(work.conflicts.items(), key=_place)
        ),
        unchanged=tuple(sorted(work.unchanged)),
        unknown=tuple(sorted(work.unknown)),
        removal=any(item.tokens == () and item.value is ABSENT for item in wanted),
        creation=any(item.tokens == () and item.value is not ABSENT and item.actual is ABSENT for item in wanted),
    )


def _place(item: tuple[Tokens, object]) -> Tokens:
    return item[0]


class _Merge:
    def __init__(self, contract: Contract, decide: Decide) -> None:
        self._contract = contract
        self._decide = decide
        self.wanted: dict[Tokens, Wanted] = {}
        self.conflicts: dict[Tokens, tuple[Conflict, Resolved]] = {}
        self.unchanged: set[Tokens] = set()
        self.unknown: set[Tokens] = set()

    def resource(self, before: Node, after: Node, actual: Json | Absent) -> None:
        if type(before) is Gone and type(after) is Object and actual is not ABSENT:
            self._stands_again(before, after, actual)
        else:
            self._node((), before, after, actual)

    def _stands_again(self, before: Gone, after: Object, actual: Json) -> None:
        """A deleted resource is there again: the same in every field of the snapshot, or a conflict."""
        if not is_whole(after):
            self.unknown.add(())
            return
        differing = list(self._differing((), after, actual))
        if not differing:
            self.unchanged.add(())
            return
        resolved = self._conflict((), before, after, actual)
        if resolved.resolution == "expected":
            for tokens, value in differing:
                self._want(tokens, value, value_at(actual, tokens))

    def _differing(self, tokens: Tokens, node: Node, actual: Json | Absent) -> Iterator[tuple[Tokens, Json]]:
        """The fields of a snapshot that reality doesn't hold."""
        if type(node) is Object and type(actual) is dict:
            for name, member in node.members.items():
                yield from self._differing((*tokens, name), member, actual.get(name, ABSENT))
        elif type(node) is not Gone and not self._same(tokens, known_value(node), actual):
            yield tokens, known_value(node)

    def _node(self, tokens: Tokens, before: Node, after: Node, actual: Json | Absent) -> None:
        if before is after:
            return
        if type(before) is Object and type(after) is Object:
            self._object(tokens, before, after, actual)
        elif equal(before, after):
            return
        elif type(after) is Unknown:
            self.unknown.add(tokens)
        elif self._is(tokens, after, actual):
            self.unchanged.add(tokens)
            if type(after) is Object and type(actual) is dict:
                self._members(tokens, Gone(BASE), after, actual)
        elif self._is(tokens, before, actual):
            if type(before) is Object and type(actual) is dict:
                self._replace_object(tokens, before, after, actual)
            else:
                self._set(tokens, after, actual)
        else:
            self._settle(tokens, before, after, actual)

    def _object(self, tokens: Tokens, before: Object, after: Object, actual: Json | Absent) -> None:
        if type(actual) is dict:
            self._members(tokens, before, after, actual)
            return
        below = _Merge(self._contract, lambda conflict: Resolved("manual"))
        below._members(tokens, before, after, actual)
        self.unknown |= below.unknown
        if below.wanted or below.conflicts:
            # What D doesn't know of this object was in nobody's hands and is gone with it: its known part is all there is.
            self._settle(tokens, before, node_of(known_value(after), BASE), actual)
        else:
            self.unchanged |= below.unchanged

    def _members(self, tokens: Tokens, before: Node, after: Object, actual: Json | Absent) -> None:
        if not after.closed and (type(before) is not Object or before.closed):
            self.unknown.add(tokens)  # members were overwritten whose values nobody knows
        names = {**(before.members if type(before) is Object else {}), **after.members}
        for name in sorted(names):
            self._node((*tokens, name), member_of(before, name), member_of(after, name), value_at(actual, (name,)))

    def _replace_object(self, tokens: Tokens, before: Object, after: Node, actual: dict[str, Json]) -> None:
        """An object goes, unless reality holds something in it that history doesn't account for. What is to stay of that
        keeps the object, from which only our own members are taken then; a resource stays as it is."""
        resolutions = set()
        added: list[tuple[Tokens, Json | Absent, Json | Absent]] = []
        for place, old, value in self._foreign(tokens, before, actual, self._own(tokens, after)):
            is_member = len(place) == len(tokens) + 1 and type(old) is not Leaf and type(old) is not Object
            if is_member and self._is_map(tokens):
                conflict = Conflict(place, ABSENT, ABSENT, value)
                self.conflicts[place] = (conflict, Resolved("merged", value))
            resolved = self._conflict(place, old, Gone(BASE), value)
            resolutions.add(resolved.resolution)
            if is_member and resolved.resolution in ("expected", "merged"):
                added.append((place, ABSENT if resolved.resolution == "expected" else resolved.value, value))
        if not resolutions - {"expected"}:
            self._set(tokens, after, actual)
        elif "manual" not in resolutions and type(after) is Gone:
            if tokens:
                self._members(tokens, before, Object(BASE, True, {}), actual)
            for place, wanted, value in added:
                if tokens or wanted is not ABSENT:
                    self._want(place, wanted, value)

    def _foreign(
        self, tokens: Tokens, before: Node, actual: dict[str, Json], is_own: Callable[[Tokens, Json], bool]
    ) -> Iterator[tuple[Tokens, Node, Json]]:
        """What reality holds in an object and history doesn't account for: places, what was expected there, what is."""
        for name in sorted(actual):
            place, value = (*tokens, name), actual[name]
            old = member_of(before, name)
            if is_own(place, value):
                continue
            if type(old) is Object and type(value) is dict:
                yield from self._foreign(place, old, value, is_own)
            elif type(old) is Unknown or not self._is(place, old, value):
                yield place, old, value

    def _own(self, tokens: Tokens, after: Node) -> Callable[[Tokens, Json], bool]:
        """What is nobody's in an object that goes altogether: what the target fills in itself, and what archiving puts there,
        or has put there; also in objects that hold nothing else."""
        if type(after) is not Gone:
            return lambda place, value: False
        rule, create = self._contract.rule, self._contract.undo.create
        archived = create.set if not tokens and create.by == "archive" else {}

        def is_own(place: Tokens, value: Json) -> bool:
            path = path_of(place)
            if rule(path).generated or (path in archived and same(archived[path], value)):
                return True
            return type(value) is dict and bool(value) and all(is_own((*place, name), value[name]) for name in value)

        return is_own

    def _settle(self, tokens: Tokens, before: Node, after: Node, actual: Json | Absent) -> None:
        """A conflict at this node, decided."""
        resolved = self._conflict(tokens, before, after, actual)
        if resolved.resolution == "expected":
            self._set(tokens, after, actual)
        elif resolved.resolution == "merged" and not self._same(tokens, resolved.value, actual):
            self._want(tokens, resolved.value, actual)

    def _conflict(self, tokens: Tokens, before: Node, after: Node, actual: Json | Absent) -> Resolved:
        if tokens in self.conflicts:
            return self.conflicts[tokens][1]
        conflict = Conflict(tokens, known_value(before), known_value(after), actual)
        resolved = self._decide(conflict)
        self.conflicts[tokens] = (conflict, resolved)
        return resolved

    def _set(self, tokens: Tokens, after: Node, actual: Json | Absent) -> None:
        if type(after) is Object and not is_whole(after):
            self.unknown.add(tokens)
        else:
            self._want(tokens, known_value(after), actual)

    def _want(self, tokens: Tokens, value: Json | Absent, actual: Json | Absent) -> None:
        if not same(value, actual):
            self.wanted[tokens] = Wanted(tokens, value, actual)

    def _is(self, tokens: Tokens, node: Node, actual: Json | Absent) -> bool:
        """Whether reality is what a node says, objects taken as objects."""
        if type(node) is Unknown:
            return False
        if type(node) is Object and type(actual) is dict:
            return True
        return self._same(tokens, known_value(node), actual)

    def _same(self, tokens: Tokens, left: Json | Absent, right: Json | Absent) -> bool:
        rule = self._contract.rule(path_of(tokens))
        return equivalent(left, right, rule.normalise) or equal_members(rule, left, right)

    def _is_map(self, tokens: Tokens) -> bool:
        rule = self._contract.rule(path_of(tokens))
        return bool(tokens) and rule.kind == "map" and rule.conflict == "merge"
