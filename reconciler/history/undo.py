"""What is expected of a resource without some of its operations: its history folded again without their writes.

This is the structure that the product runs on; `replay` says the same in the plainest way, and the tests hold the two
against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from reconciler.contracts.model import Contract
from reconciler.history.entry import Entry
from reconciler.history.members import merged
from reconciler.history.tree import BASE, UNKNOWN, Editor, Node, Object, known_value, node_at, node_of
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import Tokens, path_of, tokens_of

NOTHING_UNDONE: AbstractSet[int] = frozenset()


def base_of(entries: Iterable[Entry], start: Node = UNKNOWN) -> Node:
    """What was there before the history, as far as its entries found out. ``start``: what older entries, which the history
    no longer holds, have left."""
    editor = Editor(start)
    for entry in entries:
        facts = entry.facts
        for path, value in facts.base_set.items():
            editor.write(tokens_of(path), node_of(value, BASE), BASE)
        for path in facts.base_unset:
            editor.write(tokens_of(path), node_of(ABSENT, BASE), BASE)
        for path, known in facts.base_closed.items():
            _close(editor, tokens_of(path), known)
    return editor.root


def _close(editor: Editor, tokens: Tokens, known: list[str]) -> None:
    """The base's object has no further members; of those that operations had written by then it may know nothing."""
    node = node_at(editor.root, tokens)
    members = node.members if type(node) is Object else {}
    unknown = {name: UNKNOWN for name in known if name not in members}
    editor.write(tokens, Object(BASE, True, {**members, **unknown}), BASE)


def without(entries: Sequence[Entry], undone: AbstractSet[int], contract: Contract, start: Node = UNKNOWN) -> Node:
    """The expected state of a history (in order) without the operations' writes in the entries numbered in `undone`."""
    base = base_of(entries, start)
    partial = Editor(base)
    # Members of mergeable values stand on their own: what others added to them is carried over as a step, for which the
    # value before the step, in the history as it happened, is needed.
    whole = Editor(base) if contract.kinds else None
    for entry in entries:
        for tokens, value in entry.external_writes():
            _replay_write(partial, whole, tokens, value, -entry.number, contract)
        if entry.number in undone:
            if whole is not None:
                for tokens, value in entry.writes():
                    whole.write(tokens, node_of(value, entry.number), entry.number)
        else:
            for tokens, value in entry.writes():
                _replay_write(partial, whole, tokens, value, entry.number, contract)
    return partial.root


def _replay_write(
    partial: Editor, whole: Editor | None, tokens: Tokens, value: Json | Absent, owner: int, contract: Contract
) -> None:
    if whole is None:
        partial.write(tokens, node_of(value, owner), owner)
        return
    carried = value
    if tokens and contract.rule(path_of(tokens)).kind in ("set", "keyed", "counter"):
        before = known_value(node_at(whole.root, tokens))
        onto = known_value(node_at(partial.root, tokens))
        result = merged(contract.rule(path_of(tokens)), before, value, onto)
        if result is not None:
            (carried,) = result
    whole.write(tokens, node_of(value, owner), owner)
    partial.write(tokens, node_of(carried, owner), owner)
