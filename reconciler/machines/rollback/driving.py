"""Carrying a plan out: wave after wave of orders to resources, and what they report.

A wave begins when every step of the one before has settled. Not more than a window of steps is under way at a time, so
that stopping means something also in a wave of ten thousand. When all waves are through, the rollback waits until each
change was seen by a later observation, and only then is it over.
"""

from __future__ import annotations

from typing import Final

import msgspec

from reconciler.contracts.masking import shown_error
from reconciler.machines.protocol import EmitUndoStep
from reconciler.machines.rollback.budget import pay, refund, system_of
from reconciler.machines.rollback.gathering import begin
from reconciler.machines.rollback.head import (
    LEFT_BEHIND,
    OPEN,
    UNDER_WAY,
    Driving,
    Step,
    StepState,
)
from reconciler.machines.rollback.planning import wave_key
from reconciler.machines.rollback.telling import tell
from reconciler.machines.rollback.turn import Refused, Turn, digest
from reconciler.plan.model import Plan
from reconciler.records import RollbackStatus, Selector, StepReport, UndoStep

WINDOW: Final = 500
"""How many steps of one rollback are under way at a time."""

_RANKS: Final[dict[str, int]] = {
    "ordered": 0,
    "sent": 1,
    "retrying": 1,
    "applied": 2,
    **dict.fromkeys(("verified", "contradicted", "unchanged", "conflict", "outdated", "failed", "withdrawn"), 3),
    **dict.fromkeys(("skipped", "compensated", "replaced"), 4),
}
"""A step goes from a lower rank to a higher one: what comes again, or late, changes nothing."""


def start(turn: Turn) -> None:
    """Begins to carry the plan out."""
    facts = turn.head.plan
    assert facts is not None
    approved = [*turn.head.approved_plans, facts.number]
    turn.change(approved_plans=approved, driving=Driving(progress_at=turn.now), status="executing", halted_for="")
    _next_wave(turn)


def _next_wave(turn: Turn) -> None:
    """Begins the next wave that has steps, or goes over to verifying."""
    facts, driving = turn.head.plan, turn.head.driving
    assert facts is not None and driving is not None
    wave = driving.wave + 1
    while wave <= facts.waves and turn.get(wave_key(facts.number, wave, 0)) is None:
        wave += 1
    if wave > facts.waves:
        turn.change(driving=msgspec.structs.replace(driving, is_ordered=True, progress_at=turn.now))
        _verify(turn)
        return
    turn.change(driving=Driving(wave=wave, progress_at=turn.now))
    tell(turn, "executing")
    _order_more(turn)


def _order_more(turn: Turn) -> None:
    """Orders steps of the wave at work, as many as the window lets through."""
    facts, driving = turn.head.plan, turn.head.driving
    assert facts is not None and driving is not None
    while not driving.is_ordered and turn.under_way < WINDOW:
        step_ids = turn.names(wave_key(facts.number, driving.wave, driving.next_chunk))
        if step_ids:
            for step_id in step_ids:
                step = turn.step(step_id)
                assert step is not None
                _order(turn, step, "planned")
            driving = msgspec.structs.replace(driving, next_chunk=driving.next_chunk + 1)
        else:
            driving = msgspec.structs.replace(driving, is_ordered=True)
        turn.change(driving=driving)


def _order(turn: Turn, step: Step, before: StepState | None) -> None:
    order = msgspec.structs.replace(step.order, occurred_at=turn.now)
    turn.put_step(msgspec.structs.replace(step, order=order, state="ordered"), before)
    turn.emit(EmitUndoStep(order))


def withdraw(turn: Turn) -> None:
    """Takes back what was ordered and may not have been sent yet. What was sent goes its way."""
    for step in list(turn.steps()):
        if step.state in UNDER_WAY:
            order = step.order
            turn.emit(
                EmitUndoStep(
                    UndoStep(
                        step_id=order.step_id,
                        rollback_id=order.rollback_id,
                        resource=order.resource,
                        verb="withdraw",
                        wave=order.wave,
                        requested_by=order.requested_by,
                        reason=order.reason,
                        occurred_at=turn.now,
                        traceparent=order.traceparent,
                    )
                )
            )


# -- reports


def take_report(turn: Turn, report: StepReport) -> None:
    """Takes what a resource says of a step. Raises Refused for a step that was never ordered."""
    step = turn.step(report.step_id)
    if step is None or step.state in ("held", "behind", "planned"):
        raise Refused("is of a step that this rollback didn't order", "step_id")
    if report.resource != step.order.resource:
        raise Refused(f"is of a step of {step.order.resource}, which {report.resource} can't report", "resource")
    if not _is_news(step, report):
        return
    before = step.state
    told = msgspec.structs.replace(
        step,
        state=report.status,
        attempt=report.attempt,
        command_id=report.command_id or step.command_id,
        conflicts=report.conflicts,
        error=report.error,
        kept=max(step.kept, len(report.conflicts)) if report.status in ("sent", "unchanged") else step.kept,
    )
    if turn.head.driving is not None:
        turn.change(driving=msgspec.structs.replace(turn.head.driving, progress_at=turn.now))
    was_under_way = turn.under_way
    _take(turn, told, before, report)
    if turn.head.status == "halted" and turn.head.then is None and was_under_way and not turn.under_way:
        tell(turn, "halted")  # by now it stands still, and the numbers are the last ones
    proceed(turn)


def _is_news(step: Step, report: StepReport) -> bool:
    rank, new_rank = _RANKS[step.state], _RANKS[report.status]
    if new_rank == rank == 1:
        return (report.attempt, report.status == "retrying") > (step.attempt, step.state == "retrying")
    return new_rank > rank


def _take(turn: Turn, step: Step, before: StepState, report: StepReport) -> None:
    match report.status:
        case "sent":
            turn.put_step(step, before)
        case "retrying":
            step, may_go_on = pay(turn, step, report)
            turn.put_step(step, before)
            if not may_go_on:
                _stop(turn, f"{system_of(step.order.resource)} fails too often; see whether it is well, then resume.")
        case "applied" | "unchanged" | "verified":
            if before != "applied":
                refund(turn, step)
                turn.change(kept_by_conflict=turn.head.kept_by_conflict + step.kept)
            # That an effect was made good can't be seen at the resource: the target's word must do.
            is_seen = report.status == "applied" and step.order.verb == "compensate"
            turn.put_step(msgspec.structs.replace(step, state="verified") if is_seen else step, before)
        case "contradicted":
            turn.put_step(step, before)
            turn.note_trouble(step.order.step_id)
        case "conflict":
            turn.put_step(step, before)
            turn.note_trouble(step.order.step_id)
            turn.put_conflicts(step.order.resource, report.conflicts)
            _stop(turn, f"{step.order.resource} was changed by somebody else; decide, and it goes on.")
        case "outdated":
            turn.put_step(step, before)
            turn.note_trouble(step.order.step_id)
            _stop(turn, f"{step.order.resource} would need more than was planned; resume to plan again.")
        case "failed":
            _failed(turn, step, before)
        case "withdrawn":
            turn.put_step(step, before)


def _failed(turn: Turn, step: Step, before: StepState) -> None:
    """A step failed for good: the contract says what happens."""
    fallback = turn.contracts.for_resource(step.order.resource).fallback
    may_order = turn.head.status in ("executing", "verifying") and turn.head.then is None
    turn.note_trouble(step.order.step_id)
    if fallback == "skip":
        turn.put_step(msgspec.structs.replace(step, state="skipped"), before)
    elif fallback == "compensate" and step.fallback and may_order:
        turn.put_step(msgspec.structs.replace(step, state="compensated"), before)
        for item in step.fallback:
            order = msgspec.structs.replace(
                step.order,
                step_id=digest(step.order.step_id, item.action_id),
                verb="compensate",
                operations=[item.operation_id],
                numbers=[],
                planned=[],
                planned_action="compensate",
                action_id=item.action_id,
                compensation=item.compensation,
                resolutions=[],
            )
            _order(turn, Step(order=order, state="ordered", plan=step.plan), None)
    else:
        turn.put_step(step, before)
        error = shown_error(turn.contracts.for_resource(step.order.resource), step.error)
        why = f" ({error})" if error else ""
        _stop(turn, f"{step.order.resource} refused its change for good{why}; mend the cause, then resume.")


def _stop(turn: Turn, reason: str) -> None:
    """Lets nothing more be ordered. What is under way goes its way."""
    if turn.head.status in ("executing", "verifying"):
        halt(turn, reason)


def halt(turn: Turn, reason: str, plan: Plan | None = None) -> None:
    """Stops, so that a person looks at it; everything is kept for going on."""
    turn.change(halted_for=reason)
    turn.alert("rollback_halted", f"The rollback {turn.head.rollback_id} has stopped: {reason}", turn.head.sequence)
    tell(turn, "halted", plan=plan)


# -- going on, and coming to an end


def proceed(turn: Turn) -> None:
    """Does what can be done now that a step has got further."""
    head = turn.head
    if head.then is not None:
        if not turn.under_way:
            _afterwards(turn)
    elif head.status == "executing":
        assert head.driving is not None
        _order_more(turn)
        if turn.head.driving is not None and turn.head.driving.is_ordered and not turn.under_way:
            _next_wave(turn)
    elif head.status == "verifying":
        _verify(turn)


def _afterwards(turn: Turn) -> None:
    if turn.head.then == "cancel":
        turn.change(then=None)
        tell(turn, "cancelled")
    else:
        begin(turn)


def _verify(turn: Turn) -> None:
    """All that was to be ordered has settled. It is over when every change was seen, or seen not to be there."""
    if turn.count("applied") or turn.under_way:
        if turn.head.status != "verifying":
            tell(turn, "verifying")
        return
    finish(turn)


def finish(turn: Turn) -> None:
    """Nothing is under way any more: says how it ended, or what is left."""
    head = turn.head
    if head.undecided or turn.count(*OPEN):
        number = head.undecided
        what = f"{number} {'field was' if number == 1 else 'fields were'} changed by somebody else; decide, and it goes on."
        halt(turn, what if number else "Not everything could be done; resume to plan again what is left.")
        return
    if head.late:
        turn.change(late=[])
        begin(turn, Selector(operations=head.late), is_late_work=True)
        return
    turn.change(driving=None)
    tell(turn, ending(turn))


def ending(turn: Turn) -> RollbackStatus:
    """How a rollback ends of which nothing is open."""
    head = turn.head
    blocked = head.blocked_before + (0 if head.plan is None else head.plan.blocked)
    is_whole = not (turn.count(*LEFT_BEHIND) or head.kept_by_conflict or blocked or head.told_late)
    return "completed" if is_whole else "partial"
