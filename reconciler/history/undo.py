"""What is expected of a resource without some of its operations: its history folded again without their writes.

This is the structure that the product runs on; `replay` says the same in the plainest way, and the tests hold the two
against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from reconciler.contracts.model import Contract
from reconciler.history.entry import Entry
from reconciler.history.fold import said_before
from reconciler.history.members import STEPPED, carried
from reconciler.history.tree import (
    BASE,
    UNKNOWN,
    Editor,
    Node,
    Object,
    Unknown,
    known_value,
    member_of,
    node_at,
    node_of,
)
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.normalise import equivalent
from reconciler.values.pointer import Tokens, path_of, tokens_of, value_at

NOTHING_UNDONE: AbstractSet[int] = frozenset()


def base_of(entries: Iterable[Entry], start: Node = UNKNOWN) -> Node:
    """What was there before the history, as far as its entries found out. ``start``: what older entries, which the history
    no longer holds, have left. What is found out later was there before these, and shows only where they left nothing."""
    editor = Editor(UNKNOWN)
    for entry in entries:
        facts = entry.facts
        for path, value in facts.base_set.items():
            editor.write(tokens_of(path), node_of(value, BASE), BASE)
        for path in facts.base_unset:
            editor.write(tokens_of(path), node_of(ABSENT, BASE), BASE)
        for path, known in facts.base_closed.items():
            _close(editor, tokens_of(path), known)
    return editor.root if type(start) is Unknown else _over(start, editor.root)


def _over(upper: Node, lower: Node) -> Node:
    """One tree, and where it knows nothing the other."""
    if type(upper) is Unknown:
        return lower
    if type(upper) is not Object or type(lower) is not Object:
        return upper
    members = {
        name: _over(member_of(upper, name), member_of(lower, name)) for name in {**upper.members, **lower.members}
    }
    return Object(upper.owner, upper.closed or lower.closed, members, upper.made)


def _close(editor: Editor, tokens: Tokens, known: list[str]) -> None:
    """The base's object has no further members; of those that operations had written by then it may know nothing."""
    node = node_at(editor.root, tokens)
    members = node.members if type(node) is Object else {}
    unknown = {name: UNKNOWN for name in known if name not in members}
    editor.write(tokens, Object(BASE, True, {**members, **unknown}), BASE)


def without(entries: Sequence[Entry], undone: AbstractSet[int], contract: Contract, start: Node = UNKNOWN) -> Node:
    """The expected state of a history (in order) without the operations' writes in the entries numbered in `undone`.

    A write to a value whose members stand on their own is a step, from what stood there when it was made: it is carried
    over to what stands there without the undone writes.
    """
    editor = Editor(base_of(entries, start))
    for entry in entries:
        for tokens, value in entry.external_writes():
            was = entry.facts.was.get(path_of(tokens)) if contract.kinds else None
            editor.write(tokens, node_of(_stepped(editor, contract, tokens, was, value), -entry.number), -entry.number)
        if entry.number in undone:
            continue
        if contract.kinds:
            _write_steps(editor, contract, entry)
        else:
            for tokens, value in entry.writes():
                editor.write(tokens, node_of(value, entry.number), entry.number)
    return editor.root


def _write_steps(editor: Editor, contract: Contract, entry: Entry) -> None:
    written: list[Tokens] = []
    for tokens, value in entry.writes():
        new = value
        if not any(
            tokens[: len(above)] == above for above in written
        ):  # what the action itself has put there is no step
            new = _stepped(editor, contract, tokens, _was(entry, tokens), value)
        editor.write(tokens, node_of(new, entry.number), entry.number)
        written.append(tokens)


def _was(entry: Entry, tokens: Tokens) -> list[Json] | None:
    """What stood at a place that an entry writes, in a list that is empty where nothing did; None where nobody knows."""
    if entry.action.operation == "create":
        return []
    if entry.action.before is None:
        return entry.facts.was.get(path_of(tokens))
    for place, said in said_before(entry.action):
        if tokens[: len(place)] == place:
            value = value_at(said, tokens[len(place) :])
            return [] if value is ABSENT else [value]
    return None


def _stepped(
    editor: Editor, contract: Contract, tokens: Tokens, was: list[Json] | None, value: Json | Absent
) -> Json | Absent:
    """The value after a step, carried over to what stands at the place now; as it is where that can't be done."""
    if was is None:
        return value
    rule = contract.rule(path_of(tokens))
    before, now = was[0] if was else ABSENT, known_value(editor.node(tokens))
    if rule.kind not in STEPPED or equivalent(before, now, rule.normalise):
        return value
    return carried(rule, before, value, now)
