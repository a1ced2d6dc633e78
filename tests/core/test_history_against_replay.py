"""The structure that runs, held against the plain replay that defines it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.model import DEFAULT_CONTRACT
from reconciler.history.entry import numbers_to_undo
from reconciler.history.fold import fold
from reconciler.history.replay import History, Known, State, Value, look
from reconciler.history.resource import ResourceHistory, collapse
from reconciler.history.tree import UNKNOWN, Gone, Leaf, Node, Object, equal, leaves
from reconciler.history.undo import without
from reconciler.records import Action, operation_of
from reconciler.values.json_value import Json, same
from reconciler.values.pointer import Tokens
from tests.core.histories import RESOURCE, flat_updates, logs_with_undos, make_reversal, wild_actions


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


@given(st.one_of(wild_actions(), flat_updates()))
def test_folding_one_action_into_a_tree_is_folding_it_into_a_history(actions: list[Action]) -> None:
    history = ResourceHistory(RESOURCE, DEFAULT_CONTRACT)
    tree: Node = UNKNOWN
    for number, action in enumerate(actions, 1):
        history.take(action)
        tree, entry = fold(tree, number, action, DEFAULT_CONTRACT)
        assert tree == history.tree
        assert entry == history.entries[-1]
        assert [same(*pair) for pair in zip(values_in(tree), values_in(history.tree), strict=True)].count(False) == 0


def values_in(tree: Node) -> list[Json]:
    return [leaf.value for _, leaf in leaves(tree) if type(leaf) is Leaf]


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


@given(logs_with_undos())
def test_undos_are_the_replay(log: list[Action]) -> None:
    history, replay = both(log)
    assert equal(history.tree, tree_of(replay.now))
    assert equal(history.tree, tree_of(replay.without(frozenset())))


@given(logs_with_undos(), st.data())
def test_undoing_undos_is_the_replay(log: list[Action], data: st.DataObject) -> None:
    history, replay = both(log)
    names = data.draw(st.sets(st.sampled_from(sorted({operation_of(action) for action in log}))))
    assert equal(history.without(history.numbers_of(*names)), tree_of(replay.without(names)))


@given(logs_with_undos(), st.data())
def test_an_undo_written_down_is_the_undo_that_was_planned(log: list[Action], data: st.DataObject) -> None:
    """Each entry reversed by an action of its own, as the machine does it, which is then undone in turn."""
    history, replay = both(log)
    names = data.draw(st.sets(st.sampled_from(sorted({operation_of(action) for action in log}))))
    planned, before = history.without(history.numbers_of(*names)), history.tree
    for number in sorted(history.numbers_of(*names)):
        entry = history.entry(number)
        reversed_ = make_reversal(200 + number, entry.operation_id, "rollback", entry.action.action_id)
        assert history.take(reversed_) == "folded"
        replay.fold(reversed_)
    assert equal(history.tree, planned)
    assert equal(tree_of(replay.now), planned)
    assert not history.numbers_of(*names)
    assert equal(history.without(history.numbers_of("rollback/undo")), before)
    assert equal(tree_of(replay.without({"rollback/undo"})), before)


@given(logs_with_undos())
def test_a_history_restored_from_its_entries_is_the_same(log: list[Action]) -> None:
    history, _ = both(log)
    again = ResourceHistory.restored(RESOURCE, DEFAULT_CONTRACT, reversed(history.entries))
    assert equal(again.tree, history.tree)
    assert (again.entries, again.undone) == (history.entries, history.undone)


@given(logs_with_undos(), st.data())
def test_entries_that_collapsed_into_the_base_change_nothing_but_what_can_be_undone(
    log: list[Action], data: st.DataObject
) -> None:
    history, _ = both(log)
    bound = data.draw(st.integers(0, len(history.entries)))
    base = collapse(history, bound, history.undone)
    left = ResourceHistory.restored(RESOURCE, DEFAULT_CONTRACT, history.entries[bound:], base=base, collapsed=bound)
    assert equal(left.tree, history.tree)
    assert left.last_number == history.last_number
    for number in range(bound + 1, left.last_number + 1):
        assert left.reach_of(number) == history.reach_of(number) or left.reach_of(number) <= bound
        if left.reach_of(number) > bound:
            assert equal(left.without({number}), history.without({number}))


@given(logs_with_undos(), st.data())
def test_what_an_undo_undoes_is_found_by_operation_as_by_looking_at_every_entry(
    actions: list[Action], data: st.DataObject
) -> None:
    history = ResourceHistory(RESOURCE, DEFAULT_CONTRACT)
    for action in actions:
        history.take(action)
        names = sorted({entry.operation_id for entry in history.entries} | {"nobody/knows"})
        asked = data.draw(st.sets(st.sampled_from(names)))
        assert history.numbers_of(*asked) == numbers_to_undo(history.entries, asked)
