"""The rollback machine, from the first word to the end."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.contracts.model import ApprovalRule, Contract, ContractSet, Forbid, Requesters, Undo
from reconciler.machines.rollback import RollbackMachine, fences_of
from reconciler.records import Compensation, Observation, Resolution, Selector, StepConflict
from tests.core.histories import make_action
from tests.core.rollback_bench import ANA, BO, CY, PARTITIONS, Bench, undone, wrote

FREE = Contract(name="*")


def bench(contract: Contract = FREE) -> Bench:
    return Bench(ContractSet((contract,)))


def three(contract: Contract = FREE) -> Bench:
    """Three records of three systems, each changed by a step that depends on the one before."""
    made = bench(contract)
    made.act(wrote(1, "crm/contact/1"))
    made.act(wrote(2, "erp/order/2", after=[1]))
    made.act(wrote(3, "shop/cart/3", after=[2]))
    made.observe_all()
    return made


ALL = ("crm/contact/1", "erp/order/2", "shop/cart/3")


def test_a_run_is_undone_wave_after_wave_and_over_when_all_was_seen() -> None:
    made = three()
    made.undo()
    assert made.statuses == ["gathering", "executable", "executing", "verifying", "completed"]
    assert undone(made, *ALL)
    assert [order.resource for order in made.orders] == ["shop/cart/3", "erp/order/2", "crm/contact/1"]
    assert [order.wave for order in made.orders] == [1, 2, 3]
    assert [event.wave for event in made.events if event.status == "executing"] == [1, 2, 3]
    last = made.events[-1]
    assert last.counts["verified"] == 3 and last.counts["under_way"] == 0
    assert "Done" in last.story


def test_a_plan_stops_there_until_somebody_says_execute() -> None:
    made = three()
    made.say("request", select=Selector(run_id="run"), mode="plan")
    made.run()
    assert made.statuses == ["gathering", "executable"]
    assert made.events[-1].plan is not None and len(made.events[-1].plan["waves"]) == 3
    assert not made.orders and not made.standing
    made.say("resume", mode="execute", plan_hash=made.plan_hash)
    made.run()
    assert made.head.status == "completed" and undone(made, *ALL)


def test_everything_gathered_is_forgotten_once_there_is_a_plan() -> None:
    made = three()
    made.undo()
    assert {entry_id[:2] for entry_id in made.history.stored} == {"s:", "w:"}


def test_nothing_to_do_leaves_a_fence() -> None:
    made = bench()
    made.undo("no-run")
    assert made.statuses == ["gathering", "nothing_to_do"]
    assert fences_of(made.head) == ["no-run"]


@pytest.mark.parametrize(("mode", "fences"), [("execute", ["run"]), ("plan", [])])
def test_the_fence_stands_from_the_first_moment_of_an_execution(mode: str, fences: list[str]) -> None:
    made = three()
    made.say("request", select=Selector(run_id="run"), mode=mode)
    assert fences_of(made.head) == fences
    made.say("cancel")
    assert fences_of(made.head) == []
    assert made.statuses[-1] == "cancelled"


def test_the_fence_of_a_run_of_which_only_the_end_is_undone_falls_with_its_end() -> None:
    made = three()
    made.say("request", select=Selector(run_id="run", after_step="step-2"), mode="execute")
    assert fences_of(made.head) == ["run"]
    made.run()
    assert made.head.status == "completed" and [order.resource for order in made.orders] == ["shop/cart/3"]
    assert fences_of(made.head) == []


def test_a_step_that_the_run_does_not_have_is_said_to_be_missing() -> None:
    made = three()
    made.say("request", select=Selector(run_id="run", after_step="step-9"), mode="execute")
    made.run()
    assert made.statuses == ["gathering", "rejected"]
    assert "has no step 'step-9'" in (made.events[-1].error or "")


def test_the_same_request_twice_is_one_and_another_one_is_refused() -> None:
    made = three()
    made.say("request", select=Selector(run_id="run"), mode="plan", request_id="r1", requested_at=1)
    before = made.stored
    made.say("request", select=Selector(run_id="run"), mode="plan", request_id="r1", requested_at=1)
    assert made.stored == before and not made.rejects
    made.say("request", select=Selector(run_id="other"), mode="plan")
    assert made.stored == before and "once more" in made.said[-1]


@pytest.mark.parametrize(
    ("verb", "fields", "reason"),
    [
        ("approve", {}, "first word"),
        ("request", {"select": Selector(run_id="run"), "by": None}, "who asks"),
        ("request", {"select": None}, "what to undo"),
        ("request", {"select": Selector(run_id="run", system="crm")}, "exactly one"),
        ("request", {"select": Selector(resource="crm/contact/1")}, "instant"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(verb: str, fields: dict[str, object], reason: str) -> None:
    made = bench()
    made.say(verb, **fields)  # type: ignore[arg-type]
    assert len(made.said) == 1 and reason in made.said[0]
    assert made.head.request is None and not made.events


# -- consent

ASKING = Contract(name="*", approvals=(ApprovalRule(roles=("steward",), count=2),))


def test_a_plan_waits_for_as_many_people_as_its_contracts_ask_for() -> None:
    made = three(ASKING)
    made.undo()
    assert made.statuses == ["gathering", "needs_approval"]
    assert made.events[-1].approvals_needed == 2
    made.approve(BO, "steward")
    made.approve(BO, "steward")
    made.approve(CY, "clerk")
    assert made.head.status == "needs_approval" and made.events[-1].approvals_needed == 1
    assert not made.orders
    made.approve(CY, "steward")
    made.run()
    assert made.head.status == "completed" and undone(made, *ALL)


def test_nobody_approves_his_own_request_nor_for_somebody_else_nor_another_plan() -> None:
    made = three(ASKING)
    made.undo()
    made.approve(ANA, "steward")
    made.approve(BO, "steward", plan_hash="0" * 64)
    made.approve(BO, "steward", plan_hash=None)
    made.say("approve", by=CY, approvals=[], roles=["steward"], plan_hash=None)
    assert ["who asked" in made.said[0], "another plan" in made.said[1], "no plan" in made.said[2]] == [True] * 3
    assert len(made.said) == 4 and made.events[-1].approvals_needed == 2


def test_consent_is_to_what_is_done_so_a_change_before_the_start_voids_it() -> None:
    made = three(ASKING)
    made.say("request", select=Selector(run_id="run"), mode="plan")
    made.run()
    made.approve(BO, "steward")
    made.approve(CY, "steward")
    assert made.head.status == "executable", "a plan stays a plan"
    made.actual["crm/contact/1"] = {"phone": "1"}
    made.observe("crm/contact/1")
    made.say("resume", mode="execute")
    made.run()
    assert made.head.status == "needs_approval" and not made.orders
    assert made.events[-1].approvals_needed == 2


def test_consent_holds_where_the_plan_turns_out_the_same() -> None:
    made = three(ASKING)
    made.say("request", select=Selector(run_id="run"), mode="plan")
    made.run()
    made.approve(BO, "steward")
    made.approve(CY, "steward")
    made.say("resume", mode="execute")
    made.run()
    assert made.head.status == "completed"


def test_consent_that_does_not_come_in_time_is_asked_for_anew() -> None:
    made = three(ASKING)
    made.undo()
    made.approve(BO, "steward")
    made.tick()
    assert made.head.status == "halted" and "72 hours" in (made.events[-1].error or "")
    assert [alert.kind for alert in made.alerts] == ["rollback_halted"]
    made.say("resume")
    made.run()
    assert made.head.status == "needs_approval" and made.events[-1].approvals_needed == 2


def test_who_may_ask_is_the_contracts_word() -> None:
    guarded = Contract(name="*", requesters=Requesters(roles=("operator",)))
    made = three(guarded)
    made.undo()
    assert made.head.status == "rejected" and "operator" in made.events[-1].story
    made = three(guarded)
    made.undo(roles=["operator"])
    assert made.head.status == "completed"


# -- what goes wrong


def test_a_conflict_found_on_the_way_stops_everything_behind_it_and_a_decision_lets_it_go_on() -> None:
    made = three()
    made.scripts["erp/order/2"] = ["conflict"]
    made.undo()
    assert made.head.status == "halted" and undone(made, "shop/cart/3") and not undone(made, "crm/contact/1")
    made.say("resume")
    made.run()
    assert made.head.status == "completed" and undone(made, *ALL)


def test_a_conflict_that_the_plan_sees_is_left_to_a_person_and_keeps_back_only_what_is_behind_it() -> None:
    made = three()
    made.act(wrote(4, "crm/contact/9"))
    made.actual["erp/order/2"] = {"phone": "theirs"}
    made.observe_all()
    made.undo()
    assert made.head.status == "halted"
    assert sorted(order.resource for order in made.orders) == ["crm/contact/9", "shop/cart/3"]
    assert made.events[-1].counts["conflicts"] == 1 and made.events[-1].counts["held"] == 2
    wrong = Resolution(resource="erp/order/2", path="/phone", take="force", seen="something else")
    made.say("resolve", resolutions=[wrong])
    assert "look again" in made.said[-1]
    made.say("resolve", resolutions=[Resolution(resource="shop/cart/3", path="/phone", take="keep", seen="1")])
    assert "no conflict is open" in made.said[-1]
    made.say("resolve", resolutions=[Resolution(resource="erp/order/2", path="/phone", take="force", seen="theirs")])
    made.run()
    assert made.head.status == "completed" and undone(made, *ALL)


def by_field() -> Bench:
    """A record of which somebody else has changed one of the two fields that the run wrote, under a contract that lets the
    other one be undone without it."""
    made = bench(Contract(name="*", conflict_scope="field"))
    made.act(wrote(1, "crm/contact/1", before={"/phone": "1", "/fax": "1"}, set={"/phone": "2", "/fax": "2"}))
    made.actual["crm/contact/1"] = {"phone": "2", "fax": "theirs"}
    made.observe_all()
    made.undo()
    assert made.head.status == "halted" and not made.orders, "a person is asked first"
    return made


def test_a_field_in_conflict_is_left_to_others_if_people_let_the_rest_go_on() -> None:
    made = by_field()
    made.say("resume")
    made.run()
    assert made.head.status == "partial"
    assert made.actual["crm/contact/1"] == {"phone": "1", "fax": "theirs"}


def test_a_field_in_conflict_that_somebody_decides_is_undone_with_the_rest() -> None:
    made = by_field()
    made.say("resolve", resolutions=[Resolution(resource="crm/contact/1", path="/fax", take="force", seen="theirs")])
    made.run()
    assert made.head.status == "completed"
    assert made.actual["crm/contact/1"] == {"phone": "1", "fax": "1"}


def test_what_a_person_keeps_makes_the_rollback_partial() -> None:
    made = three()
    made.actual["crm/contact/1"] = {"phone": "theirs"}
    made.observe_all()
    made.undo()
    assert made.head.status == "halted"
    made.say("resolve", resolutions=[Resolution(resource="crm/contact/1", path="/phone", take="keep", seen="theirs")])
    made.run()
    assert made.head.status == "partial"
    assert made.actual["crm/contact/1"] == {"phone": "theirs"}


def test_what_a_resource_leaves_to_others_by_its_contract_makes_the_rollback_partial() -> None:
    made = bench()
    made.act(wrote(1, "shop/cart/1"))
    made.observe_all()
    made.scripts["shop/cart/1"] = [""]
    made.undo()
    made.report(
        made.orders[-1], "unchanged", conflicts=[StepConflict(path="/phone", before="2", after="1", actual="3")]
    )
    made.run()
    assert made.head.status == "partial"


def test_a_changed_plan_needs_consent_again_and_one_that_does_less_does_not() -> None:
    made = three(ASKING)
    made.scripts["erp/order/2"] = ["outdated"]
    made.undo()
    made.approve(BO, "steward")
    made.approve(CY, "steward")
    made.run()
    assert made.head.status == "halted"
    made.say("resume")
    made.run()
    assert made.head.status == "completed", "what is left is a part of what was approved"

    made = three(ASKING)
    made.scripts["erp/order/2"] = ["outdated"]
    made.undo()
    made.approve(BO, "steward")
    made.approve(CY, "steward")
    made.run()
    made.act(make_action(7, run_id="run", resource="erp/order/2", before={"/fax": "1"}, set={"/fax": "2"}))
    made.observe_all()
    made.say("resume")
    made.run()
    assert made.head.status == "needs_approval"
    assert made.events[-1].approvals_needed == 2


@pytest.mark.parametrize(
    ("fallback", "status", "state"),
    [("halt", "halted", "failed"), ("skip", "partial", "skipped"), ("compensate", "partial", "compensated")],
)
def test_a_refusal_for_good_goes_the_way_that_the_contract_says(fallback: str, status: str, state: str) -> None:
    made = bench(Contract(name="*", fallback=fallback))  # type: ignore[arg-type]
    made.act(wrote(1, "crm/contact/1", compensation=Compensation(name="apologise")))
    made.act(wrote(2, "erp/order/2", after=[1]))
    made.observe_all()
    made.scripts["crm/contact/1"] = ["failed"]
    made.undo()
    assert made.head.status == status and made.head.counts[state] == 1
    assert made.compensated == (["action-1"] if fallback == "compensate" else [])
    assert undone(made, "erp/order/2")


def test_a_system_that_keeps_failing_uses_its_budget_up_and_stops_the_rollback() -> None:
    made = bench()
    for number in range(1, 31):
        made.act(wrote(number, f"crm/contact/{number}"))
    made.observe_all()
    made.say("request", select=Selector(run_id="run"), mode="execute")
    while not made.orders:
        made.deliver()
    made.mail = {name: box for name, box in made.mail.items() if not name.startswith("orders")}
    for attempt in range(1, 6):
        for order in made.orders:
            made.report(order, "retrying", attempt=attempt, number=attempt)
            made.report(order, "retrying", attempt=attempt, number=attempt)
    made.run()
    assert made.head.status == "halted" and "crm fails too often" in made.head.halted_for
    assert made.head.budgets == {"crm": 0}
    made.say("resume")
    assert made.head.budgets == {} and made.head.status == "halted", "what is under way is awaited first"


def test_the_end_waits_for_what_was_not_seen_yet_and_says_so_when_that_takes_too_long() -> None:
    made = three()
    made.scripts["crm/contact/1"] = ["sent applied"]
    made.undo()
    assert made.head.status == "verifying"
    made.tick()
    assert made.head.status == "halted" and "nothing was heard" in made.head.halted_for
    assert "isn't confirmed yet" in made.events[-1].story
    made.say("resume")
    made.run()
    assert made.head.status == "verifying", "nothing is left to do but to wait"
    last = made.orders[-1]
    made.report(last, "verified")
    made.run()
    assert made.head.status == "completed"


def test_what_holds_something_else_afterwards_makes_it_partial() -> None:
    made = three()
    made.scripts["crm/contact/1"] = ["sent applied contradicted"]
    made.undo()
    assert made.head.status == "partial" and made.head.counts["contradicted"] == 1


def test_a_partition_that_does_not_answer_is_named() -> None:
    made = three()
    made.say("request", select=Selector(run_id="run"), mode="execute")
    made.mail.pop("partition 1")
    made.run()
    made.tick()
    assert made.head.status == "halted" and "partitions 1;" in made.head.halted_for
    made.say("resume")
    made.run()
    assert made.head.status == "completed"


# -- stopping


def test_a_cancelled_rollback_takes_back_what_was_not_sent_and_sends_nothing_more() -> None:
    made = three()
    made.say("request", select=Selector(run_id="run"), mode="execute")
    while not made.orders:
        made.deliver()
    made.say("cancel", by=BO, reason="Not needed.")
    assert made.head.status == "halted", "one step is still under way"
    made.run()
    assert made.head.status == "cancelled" and made.events[-1].counts["done"] == 0
    assert [order.verb for order in made.orders] == ["undo", "withdraw"]
    assert fences_of(made.head) == []
    made.say("resume")
    assert "is over" in made.said[-1]


def test_reports_of_strangers_are_refused_and_those_that_come_again_change_nothing() -> None:
    made = three()
    made.undo()
    before = made.stored
    for order in list(made.orders):
        made.report(order, "sent", number=7)
        made.report(order, "failed", number=7)
    made.run()
    assert made.stored == before and not made.rejects
    stranger = made.orders[0]
    made.report(
        stranger.__class__(step_id="no-step", rollback_id="rb", resource=stranger.resource, occurred_at=0), "sent"
    )
    made.run()
    assert "didn't order" in made.said[-1]


def test_what_cascaded_is_undone_after_a_halt_though_what_it_stands_on_was_undone_before() -> None:
    """The first record waits for the second and the second for the first, so both are changed in one wave. The second fails;
    when it is planned again, the step of the other run on it still stands on what was undone of the first."""
    made = bench(Contract(name="*", undo=Undo(dependants="cascade")))
    made.act(wrote(1, "erp/order/2"))
    made.act(wrote(2, "crm/contact/1", after=[1]))
    other = {"run_id": "other", "before": {"/fax": "1"}, "set": {"/fax": "2"}, "operation_id": "other/step-3"}
    made.act(wrote(3, "erp/order/2", after=[2], **other))
    made.observe_all()
    made.scripts["erp/order/2"] = ["outdated"]
    made.undo()
    assert made.head.status == "halted" and undone(made, "crm/contact/1")
    made.say("resume")
    made.run()
    assert made.head.status == "completed"
    assert made.actual["erp/order/2"] == {"phone": "1", "fax": "1"}


# -- late actions


def test_a_late_action_is_reversed_where_the_contract_says_so_within_the_consent_that_was_given() -> None:
    contract = Contract(name="*", undo=Undo(late_actions="reverse"), approvals=(ApprovalRule(),))
    made = three(contract)
    made.undo()
    made.approve(BO)
    made.run()
    assert made.head.status == "completed"
    made.act(wrote(4, "crm/contact/4"))
    made.observe_all()
    made.run()
    assert made.statuses[-4:] == ["completed", "gathering", "executing", "completed"] or made.head.status == "completed"
    assert undone(made, *ALL, "crm/contact/4")
    assert made.orders[-1].resource == "crm/contact/4"


def test_late_work_of_one_of_the_operations_asked_for_is_reversed_without_the_others() -> None:
    """The others were undone before, or nobody knows them: the plan for what came late speaks of neither."""
    made = three(Contract(name="*", undo=Undo(late_actions="reverse")))
    made.say("request", select=Selector(operations=["run/step-3", "run/step-9", "ghost"]), mode="execute")
    made.run()
    assert undone(made, "shop/cart/3")
    made.act(wrote(9, "crm/contact/9"))
    made.observe_all()
    made.run()
    assert undone(made, "shop/cart/3", "crm/contact/9")
    assert made.orders[-1].resource == "crm/contact/9"
    assert made.head.status == "partial", "nobody knows what the ghost was"


def without_the_third_step(late_actions: Any) -> Bench:
    """A run of which what came after its second step was undone."""
    made = bench(Contract(name="*", undo=Undo(late_actions=late_actions)))
    made.act(wrote(2, "erp/order/2", sequence=2))
    made.act(wrote(3, "shop/cart/3", sequence=3))
    made.observe_all()
    made.say("request", select=Selector(run_id="run", after_step="step-2"), mode="execute")
    made.run()
    return made


@pytest.mark.parametrize("rule", ["reverse", "report"])
def test_late_work_of_a_step_that_is_to_stay_is_none(rule: Any) -> None:
    """Only what came after the second step was undone. More of the second, and the first after all, concern nobody; more of
    the third does."""
    made = without_the_third_step(rule)
    assert made.head.status == "completed" and undone(made, "shop/cart/3")
    told = list(made.statuses)
    made.act(wrote(2, "erp/order/22", sequence=2, action_id="again"))
    made.act(wrote(1, "crm/contact/1", sequence=1))
    made.observe_all()
    made.run()
    assert made.statuses == told and not made.alerts
    assert not undone(made, "erp/order/22") and not undone(made, "crm/contact/1")
    made.act(wrote(4, "crm/contact/4", sequence=4))
    made.observe_all()
    made.run()
    assert undone(made, "crm/contact/4") is (rule == "reverse")
    assert [alert.kind for alert in made.alerts] == ([] if rule == "reverse" else ["late_action"])


@pytest.mark.parametrize("rule", ["reverse", "report"])
def test_what_a_run_does_after_its_end_was_undone_is_no_late_work(rule: Any) -> None:
    """The fence has fallen: the run goes on. What was begun before that and comes by later is late all the same."""
    made = without_the_third_step(rule)
    assert made.head.status == "completed"
    ended, told = made.now, list(made.statuses)
    made.act(wrote(4, "crm/contact/4", sequence=4, occurred_at=ended + 1))
    made.observe_all()
    made.run()
    assert made.statuses == told and not made.alerts and not undone(made, "crm/contact/4")
    made.act(wrote(5, "crm/contact/5", sequence=5, occurred_at=made.head.ended_at))
    made.observe_all()
    made.run()
    assert undone(made, "crm/contact/5") is (rule == "reverse")
    assert [alert.kind for alert in made.alerts] == ([] if rule == "reverse" else ["late_action"])
    made.act(wrote(6, "crm/contact/6", sequence=6, occurred_at=ended + 2))
    made.observe_all()
    made.run()
    assert not undone(made, "crm/contact/6"), "late work hasn't moved the end"


def test_a_late_action_is_reported_otherwise() -> None:
    made = three()
    made.undo()
    made.act(wrote(4, "crm/contact/4"))
    made.observe_all()
    made.run()
    assert [alert.kind for alert in made.alerts] == ["late_action"]
    assert made.head.status == "partial", "it isn't whole any more"
    assert made.events[-1].counts["late"] == 1 and "once more" in made.events[-1].story
    assert not undone(made, "crm/contact/4")


def test_the_echo_of_the_undo_is_no_late_action() -> None:
    made = three(Contract(name="*", undo=Undo(late_actions="reverse")))
    made.undo()
    assert made.head.status == "completed" and not made.alerts
    assert len(made.orders) == 3


def test_a_late_action_that_was_reported_is_not_undone_behind_peoples_backs() -> None:
    made = three()
    made.scripts["crm/contact/1"] = ["outdated"]
    made.undo()
    assert made.head.status == "halted"
    made.act(wrote(4, "crm/contact/4"))
    made.observe_all()
    made.run()
    made.say("resume")
    made.run()
    assert made.head.status == "partial" and undone(made, *ALL)
    assert not undone(made, "crm/contact/4")


# -- what else is found


def test_a_record_is_put_back_to_what_it_was_at_an_instant() -> None:
    made = bench()
    for number in range(1, 5):
        fields: dict[str, Any] = {"before": {"/phone": str(number)}, "set": {"/phone": str(number + 1)}}
        made.act(wrote(number, "crm/contact/1", run_id=f"run-{number}", **fields))
    made.observe_all()
    made.say("request", select=Selector(resource="crm/contact/1", to_at=2_000_000), mode="execute")
    made.run()
    assert made.head.status == "completed"
    assert made.actual["crm/contact/1"] == {"phone": "3"}


def test_work_that_is_no_longer_kept_is_said_to_be_so() -> None:
    made = bench()
    made.act(wrote(1, "crm/contact/1"))
    for number in range(2, 1_200):
        fields: dict[str, Any] = {"before": {"/phone": str(number)}, "set": {"/phone": str(number + 1)}}
        made.act(wrote(number, "crm/contact/1", run_id="later", **fields))
    made.observe_all()
    made.undo()
    assert made.head.status == "nothing_to_do"
    plan = made.events[-1].plan
    assert plan is not None and [item["rule"] for item in plan["blocked"]] == ["expired"]


def test_a_contract_that_forbids_what_is_left_stops_it_and_does_not_call_it_rejected() -> None:
    made = three()
    made.scripts["crm/contact/1"] = ["outdated"]
    made.undo()
    forbidding = Contract(name="*", undo=Undo(forbid=(Forbid(when="true", because="It is the end of the year."),)))
    made.contracts = ContractSet((forbidding,))
    made.machine = RollbackMachine(made.contracts, PARTITIONS)
    made.say("resume")
    made.run()
    assert made.head.status == "halted" and made.head.halted_for == "It is the end of the year."


def test_what_depends_on_it_elsewhere_is_found_in_other_partitions_and_cascades() -> None:
    cascading = Contract(name="*", undo=Undo(dependants="cascade"))
    made = bench(cascading)
    for number in range(1, 9):
        made.act(
            wrote(
                number,
                f"crm/contact/{number}",
                run_id=f"run-{number}",
                depends_on=[f"run-{number - 1}/step-{number - 1}"],
            )
        )
    made.observe_all()
    made.undo("run-1")
    assert made.head.status == "completed"
    assert [order.resource for order in made.orders] == [f"crm/contact/{number}" for number in range(8, 0, -1)]


def test_an_operation_is_undone_wherever_it_did_something() -> None:
    made = bench()
    for number, resource in enumerate(ALL, 1):
        made.act(wrote(number, resource, operation_id="one"))
    made.observe_all()
    made.say("request", select=Selector(system="erp"), mode="execute")
    made.run()
    assert undone(made, *ALL) and len(made.orders) == 3


def test_an_effect_is_made_good_once_for_each_execution() -> None:
    made = bench()
    for number in (1, 2):
        made.act(make_action(number, operation="effect", compensation=Compensation(name="apologise"), step_id="mail"))
    made.undo()
    assert made.head.status == "completed"
    assert sorted(made.compensated) == ["action-1", "action-2"]


def test_the_undo_of_an_undo_is_a_rollback_of_the_rollback() -> None:
    made = three()
    made.undo()
    again = Bench(made.contracts, "rb2")
    for name in ("heads", "histories", "indexes", "log", "actual", "now"):
        setattr(again, name, getattr(made, name))
    again.undo("rb")
    assert again.head.status == "completed"
    assert all((again.actual[name] or {})["phone"] == "2" for name in ALL)


def test_what_cannot_be_undone_makes_it_partial_and_is_listed() -> None:
    made = bench()
    made.act(wrote(1, "crm/contact/1"))
    made.act(wrote(2, "erp/order/2"))
    made.observe("crm/contact/1")
    made.undo()
    assert made.head.status == "partial"
    assert made.events[-1].counts["blocked"] == 1
    assert undone(made, "crm/contact/1") and not undone(made, "erp/order/2")


def test_what_already_is_as_it_was_is_a_step_all_the_same() -> None:
    made = three()
    made.actual["crm/contact/1"] = {"phone": "1"}
    made.observe_all()
    made.undo()
    assert made.head.status == "completed"
    assert made.events[-1].counts["unchanged"] == 1 and len(made.orders) == 3


def test_a_big_plan_comes_in_parts_and_its_head_stays_small() -> None:
    made = bench()
    for number in range(1, 601):
        made.act(wrote(number, f"crm/contact/{number}", set={"/phone": "2" * 1000}))
    made.observe_all()
    made.undo()
    assert made.head.status == "completed"
    plans = [event.plan for event in made.events if event.plan is not None]
    assert len(plans) > 1 and [plan["part"] for plan in plans] == list(range(1, len(plans) + 1))
    from reconciler.plan.parts import joined

    assert sum(len(wave) for wave in joined(plans)["waves"]) == 600
    assert len(made.stored) < 8_000
    assert isinstance(made.observe("crm/contact/1"), Observation)
