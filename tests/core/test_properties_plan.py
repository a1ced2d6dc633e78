"""Plans, held against simulated targets: what a plan's commands leave at the target is what would be there without the
operations, and nothing else is touched."""

from __future__ import annotations

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from reconciler.contracts.model import Contract, ContractSet, Undo
from reconciler.json_form import to_json
from reconciler.offline import applied, planned
from reconciler.plan.model import Plan
from reconciler.records import Command, Observation, RollbackRequest, Selector
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, same
from tests.core.dice import Dice, places_in
from tests.core.histories import RESOURCE
from tests.core.oracle import Refused, Wishes, at, differences, ends, obeyed, place, put, three_way
from tests.core.worlds import World, observed, worlds

# Nothing stands in an undo's way but what reality holds: a plan of any operations at all.
ORPHANING = ContractSet((Contract(name="*", undo=Undo(dependants="orphan")),))
FIELD_BY_FIELD = ContractSet((Contract(name="*", undo=Undo(dependants="orphan"), conflict_scope="field"),))


def request_for(operations: list[str]) -> RollbackRequest:
    return RollbackRequest(rollback_id="rollback-1", select=Selector(operations=operations))


def plan_of(world: World, operations: list[str], contracts: ContractSet = ORPHANING) -> Plan:
    return planned(world.actions, [world.observation()], request_for(operations), contracts)


def commands_of(plan: Plan) -> list[Command]:
    return [command for wave in plan.waves for command in wave]


def after(plan: Plan, actual: Json | Absent) -> Json | Absent:
    """What the oracle's target holds after the plan's commands; what `apply` says must be the same."""
    refusals: list[str] = []
    said = applied(plan, {RESOURCE: observed(actual, 1)}, refusals)[RESOURCE]
    for command in commands_of(plan):
        actual = obeyed(actual, command)
    assert refusals == []
    assert same(said.fields if said.exists else ABSENT, actual)
    return actual


@st.composite
def worlds_and_operations(
    draw: st.DrawFn, telling: tuple[str, ...] = ("written", "whole"), externals: bool = False
) -> tuple[World, list[str]]:
    world = draw(worlds(telling=telling, externals=externals))  # type: ignore[arg-type]
    return world, sorted(draw(st.sets(st.sampled_from(world.operations), min_size=1)))


# -- where nobody else wrote since: no conflicts, and the whole truth is known


@given(worlds_and_operations())
def test_a_plan_gives_what_would_be_there(case: tuple[World, list[str]]) -> None:
    world, operations = case
    plan = plan_of(world, operations)
    assert plan.conflicts == [] and plan.blocked == []
    assert same(after(plan, world.actual), world.without(set(operations)))
    assert len(commands_of(plan)) <= 1
    assert (plan.status == "nothing_to_do") is (commands_of(plan) == [])


@given(worlds_and_operations(telling=("written", "whole", "nothing")))
def test_what_isnt_known_is_blocked_and_the_rest_is_undone(case: tuple[World, list[str]]) -> None:
    world, operations = case
    plan = plan_of(world, operations)
    assert {item.rule for item in plan.blocked} <= {"unknown_pre_state"}
    assert sorted([*plan.operations, *(item.operation_id for item in plan.blocked)]) == operations
    assert plan.conflicts == []
    assert same(after(plan, world.actual), world.without(set(plan.operations)))
    blind = {action.operation_id for action in world.actions if action.before is None and action.operation != "create"}
    if not blind & set(operations):
        assert plan.blocked == []


@given(worlds_and_operations())
def test_no_change_can_be_taken_out(case: tuple[World, list[str]]) -> None:
    world, operations = case
    for command in commands_of(plan_of(world, operations)):
        wanted = obeyed(world.actual, command)
        for change in command.changes:
            fewer = msgspec.structs.replace(
                command, changes=[other for other in command.changes if other is not change]
            )
            if fewer.changes:
                assert not same(obeyed(world.actual, fewer), wanted)
            # What it names must change, whole: of an object that is set, no member may stay as it was …
            there = at(world.actual, place(change.path))
            assert not same(there, at(wanted, place(change.path)))
            # … unless the kind of the node changes.
            assert not (isinstance(there, dict) and isinstance(change.value, dict))


@given(worlds_and_operations())
def test_a_second_application_changes_nothing(case: tuple[World, list[str]]) -> None:
    world, operations = case
    plan = plan_of(world, operations)
    once = applied(plan, {RESOURCE: world.observation()}, [])
    twice = applied(plan, once, [])
    assert twice[RESOURCE].exists == once[RESOURCE].exists
    assert same(twice[RESOURCE].fields, once[RESOURCE].fields)


@given(worlds_and_operations(), st.data())
def test_a_command_for_another_state_is_refused(case: tuple[World, list[str]], data: st.DataObject) -> None:
    """Somebody changes one of the places that a command touches after the plan was made."""
    world, operations = case
    plan = plan_of(world, operations)
    assume(plan.waves)
    (command,) = commands_of(plan)
    dice = Dice(data.draw)
    tokens = place(dice.pick(command.changes).path)
    there = at(world.actual, tokens)
    if command.action == "delete":
        tokens = dice.pick([*places_in(there), ("somebody's",)])
        there = at(world.actual, tokens)
    other = put(
        world.actual, tokens, ABSENT if tokens and dice.one_in(4) else dice.value() if tokens else dice.object()
    )
    assume(not same(at(other, tokens), there))
    assume(not same(at(other, tokens), at(obeyed(world.actual, command), tokens)))
    refusals: list[str] = []
    left = applied(plan, {RESOURCE: observed(other, 1)}, refusals)[RESOURCE]
    assert len(refusals) == 1
    assert same(left.fields if left.exists else ABSENT, other)
    try:
        obeyed(other, command)
    except Refused:
        return
    raise AssertionError("the oracle's target would have obeyed")


@given(worlds_and_operations(externals=True), st.data())
def test_undoing_a_plan_in_parts_ends_where_undoing_it_at_once_does(
    case: tuple[World, list[str]], data: st.DataObject
) -> None:
    """The operations of a plan, undone by several plans in any order, each reported back as reversed."""
    world, operations = case
    assume(world.is_all_noticed)
    at_once = plan_of(world, operations)
    assume(not at_once.conflicts and not at_once.blocked)
    actual, actions = world.actual, list(world.actions)
    for number, operation_id in enumerate(data.draw(st.permutations(operations))):
        plan = planned(actions, [observed(actual, 1_000_000)], request_for([operation_id]), ORPHANING)
        assume(not plan.conflicts and not plan.blocked)
        actual = after(plan, actual)
        reversed_ = msgspec.structs.replace(
            next(action for action in world.actions if action.operation_id == operation_id),
            action_id=f"reversed-{number}",
            stage="reversed",
        )
        actions.append(reversed_)
    assert same(actual, after(at_once, world.actual))


# -- where others wrote, noticed or not


def wishes_of(world: World, operations: set[str]) -> Wishes:
    """Rule 3 on what is known: every external write but the last was noticed, so B and D are whole documents."""
    return three_way(world.noticed.actual, world.noticed.without(operations), world.actual)


@given(worlds_and_operations(telling=("whole",), externals=True))
def test_reality_is_merged_as_the_text_says(case: tuple[World, list[str]]) -> None:
    world, operations = case
    wishes = wishes_of(world, set(operations))
    plan = plan_of(world, operations, FIELD_BY_FIELD)
    assert plan.blocked == []
    assert {place(item.path) for item in plan.conflicts} == wishes.conflicts
    assert {place(item.path) for item in plan.unchanged} == wishes.unchanged
    assert all(item.resolution == "manual" for item in plan.conflicts)
    changes = {place(change.path): change for command in commands_of(plan) for change in command.changes}
    assert changes.keys() == wishes.changes.keys()
    wanted = world.actual
    for tokens, value in wishes.changes.items():
        assert same(changes[tokens].value, value)
        assert same(changes[tokens].expect, at(world.actual, tokens))
        wanted = put(wanted, tokens, value)
    assert same(after(plan, world.actual), wanted)


@given(worlds_and_operations(telling=("whole",), externals=True))
def test_a_conflict_holds_the_whole_resource(case: tuple[World, list[str]]) -> None:
    world, operations = case
    plan = plan_of(world, operations)
    if plan.conflicts:
        assert plan.waves == [] and plan.status == "nothing_to_do"
    else:
        assert same(after(plan, world.actual), after(plan_of(world, operations, FIELD_BY_FIELD), world.actual))


@given(worlds_and_operations(telling=("written", "whole", "nothing"), externals=True))
def test_nothing_that_others_wrote_is_ever_destroyed(case: tuple[World, list[str]]) -> None:
    """Whatever is known or not: what others put there since stays, though a member may be added to an object of theirs."""
    world, operations = case
    plan = plan_of(world, operations, FIELD_BY_FIELD)
    result = after(plan, world.actual)
    for tokens, value in differences(world.noticed.actual, world.actual):
        for end, theirs in ends(value, tokens) if value is not ABSENT else ():
            kept = at(result, end)
            assert isinstance(kept, dict) if theirs == {} else same(kept, theirs)


@given(worlds_and_operations(telling=("written", "whole", "nothing"), externals=True))
def test_a_plan_is_the_same_for_the_same_input(case: tuple[World, list[str]]) -> None:
    world, operations = case
    one, other = plan_of(world, operations), plan_of(world, list(reversed(operations)))
    assert canonical(to_json(one)) == canonical(to_json(plan_of(world, operations)))
    assert one.waves == other.waves
    assert one.conflicts == other.conflicts


@given(st.lists(worlds(max_size=3), min_size=2, max_size=3), st.data())
def test_a_plan_doesnt_depend_on_the_order_of_the_actual_states(estate: list[World], data: st.DataObject) -> None:
    actions, observations = [], []
    for number, world in enumerate(estate):
        resource = f"{RESOURCE}-{number}"
        for action in world.actions:
            actions.append(
                msgspec.structs.replace(
                    action,
                    resource=resource,
                    action_id=f"{action.action_id}-{number}",
                    operation_id=f"{action.operation_id}-{number}",
                )
            )
        observations.append(observed(world.actual, 1_000_000, resource))
        observations.append(Observation(resource=resource, exists=None, observed_at=500, reason="timed out"))
    request = RollbackRequest(rollback_id="rollback-1", select=Selector(run_id="run"))
    shuffled = data.draw(st.permutations(observations))
    one, other = planned(actions, observations, request, ORPHANING), planned(actions, shuffled, request, ORPHANING)
    assert canonical(to_json(one)) == canonical(to_json(other))
    assert {command.resource for command in commands_of(one)} <= {item.resource for item in observations}
