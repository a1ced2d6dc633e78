"""One trace tells the journey of one field: the step that wrote it, its drift, the correction or the undo, and each retry."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.contracts.model import Contract, FieldRule, Retry
from reconciler.records import Action, Actor, Change, Command, DriftEvent, Outcome, Timer, UndoStep
from reconciler.values.instant import SECOND
from tests.core.histories import RESOURCE, make_action
from tests.core.machine_bench import Bench, commands, drifts, reversals

FIRST = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECOND_TRACE = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"
REQUESTS = "00-cccccccccccccccccccccccccccccccc-dddddddddddddddd-01"
CORRECTING = Contract(name="crm/contact", fields={"/*": FieldRule(drift="correct", confirm=1)}, retry=Retry(attempts=3))


def wrote(bench: Bench, number: int, trace: str | None, **fields: Any) -> None:
    set_ = {f"/{name}": value for name, value in fields.items()}
    bench.at(number, make_action(number, before={}, set=set_, traceparent=trace))


def drift_of(bench: Bench, fields: dict[str, Any], second: float = 100) -> tuple[DriftEvent, Command]:
    effects = bench.observe(second, fields)
    (event,), (command,) = drifts(effects), commands(effects)
    return event, command


def test_drift_and_correction_are_in_the_trace_of_the_step_that_wrote_the_field() -> None:
    bench = Bench(CORRECTING)
    wrote(bench, 1, FIRST, phone="2")
    wrote(bench, 2, SECOND_TRACE, fax="5")
    event, command = drift_of(bench, {"phone": "9", "fax": "5"})
    assert (event.traceparent, command.traceparent) == (FIRST, FIRST)


def test_of_several_fields_it_is_that_of_the_last_step_which_tells_one() -> None:
    for last, trace in ((SECOND_TRACE, SECOND_TRACE), (None, FIRST), ("nonsense", FIRST)):
        bench = Bench(CORRECTING)
        wrote(bench, 1, FIRST, phone="2")
        wrote(bench, 2, last, address={"city": "Bern"})
        event, command = drift_of(bench, {"phone": "9", "address": {"city": "Basel"}})
        assert (event.traceparent, command.traceparent) == (trace, trace)


def test_a_step_without_a_trace_begins_none() -> None:
    bench = Bench(CORRECTING)
    wrote(bench, 1, "nonsense", phone="2")
    event, command = drift_of(bench, {"phone": "9"})
    assert (event.traceparent, command.traceparent) == (None, None)


def test_a_trace_makes_no_other_command() -> None:
    """The id of a command is a function of what it does, and a replay gives the same."""
    ids = set()
    for trace in (FIRST, None):
        bench = Bench(CORRECTING)
        wrote(bench, 1, trace, phone="2")
        ids.add(drift_of(bench, {"phone": "9"})[1].command_id)
    assert len(ids) == 1


def test_retries_and_the_end_of_the_drift_stay_in_it() -> None:
    bench = Bench(CORRECTING)
    wrote(bench, 1, FIRST, phone="2")
    _, command = drift_of(bench, {"phone": "9"})
    failed = Outcome(
        command_id=command.command_id,
        resource=RESOURCE,
        status="transient",
        occurred_at=101 * SECOND,
        traceparent=FIRST,
    )
    bench.at(101, failed)
    due = bench.machine.due_at(bench.head)
    assert due is not None
    (again,) = commands(bench.at(due / SECOND, Timer(resource=RESOURCE, due_at=due)))
    assert (again.command_id, again.attempt, again.traceparent) == (command.command_id, 2, FIRST)
    bench.at(due / SECOND + 1, msgspec.structs.replace(failed, status="applied", occurred_at=due + SECOND))
    (closed,) = drifts(bench.observe(due / SECOND + 60, {"phone": "2"}))
    assert (closed.status, closed.traceparent) == ("closed", FIRST)


def undone(trace: str | None) -> tuple[list[Command], list[Action]]:
    bench = Bench(CORRECTING)
    action = make_action(1, before={"/phone": "1"}, set={"/phone": "2"}, traceparent=FIRST)
    bench.at(1, action)
    step = UndoStep(
        step_id="rb/1",
        rollback_id="rb",
        resource=RESOURCE,
        operations=[action.operation_id],
        numbers=[1],
        planned=[Change(path="/phone", op="set", value="1", expect="2")],
        planned_action="patch",
        contract=CORRECTING.digest,
        requested_by=Actor(id="ana", kind="user"),
        occurred_at=99 * SECOND,
        traceparent=trace,
    )
    effects = bench.at(99, step) + bench.observe(160, {"phone": "2"})
    return commands(effects), reversals(effects)


def test_an_undo_goes_on_with_the_trace_of_what_it_undoes_unless_its_request_has_one() -> None:
    for given, trace in ((None, FIRST), ("nonsense", FIRST), (REQUESTS, REQUESTS)):
        (command,), (reversal,) = undone(given)
        assert (command.traceparent, reversal.traceparent) == (trace, trace)
