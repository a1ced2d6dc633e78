"""When nothing was heard for too long: people are told, and the rollback waits for their word."""

from __future__ import annotations

from typing import Final

from reconciler.machines.rollback.approving import CONSENT_HOURS, consent_ends_at
from reconciler.machines.rollback.driving import halt
from reconciler.machines.rollback.gathering import forget, silent_partitions
from reconciler.machines.rollback.head import UNDER_WAY, Head
from reconciler.machines.rollback.turn import Turn
from reconciler.values.instant import SECOND, Instant

GATHERING_LIMIT_S: Final = 600
"""How long no partition may answer before people are told."""


def due_at(head: Head) -> Instant | None:
    """When the head next wants to be reminded."""
    if head.gathering is not None:
        return head.gathering.since_at + GATHERING_LIMIT_S * SECOND
    if head.status == "needs_approval":
        return consent_ends_at(head)
    if head.driving is not None and head.plan is not None and _is_waiting(head):
        return head.driving.progress_at + int(head.plan.patience_s * SECOND)
    return None


def _is_waiting(head: Head) -> bool:
    return head.status in ("executing", "verifying") or head.then is not None


def take_timer(turn: Turn) -> None:
    """Does what is due."""
    due = due_at(turn.head)
    if due is None or turn.now < due:
        return
    if turn.head.gathering is not None:
        silent = ", ".join(map(str, silent_partitions(turn)))
        turn.change(gathering=None)
        forget(turn)
        halt(turn, f"Nothing was heard of the partitions {silent}; see whether a worker has them, then resume.")
    elif turn.head.status == "needs_approval":
        halt(turn, f"Consent didn't come within {CONSENT_HOURS} hours; resume, and the plan is made anew.")
    else:
        _halt_for_silence(turn)


def _halt_for_silence(turn: Turn) -> None:
    """Says of which steps nothing was heard."""
    is_unheard = 0
    for step in list(turn.steps()):
        if step.state in UNDER_WAY or step.state == "applied":
            is_unheard += 1
            turn.note_trouble(step.order.step_id)
    turn.change(then=None)
    halt(
        turn,
        f"Of {is_unheard} {'record' if is_unheard == 1 else 'records'} nothing was heard for too long; see whether the"
        " systems, their services and the sampler run, then resume.",
    )
