"""Fold and undo, held against the rules as the design's text has them, and against simulated targets that know the truth."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from reconciler.contracts.model import DEFAULT_CONTRACT
from reconciler.history.resource import ResourceHistory
from reconciler.history.tree import Gone, Leaf, Node, Object, Unknown, equal, leaves, member_of
from reconciler.history.undo import NOTHING_UNDONE, base_of, without
from reconciler.records import Action
from reconciler.values.json_value import ABSENT, same
from tests.core.histories import RESOURCE, make_action, wild_actions
from tests.core.oracle import Known, Log, Scalar, Tree, contradiction, known_at, place
from tests.core.worlds import World, worlds


def history_of(actions: list[Action]) -> ResourceHistory:
    history = ResourceHistory(RESOURCE, DEFAULT_CONTRACT)
    for action in actions:
        history.take(action)
    return history


def undone(history: ResourceHistory, operations: set[str]) -> Node:
    numbers = {entry.number for entry in history.entries if entry.operation_id in operations}
    return without(history.entries, numbers, DEFAULT_CONTRACT)


def known_of(node: Node) -> Known:
    """A tree of the core as the oracle knows it."""
    match node:
        case Leaf():
            return Scalar(node.value)
        case Object():
            return Tree(not node.closed, {name: known_of(member) for name, member in node.members.items()})
        case Gone():
            return ABSENT
        case Unknown():
            return None


def alike(left: Known, right: Known) -> bool:
    if isinstance(left, Tree) and isinstance(right, Tree):
        names = left.members.keys() | right.members.keys()
        return left.open == right.open and all(alike(known_at(left, (it,)), known_at(right, (it,))) for it in names)
    if isinstance(left, Scalar) and isinstance(right, Scalar):
        return same(left.value, right.value)
    return left is right


# -- against the text


@given(wild_actions())
def test_fold_is_what_the_text_says(actions: list[Action]) -> None:
    log = Log()
    history = ResourceHistory(RESOURCE, DEFAULT_CONTRACT)
    for action in actions:
        log.fold(action)
        history.take(action)
        assert alike(known_of(history.tree), log.now)


@given(wild_actions(), st.data())
def test_undo_is_what_the_text_says(actions: list[Action], data: st.DataObject) -> None:
    log = Log()
    for action in actions:
        log.fold(action)
    chosen = data.draw(st.sets(st.sampled_from(actions).map(lambda action: action.operation_id)))
    assert alike(known_of(undone(history_of(actions), chosen)), log.without(chosen))


# -- against the truth


@given(worlds(telling=("written", "whole", "nothing")))
def test_what_is_expected_is_so(world: World) -> None:
    assert contradiction(known_of(history_of(world.actions).tree), world.actual) is None


@given(worlds(telling=("written", "whole", "nothing")), st.data())
def test_what_would_be_expected_after_an_undo_would_be_so(world: World, data: st.DataObject) -> None:
    assume(not unsets_below_what_nobody_saw(world.actions))
    chosen = data.draw(st.sets(st.sampled_from(world.operations)))
    assert contradiction(known_of(undone(history_of(world.actions), chosen)), world.without(chosen)) is None


def unsets_below_what_nobody_saw(actions: list[Action]) -> bool:
    """Whether a member is taken away of what an action wrote without knowing what was there. By rule 1 what isn't known above
    a write is taken to have been an object, which only a write that sets something makes true."""
    blind = [place(path) for action in actions if action.before is None for path in (*action.set, *action.unset)]
    unset = [place(path) for action in actions for path in action.unset]
    return any(below[: len(above)] == above and below != above for above in blind for below in unset)


@given(worlds(telling=("whole",), externals=True), st.data())
def test_an_undo_leaves_what_others_wrote(world: World, data: st.DataObject) -> None:
    """Each external write but the last was noticed by an action that told of the whole resource: so all is known."""
    chosen = data.draw(st.sets(st.sampled_from(world.operations)))
    history = history_of(world.actions)
    assert contradiction(known_of(history.tree), world.noticed.actual) is None
    assert contradiction(known_of(undone(history, chosen)), world.noticed.without(chosen)) is None


@given(worlds(), st.data())
def test_every_place_written_is_known_after_an_undo(world: World, data: st.DataObject) -> None:
    """Actions that tell what they know of leave nothing in the dark that they wrote."""
    history = history_of(world.actions)
    chosen = data.draw(st.sets(st.sampled_from(world.operations)))
    after = known_of(undone(history, chosen))
    for entry in history.entries:
        for tokens, _ in entry.writes():
            assert known_at(after, tokens) is not None


# -- undoing in any order, all, twice, and back


@given(worlds(externals=True), st.data())
def test_undo_in_any_order_or_at_once_gives_one_state(world: World, data: st.DataObject) -> None:
    history = history_of(world.actions)
    chosen = data.draw(st.permutations(world.operations))
    chosen = chosen[: data.draw(st.integers(0, len(chosen)))]
    one_by_one = history_of(world.actions)
    for number, operation_id in enumerate(chosen):
        one_by_one.take(_reversal(operation_id, number))
    assert equal(one_by_one.tree, undone(history, set(chosen)))


@given(wild_actions())
def test_undoing_all_gives_the_base_and_external_writes_alone(actions: list[Action]) -> None:
    history = history_of(actions)
    rest = undone(history, {action.operation_id for action in actions})
    assert all(leaf.owner <= 0 for _, leaf in leaves(rest))
    log = Log()
    for action in actions:
        log.fold(action)
    log.steps = [step for step in log.steps if step[0] is None]
    assert alike(known_of(rest), log.without(()))


@given(worlds())
def test_undoing_all_gives_back_what_was_there_first(world: World) -> None:
    rest = undone(history_of(world.actions), set(world.operations))
    assert contradiction(known_of(rest), world.base) is None
    assert equal(rest, base_of(history_of(world.actions).entries))


@given(wild_actions(), st.data())
def test_undo_is_idempotent_and_can_be_undone(actions: list[Action], data: st.DataObject) -> None:
    history = history_of(actions)
    operation_id = data.draw(st.sampled_from(actions)).operation_id
    before = history.tree
    history.take(_reversal(operation_id, 1))
    once = history.tree
    history.take(_reversal(operation_id, 2))
    assert equal(history.tree, once)
    assert equal(without(history.entries, NOTHING_UNDONE, DEFAULT_CONTRACT), before)


@given(wild_actions(), st.data())
def test_what_an_undo_doesnt_touch_stays_with_its_owner(actions: list[Action], data: st.DataObject) -> None:
    history = history_of(actions)
    chosen = data.draw(st.sampled_from(actions)).operation_id
    numbers = {entry.number for entry in history.entries if entry.operation_id == chosen}
    after = without(history.entries, numbers, DEFAULT_CONTRACT)
    for _, leaf in leaves(after):
        assert leaf.owner not in numbers


@given(wild_actions(), st.data())
def test_the_log_in_between_may_be_told_twice(actions: list[Action], data: st.DataObject) -> None:
    """Duplicates at any later place, and with reversals among them, change nothing."""
    log = [*actions, _reversal(data.draw(st.sampled_from(actions)).operation_id, 1)]
    repeated = list(log)
    for action in data.draw(st.lists(st.sampled_from(log), max_size=4)):
        first = repeated.index(action)
        repeated.insert(data.draw(st.integers(first + 1, len(repeated))), action)
    once, twice = history_of(log), history_of(repeated)
    assert once.tree == twice.tree
    assert once.entries == twice.entries
    assert once.undone == twice.undone


def _reversal(operation_id: str, number: int) -> Action:
    return make_action(1_000 + number, operation_id=operation_id, stage="reversed")


def test_members_that_a_closed_object_doesnt_name_are_absent() -> None:
    node = Object(1, True, {})
    assert isinstance(member_of(node, "a"), Gone)
    assert isinstance(member_of(Object(1, False, {}), "a"), Unknown)
