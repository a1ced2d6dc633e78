"""The rules of undo once more, from the design's text alone and with plain dicts: what the core is judged by.

Nothing of reconciler/history, merge or plan is used here, only the equality of values and ABSENT. Two ways of knowing are
modelled. `Known` is what a log says, of which much may be unknown. Whole documents (`put`, `differences`, `three_way`) are
what a simulation knows, in which nothing is.

    Known     ::= None (nothing is known) | ABSENT | Scalar (an array too) | Tree
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from reconciler.records import Action, Command
from reconciler.values.json_value import ABSENT, Absent, Json, same

Place: TypeAlias = tuple[str, ...]
Step: TypeAlias = tuple[str | None, Place, Json | Absent]
"""Who wrote (an operation; None: somebody else), where, and what stands there since."""


def place(path: str) -> Place:
    """The tokens of a pointer, by RFC 6901, section 4: first ~1, then ~0."""
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:])


def pointer(tokens: Place) -> str:
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


# -- whole documents


def at(document: Json | Absent, tokens: Place) -> Json | Absent:
    for token in tokens:
        if not isinstance(document, dict) or token not in document:
            return ABSENT
        document = document[token]
    return document


def put(document: Json | Absent, tokens: Place, value: Json | Absent) -> Json | Absent:
    """A copy in which a value stands at a place, in objects made for it where there were none; taking away what isn't
    there changes nothing."""
    if not tokens:
        return copy.deepcopy(value)
    if not isinstance(document, dict):
        if value is ABSENT:
            return document
        document = {}
    changed = dict(document)
    member = put(document.get(tokens[0], ABSENT), tokens[1:], value)
    if member is ABSENT:
        changed.pop(tokens[0], None)
    else:
        changed[tokens[0]] = member
    return changed


def differences(old: Json | Absent, new: Json | Absent, tokens: Place = ()) -> Iterator[tuple[Place, Json | Absent]]:
    """The nodes at which a document became another, none of them below another: places and what stands there now."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name, ABSENT), new.get(name, ABSENT), (*tokens, name))
    elif not same(old, new):
        yield tokens, new


def replayed(base: Json | Absent, steps: Iterable[Step], undone: Iterable[str] = ()) -> Json | Absent:
    """The document that the steps lead to, without those of the operations undone."""
    left_out = set(undone)
    for operation_id, tokens, value in steps:
        if operation_id not in left_out:
            base = put(base, tokens, value)
    return base


@dataclass
class Wishes:
    """What an undo comes to at a target: changes (place: value), and the places where somebody must decide."""

    changes: dict[Place, Json | Absent] = field(default_factory=dict)
    conflicts: set[Place] = field(default_factory=set)
    unchanged: set[Place] = field(default_factory=set)


def three_way(before: Json | Absent, after: Json | Absent, actual: Json | Absent) -> Wishes:
    """Rule 3 over whole documents, with exact equality and nobody to decide conflicts."""
    wishes = Wishes()
    if before is ABSENT and after is not ABSENT and actual is not ABSENT:
        # A deleted resource that stands there again.
        if all(_alike(at(actual, tokens), value) for tokens, value in ends(after)):
            wishes.unchanged.add(())
        else:
            wishes.conflicts.add(())
    else:
        _three_way((), before, after, actual, wishes)
    return wishes


def ends(value: Json, tokens: Place = ()) -> Iterator[tuple[Place, Json]]:
    """The scalars, arrays and empty objects of a value."""
    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from ends(member, (*tokens, name))
    else:
        yield tokens, value


def _alike(left: Json | Absent, right: Json | Absent) -> bool:
    """Whether two nodes are equal as nodes: what is inside an object is for the nodes below."""
    return (isinstance(left, dict) and isinstance(right, dict)) or same(left, right)


def _three_way(tokens: Place, before: Any, after: Any, actual: Any, wishes: Wishes) -> None:
    if same(before, after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        if isinstance(actual, dict):
            _members(tokens, before, after, actual, wishes)
        else:
            below = Wishes()
            _members(tokens, before, after, actual, below)
            if below.changes or below.conflicts:
                wishes.conflicts.add(tokens)
            else:
                wishes.unchanged |= below.unchanged
    elif _alike(after, actual):
        wishes.unchanged.add(tokens)
        if isinstance(after, dict):
            _members(tokens, {}, after, actual, wishes)
    elif not _alike(before, actual):
        wishes.conflicts.add(tokens)
    else:
        foreign = {found for found, _ in _unaccounted(tokens, before, actual)} if isinstance(before, dict) else set()
        if foreign:
            wishes.conflicts |= foreign
        else:
            wishes.changes[tokens] = after


def _members(tokens: Place, before: Any, after: Any, actual: Any, wishes: Wishes) -> None:
    for name in before.keys() | after.keys():
        _three_way((*tokens, name), at(before, (name,)), at(after, (name,)), at(actual, (name,)), wishes)


def _unaccounted(tokens: Place, before: Any, actual: Any) -> Iterator[tuple[Place, Json]]:
    """What somebody else put into an object or changed there."""
    for name, value in actual.items():
        known = at(before, (name,))
        if isinstance(known, dict) and isinstance(value, dict):
            yield from _unaccounted((*tokens, name), known, value)
        elif not same(known, value):
            yield (*tokens, name), value


# -- commands


class Refused(Exception):
    """The target isn't as the command expects."""


def obeyed(actual: Json | Absent, command: Command) -> Json | Absent:
    """What a careful target holds after a command. Raises Refused, and changes nothing, where anything isn't as expected."""
    if command.action == "create":
        (change,) = command.changes
        if actual is not ABSENT or change.path != "" or change.op != "set":
            raise Refused
        return copy.deepcopy(change.value)
    if actual is ABSENT:
        raise Refused
    if command.action == "delete":
        (change,) = command.changes
        if change.path != "" or change.op != "unset" or not same(change.expect, actual):
            raise Refused
        return ABSENT
    document = actual
    for change in command.changes:
        tokens = place(change.path)
        assert tokens, "a patch changes fields"
        there = at(actual, tokens)
        if not same(there, change.expect) or not isinstance(at(document, tokens[:-1]), dict):
            raise Refused
        document = put(document, tokens, _effect(change.op, there, change.value))
    return document


def _effect(op: str, there: Any, value: Any) -> Json | Absent:
    match op:
        case "set":
            return value
        case "unset":
            return ABSENT
        case "increment":
            return there + value
        case "add":
            return there if any(same(member, value) for member in there) else [*there, value]
        case "remove":
            return [member for member in there if not same(member, value)]
    raise AssertionError(op)


# -- what a log says


@dataclass
class Scalar:
    value: Json


@dataclass
class Tree:
    """An object; of members that it doesn't name nothing is known if it is open."""

    open: bool
    members: dict[str, Known] = field(default_factory=dict)


Known: TypeAlias = "Absent | Scalar | Tree | None"


def known_whole(value: Json | Absent) -> Known:
    if value is ABSENT:
        return ABSENT
    if isinstance(value, dict):
        return Tree(False, {name: known_whole(member) for name, member in value.items()})
    return Scalar(value)


def known_at(known: Known, tokens: Place) -> Known:
    for token in tokens:
        if known is None:
            return None
        if not isinstance(known, Tree):
            return ABSENT
        known = known.members.get(token, None if known.open else ABSENT)
    return known


def known_put(known: Known, tokens: Place, new: Known) -> Known:
    """Writing a node takes away what stands below it, and makes an object of each node above it that is absent or no
    object; one that isn't known is taken to be an object already."""
    if not tokens:
        return new
    if known is None:
        known = Tree(True)
    elif not isinstance(known, Tree):
        if new is ABSENT:
            return known
        known = Tree(False)
    member = known_put(known_at(known, tokens[:1]), tokens[1:], new)
    return Tree(known.open, {**known.members, tokens[0]: member})


def writes(action: Action) -> list[tuple[Place, Json | Absent]]:
    if action.operation == "effect":
        return []
    if action.operation == "delete":
        return [((), ABSENT)]
    written: dict[Place, Json | Absent] = {place(path): value for path, value in action.set.items()}
    written |= {place(path): ABSENT for path in action.unset}
    if action.operation == "create":
        written.setdefault((), {})
    return sorted(written.items(), key=lambda item: item[0])


def said(action: Action) -> list[tuple[Place, Json | Absent]]:
    """What an action says about what was there before it: whole values at places, none below another."""
    if action.operation == "effect":
        return []
    if action.operation == "create":
        return [((), ABSENT)]
    if action.before is None:
        return []
    before = {place(path): value for path, value in action.before.items()}
    # A place that is said something about below, and that was written, is the object made of what is said; so is what
    # is said about a place both at it and below it.
    tops = set(before) | {tokens for tokens, _ in writes(action)}
    tops = {tokens for tokens in tops if not any(tokens[:length] in tops for length in range(len(tokens)))}
    result = []
    for top in sorted(tops):
        value: Json | Absent = ABSENT
        for tokens in sorted(tokens for tokens in before if tokens[: len(top)] == top):
            value = put(value, tokens[len(top) :], before[tokens])
        if top == () and action.operation == "delete" and value is ABSENT:
            value = {}
        result.append((top, value))
    return result


@dataclass
class Log:
    """A resource's history, folded by the text of rule 1 and undone by the text of rule 2."""

    base: Known = None
    now: Known = None
    steps: list[Step] = field(default_factory=list)

    def fold(self, action: Action) -> None:
        for tokens, value in said(action):
            self._believe(tokens, value)
        for tokens, value in writes(action):
            self._write(action.operation_id, tokens, value)

    def _write(self, operation_id: str | None, tokens: Place, value: Json | Absent) -> None:
        self.steps.append((operation_id, tokens, value))
        self.now = known_put(self.now, tokens, known_whole(value))

    def _believe(self, tokens: Place, value: Json | Absent) -> None:
        known = known_at(self.now, tokens)
        if known is None:
            self.now = known_put(self.now, tokens, known_whole(value))
            self.base = known_put(self.base, tokens, known_whole(value))
        elif isinstance(known, Tree) and isinstance(value, dict):
            for name in sorted(known.members.keys() | value.keys()):
                self._believe((*tokens, name), value.get(name, ABSENT))
            if known.open:
                self._close(tokens, known)
        elif not (
            (known is ABSENT and value is ABSENT)
            or (isinstance(known, Scalar) and value is not ABSENT and same(known.value, value))
        ):
            self._write(None, tokens, value)

    def _close(self, tokens: Place, known: Tree) -> None:
        """Nothing else was in this object, of which we knew a part: of the base, only what operations covered since
        remains unknown."""
        now = known_at(self.now, tokens)
        assert isinstance(now, Tree)
        self.now = known_put(self.now, tokens, Tree(False, now.members))
        base = known_at(self.base, tokens)
        members = dict(base.members) if isinstance(base, Tree) else {}
        for name in known.members:
            members.setdefault(name, None)
        self.base = known_put(self.base, tokens, Tree(False, members))

    def without(self, undone: Iterable[str]) -> Known:
        left_out = set(undone)
        known = self.base
        for operation_id, tokens, value in self.steps:
            if operation_id not in left_out:
                known = known_put(known, tokens, known_whole(value))
        return known


def contradiction(known: Known, document: Json | Absent, tokens: Place = ()) -> str | None:
    """Where what is known isn't so in a document; None where nothing contradicts it."""
    if known is None:
        return None
    if isinstance(known, Tree):
        if not isinstance(document, dict):
            return f"an object is expected at {pointer(tokens)!r}"
        names = known.members.keys() if known.open else known.members.keys() | document.keys()
        found = (
            contradiction(known_at(known, (name,)), at(document, (name,)), (*tokens, name)) for name in sorted(names)
        )
        return next((text for text in found if text is not None), None)
    expected = ABSENT if known is ABSENT else known.value
    return None if same(expected, document) else f"{expected!r} is expected at {pointer(tokens)!r}"
