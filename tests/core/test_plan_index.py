"""The index of a partition, against what the planner itself would select."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.model import Contract, ContractSet
from reconciler.plan.estate import estate_of
from reconciler.plan.index import ActionIndex, Matches, is_told_later
from reconciler.plan.selection import selected
from reconciler.records import Action, Actor, GatherQuery, Selector
from tests.core.histories import make_action

CONTRACTS = ContractSet((Contract(name="crm/contact", references={"/account/id": "crm/account"}),))

SELECTORS = [
    Selector(run_id="r1"),
    Selector(workflow_id="w1"),
    Selector(workflow_id="w1", from_at=2_000_000, to_at=5_000_000),
    Selector(actor="ana"),
    Selector(actor="ana", from_at=3_000_000),
    Selector(system="erp", to_at=4_000_000),
    Selector(resource="crm/contact/1", to_at=3_000_000),
    Selector(operations=["r1/step-1", "nobody/knows"]),
]


def query(**fields: Any) -> GatherQuery:
    given: dict[str, Any] = {"rollback_id": "rb", "round": 1, "partition": 0, "occurred_at": 0}
    return GatherQuery(**(given | fields))


def index_of(actions: list[Action]) -> ActionIndex:
    index = ActionIndex(CONTRACTS)
    for offset, action in enumerate(actions):
        index.take(action, offset)
    return index


@st.composite
def logs(draw: st.DrawFn) -> list[Action]:
    return [
        make_action(
            number,
            stage=draw(st.sampled_from(["initiated", "succeeded", "failed"])),
            run_id=draw(st.sampled_from(["r1", "r2"])),
            step_id=f"step-{draw(st.integers(1, 3))}",
            resource=draw(st.sampled_from(["crm/contact/1", "crm/contact/2", "erp/order/1"])),
            workflow_id=draw(st.sampled_from(["", "w1", "w2"])),
            actor=draw(st.sampled_from([None, Actor(id="ana", kind="user"), Actor(id="bo", kind="user")])),
        )
        for number in range(draw(st.integers(0, 8)))
    ]


@given(logs(), st.sampled_from(SELECTORS))
def test_a_selector_matches_what_the_planner_selects_and_tells_every_resource_of_it(
    actions: list[Action], selector: Selector
) -> None:
    estate = estate_of(actions, CONTRACTS)
    known = [
        name
        for name in selected(estate, selector)
        if name in estate.operations and (estate.entries_of(name) or estate.is_outcome_unknown(name))
    ]
    found = index_of(actions).matches(query(select=selector))
    assert sorted(found.operations) == sorted(known)
    assert set(found.resources) == {action.resource for name in known for action in estate.operations[name].actions}


@given(logs(), st.sampled_from(SELECTORS))
def test_what_arrives_later_is_told_exactly_if_it_would_have_been_matched(
    actions: list[Action], selector: Selector
) -> None:
    asked = query(select=selector, standing=True, occurred_at=1_000_000_000)
    for action in actions:
        alone = index_of([action]).matches(asked)
        assert is_told_later(asked, action) == (bool(alone.operations) and action.stage == "succeeded")
        assert not is_told_later(query(select=selector), action), "only standing questions are told later"


def test_a_partition_matches_a_whole_run_and_leaves_it_to_the_planner_what_came_after_a_step() -> None:
    actions = [make_action(1, run_id="r1", sequence=1), make_action(2, run_id="r1", sequence=2)]
    found = index_of(actions).matches(query(select=Selector(run_id="r1", after_step="step-1")))
    assert found.operations == ["r1/step-1", "r1/step-2"]


def test_all_that_is_named_is_added_up() -> None:
    actions = [
        make_action(1, resource="crm/account/7", operation="create", set={"": {"name": "x"}}),
        make_action(2, resource="crm/contact/1", set={"/account": {"id": "7"}}),
        make_action(3, resource="crm/contact/2", before={"/account/id": "7"}, set={"/account/id": "8"}),
        make_action(4, resource="crm/contact/3", depends_on=["run/step-1"]),
        make_action(5, resource="crm/contact/4"),
        make_action(6, resource="crm/contact/5"),
    ]
    index = index_of(actions)
    assert index.matches(query(operations=["run/step-1", "nobody/knows"])) == Matches([], ["crm/account/7"])
    assert index.matches(query(depended_on=["run/step-1"])) == Matches([], ["crm/contact/3"])
    assert index.matches(query(referenced=["crm/account/7"])) == Matches([], ["crm/contact/1", "crm/contact/2"])
    assert index.matches(query(resources=["crm/contact/5", "crm/contact/9"])) == Matches([], ["crm/contact/5"])
    together = query(
        select=Selector(resource="crm/contact/4", to_at=0),
        operations=["run/step-1"],
        depended_on=["run/step-1"],
        referenced=["crm/account/7"],
    )
    assert set(index.matches(together).resources) == {
        "crm/account/7",
        *(f"crm/contact/{number}" for number in (1, 2, 3, 4)),
    }
    assert index.offsets_of("crm/contact/2") == {"action-3": 2}


def test_our_own_undo_is_an_operation_of_the_rollback_and_no_late_action_of_what_it_undoes() -> None:
    reversal = make_action(1, stage="reversed", run_id="rb", step_id="undo", operation_id="r1/step-1")
    index = index_of([reversal])
    assert index.matches(query(rollback_id="rb2", select=Selector(run_id="rb"))).operations == ["rb/undo"]
    assert index.matches(query(operations=["rb/undo"])).resources == [reversal.resource]
    assert not is_told_later(query(select=Selector(operations=["r1/step-1"]), standing=True), reversal)
    assert not is_told_later(query(operations=["r1/step-1"], standing=True), reversal)


def test_a_rollback_does_not_undo_its_own_undo() -> None:
    reversal = make_action(1, stage="reversed", run_id="rb", step_id="undo", operation_id="r1/step-1")
    restore = Selector(resource=reversal.resource, to_at=0)
    assert not index_of([reversal]).matches(query(select=restore)).operations
    assert not is_told_later(query(select=restore, standing=True, occurred_at=2_000_000), reversal)
    assert index_of([reversal]).matches(query(rollback_id="other", select=restore)).operations == ["rb/undo"]


def test_who_selects_by_time_means_what_had_happened_when_he_asked() -> None:
    action = make_action(5)
    for select in (Selector(resource=action.resource, to_at=0), Selector(system="crm")):
        assert is_told_later(query(select=select, standing=True, occurred_at=5_000_000), action)
        assert not is_told_later(query(select=select, standing=True, occurred_at=4_999_999), action)
    assert is_told_later(query(select=Selector(run_id="run"), standing=True, occurred_at=0), action)
