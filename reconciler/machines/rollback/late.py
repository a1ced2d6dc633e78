"""Actions of what is being undone, or was, that arrive later: reversed or reported, as the contract says."""

from __future__ import annotations

from typing import Final

from reconciler.machines.rollback.dossiers import known_of
from reconciler.machines.rollback.driving import finish
from reconciler.machines.rollback.gathering import begin, keep
from reconciler.machines.rollback.head import EARLIER, ENDED
from reconciler.machines.rollback.telling import tell
from reconciler.machines.rollback.turn import Turn, digest
from reconciler.plan.estate import Operation
from reconciler.records import Gathered

_TOLD_OF: Final = 10  # resources with late actions that the story names


def take_late(turn: Turn, answer: Gathered) -> None:
    """Takes what a standing question tells."""
    head = turn.head
    if head.request is None or head.status in ("rejected", "cancelled") or not answer.matched:
        return
    if head.gathering is not None and not head.gathering.is_late_work:
        keep(turn, answer, f"late-{digest(*answer.matched, *(item.resource for item in answer.dossiers))}")
        return
    if head.status in ("executable", "needs_approval"):
        begin(turn)  # what people are looking at is no longer all
        return
    known = known_of(answer.dossiers, turn.contracts)
    new = [
        name
        for name in answer.matched
        if name not in head.late
        and name not in head.told_late
        and known.estate.entries_of(name)
        and _is_meant(turn, known.estate.operations[name])
    ]
    if not new:
        return
    rules = [turn.contracts.for_resource(item.resource).undo.late_actions for item in answer.dossiers]
    if rules and all(rule == "reverse" for rule in rules):
        turn.change(late=[*head.late, *new])
        if head.status in ENDED:
            finish(turn)
        return
    resources = [item.resource for item in answer.dossiers]
    turn.change(
        told_late=[*head.told_late, *new],
        late_resources=list(dict.fromkeys([*head.late_resources, *resources]))[:_TOLD_OF],
    )
    turn.alert(
        "late_action",
        f"{', '.join(new)} came after the rollback {head.rollback_id} had looked for what to undo, and isn't undone."
        " See whether the run has really ended, then undo it as well.",
        *new,
    )
    tell(turn, "partial" if head.status == "completed" else head.status)


def _is_meant(turn: Turn, operation: Operation) -> bool:
    """Whether the rollback is about an operation. Partitions tell of the whole run, also where only what came after one of its
    steps is undone: then neither the steps before are meant, nor those with which the run went on when that was done."""
    request = turn.head.request
    if request is None or request.select is None or request.select.after_step is None:
        return True
    if turn.head.ended_at is not None and min(action.occurred_at for action in operation.actions) > turn.head.ended_at:
        return False
    sequence, _ = operation.order
    return operation.operation_id not in turn.names(EARLIER) and sequence >= turn.head.after_sequence
