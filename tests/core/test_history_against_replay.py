"""The structure that runs, held against the plain replay that defines it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.model import DEFAULT_CONTRACT
from reconciler.history.replay import History, Known, State, Value, look
from reconciler.history.resource import ResourceHistory
from reconciler.history.tree import UNKNOWN, Gone, Leaf, Node, Object, equal
from reconciler.history.undo import without
from reconciler.records import Action
from reconciler.values.pointer import Tokens
from tests.core.histories import RESOURCE, wild_actions


def tree_of(state: State, place: Tokens = ()) -> Node:
    """What the replay says, as a tree, for comparison."""
    what = look(state, place)
    if isinstance(what, Value):
        return Leaf(0, what.value)
    if what is Known.NOTHING:
        return Gone(0)
    if what is Known.UNKNOWN:
        return UNKNOWN
    names = {other[len(place)] for other in state if len(other) > len(place) and other[: len(place)] == place}
    members = {name: tree_of(state, (*place, name)) for name in sorted(names)}
    return Object(0, what is Known.CLOSED, members)


def both(actions: list[Action]) -> tuple[ResourceHistory, History]:
    history, replay = ResourceHistory(RESOURCE, DEFAULT_CONTRACT), History()
    for action in actions:
        history.take(action)
        replay.fold(action)
    return history, replay


@given(wild_actions())
def test_fold_is_the_replay(actions: list[Action]) -> None:
    history, replay = both(actions)
    assert equal(history.tree, tree_of(replay.now))


@given(wild_actions(), st.data())
def test_undo_is_the_replay(actions: list[Action], data: st.DataObject) -> None:
    history, replay = both(actions)
    undone = data.draw(st.sets(st.sampled_from(actions).map(lambda action: action.operation_id)))
    numbers = {entry.number for entry in history.entries if entry.operation_id in undone}
    assert equal(without(history.entries, numbers, DEFAULT_CONTRACT), tree_of(replay.without(undone)))


@given(wild_actions())
def test_undoing_nothing_gives_what_is_expected(actions: list[Action]) -> None:
    history, _ = both(actions)
    assert equal(without(history.entries, frozenset(), DEFAULT_CONTRACT), history.tree)


@given(wild_actions())
def test_a_log_with_duplicates_folds_as_one_without(actions: list[Action]) -> None:
    once, twice = ResourceHistory(RESOURCE, DEFAULT_CONTRACT), ResourceHistory(RESOURCE, DEFAULT_CONTRACT)
    for action in actions:
        assert once.take(action) == "folded"
    for number, action in enumerate(actions):
        twice.take(action)
        for repeated in actions[: number + 1]:
            assert twice.take(repeated) == "repeated"
    assert twice.tree == once.tree
    assert twice.entries == once.entries
