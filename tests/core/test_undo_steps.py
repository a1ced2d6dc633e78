"""The resource machine carries out the orders of rollbacks, step by step."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.contracts.model import Contract, FieldRule, Promise, Retry, Service, Timing, Undo
from reconciler.history.tree import known_value
from reconciler.machines.head import history_of
from reconciler.machines.resource import sampling_needs
from reconciler.plan.commands import undo_command
from reconciler.plan.undo import undo_resource
from reconciler.records import (
    Action,
    Actor,
    Change,
    Compensation,
    Decision,
    Observation,
    Resolution,
    StepConflict,
    StepReport,
    UndoStep,
)
from reconciler.values.instant import SECOND
from tests.core.histories import RESOURCE, make_action
from tests.core.machine_bench import Bench, commands, drifts, rejections, reports, reversals

PLAIN = Contract(name="crm/contact")
CORRECTING = Contract(name="crm/contact", fields={"/*": FieldRule(drift="correct", confirm=1)})
PERSON = Actor(id="ana@example.com", kind="user")


def written(contract: Contract = PLAIN, **more: Any) -> Bench:
    """A bench on which one operation, action-1, wrote the phone (from 1 to 2) a long time ago."""
    bench = Bench(contract)
    fields: dict[str, Any] = {"before": {"/phone": "1"}, "set": {"/phone": "2"}, "occurred_at": SECOND}
    bench.at(1, make_action(1, **(fields | more)))
    return bench


def order(bench: Bench, step_id: str = "step", planned_on: dict[str, Any] | None = None, **more: Any) -> UndoStep:
    """The order to undo action-1, as planned on what the resource held."""
    contract = bench.machine._contracts.for_resource(RESOURCE)
    history = history_of(bench.head, bench.history, contract)
    operations = more.pop("operations", ["run/step-1"])
    numbers = history.numbers_of(*operations)
    seen = Observation(resource=RESOURCE, exists=planned_on is not None, fields=planned_on or {})
    undo = undo_resource(history, numbers, seen, more.get("resolutions", ()))
    command = undo_command(undo, "rb", "A mistake.")
    given: dict[str, Any] = {
        "step_id": step_id,
        "rollback_id": "rb",
        "resource": RESOURCE,
        "operations": operations,
        "numbers": sorted(numbers),
        "planned": [] if command is None else command.changes,
        "planned_action": None if command is None else command.action,
        "contract": contract.digest,
        "requested_by": PERSON,
        "reason": "A mistake.",
        "occurred_at": 100 * SECOND,
    }
    return UndoStep(**(given | more))


def statuses(effects: tuple[Any, ...]) -> list[str]:
    return [told.status for told in reports(effects)]


def sent(contract: Contract = PLAIN) -> Bench:
    """A bench on which the undo of the phone was sent."""
    bench = written(contract)
    bench.at(100, order(bench, planned_on={"phone": "2"}))
    assert commands(bench.observe(101, {"phone": "2"}))
    return bench


# -- the way of a step that goes well


def test_a_step_waits_for_an_observation_made_after_it_came() -> None:
    bench = written()
    bench.observe(90, {"phone": "2"})
    assert not bench.at(100, order(bench, planned_on={"phone": "2"}))
    assert sampling_needs(bench.head, bench.machine._contracts).wants_attention
    bench.at(101, Observation(resource=RESOURCE, exists=True, fields={"phone": "2"}, observed_at=99 * SECOND))
    assert bench.head.steps, "an observation from before the order says nothing"
    effects = bench.observe(102, {"phone": "2"})
    (command,) = commands(effects)
    assert command.changes == [Change(path="/phone", op="set", value="1", expect="2")]
    assert command.rollback_id == "rb"
    (told,) = reports(effects)
    assert (told.status, told.step_id, told.command_id) == ("sent", "step", command.command_id)
    (reversed_,) = reversals(effects)
    assert (reversed_.operation_id, reversed_.run_id, reversed_.step_id) == ("run/step-1", "rb", "undo")
    assert (reversed_.reverses, reversed_.actor) == ("action-1", PERSON)
    assert known_value(bench.head.tree) == {"phone": "1"}, "expected state changes in the step that sends the command"


def test_an_applied_step_is_verified_by_a_later_observation() -> None:
    bench = sent()
    assert statuses(bench.outcome(103, "applied")) == ["applied"]
    assert not statuses(bench.observe(110, {"phone": "2"})), "the target may not show it before the settle time is over"
    assert statuses(bench.observe(140, {"phone": "1"})) == ["verified"]
    assert not bench.observe(200, {"phone": "1"})[1:], "and that is told once"


def test_what_is_not_verified_yet_is_to_be_looked_at() -> None:
    bench = sent()
    contracts = bench.machine._contracts
    bench.outcome(103, "applied")
    needs = sampling_needs(bench.head, contracts)
    assert needs.pending_command is not None and needs.undo_step is None
    bench.observe(140, {"phone": "1"})
    assert not sampling_needs(bench.head, contracts).wants_attention


def test_an_applied_step_is_contradicted_by_a_later_observation() -> None:
    bench = sent()
    bench.outcome(103, "applied")
    (told,) = reports(bench.observe(140, {"phone": "2"}))
    assert told.status == "contradicted"
    assert told.conflicts == [StepConflict(path="/phone", after="1", actual="2")]


def test_what_a_workflow_wrote_since_is_no_contradiction() -> None:
    bench = sent()
    bench.outcome(103, "applied")
    bench.at(110, make_action(2, before={"/phone": "1"}, set={"/phone": "5"}, occurred_at=110 * SECOND))
    assert statuses(bench.observe(200, {"phone": "5"})) == ["verified"]


def test_an_undo_that_is_there_already_changes_what_is_expected_all_the_same() -> None:
    bench = written()
    bench.at(100, order(bench, planned_on={"phone": "1"}))
    effects = bench.observe(101, {"phone": "1"})
    assert statuses(effects) == ["unchanged"]
    assert len(reversals(effects)) == 1
    assert known_value(bench.head.tree) == {"phone": "1"}
    assert not commands(effects)


def test_the_last_observation_serves_where_the_contract_says_so() -> None:
    bench = written(Contract(name="crm/contact", undo=Undo(observed_within_s=60)))
    bench.observe(90, {"phone": "2"})
    assert commands(bench.at(100, order(bench, planned_on={"phone": "2"})))


def test_an_observation_from_before_the_last_write_settled_never_serves() -> None:
    bench = written(Contract(name="crm/contact", undo=Undo(observed_within_s=600)))
    bench.observe(90, {"phone": "2"})
    bench.at(95, make_action(2, before={"/fax": "1"}, set={"/fax": "2"}, occurred_at=89 * SECOND))
    assert not commands(bench.at(100, order(bench, planned_on={"phone": "2", "fax": "2"})))


def test_what_may_not_show_the_last_write_yet_is_no_conflict() -> None:
    bench = Bench(PLAIN)
    bench.at(90, make_action(1, before={"/phone": "1"}, set={"/phone": "2"}, occurred_at=90 * SECOND))
    bench.at(100, order(bench, planned_on={"phone": "2"}))
    assert not reports(bench.observe(101, {"phone": "0"}))
    assert not reports(bench.observe(102, {"phone": "1"})), "nor is it undone already"
    assert statuses(bench.observe(103, {"phone": "2"})) == ["sent"], "what shows the last write is sure"


def test_a_later_observation_of_what_an_undo_left_opens_no_drift() -> None:
    bench = sent(CORRECTING)
    back = Observation(resource=RESOURCE, exists=True, fields={"phone": "1"}, observed_at=103 * SECOND)
    effects = bench.outcome(103, "applied", observed=back)
    effects += bench.observe(200, {"phone": "1"}) + bench.observe(300, {"phone": "1"})
    assert not drifts(effects) and not commands(effects)


# -- refusals


def test_a_conflict_changes_nothing() -> None:
    bench = written()
    before = bench.head.tree
    bench.at(100, order(bench, planned_on={"phone": "2"}))
    effects = bench.observe(101, {"phone": "3"})
    (told,) = reports(effects)
    assert told.status == "conflict"
    assert told.conflicts == [StepConflict(path="/phone", before="2", after="1", actual="3")]
    assert bench.head.tree == before and not commands(effects) and not reversals(effects)
    assert not bench.head.steps


def resolution(take: Any, **more: Any) -> Resolution:
    return Resolution(resource=RESOURCE, path="/phone", take=take, seen="3", **more)


def test_what_a_person_keeps_stays_and_is_nobodys_drift() -> None:
    bench = written(CORRECTING)
    bench.at(100, order(bench, planned_on={"phone": "3"}, resolutions=[resolution("keep")]))
    assert statuses(bench.observe(101, {"phone": "3"})) == ["unchanged"]
    assert known_value(bench.head.tree) == {"phone": "3"}
    effects = bench.observe(200, {"phone": "3"}) + bench.observe(300, {"phone": "4"})
    assert not drifts(effects) and not commands(effects)


def test_what_a_person_forces_is_done() -> None:
    bench = written()
    bench.at(100, order(bench, planned_on={"phone": "3"}, resolutions=[resolution("force")]))
    (command,) = commands(bench.observe(101, {"phone": "3"}))
    assert command.changes == [Change(path="/phone", op="set", value="1", expect="3")]


def test_the_value_that_a_person_gives_is_expected_from_then_on() -> None:
    bench = written(CORRECTING)
    bench.at(100, order(bench, planned_on={"phone": "3"}, resolutions=[resolution("value", value="9")]))
    (command,) = commands(bench.observe(101, {"phone": "3"}))
    assert command.changes == [Change(path="/phone", op="set", value="9", expect="3")]
    bench.outcome(103, "applied")
    assert known_value(bench.head.tree) == {"phone": "9"}
    effects = bench.observe(200, {"phone": "9"})
    assert statuses(effects) == ["verified"] and not drifts(effects)


def test_a_decision_on_another_value_is_a_conflict_again() -> None:
    bench = written()
    bench.at(100, order(bench, planned_on={"phone": "3"}, resolutions=[resolution("force")]))
    assert statuses(bench.observe(101, {"phone": "4"})) == ["conflict"]


def test_more_than_was_planned_is_outdated() -> None:
    bench = written(before={"/phone": "1", "/fax": "1"}, set={"/phone": "2", "/fax": "2"})
    bench.at(100, order(bench, planned_on={"phone": "2", "fax": "1"}))
    (told,) = reports(bench.observe(101, {"phone": "2", "fax": "2"}))
    assert told.status == "outdated" and told.error is not None and "/fax" in told.error


def test_less_than_was_planned_is_done() -> None:
    bench = written(before={"/phone": "1", "/fax": "1"}, set={"/phone": "2", "/fax": "2"})
    bench.at(100, order(bench, planned_on={"phone": "2", "fax": "2"}))
    (command,) = commands(bench.observe(101, {"phone": "2", "fax": "1"}))
    assert [change.path for change in command.changes] == ["/phone"]


def test_another_contract_is_outdated() -> None:
    bench = written()
    bench.at(100, order(bench, planned_on={"phone": "2"}, contract="0" * 32))
    assert statuses(bench.observe(101, {"phone": "2"})) == ["outdated"]


def test_what_was_undone_meanwhile_is_outdated() -> None:
    bench = written()
    step = order(bench, planned_on={"phone": "2"})
    bench.at(90, make_action(2, stage="reversed", operation_id="run/step-1", step_id="step-1"))
    bench.at(100, step)
    assert statuses(bench.observe(101, {"phone": "1"})) == ["outdated"]


def test_a_held_resource_is_left_alone() -> None:
    bench = written()
    bench.at(50, Decision(decision_id="d", resource=RESOURCE, verb="hold", decided_by=PERSON, occurred_at=SECOND))
    bench.at(100, order(bench, planned_on={"phone": "2"}))
    (told,) = reports(bench.observe(101, {"phone": "2"}))
    assert told.status == "failed" and told.error is not None and "held" in told.error


# -- outcomes that aren't well


def test_a_refused_undo_is_taken_back_and_never_fires_later() -> None:
    bench = sent(CORRECTING)
    effects = bench.outcome(103, "permanent", error="no such column")
    (told,) = reports(effects)
    assert (told.status, told.error) == ("failed", "no such column")
    (back,) = reversals(effects)
    assert (back.operation_id, back.step_id) == ("rb/undo", "take-back")
    assert known_value(bench.head.tree) == {"phone": "2"}
    later = bench.observe(200, {"phone": "2"}) + bench.observe(300, {"phone": "2"}) + bench.tick(5_000)
    assert not commands(later) and not drifts(later) and not reports(later)
    assert history_of(bench.head, bench.history, CORRECTING).numbers_of("run/step-1") == {1}, "it can be undone again"


def test_a_step_can_be_ordered_anew_after_it_failed() -> None:
    bench = sent()
    bench.outcome(103, "permanent")
    bench.at(200, order(bench, "step-2", planned_on={"phone": "2"}))
    (command,) = commands(bench.observe(201, {"phone": "2"}))
    assert command.command_id not in bench.head.settled
    assert statuses(bench.outcome(202, "applied")) == ["applied"]
    assert known_value(bench.head.tree) == {"phone": "1"}


def test_a_target_that_changed_is_decided_anew_by_what_it_holds() -> None:
    bench = sent()
    first = bench.head.pending
    seen = Observation(resource=RESOURCE, exists=True, fields={"phone": "2", "note": "new"}, observed_at=103 * SECOND)
    effects = bench.outcome(103, "conflict", observed=seen)
    (command,) = commands(effects)
    assert first is not None and command.command_id != first.command.command_id
    assert known_value(bench.head.tree) == {"phone": "1"}
    assert statuses(bench.outcome(104, "applied")) == ["applied"]


def test_a_target_that_changed_is_read_again_where_it_doesnt_say_what_it_holds() -> None:
    bench = sent(CORRECTING)
    assert not commands(bench.outcome(103, "conflict"))
    assert known_value(bench.head.tree) == {"phone": "2"}, "as long as it isn't decided anew, nothing is undone"
    assert statuses(bench.observe(104, {"phone": "3"})) == ["conflict"]
    assert known_value(bench.head.tree) == {"phone": "2"}


def test_a_target_that_changes_each_time_is_left_to_people() -> None:
    bench = sent()
    told: list[StepReport] = []
    for second in (110, 120, 130):
        told += reports(bench.outcome(second, "conflict"))
        told += reports(bench.observe(second + 1, {"phone": "2"}))
    assert [item.status for item in told] == ["sent", "sent", "conflict"]
    assert known_value(bench.head.tree) == {"phone": "2"} and bench.head.pending is None


def test_a_passing_failure_is_told_and_tried_again() -> None:
    bench = sent()
    (told,) = reports(bench.outcome(103, "transient", error="busy"))
    assert (told.status, told.attempt, told.is_timeout, told.error) == ("retrying", 1, False, "busy")
    due = bench.machine.due_at(bench.head)
    assert due is not None
    effects = bench.tick(due / SECOND)
    (command,) = commands(effects)
    assert command.attempt == 2
    assert [(told.status, told.attempt) for told in reports(effects)] == [("sent", 2)]


def exhausted(is_answered: bool) -> Bench:
    """A bench on which the undo was tried twice, and nobody knows what became of it."""
    bench = sent(Contract(name="crm/contact", retry=Retry(attempts=2)))
    for _ in range(2):
        due = bench.machine.due_at(bench.head)
        assert due is not None
        if is_answered:
            bench.outcome(due / SECOND - 59, "transient", error="busy")
        else:
            (told,) = [*reports(bench.tick(due / SECOND)), None][:1]
            assert told is None or told.is_timeout
        due = bench.machine.due_at(bench.head)
        assert due is not None
        if bench.head.pending is not None and bench.head.pending.retry_at is not None:
            assert commands(bench.tick(due / SECOND))
    assert bench.head.pending is not None and bench.head.pending.sent is not None
    assert bench.head.pending.sent.doubt is not None
    return bench


def test_a_doubted_command_was_carried_out_if_that_is_seen() -> None:
    bench = exhausted(is_answered=False)
    assert statuses(bench.observe(300, {"phone": "1"})) == ["applied"]
    assert known_value(bench.head.tree) == {"phone": "1"}


def test_a_doubted_command_may_still_be_carried_out_until_it_expires() -> None:
    bench = exhausted(is_answered=False)
    pending = bench.head.pending
    assert pending is not None and pending.command.expires_at is not None
    expires = pending.command.expires_at / SECOND
    assert not reports(bench.observe(expires - 1, {"phone": "2"}))
    assert known_value(bench.head.tree) == {"phone": "1"}
    (told,) = reports(bench.observe(expires + 31, {"phone": "2"}))
    assert told.status == "failed" and told.error is not None and "after 2 attempts" in told.error
    assert known_value(bench.head.tree) == {"phone": "2"}


def test_a_target_that_said_no_the_last_time_is_looked_at_once() -> None:
    bench = exhausted(is_answered=True)
    doubted = bench.head.pending
    assert doubted is not None and doubted.sent is not None and doubted.sent.doubt is not None
    at = doubted.sent.doubt.since_at / SECOND
    assert statuses(bench.observe(at + 30, {"phone": "2"})) == ["failed"]


def test_an_outcome_that_comes_late_ends_the_doubt() -> None:
    bench = exhausted(is_answered=False)
    assert statuses(bench.outcome(300, "applied")) == ["applied"]


def test_a_doubt_that_nothing_ends_is_a_failure() -> None:
    bench = exhausted(is_answered=False)
    due = bench.machine.due_at(bench.head)
    assert due is not None
    assert statuses(bench.tick(due / SECOND)) == ["failed"]
    assert known_value(bench.head.tree) == {"phone": "2"}


def test_a_step_that_cant_be_observed_fails_in_time() -> None:
    bench = written(Contract(name="crm/contact", timing=Timing(sample_every_s=10, in_flight_s=20, settle_s=5)))
    bench.at(100, order(bench, planned_on={"phone": "2"}))
    bench.at(110, Observation(resource=RESOURCE, exists=None, reason="connection refused", observed_at=110 * SECOND))
    assert bench.machine.due_at(bench.head) == 130 * SECOND
    (told,) = reports(bench.tick(130))
    assert told.status == "failed" and told.error is not None and "connection refused" in told.error
    assert bench.head.steps == []


# -- several steps, and those that come again


def test_steps_go_one_after_another() -> None:
    bench = written()
    bench.at(2, make_action(2, before={"/fax": "1"}, set={"/fax": "2"}, occurred_at=2 * SECOND))
    there = {"phone": "2", "fax": "2"}
    bench.at(100, order(bench, "one", planned_on=there))
    bench.at(100, order(bench, "two", planned_on=there, operations=["run/step-2"]))
    (first,) = commands(bench.observe(101, there))
    assert [change.path for change in first.changes] == ["/phone"]
    back = Observation(resource=RESOURCE, exists=True, fields={"phone": "1", "fax": "2"}, observed_at=102 * SECOND)
    effects = bench.outcome(102, "applied", observed=back)
    (second,) = commands(effects)
    assert [change.path for change in second.changes] == ["/fax"]
    assert statuses(effects) == ["applied", "sent"]
    bench.outcome(103, "applied")
    told = reports(bench.observe(140, {"phone": "1", "fax": "1"}))
    assert [(item.status, item.step_id) for item in told] == [("verified", "one"), ("verified", "two")]


def test_one_observation_decides_all_steps_that_send_nothing() -> None:
    bench = written()
    bench.at(2, make_action(2, before={"/fax": "1"}, set={"/fax": "2"}, occurred_at=2 * SECOND))
    there = {"phone": "1", "fax": "3"}
    bench.at(100, order(bench, "one", planned_on=there))
    bench.at(100, order(bench, "two", planned_on=there, operations=["run/step-2"]))
    assert statuses(bench.observe(101, there)) == ["unchanged", "conflict"]


def test_a_step_that_comes_again_is_one() -> None:
    bench = written()
    step = order(bench, planned_on={"phone": "2"})
    bench.at(100, step)
    before = bench.machine.encode(bench.head)
    assert not bench.at(101, step) and bench.machine.encode(bench.head) == before
    bench.observe(102, {"phone": "2"})
    before = bench.machine.encode(bench.head)
    assert not bench.at(103, step) and bench.machine.encode(bench.head) == before
    bench.outcome(104, "applied")
    before = bench.machine.encode(bench.head)
    assert not bench.at(105, step) and bench.machine.encode(bench.head) == before


def test_a_pending_correction_goes_first() -> None:
    bench = written(CORRECTING)
    assert commands(bench.observe(90, {"phone": "3"}))
    bench.at(100, order(bench, planned_on={"phone": "2"}))
    assert not commands(bench.observe(101, {"phone": "3"}))
    back = Observation(resource=RESOURCE, exists=True, fields={"phone": "2"}, observed_at=102 * SECOND)
    assert statuses(bench.outcome(102, "applied", observed=back)) == ["sent"]


def test_drift_isnt_judged_while_a_step_is_under_way() -> None:
    bench = sent(CORRECTING)
    effects = bench.observe(150, {"phone": "7"})
    assert not drifts(effects) and not commands(effects)


def test_a_drift_told_against_what_was_undone_is_over() -> None:
    contract = Contract(name="crm/contact", fields={"/phone": FieldRule(conflict="expected_wins")})
    bench = written(contract)
    bench.observe(90, {"phone": "3"})
    bench.at(100, order(bench, planned_on={"phone": "3"}))
    effects = bench.observe(101, {"phone": "3"})
    assert [event.status for event in drifts(effects)] == ["closed"]
    bench.outcome(102, "applied")
    put_right = Decision(
        decision_id="d", resource=RESOURCE, verb="expected", path="/phone", decided_by=PERSON, occurred_at=SECOND
    )
    assert not commands(bench.at(103, put_right)), "a decision on it puts nothing back"


def test_a_withdrawn_step_is_forgotten() -> None:
    bench = written()
    step = order(bench, planned_on={"phone": "2"})
    bench.at(100, step)
    withdraw = UndoStep(step_id="step", rollback_id="rb", resource=RESOURCE, verb="withdraw", occurred_at=101 * SECOND)
    assert statuses(bench.at(101, withdraw)) == ["withdrawn"]
    assert not commands(bench.observe(102, {"phone": "2"}))
    assert not bench.at(103, step), "also if it comes again"
    assert not bench.at(104, withdraw)


def test_a_step_that_was_sent_isnt_withdrawn() -> None:
    bench = sent()
    withdraw = UndoStep(step_id="step", rollback_id="rb", resource=RESOURCE, verb="withdraw", occurred_at=101 * SECOND)
    assert not bench.at(102, withdraw)
    assert statuses(bench.outcome(103, "applied")) == ["applied"]


# -- the undo of an undo, and records that come back


def test_an_undo_can_be_undone_by_another_rollback() -> None:
    bench = sent()
    bench.outcome(103, "applied")
    bench.observe(140, {"phone": "1"})
    bench.at(200, order(bench, "redo", planned_on={"phone": "1"}, operations=["rb/undo"], rollback_id="rb-2"))
    effects = bench.observe(201, {"phone": "1"})
    (command,) = commands(effects)
    assert command.changes == [Change(path="/phone", op="set", value="2", expect="1")]
    (reversed_,) = reversals(effects)
    assert (reversed_.operation_id, reversed_.run_id) == ("rb/undo", "rb-2")
    assert known_value(bench.head.tree) == {"phone": "2"}


def test_our_own_reversals_come_back_from_the_ledger_and_change_nothing() -> None:
    bench = sent()
    (mine,) = reversals(tuple(bench.effects))
    tree, entries = bench.head.tree, bench.head.entries
    bench.at(105, mine)
    bench.at(106, mine)
    assert (bench.head.tree, bench.head.entries) == (tree, entries)


def echo(bench: Bench, **more: Any) -> Action:
    pending = bench.head.pending
    assert pending is not None
    given: dict[str, Any] = {"before": {"/phone": "2"}, "set": {"/phone": "1"}, "origin": pending.command.command_id}
    return make_action(9, **(given | more))


def test_the_echo_of_a_command_is_nobodys_write() -> None:
    bench = sent(CORRECTING)
    mark = echo(bench, occurred_at=103 * SECOND)
    started = echo(bench, stage="initiated", action_id="started", occurred_at=103 * SECOND)
    tree, entries = bench.head.tree, bench.head.entries
    assert not bench.at(104, started) and not bench.at(104, mark)
    bench.outcome(105, "applied")
    again = bench.head
    assert not bench.at(106, mark)
    assert bench.head == again
    assert (bench.head.tree, bench.head.entries, bench.head.in_flight) == (tree, entries, {})
    assert not drifts(bench.observe(200, {"phone": "1"}))


def test_what_an_automation_wrote_beside_the_echo_is_a_write_of_its_own() -> None:
    """It is what stands there now: were it forgotten, it would be drift, and the correction of that its next cause."""
    bench = sent(CORRECTING)
    more = echo(bench, set={"/phone": "1", "/status": "called"}, occurred_at=103 * SECOND)
    bench.at(104, more)
    bench.outcome(105, "applied")
    assert known_value(bench.head.tree) == {"phone": "1", "status": "called"}
    assert not drifts(bench.observe(200, {"phone": "1", "status": "called"}))


def test_an_action_with_a_strangers_mark_is_anybodys_write() -> None:
    bench = sent()
    bench.at(104, echo(bench, origin="somebody-else", before={"/phone": "1"}, set={"/phone": "8"}))
    assert known_value(bench.head.tree) == {"phone": "8"}


def test_a_record_that_another_step_took_away_has_nothing_to_undo() -> None:
    bench = Bench()
    bench.at(1, make_action(1, operation="create", operation_id="run/step-1", set={"/phone": "2"}, before=None))
    bench.at(2, make_action(2, operation="delete", set={}, before={"": {"phone": "2"}}))
    bench.at(100, order(bench))
    assert statuses(bench.observe(140, None)) == ["unchanged"]


def test_a_record_that_stays_for_what_others_merged_into_it_is_told_as_kept() -> None:
    merging = Contract(name="crm/contact", fields={"/score": FieldRule(kind="counter", conflict="merge")})
    bench = Bench(merging)
    bench.at(1, make_action(1, operation="create", operation_id="run/step-1", set={"/phone": "2"}, before=None))
    bench.at(100, order(bench, planned_on={"phone": "2"}))
    (told,) = reports(bench.observe(140, {"phone": "2", "score": 100}))
    assert told.status == "unchanged"
    assert [item.path for item in told.conflicts] == ["/score"]


# -- effects


def compensation_order(step_id: str = "step", action_id: str = "action-1") -> UndoStep:
    return UndoStep(
        step_id=step_id,
        rollback_id="rb",
        resource=RESOURCE,
        verb="compensate",
        operations=["run/step-1"],
        planned_action="compensate",
        action_id=action_id,
        compensation=Compensation(name="credit-note"),
        occurred_at=100 * SECOND,
    )


def test_an_effect_is_made_good_once_for_each_execution() -> None:
    bench = Bench()
    for number in (1, 2):
        bench.at(number, make_action(number, operation="effect", operation_id="run/step-1", set={}))
    first = commands(bench.at(100, compensation_order("one", "action-1")))
    assert not commands(bench.at(101, compensation_order("two", "action-2"))), "one at a time"
    effects = bench.outcome(102, "applied")
    assert statuses(effects) == ["applied", "sent"]
    second = commands(effects)
    assert first[0].command_id != second[0].command_id
    (made_good,) = reversals(effects)
    assert (made_good.run_id, made_good.step_id, made_good.reverses) == ("rb", "compensate", "action-1")
    assert statuses(bench.outcome(103, "permanent", error="no")) == ["failed"]
    history = history_of(bench.head, bench.history, PLAIN)
    assert history.numbers_of("run/step-1") == {2}, "only what was made good is undone"
    assert statuses(bench.at(104, compensation_order("three", "action-1"))) == ["unchanged"]


def test_a_compensation_that_failed_is_tried_again_as_the_same_command_in_a_further_attempt() -> None:
    bench = Bench()
    bench.at(1, make_action(1, operation="effect", operation_id="run/step-1", set={}))
    (first,) = commands(bench.at(100, compensation_order("one")))
    assert statuses(bench.outcome(101, "permanent", error="the books are closed")) == ["failed"]
    (second,) = commands(bench.at(200, compensation_order("two")))
    assert (second.command_id, second.attempt) == (first.command_id, first.attempt + 1)
    bench.outcome(201, "transient")
    assert bench.head.pending is not None, "it has all its attempts again"
    (third,) = commands(bench.tick(300))
    assert third.attempt == second.attempt + 1
    assert statuses(bench.outcome(301, "applied")) == ["applied"]


@pytest.mark.parametrize(
    ("promises", "is_sent_again"),
    [((), True), (("deduplicates",), True), (("compare_and_set",), False)],
)
def test_a_compensation_without_an_answer_is_sent_again_unless_it_might_act_twice(
    promises: tuple[Promise, ...], is_sent_again: bool
) -> None:
    bench = Bench(Contract(name="crm/contact", service=Service(promises=promises)))
    bench.at(1, make_action(1, operation="effect", operation_id="run/step-1", set={}))
    bench.at(100, compensation_order())
    assert statuses(bench.tick(161)) == (["retrying"] if is_sent_again else [])
    again = commands(bench.tick(170))
    assert bool(again) == is_sent_again
    if not is_sent_again:
        (report,) = reports(bench.tick(10_000))
        assert report.status == "failed"
        assert str(report.error).startswith("after 1 attempt: no outcome came in time")


def test_a_compensation_that_failed_for_a_while_is_sent_again_whatever_its_service_promises() -> None:
    bench = Bench(Contract(name="crm/contact", service=Service(promises=("compare_and_set",))))
    bench.at(1, make_action(1, operation="effect", operation_id="run/step-1", set={}))
    bench.at(100, compensation_order())
    assert statuses(bench.outcome(101, "transient")) == ["retrying"]
    assert len(commands(bench.tick(110))) == 1


def test_an_effect_that_nobody_knows_is_outdated() -> None:
    bench = Bench()
    assert statuses(bench.at(100, compensation_order())) == ["outdated"]


def test_a_machine_refuses_nothing_that_a_rollback_says() -> None:
    assert not rejections(tuple(sent().effects))
