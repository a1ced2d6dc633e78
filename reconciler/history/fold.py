"""Folding an action into the expected state of its resource.

`fold` takes the tree as it is expected now and gives the tree after the action with the entry for the history. It costs
the same on a resource with a thousand operations as on one with two: it looks at the places that the action names.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from itertools import pairwise

import msgspec

from reconciler.contracts.model import Contract
from reconciler.history.entry import NO_FACTS, Entry, Facts
from reconciler.history.flat import fold_flat
from reconciler.history.members import STEPPED, equal_members
from reconciler.history.tree import (
    BASE,
    Editor,
    Gone,
    Leaf,
    Node,
    Object,
    Unknown,
    known_value,
    member_of,
    node_at,
    node_of,
)
from reconciler.records import Action, Observation
from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.normalise import equivalent
from reconciler.values.pointer import Tokens, holder_of, path_of, tokens_of, value_at


def fold(
    tree: Node,
    number: int,
    action: Action,
    contract: Contract,
    seen: Observation | None = None,
    *,
    link: int = 0,
    chain: str = "",
) -> tuple[Node, Entry]:
    """The tree after a `succeeded` action, and its entry in the history: `number`, which is the ledger's link `link` and ends its
    `chain`.

    ``seen`` is the last observation from before the action, given only if it is young enough for the contract: it
    serves as base where the action's pre-state is unknown, and says nothing about what is known already.
    """
    before = action.before
    if before is not None and action.operation == "update" and action.set and not action.unset:
        flat = fold_flat(tree, number, action.set, before)
        if flat is not None:
            after, facts = flat
            return after, Entry(number=number, action=action, facts=facts, link=link, chain=chain)
    editor = Editor(tree)
    entry = fold_into(editor, number, action, contract, seen)
    return editor.root, msgspec.structs.replace(entry, link=link, chain=chain)


def fold_into(
    editor: Editor, number: int, action: Action, contract: Contract, seen: Observation | None = None
) -> Entry:
    """The same in an editor's tree: for who folds many actions in a row and shows nobody the trees between."""
    if action.operation == "effect":
        return Entry(number=number, action=action)
    editor.prune()
    if action.operation == "update" and action.before is not None:
        plain = _fold_plain(editor, number, action, contract)
        if plain is not None:
            return plain
    learner = _Learner(editor, number, contract)
    if action.operation == "create":
        learner.learn((), ABSENT)
    elif action.before is not None:
        for tokens, value in said_before(action):
            learner.learn(tokens, value)
    else:
        if seen is not None:
            learner.learn_unknown(action, seen)
        learner.note_steps(map(tokens_of, [*action.set, *action.unset]))
    entry = Entry(number=number, action=action, facts=learner.facts())
    for tokens, value in entry.writes():
        editor.write(tokens, node_of(value, number), number)
    return entry


def _fold_plain(editor: Editor, number: int, action: Action, contract: Contract) -> Entry | None:
    """Folds an update whose `before` speaks of the written places alone, none of them above another, and none of them in what
    is known to be no object: nearly all actions. None, and nothing learnt or written, where it isn't one.

    What is learnt of the base at such a place isn't written to the tree first: the action's own write is there at once.
    """
    before, set_, unset = action.before, action.set, action.unset
    assert before is not None
    if not before.keys() <= (set_.keys() | unset if unset else set_.keys()):
        return None
    places = _opened_places(editor, (*set_, *unset) if unset else set_)
    if places is None:
        return None
    learner: _Learner | None = None
    is_reshaped = False
    for path, tokens, parent in places:
        members, name = parent.members, tokens[-1]
        said = before.get(path, ABSENT)
        node = members.get(name)
        if node is None:
            node = member_of(parent, name)
        elif type(node) is Object:
            is_reshaped = True
        if not (same(node.value, said) if type(node) is Leaf else type(node) is Gone and said is ABSENT):
            learner = learner or _Learner(editor, number, contract)
            if type(node) is Unknown:
                learner.note_base(path, said)
            else:
                learner.learn(tokens, said)
        value = set_.get(path, ABSENT)
        members[name] = node_of(value, number) if value is ABSENT or type(value) is dict else Leaf(number, value)
    editor.forget_place()
    if is_reshaped:
        editor.forget_opened()
    return Entry(number=number, action=action, facts=NO_FACTS if learner is None else learner.facts())


def _opened_places(editor: Editor, paths: Iterable[str]) -> list[tuple[str, Tokens, Object]] | None:
    """The places of paths, with the objects that hold them, opened; None where one is the resource itself, where one is
    above another, or where what holds one is no object. Holders of which nothing was known are objects since."""
    places = [(path, tokens_of(path)) for path in paths]
    if len(places) > 1:
        depths = {len(tokens) for _, tokens in places}
        if len(depths) > 1 and _is_any_above(places, depths):
            return None
    opened: list[tuple[str, Tokens, Object]] = []
    above: Tokens | None = None
    parent: Object | None = None
    for path, tokens in places:
        if not tokens:
            return None
        holder = holder_of(tokens)
        if holder is not above or parent is None:
            above = holder
            parent = editor.open_object(above)
            if parent is None:
                return None
        opened.append((path, tokens, parent))
    return opened


def _is_any_above(places: list[tuple[str, Tokens]], depths: AbstractSet[int]) -> bool:
    """Whether one of some places is above another."""
    known = {tokens for _, tokens in places}
    return any(tokens[:depth] in known for _, tokens in places for depth in depths if depth < len(tokens))


def said_before(action: Action) -> list[tuple[Tokens, Json | Absent]]:
    """What a non-null `before` says: places and their whole values, a written place that it doesn't mention as ABSENT.

    A written place of which only parts are given (by paths below it) is the object made of these parts.
    """
    before = action.before
    assert before is not None
    if action.operation == "delete":
        return [((), _assembled((), [(tokens_of(path), value) for path, value in before.items()]))]
    written = action.set.keys() | set(action.unset)
    if before.keys() <= written and len(written) == 1:
        (path,) = written
        return [(tokens_of(path), before.get(path, ABSENT))]
    said = _disjoint({tokens_of(path): value for path, value in before.items()})
    for place in sorted(map(tokens_of, written)):
        if place in said or any(place[:length] in said for length in range(len(place))):
            continue
        below = [(tokens, value) for tokens, value in said.items() if tokens[: len(place)] == place]
        for tokens, _ in below:
            del said[tokens]
        said[place] = _assembled(place, below) if below else ABSENT
    return sorted(said.items())


def _disjoint(said: dict[Tokens, Json | Absent]) -> dict[Tokens, Json | Absent]:
    """The same, where of two places one above the other the lower one is put into the value of the upper one."""
    places = sorted(said)
    if all(upper != lower[: len(upper)] for upper, lower in pairwise(places)):
        return said
    result: dict[Tokens, Json | Absent] = {}
    while places:
        upper = places.pop(0)
        parts = [(upper, said[upper])]
        while places and places[0][: len(upper)] == upper:
            lower = places.pop(0)
            parts.append((lower, said[lower]))
        result[upper] = _assembled(upper, parts)
    return result


def _assembled(place: Tokens, parts: list[tuple[Tokens, Json]]) -> Json:
    """The value at a place made of the values of places at and below it."""
    editor = Editor(Object(BASE, True, {}))
    for tokens, value in sorted(parts, key=lambda part: part[0]):
        editor.write(tokens[len(place) :], node_of(value, BASE), BASE)
    return known_value(editor.root)


class _Learner:
    """Compares what was there before an action with what was expected, and notes and writes what differs."""

    def __init__(self, editor: Editor, number: int, contract: Contract) -> None:
        self._editor = editor
        self._number = number
        self._contract = contract
        self._base_set: dict[str, Json] = {}
        self._base_unset: list[str] = []
        self._base_closed: dict[str, list[str]] = {}
        self._external_set: dict[str, Json] = {}
        self._external_unset: list[str] = []
        self._was: dict[str, list[Json]] = {}
        self._observed_at: int | None = None

    def facts(self) -> Facts:
        learnt = (self._base_set, self._base_unset, self._base_closed, self._external_set, self._external_unset)
        if not any(learnt) and not self._was:
            return NO_FACTS
        return Facts(
            base_set=self._base_set,
            base_unset=self._base_unset,
            base_closed=self._base_closed,
            external_set=self._external_set,
            external_unset=self._external_unset,
            was=self._was,
            observed_at=self._observed_at if any(learnt) else None,
        )

    def learn(self, tokens: Tokens, value: Json | Absent) -> None:
        """The value stood at the place, whole."""
        self._compare(self._editor.node(tokens), tokens, value)

    def learn_unknown(self, action: Action, seen: Observation) -> None:
        """What an observation says of the written places of which nothing is known."""
        whole: Json | Absent = seen.fields if seen.exists else ABSENT
        places = [()] if action.operation == "delete" else sorted(map(tokens_of, [*action.set, *action.unset]))
        for tokens in places:
            self._fill(node_at(self._editor.root, tokens), tokens, value_at(whole, tokens))
        self._observed_at = seen.observed_at

    def note_steps(self, places: Iterable[Tokens]) -> None:
        """What is expected, before they are written, of those of some places whose values are written as a step."""
        if not self._contract.kinds:
            return
        for tokens in places:
            path = path_of(tokens)
            node = self._editor.node(tokens)
            if self._contract.rule(path).kind in STEPPED and type(node) is not Unknown:
                value = known_value(node)
                self._was[path] = [] if value is ABSENT else [value]

    def _fill(self, node: Node, tokens: Tokens, value: Json | Absent) -> None:
        """As `_compare`, but what is known stays."""
        if type(node) is Unknown:
            self._base(tokens, value)
        elif type(node) is Object and type(value) is dict:
            known = list(node.members)
            for name in sorted({**node.members, **({} if node.closed else value)}):
                self._fill(member_of(node, name), (*tokens, name), value.get(name, ABSENT))
            self._close(node, tokens, known)

    def _compare(self, node: Node, tokens: Tokens, value: Json | Absent) -> None:
        if type(node) is Leaf:
            if same(node.value, value) or (type(value) is not dict and self._same(node.value, value, tokens)):
                return
        elif type(node) is Gone:
            if value is ABSENT or self._same(ABSENT, value, tokens):
                return
        elif type(node) is Object:
            if type(value) is dict:
                known = list(node.members)
                for name in sorted({**node.members, **value}):
                    self._compare(member_of(node, name), (*tokens, name), value.get(name, ABSENT))
                self._close(node, tokens, known)
                return
        else:
            self._base(tokens, value)
            return
        self._external(tokens, value)

    def _same(self, expected: Json | Absent, value: Json | Absent, tokens: Tokens) -> bool:
        rule = self._contract.rule(path_of(tokens))
        return equivalent(expected, value, rule.normalise) or equal_members(rule, expected, value)

    def _base(self, tokens: Tokens, value: Json | Absent) -> None:
        self._editor.write(tokens, node_of(value, BASE), BASE)
        self.note_base(path_of(tokens), value)

    def note_base(self, path: str, value: Json | Absent) -> None:
        """The base holds this, of which nothing was known."""
        if value is ABSENT:
            self._base_unset.append(path)
        else:
            self._base_set[path] = value

    def _close(self, node: Object, tokens: Tokens, known: list[str]) -> None:
        """`known` are the members that were known before anything was learnt: the editor may have added to the node's own."""
        if not node.closed:
            self._base_closed[path_of(tokens)] = known
            self._editor.close(tokens)

    def _external(self, tokens: Tokens, value: Json | Absent) -> None:
        self.note_steps((tokens,))
        self._editor.write(tokens, node_of(value, -self._number), -self._number)
        if value is ABSENT:
            self._external_unset.append(path_of(tokens))
        else:
            self._external_set[path_of(tokens)] = value
