"""Why an operation of a selection can't be undone, as far as that can be said of the operation alone."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.history.resource import MAX_OPERATIONS, ResourceHistory
from reconciler.plan.estate import Estate
from reconciler.plan.model import Blocked
from reconciler.plan.wording import Wording, duration, moment
from reconciler.records import Action, Compensation
from reconciler.values.instant import SECOND, Instant


def blocked_alone(estate: Estate, operation_id: str, now: Instant) -> Blocked | None:
    """The first rule that blocks an operation by itself, or None."""
    words = Wording(estate.contracts)
    if operation_id in estate.collapsed:
        return _blocked(
            operation_id,
            "expired",
            f"What this step did is no longer kept, because more than {MAX_OPERATIONS:,} later steps changed the same record;"
            " put it right by hand.",
        )
    if operation_id not in estate.operations:
        return _blocked(
            operation_id, "unknown_operation", "Nothing is known of an operation of this name; check the name."
        )
    if estate.is_outcome_unknown(operation_id):
        return _blocked(
            operation_id,
            "outcome_unknown",
            "This step began and nobody has said how it ended; find out, or wait until it has ended.",
        )
    for history, entry in estate.entries_of(operation_id):
        reason = _expired(words, history, entry.number, entry.action, now)
        if reason is not None:
            return _blocked(operation_id, "expired", reason)
        if history.is_effect(entry) and compensation_of(history, entry.action) is None:
            return _blocked(
                operation_id,
                "irreversible",
                f"What this step did to {words.record(history.resource)} can't be taken back, and nothing is named that makes"
                " it good; name a compensation in the step or in the contract, or make it good by hand.",
            )
    return None


def _blocked(operation_id: str, rule: str, reason: str) -> Blocked:
    return Blocked(operation_id=operation_id, rule=rule, reason=reason)  # type: ignore[arg-type]


def _expired(words: Wording, history: ResourceHistory, number: int, action: Action, now: Instant) -> str | None:
    until_s = history.contract.undo.until_s
    if until_s is not None and now - action.occurred_at > until_s * SECOND:
        return (
            f"This step is of {moment(action.occurred_at)}, and nothing older than {duration(until_s)} may be undone in"
            f" {words.record(history.resource)}; put it right by hand."
        )
    if history.last_number - history.reach_of(number) >= MAX_OPERATIONS:
        return (
            f"More than {MAX_OPERATIONS:,} later steps changed {words.record(history.resource)}; only that many are kept for"
            " undo, so put it right by hand."
        )
    return None


def compensation_of(history: ResourceHistory, action: Action) -> Compensation | None:
    """What makes an effect good: what the contract names for it, by the compensation's or the step's name, else its own."""
    named = history.contract.undo.compensations
    own = action.compensation
    if own is not None:
        return Compensation(name=named[own.name].by, arguments=own.arguments) if own.name in named else own
    if action.step_id in named:
        return Compensation(name=named[action.step_id].by, arguments=dict(action.set))
    return None


def unknown_neighbours(estate: Estate, operation_id: str) -> Iterable[str]:
    """The operations with an unknown outcome that stand next to one: on its resources, or tied to it by `depends_on`."""
    operation = estate.operations[operation_id]
    for action in operation.actions:
        history = estate.histories[action.resource]
        yield from (name for name in history.in_flight if name != operation_id)
        yield from (name for name in action.depends_on if estate.is_outcome_unknown(name))
