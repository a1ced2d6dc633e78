"""The expected state of a resource: a JSON tree of which only a part is known, and the owner of each node.

Nodes are frozen and shared; a write copies the objects on its way down and nothing else. The tree's root is the resource
itself: `Gone` where it doesn't exist.

    Leaf      a scalar or an array (arrays are atomic)
    Object    an object; members that it doesn't name are absent if `closed`, not known otherwise
    Gone      absent, and somebody may own that it is
    Unknown   nothing is known

An *owner* is a number: 0 nobody (the base: it was there before our history), ``n`` the operation that wrote the history's
n-th entry, ``-n`` the external write found by the n-th entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.pointer import Tokens

BASE: Final = 0

_REMEMBERED_COPIES: Final = 4_096
"""How many objects an editor remembers as its own; one that it forgets is copied once more."""


class Leaf(msgspec.Struct, frozen=True, array_like=True, tag="v"):
    """A scalar or an array."""

    owner: int
    value: Json


class Object(msgspec.Struct, frozen=True, array_like=True, tag="o"):
    """An object. `closed`: it has no members but those named here. `made`: nobody wrote it, a write below it made it, so
    nobody has said that it is to stay without other members."""

    owner: int
    closed: bool
    members: dict[str, Node]
    made: bool = False


class Gone(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """Nothing is there."""

    owner: int


class Unknown(msgspec.Struct, frozen=True, array_like=True, tag="u"):
    """Nothing is known."""


Node: TypeAlias = Leaf | Object | Gone | Unknown

UNKNOWN: Final = Unknown()


def node_of(value: Json | Absent, owner: int) -> Node:
    """A whole value as a node: all that it doesn't name is absent."""
    if value is ABSENT:
        return Gone(owner)
    if type(value) is dict:
        return Object(owner, True, {name: node_of(member, owner) for name, member in value.items()})
    return Leaf(owner, value)


def member_of(node: Node, name: str) -> Node:
    """What is known of a member."""
    if type(node) is Object:
        member = node.members.get(name)
        if member is not None:
            return member
        return Gone(node.owner) if node.closed else UNKNOWN
    return UNKNOWN if isinstance(node, Unknown) else Gone(node.owner)


def node_at(node: Node, tokens: Tokens) -> Node:
    """What is known of a place."""
    for name in tokens:
        node = member_of(node, name)
    return node


class Editor:
    """Writes into one tree, many at once: an object that this editor has already copied is changed in place.

    Nobody else has seen such a copy, so trees stay values; an action of 500 fields copies an object once, not 500 times.
    """

    __slots__ = ("_above", "_members", "_mine", "_opened_at", "root")

    def __init__(self, root: Node) -> None:
        self.root = root
        self._mine: dict[int, dict[str, Node]] = {}
        # The objects that `open_object` gave: they stand where they stood until an object is written over.
        self._opened_at: dict[Tokens, Object] = {}
        # The object written to last: the writes of an action come in the order of their places, most below one object.
        self._above: Tokens | None = None
        self._members: dict[str, Node] = {}

    def write(self, tokens: Tokens, new: Node, owner: int) -> None:
        """`new` stands at the place, and nothing of what was below it is left.

        What isn't known above it is taken to be an object already (of the base); what is absent or no object becomes an
        object of `owner`'s, unless `new` is `Gone`: what isn't there needs nothing above it.
        """
        self._opened_at.clear()
        if not tokens:
            self.root = new
            self._above = None
            return
        above = tokens[:-1]
        if above != self._above:
            members = self._opened(above, type(new) is not Gone, owner)
            if members is None:
                return
            self._above, self._members = above, members
        self._members[tokens[-1]] = new

    def prune(self) -> None:
        """Bounds what an editor remembers that is kept over many actions. Objects that were opened before are no longer open."""
        if len(self._mine) > _REMEMBERED_COPIES:
            self._mine.clear()
            self._opened_at.clear()
            self.forget_place()

    def forget_place(self) -> None:
        """To be called when members of an opened object were set by hand: what was written to last may be gone."""
        self._above = None

    def forget_opened(self) -> None:
        """To be called when something was written by hand over an object."""
        self._opened_at.clear()

    def open_object(self, tokens: Tokens) -> Object | None:
        """The object at a place, whose members may be changed in place; None where there is none. What isn't known is taken
        to be an object."""
        self._above = None
        opened = self._opened_at.get(tokens)
        if opened is not None:
            return opened
        if self._opened(tokens, False, BASE) is None:
            return None
        node = node_at(self.root, tokens)
        assert type(node) is Object
        self._opened_at[tokens] = node
        return node

    def node(self, tokens: Tokens) -> Node:
        """What is known of a place now."""
        if tokens and tokens[:-1] == self._above:
            member = self._members.get(tokens[-1])
            if member is not None:
                return member
        return node_at(self.root, tokens)

    def close(self, tokens: Tokens) -> None:
        """The object at the place has no members but those known now."""
        node = node_at(self.root, tokens)
        assert type(node) is Object
        self.write(tokens, Object(node.owner, True, node.members, node.made), node.owner)
        self._above = None

    def _opened(self, tokens: Tokens, is_making: bool, owner: int) -> dict[str, Node] | None:
        """The members of the object at a place, which may be changed. Without `is_making`, None where there is none."""
        node: Node = self.root
        parent: Object | None = None
        name = ""
        depth = 0
        while True:
            if isinstance(node, Object):
                if id(node.members) not in self._mine:
                    node = self._replaced(parent, name, node, dict(node.members))
            elif isinstance(node, Unknown):
                node = self._replaced(parent, name, Object(BASE, False, {}), {})
            elif is_making:
                node = self._replaced(parent, name, Object(owner, True, {}, made=True), {})
            else:
                return None
            if depth == len(tokens):
                return node.members
            parent, name = node, tokens[depth]
            node = member_of(parent, name)
            depth += 1

    def _replaced(self, parent: Object | None, name: str, node: Object, members: dict[str, Node]) -> Object:
        mine = Object(node.owner, node.closed, members, node.made)
        self._mine[id(members)] = members
        if parent is None:
            self.root = mine
        else:
            parent.members[name] = mine
        return mine


def known_value(node: Node) -> Json | Absent:
    """The known part of a tree as JSON: ABSENT for what is absent or not known."""
    if type(node) is Leaf:
        return node.value
    if type(node) is Object:
        result = {}
        for name, member in node.members.items():
            value = known_value(member)
            if value is not ABSENT:
                result[name] = value
        return result
    return ABSENT


def is_whole(node: Node) -> bool:
    """Whether everything at and below a node is known."""
    if type(node) is Object:
        return node.closed and all(map(is_whole, node.members.values()))
    return type(node) is not Unknown


def owners_in(node: Node) -> Iterator[int]:
    """The owners of a node and of all below it."""
    if type(node) is not Unknown:
        yield node.owner  # type: ignore[union-attr]  # only Unknown has none
    if type(node) is Object:
        for member in node.members.values():
            yield from owners_in(member)


def equal(left: Node, right: Node) -> bool:
    """Whether two nodes say the same, whoever says it. Exact; a member not named in a closed object is absent."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if type(left) is Leaf:
        return same(left.value, right.value)  # type: ignore[union-attr]
    if type(left) is Object:
        assert type(right) is Object
        return left.closed == right.closed and all(
            equal(member_of(left, name), member_of(right, name)) for name in {**left.members, **right.members}
        )
    return True


def leaves(node: Node, tokens: Tokens = ()) -> Iterator[tuple[Tokens, Leaf | Gone | Object]]:
    """Every known node that has nothing known to be present below it, in the order of the tree."""
    if type(node) is Object:
        bare = True
        for name, member in node.members.items():
            for place, leaf in leaves(member, (*tokens, name)):
                bare = bare and type(leaf) is Gone
                yield place, leaf
        if bare:
            yield tokens, node
    elif not isinstance(node, Unknown):
        yield tokens, node
