"""The resource machine, event by event."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.model import Contract, Existence, FieldRule, Retry
from reconciler.history.resource import MAX_OPERATIONS, ResourceHistory
from reconciler.history.tree import Leaf, Object, Unknown, equal, known_value, node_at
from reconciler.machines.commanding import jitter
from reconciler.machines.head import Head, history_of
from reconciler.records import Action, Actor, Change, Command, Decision, Observation, Outcome
from reconciler.values.instant import SECOND
from tests.core.histories import RESOURCE, make_action, wild_actions
from tests.core.machine_bench import Bench, alerts, commands, drifts, rejections

CORRECTING = Contract(
    name="crm/contact", fields={"/phone": FieldRule(drift="correct")}, existence=Existence(missing="correct")
)
PERSON = Actor(id="ana@example.com", kind="user")


def written(bench: Bench, second: int = 0, **fields: object) -> None:
    set_ = {f"/{name}": value for name, value in fields.items()}
    bench.at(second, make_action(1, occurred_at=second * SECOND, before={}, set=set_))


def drifted(contract: Contract = CORRECTING) -> Bench:
    """A bench on which a correction of the phone is pending."""
    bench = Bench(contract)
    written(bench, phone="2")
    bench.observe(100, {"phone": "3", "note": "theirs"})
    assert commands(bench.observe(200, {"phone": "3", "note": "theirs"}))
    return bench


def test_drift_is_corrected_once_it_was_seen_twice() -> None:
    bench = Bench(CORRECTING)
    written(bench, phone="2")
    (opened,) = drifts(bench.observe(100, {"phone": "3"}))
    assert (opened.status, opened.verdict) == ("opened", "drifted")
    (command,) = commands(bench.observe(200, {"phone": "3"}))
    assert command.changes == [Change(path="/phone", op="set", value="2", expect="3")]
    assert command.drift_id == opened.drift_id
    (closed,) = drifts(
        bench.outcome(201, "applied", observed=Observation(resource=RESOURCE, exists=True, fields={"phone": "2"}))
    )
    assert (closed.status, closed.drift_id, closed.command_id) == ("closed", opened.drift_id, command.command_id)
    assert bench.head.drift is None and bench.head.pending is None


def test_drift_that_is_gone_by_the_second_observation_is_not_corrected() -> None:
    bench = Bench(CORRECTING)
    written(bench, phone="2")
    bench.observe(100, {"phone": "3"})
    assert [event.status for event in drifts(bench.observe(200, {"phone": "2"}))] == ["closed"]
    assert not commands(tuple(bench.effects))


def test_a_contract_can_ask_for_correction_at_once() -> None:
    bench = Bench(Contract(name="crm/contact", fields={"/phone": FieldRule(drift="correct", confirm=1)}))
    written(bench, phone="2")
    assert commands(bench.observe(100, {"phone": "3"}))


def test_without_a_contract_drift_is_reported_and_nothing_is_corrected() -> None:
    bench = Bench()
    written(bench, phone="2")
    assert drifts(bench.observe(100, {"phone": "3"}))
    assert not drifts(bench.observe(200, {"phone": "3"})), "the same drift seen again is no news"
    assert not commands(tuple(bench.effects))


def test_fields_that_no_workflow_wrote_are_nobodys_business() -> None:
    bench = Bench(CORRECTING)
    written(bench, phone="2")
    assert not drifts(bench.observe(100, {"phone": "2", "note": "anything"}))


def test_no_verdict_while_the_last_write_settles() -> None:
    bench = Bench(CORRECTING)
    written(bench, second=100, phone="2")
    assert not drifts(bench.observe(110, {"phone": "1"}))
    assert drifts(bench.observe(131, {"phone": "1"}))


def test_no_verdict_while_work_is_in_flight_and_one_after_its_time_out() -> None:
    bench = Bench(CORRECTING)
    written(bench, phone="2")
    bench.at(100, make_action(2, stage="initiated", occurred_at=100 * SECOND))
    assert not drifts(bench.observe(200, {"phone": "3"}))
    assert drifts(bench.observe(701, {"phone": "3"}))


def test_an_unknown_observation_is_no_drift_and_says_why() -> None:
    bench = Bench(CORRECTING)
    written(bench, phone="2")
    assert not bench.at(100, Observation(resource=RESOURCE, exists=None, reason="timed out", observed_at=100 * SECOND))
    assert bench.head.unknown == "timed out"
    assert bench.head.drift is None


def test_an_observation_older_than_the_last_is_rejected() -> None:
    bench = Bench(CORRECTING)
    written(bench, phone="2")
    bench.observe(200, {"phone": "2"})
    assert rejections(bench.observe(100, {"phone": "3"}))
    assert bench.head.drift is None


def test_a_missing_resource_is_made_again_where_the_contract_says_so() -> None:
    bench = Bench(CORRECTING)
    written(bench, phone="2")
    bench.observe(100, None)
    (command,) = commands(bench.observe(200, None))
    assert command.action == "create"
    assert command.changes == [Change(path="", op="set", value={"phone": "2"})]


def test_a_transient_failure_is_retried_with_backoff_and_then_people_are_told() -> None:
    bench = drifted(Contract(name="crm/contact", fields=CORRECTING.fields, retry=Retry(attempts=3)))
    first = bench.head.pending
    assert first is not None
    bench.outcome(201, "transient", error="busy")
    assert bench.machine.due_at(bench.head) == int((201 + 2 * jitter(first.command)) * SECOND)
    assert not commands(bench.tick(202))
    (second,) = commands(bench.tick(204))
    assert (second.attempt, second.command_id) == (2, first.command.command_id)
    bench.outcome(204, "transient")
    assert bench.machine.due_at(bench.head) == int((204 + 6 * jitter(second)) * SECOND)
    assert commands(bench.tick(212))
    (alert,) = alerts(bench.outcome(213, "transient", error="still busy"))
    assert "after 3 attempts" in alert.message
    assert bench.head.hold is not None
    assert not commands(bench.observe(400, {"phone": "3"}))


def test_waits_are_spread_and_always_alike_for_one_attempt() -> None:
    commands_ = [Command(command_id=f"c{number}", resource=RESOURCE, action="patch") for number in range(200)]
    spread = sorted(map(jitter, commands_))
    assert 0.75 <= spread[0] < 0.8 and 1.2 < spread[-1] <= 1.25
    assert [jitter(command) for command in commands_] == [jitter(command) for command in commands_]


def test_an_outcome_that_never_comes_is_a_time_out() -> None:
    bench = drifted()
    assert bench.machine.due_at(bench.head) == 260 * SECOND
    bench.tick(260)
    (again,) = commands(bench.tick(263))
    assert again.attempt == 2


def test_a_failure_that_is_told_twice_is_one() -> None:
    bench = drifted()
    bench.outcome(201, "transient")
    due = bench.machine.due_at(bench.head)
    assert not bench.outcome(202, "transient", retry_after_s=50.0)
    assert bench.machine.due_at(bench.head) == due


def test_retry_after_is_respected() -> None:
    bench = drifted()
    bench.outcome(201, "transient", retry_after_s=50.0)
    assert bench.machine.due_at(bench.head) == 251 * SECOND


def test_a_conflict_is_judged_anew_by_what_was_observed() -> None:
    bench = drifted()
    seen = Observation(resource=RESOURCE, exists=True, fields={"phone": "4"}, observed_at=201 * SECOND)
    (command,) = commands(bench.outcome(201, "conflict", observed=seen))
    assert command.changes == [Change(path="/phone", op="set", value="2", expect="4")]


def test_a_permanent_failure_holds_until_a_person_releases() -> None:
    bench = drifted()
    bench.outcome(201, "permanent", error="no such column")
    assert bench.head.hold is not None
    assert not commands(bench.observe(300, {"phone": "3"}))
    release = Decision(decision_id="d1", resource=RESOURCE, verb="release", decided_by=PERSON, occurred_at=400 * SECOND)
    bench.at(400, release)
    assert commands(bench.observe(500, {"phone": "3"}))


def test_a_failed_identical_command_is_not_sent_again_where_the_contract_skips() -> None:
    bench = drifted(Contract(name="crm/contact", fields=CORRECTING.fields, fallback="skip"))
    assert alerts(bench.outcome(201, "permanent", error="no"))
    assert not commands(bench.observe(300, {"phone": "3"}))
    assert commands(bench.observe(400, {"phone": "5"})), "another drift is another command"


def test_a_fight_is_stopped() -> None:
    bench = Bench(Contract(name="crm/contact", fields={"/phone": FieldRule(drift="correct", confirm=1)}))
    written(bench, phone="2")
    for round_ in range(3):
        second = 1_000 * (round_ + 1) // 1
        assert commands(bench.observe(second, {"phone": "3"})), round_
        bench.outcome(
            second + 1, "applied", observed=Observation(resource=RESOURCE, exists=True, fields={"phone": "2"})
        )
    effects = bench.observe(3_500, {"phone": "3"})
    assert not commands(effects)
    assert bench.head.hold is not None and bench.head.hold.kind == "fight"
    assert [event.status for event in drifts(effects)] == ["opened", "held"]
    assert len(alerts(effects)) == 1


def test_corrections_of_one_resource_back_off() -> None:
    bench = Bench(Contract(name="crm/contact", fields={"/phone": FieldRule(drift="correct", confirm=1)}))
    written(bench, phone="2")
    bench.observe(100, {"phone": "3"})
    back = Observation(resource=RESOURCE, exists=True, fields={"phone": "2"}, observed_at=100_100_000)
    bench.outcome(100.1, "applied", observed=back)
    # The target was just written, so a sampled observation settles first; the wait after a correction is shorter than that.
    assert not commands(bench.observe(101, {"phone": "3"}))
    assert commands(bench.observe(140, {"phone": "3"}))


def test_adopted_drift_becomes_expected_and_is_not_undone() -> None:
    bench = Bench(Contract(name="crm/contact", fields={"/phone": FieldRule(drift="adopt", confirm=1)}))
    written(bench, phone="2")
    assert [event.status for event in drifts(bench.observe(100, {"phone": "3"}))] == ["opened", "closed"]
    assert known_value(bench.head.tree) == {"phone": "3"}
    bench.at(200, make_action(1, stage="reversed", action_id="r", occurred_at=200 * SECOND))
    assert known_value(bench.head.tree) == {"phone": "3"}


def test_people_decide_a_drift() -> None:
    bench = Bench()
    written(bench, phone="2")
    bench.observe(100, {"phone": "3"})
    put_right = Decision(
        decision_id="d", resource=RESOURCE, verb="expected", path="/phone", decided_by=PERSON, occurred_at=SECOND
    )
    (command,) = commands(bench.at(101, put_right))
    assert command.changes == [Change(path="/phone", op="set", value="2", expect="3")]


def test_a_decision_that_comes_again_decides_nothing() -> None:
    bench = drifted()
    bench.outcome(201, "permanent", error="no such column")
    release = Decision(decision_id="d1", resource=RESOURCE, verb="release", decided_by=PERSON, occurred_at=400 * SECOND)
    bench.at(400, release)
    held = Decision(decision_id="d2", resource=RESOURCE, verb="hold", decided_by=PERSON, occurred_at=500 * SECOND)
    assert alerts(bench.at(500, held))
    assert not bench.at(600, release) and not bench.at(601, held)
    assert bench.head.hold is not None and bench.head.hold.since_at == 500 * SECOND


def test_a_decision_on_another_version_is_refused() -> None:
    bench = Bench()
    written(bench, phone="2")
    bench.observe(100, {"phone": "3"}, version="v8")
    late = Decision(
        decision_id="d", resource=RESOURCE, verb="expected", version_seen="v7", decided_by=PERSON, occurred_at=SECOND
    )
    assert rejections(bench.at(101, late))


def test_an_outcome_for_a_command_nobody_sent_is_rejected_and_one_that_comes_again_is_not() -> None:
    bench = drifted()
    pending = bench.head.pending
    assert pending is not None
    stranger = Outcome(command_id="nobody", resource=RESOURCE, status="applied", occurred_at=SECOND)
    assert rejections(bench.at(201, stranger))
    bench.outcome(202, "applied")
    repeated = Outcome(
        command_id=pending.command.command_id, resource=RESOURCE, status="applied", occurred_at=202 * SECOND
    )
    assert not bench.at(203, repeated)


def test_an_outcome_that_comes_again_many_commands_later_is_recognised() -> None:
    """Somebody writes the field before each of thirty commands, and each conflict gives another one."""
    bench = drifted()
    settled = []
    for second in range(201, 231):
        assert bench.head.pending is not None
        settled.append(bench.head.pending.command.command_id)
        fields = {"phone": f"0{second}"}
        seen = Observation(resource=RESOURCE, exists=True, fields=fields, observed_at=second * SECOND)
        assert commands(bench.outcome(second, "conflict", observed=seen))
    assert len(set(settled)) == 30
    for command_id in settled:
        again = Outcome(command_id=command_id, resource=RESOURCE, status="conflict", occurred_at=300 * SECOND)
        assert not bench.at(300, again)


def test_the_same_action_id_with_another_body_is_an_alert_and_the_first_stands() -> None:
    bench = Bench()
    bench.at(1, make_action(1, set={"/a": 1}, before={}))
    (alert,) = alerts(bench.at(2, make_action(1, set={"/a": 2}, before={})))
    assert alert.kind == "action_contradicted"
    assert known_value(bench.head.tree) == {"a": 1}


def test_the_last_observation_is_the_base_where_the_pre_state_is_unknown() -> None:
    bench = Bench()
    bench.at(1, make_action(1, set={"/a": 1}, before={}))
    bench.observe(100, {"a": 1, "b": "old"})
    bench.at(200, make_action(2, set={"/b": "new"}, occurred_at=200 * SECOND))
    bench.at(300, make_action(2, stage="reversed", action_id="r", occurred_at=300 * SECOND))
    assert known_value(bench.head.tree) == {"a": 1, "b": "old"}


@given(wild_actions(), st.data())
def test_the_machine_folds_and_reverses_as_the_history_does(actions: list[Action], data: st.DataObject) -> None:
    bench, history = Bench(), ResourceHistory(RESOURCE, Bench().machine._contracts.for_resource(RESOURCE))
    reversals = [
        make_action(number + 100, stage="reversed", operation_id=action.operation_id)
        for number, action in enumerate(actions)
        if data.draw(st.booleans())
    ]
    for number, action in enumerate([*actions, *reversals, *actions]):
        bench.at(1_000 + number, action)
        history.take(action)
    assert equal(bench.head.tree, history.tree)


@given(wild_actions(max_size=12), st.integers(0, 11))
def test_a_replay_from_any_offset_gives_the_same_bytes(actions: list[Action], offset: int) -> None:
    straight, interrupted = Bench(), Bench()
    for number, action in enumerate(actions):
        straight.at(number, action)
    for number, action in enumerate(actions[:offset]):
        interrupted.at(number, action)
    for number, action in enumerate(actions):
        interrupted.at(number, action)
    assert straight.machine.encode(straight.head) == interrupted.machine.encode(interrupted.head)
    assert straight.history.stored == interrupted.history.stored


def test_old_operations_collapse_into_the_base_and_nothing_changes() -> None:
    bench = Bench()
    for number in range(1, MAX_OPERATIONS + 200):
        step = make_action(number, set={"/n": number, f"/field-{number % 7}": number}, before=None)
        state, effects = bench.machine.step(bench.head, step, number * SECOND, bench.history)
        assert isinstance(state, Head)
        bench.head = state
        bench.history.take(effects)
    assert bench.head.collapsed > 0
    history = history_of(bench.head, bench.history, Contract(name="*"))
    assert len(history.entries) <= MAX_OPERATIONS + 100
    assert equal(history.tree, bench.head.tree)
    assert isinstance(bench.head.tree, Object)
    base = history.base.tree
    assert isinstance(base, Object) and not isinstance(base, Unknown)
    assert equal(history.without(frozenset(entry.number for entry in history.entries)), base)
    owner = node_at(base, ("field-0",))
    assert isinstance(owner, Leaf)
    assert history.owner_of(owner.owner) == f"run/step-{owner.owner}"
