"""What a rollback publishes: an event for each change of its status, with numbers and the story so far."""

from __future__ import annotations

from typing import Final

from reconciler.json_form import to_json
from reconciler.machines.protocol import EmitRollback
from reconciler.machines.rollback.approving import expires_at, missing_approvals, valid_approvals
from reconciler.machines.rollback.head import CARRIED_OUT, DONE, LEFT_BEHIND, Step
from reconciler.machines.rollback.turn import Turn, digest
from reconciler.plan.model import Plan
from reconciler.plan.parts import parts_of
from reconciler.plan.progress import OpenKind, OpenStep, Progress, tell_progress
from reconciler.plan.showing import plan_for_people
from reconciler.plan.story import markdown
from reconciler.records import RollbackEvent, RollbackStatus
from reconciler.values.json_value import Json

_KINDS: Final[dict[str, OpenKind]] = {
    "conflict": "conflict",
    "outdated": "outdated",
    "failed": "failed",
    "contradicted": "contradicted",
    "skipped": "skipped",
    "compensated": "compensated",
    "applied": "unverified",
    "ordered": "waiting",
    "sent": "waiting",
    "retrying": "waiting",
}
"""How the story calls the states of steps that aren't as they should be."""


def tell(turn: Turn, status: RollbackStatus, *, plan: Plan | None = None, error: str = "") -> None:
    """Gives the rollback a status and publishes it. A plan that is too long for one record comes in several events."""
    turn.change(status=status)
    if turn.head.mode == "execute" and turn.head.ended_at is None and status in CARRIED_OUT:
        turn.change(ended_at=turn.now)
    if plan is None:
        _publish(turn, None, error)
        return
    content = plan_for_people(plan, turn.contracts)
    content.pop("story_parts", None)
    # The planner was asked without consent given before, or to a part of what is done.
    missing = missing_approvals(turn)
    content["approvals_needed"] = [to_json(item) for item in missing]
    if plan.status == "needs_approval" and not missing:
        content["status"] = "executable"
    for part in parts_of(content):
        _publish(turn, part, error)


def _publish(turn: Turn, plan: dict[str, Json] | None, error: str) -> None:
    head = turn.head
    assert head.request is not None
    turn.change(sequence=head.sequence + 1)
    sequence = head.sequence + 1
    facts = head.plan
    driving = head.driving
    event = RollbackEvent(
        event_id=digest(head.rollback_id, "event", sequence),
        rollback_id=head.rollback_id,
        status=head.status,
        occurred_at=turn.now,
        sequence=sequence,
        mode=head.mode,
        select=head.request.select,
        reason=head.request.reason,
        requested_by=head.request.requested_by,
        story=markdown(tell_progress(progress_of(turn), turn.contracts)),
        plan_hash=None if facts is None else facts.plan_hash,
        plan=plan,
        contracts=[] if facts is None else [f"{name} {value}" for name, value in sorted(facts.contracts.items())],
        approvals=valid_approvals(turn),
        approvals_needed=sum(item.count for item in missing_approvals(turn)),
        wave=driving.wave if driving is not None and head.status == "executing" else None,
        waves=0 if facts is None else facts.waves,
        counts=counts_of(turn),
        complete_up_to={str(partition): offset for partition, offset in sorted(head.positions.items())},
        error=error or head.halted_for or None,
        traceparent=head.request.traceparent,
    )
    turn.emit(EmitRollback(event))


def counts_of(turn: Turn) -> dict[str, int]:
    """The numbers of a rollback, for dashboards."""
    facts = turn.head.plan
    return {
        "steps": sum(turn.head.counts.values()) - turn.count("replaced"),
        "commands": sum(turn.head.command_counts.values()) - turn.count_commands("replaced"),
        "done": turn.count(*DONE),
        "applied": turn.count("applied", "verified"),
        "verified": turn.count("verified", "unchanged"),
        "unchanged": turn.count("unchanged"),
        "under_way": turn.under_way,
        "failed": turn.count("failed", "skipped", "compensated"),
        "contradicted": turn.count("contradicted"),
        "held": turn.count("held", "behind"),
        "conflicts": turn.head.undecided,
        "kept": 0 if facts is None else facts.kept,
        "blocked": turn.head.blocked_before + (0 if facts is None else facts.blocked),
        "late": len(turn.head.told_late),
    }


def progress_of(turn: Turn) -> Progress:
    """How the rollback stands, for its story."""
    head, facts = turn.head, turn.head.plan
    opened = list(_open_steps(turn))
    total = sum(head.command_counts.values()) - turn.count_commands("replaced")
    open_states = ("conflict", "outdated", "failed", *LEFT_BEHIND)
    return Progress(
        status=head.status,
        mode=head.mode,
        plan=None if facts is None else facts.story,
        wave=0 if head.driving is None else head.driving.wave,
        waves=0 if facts is None else facts.waves,
        total=total,
        done=turn.count_commands(*DONE),
        verified=turn.count_commands("verified", "unchanged"),
        open=opened,
        open_total=max(len(opened), sum(head.counts.get(state, 0) for state in open_states)),
        approvals=valid_approvals(turn),
        approvals_needed=missing_approvals(turn),
        by=head.by,
        reason=head.halted_for,
        expires_at=expires_at(turn),
    )


def _open_steps(turn: Turn) -> list[OpenStep]:
    opened = []
    for step_id in turn.head.troubles:
        step = turn.step(step_id)
        if step is not None and step.state in _KINDS:
            opened.append(_open_step(step))
    opened += [OpenStep(resource=resource, kind="late") for resource in turn.head.late_resources]
    return opened


def _open_step(step: Step) -> OpenStep:
    return OpenStep(resource=step.order.resource, kind=_KINDS[step.state], conflicts=step.conflicts, error=step.error)
