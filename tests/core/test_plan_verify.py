"""The independent look at a plan finds what is wrong with it. That it finds nothing in the planner's own plans is shown
wherever `planned` is called in these tests: it looks at every plan before it gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from reconciler.contracts.loader import Source, contract_set
from reconciler.json_form import action_from_json, observation_from_json
from reconciler.offline import FaultyPlan, planned
from reconciler.plan.build import build, hash_of
from reconciler.plan.commands import undo_command
from reconciler.plan.estate import Estate, estate_of
from reconciler.plan.model import ApprovalNeeded, Blocked, Kept, Plan, Planned, Unchanged
from reconciler.plan.request import request_from_json
from reconciler.plan.verify import verify
from reconciler.records import Change, Command, Observation, RollbackRequest
from reconciler.values.json_value import canonical

CONTRACT: dict[str, Any] = {
    "contract": "crm/*",
    "references": {"/account_id": "crm/account"},
    "undo": {"compensations": {"mail": {"by": "apology"}}},
}
STEPS: list[dict[str, Any]] = [
    {"step_id": "account", "operation": "create", "resource": "crm/account/7", "set": {"/name": "ACME"}},
    {"step_id": "contact", "operation": "create", "resource": "crm/contact/1", "set": {"/account_id": "7"}},
    {
        "step_id": "phone",
        "operation": "update",
        "resource": "crm/contact/42",
        "depends_on": ["run-1/contact"],
        "before": {"/phone": "1", "/box": {"a": 1}},
        "set": {"/phone": "2", "/box": {"a": 2}},
    },
    {"step_id": "mail", "operation": "effect", "resource": "crm/contact/42"},
    {"step_id": "fax", "operation": "update", "resource": "crm/contact/43", "before": {"/fax": "1"}, "set": {"/fax": "2"}},
    {
        "step_id": "later",
        "run_id": "run-2",
        "operation": "update",
        "resource": "crm/contact/42",
        "before": {"/city": "Bonn"},
        "set": {"/city": "Ulm"},
    },
]  # fmt: skip
ACTUAL: dict[str, dict[str, Any]] = {
    "crm/account/7": {"name": "ACME"},
    "crm/contact/1": {"account_id": "7"},
    "crm/contact/42": {"phone": "2", "box": {"a": 2}, "city": "Ulm", "note": "theirs"},
    "crm/contact/43": {"fax": "3"},
    "crm/contact/44": {"fax": "3"},
}


def world() -> tuple[RollbackRequest, Estate, list[Observation]]:
    contracts = contract_set([Source("contract", canonical(CONTRACT).decode())])
    actions = [
        action_from_json({"stage": "succeeded", "run_id": "run-1", "occurred_at": "2026-05-03T10:00:00Z", **step})
        for step in STEPS
    ]
    observations = [
        observation_from_json({"resource": resource, "exists": True, "fields": fields})
        for resource, fields in ACTUAL.items()
    ]
    request = request_from_json({"rollback_id": "rollback-1", "select": {"run_id": "run-1"}})
    return request, estate_of(actions, contracts), observations


def faults_of(change: Callable[[Planned], Planned]) -> list[str]:
    """The faults of a plan that was changed, its hash made anew."""
    request, estate, observations = world()
    planned_ = change(build(request, estate, observations, 0))
    plan = planned_.plan
    if plan.plan_hash != "kept as it was":
        plan = msgspec.structs.replace(plan, plan_hash=hash_of(plan))
    changed = msgspec.structs.replace(planned_, plan=plan)
    return [str(fault) for fault in verify(changed, request, estate, observations)]


def test_the_planner_s_own_plan_is_sound() -> None:
    assert faults_of(lambda planned_: planned_) == []


def with_plan(planned_: Planned, **fields: Any) -> Planned:
    return msgspec.structs.replace(planned_, plan=msgspec.structs.replace(planned_.plan, **fields))


def with_commands(planned_: Planned, change: Callable[[Command], Command]) -> Planned:
    """A plan and its steps with every command changed, each for itself."""
    waves = [[change(command) for command in wave] for wave in planned_.plan.waves]
    steps = [
        msgspec.structs.replace(step, command=None if step.command is None else change(step.command))
        for step in planned_.steps
    ]
    return msgspec.structs.replace(with_plan(planned_, waves=waves), steps=steps)


def with_change(index: int, **fields: Any) -> Callable[[Planned], Planned]:
    """The index-th change of contact 42, otherwise."""

    def changed(command: Command) -> Command:
        if command.resource != "crm/contact/42" or command.action != "patch":
            return command
        changes = list(command.changes)
        changes[index] = msgspec.structs.replace(changes[index], **fields)
        return msgspec.structs.replace(command, changes=changes)

    return lambda planned_: with_commands(planned_, changed)


def with_more(change: Change) -> Callable[[Planned], Planned]:
    def changed(command: Command) -> Command:
        if command.resource != "crm/contact/42" or command.action != "patch":
            return command
        return msgspec.structs.replace(command, changes=[*command.changes, change])

    return lambda planned_: with_commands(planned_, changed)


def without_change(planned_: Planned) -> Planned:
    def fewer(command: Command) -> Command:
        if command.action != "patch":
            return command
        return msgspec.structs.replace(command, changes=command.changes[1:])

    return with_commands(planned_, fewer)


def reordered(planned_: Planned) -> Planned:
    """The last wave first."""
    plan: Plan = planned_.plan
    last = len(plan.waves) + 1
    steps = [msgspec.structs.replace(step, wave=last - step.wave) for step in planned_.steps]
    steps.sort(key=lambda step: step.wave)
    return msgspec.structs.replace(with_plan(planned_, waves=plan.waves[::-1]), steps=steps)


def doubled_effect(planned_: Planned) -> Planned:
    """The compensation a second time, in a wave of its own."""
    (effect,) = (step for step in planned_.steps if step.action_id is not None)
    last = len(planned_.plan.waves) + 1
    more = with_plan(planned_, waves=[*planned_.plan.waves, [effect.command]])
    return msgspec.structs.replace(more, steps=[*planned_.steps, msgspec.structs.replace(effect, wave=last)])


FAULTY: dict[str, tuple[Callable[[Planned], Planned], str]] = {
    "a value expected that isn't there": (with_change(-1, expect="9"), ".expect: it isn't what is there"),
    "a value that is there already": (with_change(-1, value="2"), "it is there already"),
    "another value than before": (with_change(-1, value="7"), "'/phone' doesn't become what would be there"),
    "an object set whole": (with_change(0, path="/box", value={"a": 1}, expect={"a": 2}), "only the members"),
    "somebody's field": (
        with_more(Change(path="/note", op="set", value="x", expect="theirs")),
        "it would destroy what somebody else put at '/note'",
    ),
    "a field of others' work": (
        with_more(Change(path="/city", op="set", value="Bonn", expect="Ulm")),
        "'/city' is none of the places",
    ),
    "a field twice": (with_more(Change(path="/phone", op="set", value="1", expect="2")), "changed by two changes"),
    "a field and one inside it": (
        with_more(Change(path="/box", op="unset", expect={"a": 2})),
        "changed by two changes",
    ),
    "a field that isn't there taken away": (with_more(Change(path="/x", op="unset")), "it isn't there anyway"),
    "a change left out": (without_change, "doesn't become what would be there"),
    "a wrong action": (
        lambda planned_: with_commands(planned_, lambda item: msgspec.structs.replace(item, action="delete")),
        ".action: what it does is a patch",
    ),
    "commands with one id": (
        lambda planned_: with_commands(planned_, lambda item: msgspec.structs.replace(item, command_id="x")),
        "two commands have the same id",
    ),
    "the waves the other way round": (reordered, "must be settled before"),
    "a wave left out": (
        lambda planned_: with_plan(planned_, waves=planned_.plan.waves[1:]),
        "their commands aren't those of the waves",
    ),
    "a step left out": (
        lambda planned_: msgspec.structs.replace(planned_, steps=planned_.steps[1:]),
        "is undone by no step",
    ),
    "an effect made good twice": (doubled_effect, "is undone 2 times"),
    "an operation undone and blocked": (
        lambda planned_: with_plan(
            planned_, blocked=[Blocked(operation_id="run-1/phone", rule="expired", reason="It is old.")]
        ),
        "run-1/phone is blocked and undone",
    ),
    "an operation that isn't said to be undone": (
        lambda planned_: with_plan(
            planned_, operations=[name for name in planned_.plan.operations if name != "run-1/contact"]
        ),
        "it undoes run-1/contact as well",
    ),
    "a conflict left out": (lambda planned_: with_plan(planned_, conflicts=[]), "it is held, and no conflict says why"),
    "a conflict on another value": (
        lambda planned_: with_plan(
            planned_, conflicts=[msgspec.structs.replace(item, actual="4") for item in planned_.plan.conflicts]
        ),
        "conflicts[0].actual: it isn't what is there",
    ),
    "a field kept that is changed": (
        lambda planned_: with_plan(
            planned_, kept=[Kept(resource="crm/contact/42", path="/phone", value="2", owner="run-2/later")]
        ),
        "kept[0]: the plan changes it all the same",
    ),
    "a field kept for what is undone": (
        lambda planned_: with_plan(
            planned_, kept=[Kept(resource="crm/contact/42", path="/city", value="Ulm", owner="run-1/phone")]
        ),
        "kept[0]: it is kept for an operation that is undone",
    ),
    "a field unchanged that is changed": (
        lambda planned_: with_plan(planned_, unchanged=[Unchanged(resource="crm/contact/42", path="/phone")]),
        "unchanged[0]: the plan changes it all the same",
    ),
    "another contract": (
        lambda planned_: with_plan(planned_, contracts={"crm/*": "another"}),
        "contracts: the plan isn't pinned to crm/*",
    ),
    "consent for nothing": (
        lambda planned_: with_plan(planned_, approvals_needed=[ApprovalNeeded(contract="crm/*", roles=[], count=1)]),
        "approvals_needed: consent is needed",
    ),
    "nothing to do, and commands": (
        lambda planned_: with_plan(planned_, status="nothing_to_do"),
        "status: there is nothing to do where there are no commands",
    ),
    "rejected by nobody": (lambda planned_: with_plan(planned_, status="rejected"), "status: a plan is rejected where"),
    "another hash": (
        lambda planned_: with_plan(planned_, plan_hash="kept as it was"),
        "plan_hash: it isn't the digest",
    ),
}


@pytest.mark.parametrize(("change", "fault"), FAULTY.values(), ids=FAULTY.keys())
def test_a_fault_is_found(change: Callable[[Planned], Planned], fault: str) -> None:
    found = faults_of(change)
    assert any(fault in item for item in found), found


def test_a_held_resource_gets_no_command() -> None:
    """The conflict of contact 43 is for a person; the planner sends nothing there, and a plan that did would be faulty."""
    request, estate, observations = world()
    sound = build(request, estate, observations, 0)
    assert [item.resource for item in sound.plan.conflicts] == ["crm/contact/43"]
    command = next(item for wave in sound.plan.waves for item in wave if item.resource == "crm/contact/42")
    more = msgspec.structs.replace(
        command,
        command_id="more",
        resource="crm/contact/43",
        action="patch",
        changes=[Change(path="/fax", op="set", value="1", expect="3")],
    )
    faults = faults_of(lambda planned_: with_plan(planned_, waves=[*planned_.plan.waves, [more]]))
    assert any("a conflict that a person must decide holds the resource" in fault for fault in faults)
    assert any("it would destroy what somebody else put at '/fax'" in fault for fault in faults)


def test_a_faulty_plan_is_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the planner has a bug, here one that forgets what it expects to find, nobody sees the plan."""
    honest = undo_command

    def forgetful(*args: Any) -> Command | None:
        command = honest(*args)
        if command is None:
            return None
        changes = [Change(path=change.path, op=change.op, value=change.value) for change in command.changes]
        return msgspec.structs.replace(command, changes=changes)

    monkeypatch.setattr("reconciler.plan.build.undo_command", forgetful)
    request, estate, observations = world()
    actions = [action for operation in estate.operations.values() for action in operation.actions]
    with pytest.raises(FaultyPlan, match="it isn't what is there") as error:
        planned(actions, observations, request, estate.contracts, 0)
    assert error.value.faults


def test_what_others_put_where_an_undo_brings_back_an_object_is_theirs() -> None:
    """The object `/a/x` comes back without the member `b`, which is absent before and after. Others have made such an object
    meanwhile, with that member: it makes no difference to the plan, and the look at it must see none."""
    steps: list[dict[str, Any]] = [
        {"step_id": "one", "before": {}, "set": {"/a/x/b": 1}},
        {"step_id": "two", "before": {"/a": {"x": {"b": 1}}}, "set": {"/a": []}},
        {"step_id": "three", "before": {"/a": []}, "set": {"/a/c": 2}},
    ]
    actions = [
        action_from_json(
            {
                "stage": "succeeded",
                "run_id": "run-1",
                "occurred_at": "2026-05-03T10:00:00Z",
                "resource": "crm/contact/42",
                "operation": "update",
                **step,
            }
        )
        for step in steps
    ]
    held = {"resource": "crm/contact/42", "exists": True, "fields": {"a": {"c": 2, "x": {"b": 5}}}}
    request = request_from_json({"rollback_id": "rb", "select": {"operations": ["run-1/one", "run-1/two"]}})
    contracts = contract_set([Source("orphan.yaml", "contract: crm/contact\nversion: 1\nundo: {dependants: orphan}\n")])
    plan = planned(actions, [observation_from_json(held)], request, contracts)
    assert (plan.blocked, plan.conflicts, plan.waves) == ([], [], [])


def test_an_undo_that_a_revived_one_undoes_is_in_no_step_and_a_forgotten_one_is_found() -> None:
    """`b` undid `a`, and `c` undid `b`. Without `c`, `b` is in force again and undoes `a`: so the step of an undo of `a` and `c`
    names the entry of `c` alone. No step at all, or one that names that of `b`, leaves both as they were."""
    undone = {"a": "run-1/phone", "b": "a/undo", "c": "b/undo"}
    actions = [
        action_from_json({"stage": "succeeded", "run_id": "run-1", "occurred_at": "2026-05-03T10:00:00Z", **STEPS[2]})
    ]
    actions += [
        action_from_json(
            {
                "stage": "reversed",
                "run_id": run,
                "step_id": "undo",
                "operation_id": operation,
                "occurred_at": "2026-05-03T11:00:00Z",
                "resource": "crm/contact/42",
                "operation": "update",
            }
        )
        for run, operation in undone.items()
    ]
    estate = estate_of(actions, contract_set([]))
    held = observation_from_json(
        {"resource": "crm/contact/42", "exists": True, "fields": {"phone": "1", "box": {"a": 1}}}
    )
    request = request_from_json({"rollback_id": "rb", "select": {"operations": ["a/undo", "c/undo"]}})
    sound = build(request, estate, [held], 0)
    (step,) = sound.steps
    assert (step.numbers, verify(sound, request, estate, [held])) == ([4], [])
    another = msgspec.structs.replace(step, numbers=[3], operations=["b/undo"])
    for steps in ([], [another]):
        faults = [str(item) for item in verify(msgspec.structs.replace(sound, steps=steps), request, estate, [held])]
        assert all(f"steps: what {name}/undo did to crm/contact/42 is undone by no step" in faults for name in "ac")
