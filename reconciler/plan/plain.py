"""What is known of a resource as plain nested dicts, replayed write by write: what a plan is verified with.

Slower and simpler than the trees that the planner works on, and made of nothing of theirs: a fault in the one is not a
fault in the other. It knows no kinds of values: every write replaces the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from reconciler.history.entry import Entry
from reconciler.history.tree import Gone, Leaf, Node, Object
from reconciler.records import Change, Command
from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.pointer import Tokens, tokens_of, value_at


class Nothing(Enum):
    """The state of knowing nothing."""

    UNKNOWN = "unknown"


UNKNOWN = Nothing.UNKNOWN


@dataclass(slots=True)
class Tree:
    """An object. Of members that it doesn't name nothing is known if it is open; else they are absent."""

    is_open: bool
    members: dict[str, Known] = field(default_factory=dict)


Known: TypeAlias = "Nothing | Absent | Tree | Any"
"""Nothing, absence, an object, or a scalar or array as it is."""


def known(value: Json | Absent) -> Known:
    """A whole value."""
    if type(value) is dict:
        return Tree(False, {name: known(member) for name, member in value.items()})
    return value


def base_in(node: Node) -> Known:
    """What a history that no longer holds its oldest entries begins with."""
    if isinstance(node, Object):
        return Tree(not node.closed, {name: base_in(member) for name, member in node.members.items()})
    if isinstance(node, Leaf):
        return node.value
    return ABSENT if isinstance(node, Gone) else UNKNOWN


def member_of(node: Known, name: str) -> Known:
    """What is known of a member."""
    if node is UNKNOWN:
        return UNKNOWN
    if type(node) is not Tree:
        return ABSENT
    return node.members.get(name, UNKNOWN if node.is_open else ABSENT)


def value_in(node: Known) -> Nothing | Absent | Json:
    """What stands at a node, whole; UNKNOWN where a part of it isn't known."""
    if type(node) is not Tree:
        return node
    if node.is_open:
        return UNKNOWN
    members = {name: value_in(member) for name, member in node.members.items()}
    if any(value is UNKNOWN for value in members.values()):
        return UNKNOWN
    return {name: value for name, value in members.items() if value is not ABSENT}


def known_at(node: Known, tokens: Tokens) -> Known:
    """What is known of a place."""
    for name in tokens:
        node = member_of(node, name)
    return node


def replayed(
    entries: Iterable[Entry],
    undone: AbstractSet[int],
    start: Known = UNKNOWN,
    bare: AbstractSet[Tokens] = frozenset(),
) -> Known:
    """What is expected after all entries but those undone: the base first, then everybody's writes in their order. ``bare``:
    places at which a write makes no object of what stands above them."""
    entries = list(entries)
    found_out: Known = UNKNOWN
    for entry in entries:
        found_out = _with_base(found_out, entry)
    root = _over(start, found_out)
    for entry in entries:
        for tokens, value in entry.external_writes():
            root = _written(root, tokens, value, bare)
        if entry.number not in undone:
            for tokens, value in entry.writes():
                root = _written(root, tokens, value, bare)
    return root


def _written(root: Known, tokens: Tokens, value: Json | Absent, bare: AbstractSet[Tokens]) -> Known:
    if tokens in bare:
        above = known_at(root, tokens[:-1])
        if above is not UNKNOWN and type(above) is not Tree:
            return root
    return _put(root, tokens, known(value))


def _over(upper: Known, lower: Known) -> Known:
    """What is known, and where nothing is, what else is known."""
    if upper is UNKNOWN:
        return lower
    if type(upper) is not Tree or type(lower) is not Tree:
        return upper
    names = {**upper.members, **lower.members}
    members = {name: _over(member_of(upper, name), member_of(lower, name)) for name in names}
    return Tree(upper.is_open and lower.is_open, members)


def _with_base(root: Known, entry: Entry) -> Known:
    facts = entry.facts
    for path, value in facts.base_set.items():
        root = _put(root, tokens_of(path), known(value))
    for path in facts.base_unset:
        root = _put(root, tokens_of(path), ABSENT)
    for path, names in facts.base_closed.items():
        tokens = tokens_of(path)
        node = known_at(root, tokens)
        members = dict(node.members) if type(node) is Tree else {}
        root = _put(root, tokens, Tree(False, {**dict.fromkeys(names, UNKNOWN), **members}))
    return root


def _put(root: Known, tokens: Tokens, new: Known) -> Known:
    """A write changes the tree in place; the root it gives is the tree from then on."""
    if not tokens:
        return new
    if type(root) is not Tree:
        if root is not UNKNOWN and new is ABSENT:
            return root
        root = Tree(root is UNKNOWN)
    node: Tree = root
    for name in tokens[:-1]:
        below = node.members.get(name)
        if type(below) is not Tree:
            is_unknown = member_of(node, name) is UNKNOWN
            if new is ABSENT and not is_unknown:
                return root
            below = node.members[name] = Tree(is_unknown)
        node = below
    node.members[tokens[-1]] = new
    return root


# -- whole values, and what a command makes of them


def ends(value: Json, tokens: Tokens = ()) -> Iterator[tuple[Tokens, Json]]:
    """The scalars, arrays and empty objects of a value."""
    if type(value) is dict and value:
        for name, member in value.items():
            yield from ends(member, (*tokens, name))
    else:
        yield tokens, value


def changed(
    old: Json | Absent, new: Json | Absent, tokens: Tokens = ()
) -> Iterator[tuple[Tokens, Json | Absent, Json | Absent]]:
    """The nodes that differ, none of them below another: the place, what was there, what is there."""
    if old is new:
        return
    if type(old) is dict and type(new) is dict:
        for name in sorted(old.keys() | new.keys()):
            yield from changed(old.get(name, ABSENT), new.get(name, ABSENT), (*tokens, name))
    elif not same(old, new):
        yield tokens, old, new


class Refused(Exception):
    """A change can't be made of what is there."""


def obeyed(actual: Json | Absent, command: Command) -> Json | Absent:
    """What a target holds after a command. Raises Refused where a change goes with nothing that is there."""
    result = actual
    for change in command.changes:
        result = _replaced(result, tokens_of(change.path), _effect(change, value_at(actual, tokens_of(change.path))))
    return result


def _effect(change: Change, there: Json | Absent) -> Json | Absent:
    match change.op:
        case "set":
            return change.value
        case "unset":
            return ABSENT
        case "increment":
            step: Json = change.value
            if there is ABSENT or type(there) not in (int, float) or type(step) not in (int, float):
                raise Refused("there is no number to add to")
            return there + step
        case "add" | "remove":
            if type(there) is not list:
                raise Refused("there is no list")
            left = [item for item in there if not same(item, change.value)]
            if change.op == "remove":
                return left
            return there if len(left) < len(there) else [*there, change.value]


def _replaced(value: Json | Absent, tokens: Tokens, new: Json | Absent) -> Json | Absent:
    if not tokens:
        return new
    if type(value) is not dict:
        raise Refused("what stands above it is no object")
    below = _replaced(value.get(tokens[0], ABSENT), tokens[1:], new)
    result = {name: member for name, member in value.items() if name != tokens[0]}
    return result if below is ABSENT else {**result, tokens[0]: below}
