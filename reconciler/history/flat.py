"""The fold of updates that write members of the resource itself alone: the short way of nearly all actions.

The `.pxd` beside this says what C types its variables have where it is compiled (deploy/hatch_build.py).
"""

from __future__ import annotations

from reconciler.history.entry import NO_FACTS, Facts
from reconciler.history.tree import BASE, Gone, Leaf, Node, Object, Unknown
from reconciler.values.json_value import ABSENT, Json, same
from reconciler.values.pointer import tokens_of


def fold_flat(  # noqa: PLR0912 - a call a field would cost what this saves
    tree: Node, number: int, written: dict[str, Json], before: dict[str, Json]
) -> tuple[Node, Facts] | None:
    """The tree after an update, and what it taught us, where it sets members of the resource itself to what is no object and
    `before` speaks of these alone and contradicts nothing: of flat records that is nearly every action. None where it isn't
    one. What it gives is what `fold_into` gives, for half of the time."""
    if type(tree) is Object:
        members, owner, is_closed, is_made = dict(tree.members), tree.owner, tree.closed, tree.made
    elif type(tree) is Unknown:
        members, owner, is_closed, is_made = {}, BASE, False, False
    else:
        return None
    base_set: dict[str, Json] = {}
    base_unset: list[str] = []
    mentioned = 0
    for path, value in written.items():
        tokens = tokens_of(path)
        if len(tokens) != 1 or type(value) is dict:
            return None
        name = tokens[0]
        node = members.get(name)
        said = before.get(path, ABSENT)
        if said is not ABSENT:
            mentioned += 1
        kind = type(node)
        if kind is Leaf:
            expected = node.value  # type: ignore[union-attr]
            # Most are texts, and a call takes as long as the rest.
            if not (expected == said if type(expected) is str else same(expected, said)):
                return None
        elif kind is Gone or (node is None and is_closed):
            if said is not ABSENT:
                return None
        elif kind is Object:
            return None
        elif said is ABSENT:
            base_unset.append(path)
        else:
            base_set[path] = said
        members[name] = Leaf(number, value)
    if mentioned != len(before):
        return None
    facts = Facts(base_set=base_set, base_unset=base_unset) if base_set or base_unset else NO_FACTS
    return Object(owner, is_closed, members, is_made), facts
