"""What is remembered of a command, so that it is carried out once however often it is delivered.

A command that was refused stays refused when it is delivered again, though the target may meanwhile look as it expects:
whoever sent it has acted on the refusal. Sent again on purpose it has a higher `attempt`, and is judged anew. A transient
failure is no decision, and isn't remembered.
"""

from __future__ import annotations

from reconciler.records import Command, OutcomeStatus, Record

DONE: frozenset[OutcomeStatus] = frozenset({"applied", "already_applied"})
REMEMBERED: frozenset[OutcomeStatus] = DONE | {"conflict", "permanent", "rejected"}
KEPT_S = 30 * 24 * 3600
"""How long by default: twice the retention of the commands' topics (14 days), beyond which none is delivered again."""


class FirstOutcome(Record, frozen=True, kw_only=True):
    """The decision on a command."""

    status: OutcomeStatus
    attempt: int
    error: str | None = None


def repeated(first: FirstOutcome | None, command: Command) -> OutcomeStatus | None:
    """The status of a command that was decided before; None where it is to be judged (anew)."""
    if first is None:
        return None
    if first.status in DONE:
        return "already_applied"
    return first.status if command.attempt <= first.attempt else None
