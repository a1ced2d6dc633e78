"""The resource machine's answer to orders of rollbacks.

    waiting   for the turn, then for an observation made for it     conflict, outdated, unchanged, failed, withdrawn: over
    sent      the command is on its way; the undo stands in the     retrying: once more; failed: the undo is taken back
              history from the moment at which it was decided
    doubted   out of attempts, and nobody knows what became of it   an observation tells: applied, or failed
    applied   by the word of the target                             verified or contradicted by a later observation

Steps go one after another. While one waits, or its command is under way, drift isn't judged. A step that failed changed
nothing: its reversals are undone by reversals of their own, so that the expected state is what it was, and nobody puts the
undo into effect later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from reconciler.command import corrective
from reconciler.contracts.model import Contract
from reconciler.drift.compare import is_settling
from reconciler.history.entry import Entry
from reconciler.machines.drifting import close_drift, dispatch, settle
from reconciler.machines.head import (
    Doubt,
    Head,
    Pending,
    Sent,
    Unverified,
    Waiting,
    entry_of,
    history_of,
    last_observation,
)
from reconciler.machines.protocol import EmitReport, HistoryReader
from reconciler.machines.recording import Stepped, digest, record_adoption, record_reversals, then
from reconciler.machines.undo_decision import Acceptance, Refusal, decide_undo
from reconciler.machines.verifying import unlike
from reconciler.records import Action, Command, Observation, Outcome, StepReport, StepStatus, UndoStep
from reconciler.values.instant import SECOND, Instant, format_instant
from reconciler.values.pointer import Tokens, tokens_of
from reconciler.values.traceparent import usable_traceparent

MAX_TRIES: Final = 3
"""A target that changed under the command so often is left to people."""

_UNOBSERVED_PERIODS: Final = 3  # so many times the sampler should have read it, before nobody waits any more
_REMEMBERED_STEPS: Final = 16  # a step comes again only soon, after a crash of who ordered it
_REMEMBERED_ATTEMPTS: Final = 100
_REMEMBERED_UNVERIFIED: Final = 16


def patience(contract: Contract) -> int:
    """How long an observation is waited for that says something (microseconds)."""
    timing = contract.timing
    wait_s = max(_UNOBSERVED_PERIODS * timing.sample_every_s, timing.in_flight_s + timing.settle_s)
    return int(wait_s * SECOND)


# -- orders


def take_step(head: Head, order: UndoStep, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """Takes an order. One that comes again changes nothing."""
    if order.verb == "withdraw":
        return _withdraw(head, order, now, history, contract)
    is_pending = head.pending is not None and _is_step(head.pending, order.step_id)
    if is_pending or order.step_id in head.stepped or any(item.order.step_id == order.step_id for item in head.steps):
        return Stepped(head)
    waiting = Waiting(order=order, fresh_at=now)
    return advance(msgspec.structs.replace(head, steps=[*head.steps, waiting]), now, history, contract)


def _is_step(pending: Pending, step_id: str) -> bool:
    return pending.sent is not None and pending.sent.order.step_id == step_id


def _withdraw(head: Head, order: UndoStep, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """Forgets a step that has sent nothing. One that has is told of by its outcome."""
    if order.step_id in head.stepped or (head.pending is not None and _is_step(head.pending, order.step_id)):
        return Stepped(head)
    left = [item for item in head.steps if item.order.step_id != order.step_id]
    withdrawn = _over(msgspec.structs.replace(head, steps=left), order, "withdrawn", now)
    return then(withdrawn, history, lambda after, later: advance(after, now, later, contract))


def advance(head: Head, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """Begins the next step, as far as that can be done without a further observation."""
    if head.pending is not None or not head.steps:
        return Stepped(head)
    first = head.steps[0]
    if first.give_up_at is None:
        first = msgspec.structs.replace(first, give_up_at=now + patience(contract))
        head = msgspec.structs.replace(head, steps=[first, *head.steps[1:]])
    if first.order.verb == "compensate":
        begun = _compensate(head, first, now, history, contract)
        return then(begun, history, lambda after, later: advance(after, now, later, contract))
    seen = _recent(head, first, now, history, contract)
    if seen is None:
        return Stepped(head)
    assert head.observed_at is not None
    return take_fresh(head, seen, max(head.observed_at, first.fresh_at), True, now, history, contract)


def _recent(head: Head, first: Waiting, now: Instant, history: HistoryReader, contract: Contract) -> Observation | None:
    """The last observation, where the contract lets it serve and nothing speaks against it."""
    within, at = contract.undo.observed_within_s * SECOND, head.observed_at
    if not within or first.tries or at is None or now - at > within or head.unknown is not None or head.in_flight:
        return None
    return None if is_settling(contract, head.last_write_at, None, at) else last_observation(history)


def _over(head: Head, order: UndoStep, status: StepStatus, now: Instant, **more: Any) -> Stepped:
    """A step has come to an end, and its rollback is told."""
    stepped = [*head.stepped, order.step_id][-_REMEMBERED_STEPS:]
    return Stepped(msgspec.structs.replace(head, stepped=stepped), (report(order, status, now, **more),))


def report(
    order: UndoStep, status: StepStatus, now: Instant, command: Command | None = None, **more: Any
) -> EmitReport:
    """What a rollback is told of a step."""
    attempt = 1 if command is None else command.attempt
    command_id = None if command is None else command.command_id
    return EmitReport(
        StepReport(
            # An attempt may first seem to have gone astray, and then be told of as failed: that is two reports.
            report_id=digest("report", order.step_id, status, command_id, attempt, bool(more.get("is_timeout"))),
            rollback_id=order.rollback_id,
            step_id=order.step_id,
            resource=order.resource,
            status=status,
            changes=[] if command is None else command.changes,
            command_id=command_id,
            attempt=attempt,
            occurred_at=now,
            traceparent=order.traceparent,
            **more,
        )
    )


def _hold_error(head: Head) -> str | None:
    if head.hold is None:
        return None
    since = format_instant(head.hold.since_at)
    return f"{head.resource} is held since {since}: {head.hold.reason.rstrip('.')}. Release the hold, then resume."


# -- deciding


def take_fresh(
    head: Head,
    observation: Observation,
    at: Instant,
    is_settled: bool,
    now: Instant,
    history: HistoryReader,
    contract: Contract,
) -> Stepped:
    """Decides the steps that waited for an observation, until one of them sends a command. ``is_settled``: the observation
    shows all that was written."""
    if head.pending is not None or not head.steps or head.steps[0].order.verb == "compensate":
        return advance(head, now, history, contract)
    decided = _decide_first(head, observation, at, is_settled, now, history, contract)
    if len(decided.head.steps) == len(head.steps):
        return decided
    return then(
        decided,
        history,
        lambda after, later: take_fresh(after, observation, at, is_settled, now, later, contract),
    )


def _decide_first(
    head: Head,
    observation: Observation,
    at: Instant,
    is_settled: bool,
    now: Instant,
    history: HistoryReader,
    contract: Contract,
) -> Stepped:
    first = head.steps[0]
    order = first.order
    if at < first.fresh_at:
        return Stepped(head)
    taken = msgspec.structs.replace(head, steps=head.steps[1:])
    error = _hold_error(head)
    if error is not None:
        return _over(taken, order, "failed", now, error=error)
    if order.contract not in (None, contract.digest):
        error = f"The contract {contract.name} changed since the plan was made; plan again."
        return _over(taken, order, "outdated", now, error=error)
    whole = history_of(head, history, contract)
    decided = decide_undo(whole, order, observation)
    if not (is_settled or decided.is_sure):
        return Stepped(head)
    if isinstance(decided, Refusal):
        return _over(taken, order, decided.status, now, error=decided.error, conflicts=decided.conflicts)
    entries = [whole.entry(number) for number in decided.numbers]
    return _undo(taken, first, decided, entries, now, history, contract)


def _undo(
    head: Head,
    first: Waiting,
    decided: Acceptance,
    entries: Sequence[Entry],
    now: Instant,
    history: HistoryReader,
    contract: Contract,
) -> Stepped:
    """Expected state, base and provenance change in the same step that issues the command."""
    order = first.order
    reversals = [_reversal(order, entry, "undo", now, first.tries) for entry in entries]
    stepped = _drift_ended(head, decided.touched, now, contract)
    stepped = then(stepped, history, lambda after, later: record_reversals(after, reversals, later, contract))
    if decided.command is None:
        stepped = then(stepped, history, lambda after, later: _adopt(after, order, decided.adopt, now, contract))
        return then(
            stepped, history, lambda after, later: _over(after, order, "unchanged", now, conflicts=decided.kept)
        )
    command = msgspec.structs.replace(
        decided.command,
        command_id=digest(decided.command.command_id, order.step_id, first.tries),
        traceparent=_trace(order, *entries),
    )
    sent = Sent(
        order=order,
        reversals=[action.action_id for action in reversals],
        adopt=decided.adopt,
        tries=first.tries,
    )
    stepped = then(stepped, history, lambda after, later: dispatch(after, command, now, contract, sent))
    told = report(order, "sent", now, command, conflicts=decided.kept)
    return Stepped(stepped.head, (*stepped.effects, told))


def _trace(order: UndoStep, *entries: Entry) -> str | None:
    """The trace that an undo is a part of: the request's, or where it has none, that of the last step that is undone."""
    return usable_traceparent(order.traceparent, *(entry.action.traceparent for entry in reversed(entries)))


def _reversal(order: UndoStep, entry: Entry, step_id: str, now: Instant, tries: int = 0) -> Action:
    """What the ledger says of one entry that a rollback undoes. The undo is the operation ``rollback/step``."""
    return Action(
        stage="reversed",
        run_id=order.rollback_id,
        step_id=step_id,
        occurred_at=now,
        resource=order.resource,
        operation=entry.action.operation,
        operation_id=entry.operation_id,
        action_id=digest("reversal", order.step_id, step_id, tries, entry.action.action_id),
        actor=order.requested_by,
        reverses=entry.action.action_id,
        traceparent=_trace(order, entry),
    )


def _drift_ended(head: Head, touched: Sequence[Tokens], now: Instant, contract: Contract) -> Stepped:
    """An open drift on what is undone is over: it was told against what is no longer expected."""
    if head.drift is None or not any(
        _overlap(tokens_of(change.path), place) for change in head.drift.changes for place in touched
    ):
        return Stepped(head)
    return close_drift(head, now, contract, "a rollback decided what is expected there")


def _overlap(one: Tokens, other: Tokens) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _adopt(head: Head, order: UndoStep, fields: Any, now: Instant, contract: Contract) -> Stepped:
    if not fields:
        return Stepped(head)
    return record_adoption(head, fields, digest(head.resource, "kept", order.step_id), now, contract)


# -- effects


def _compensate(head: Head, first: Waiting, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """Sends what makes an effect good, once for each execution."""
    order = first.order
    taken = msgspec.structs.replace(head, steps=head.steps[1:])
    error = _hold_error(head)
    if error is not None:
        return _over(taken, order, "failed", now, error=error)
    entry = None if order.action_id is None else entry_of(history, order.action_id)
    if entry is None or order.compensation is None:
        error = f"What is to be made good at {head.resource} is no longer kept; plan again."
        return _over(taken, order, "outdated", now, error=error)
    if entry.number in head.undone:
        return _over(taken, order, "unchanged", now)
    command = corrective(
        head.resource,
        "compensate",
        [],
        reason=order.reason,
        contract=f"{contract.name}@{contract.version}",
        rollback_id=order.rollback_id,
        compensation=order.compensation,
        audit=contract.audit.on_reversal,
    )
    command_id = digest("compensate", order.rollback_id, order.action_id)
    before = head.attempts.get(command_id, 0)
    command = msgspec.structs.replace(
        command, command_id=command_id, attempt=before + 1, traceparent=_trace(order, entry)
    )
    stepped = dispatch(taken, command, now, contract, Sent(order=order, attempts_before=before))
    return Stepped(stepped.head, (*stepped.effects, report(order, "sent", now, command)))


# -- outcomes


def take_sent_outcome(
    head: Head, outcome: Outcome, now: Instant, history: HistoryReader, contract: Contract
) -> Stepped:
    """Takes what became of a rollback's command, but for a failure that may pass. Steps that wait go on."""
    match outcome.status:
        case "applied" | "already_applied":
            settled = _applied(head, now, history, contract)
        case "conflict":
            settled = _refused(head, outcome, now, history, contract)
        case _:
            settled = _failed(head, outcome.error or "the target gave no reason", now, history, contract)
    return then(settled, history, lambda after, later: advance(after, now, later, contract))


def _applied(head: Head, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    pending = head.pending
    assert pending is not None and pending.sent is not None
    command, order, adopt = pending.command, pending.sent.order, pending.sent.adopt
    after = settle(head)
    if order.verb == "compensate":
        stepped = _made_good(after, order, now, history, contract)
    else:
        seen = Unverified(
            rollback_id=order.rollback_id,
            step_id=order.step_id,
            command_id=command.command_id,
            paths=[change.path for change in command.changes],
            applied_at=now,
            traceparent=order.traceparent,
        )
        after = msgspec.structs.replace(
            after,
            last_write_at=max(now, after.last_write_at or now),
            unverified=[*after.unverified, seen][-_REMEMBERED_UNVERIFIED:],
        )
        stepped = _adopt(after, order, adopt, now, contract)
    return then(stepped, history, lambda now_head, later: _over(now_head, order, "applied", now, command=command))


def _made_good(head: Head, order: UndoStep, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """What was made good as planned counts as undone: an effect, or a write whose pre-state nobody knows. Of a write whose undo
    was refused, and that was made good instead, the order names no entry: it still stands."""
    entry = None if order.action_id is None else entry_of(history, order.action_id)
    if entry is None or (entry.action.operation != "effect" and entry.number not in order.numbers):
        return Stepped(head)
    return record_reversals(head, [_reversal(order, entry, "compensate", now)], history, contract)


def _refused(head: Head, outcome: Outcome, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """The target has changed since it was observed: what it holds now decides anew."""
    pending = head.pending
    assert pending is not None and pending.sent is not None
    order, tries = pending.sent.order, pending.sent.tries + 1
    if order.verb == "compensate" or tries >= MAX_TRIES:
        error = outcome.error or "the target holds something else each time"
        return _failed(head, error, now, history, contract, "failed" if order.verb == "compensate" else "conflict")
    seen_at = None if outcome.observed is None else outcome.observed.observed_at
    again = Waiting(order=order, fresh_at=min(outcome.occurred_at, seen_at or now, now), tries=tries)
    back = _taken_back(settle(head), pending.sent, now, history, contract)
    return Stepped(msgspec.structs.replace(back.head, steps=[again, *back.head.steps]), back.effects)


def _failed(
    head: Head,
    error: str,
    now: Instant,
    history: HistoryReader,
    contract: Contract,
    status: StepStatus = "failed",
) -> Stepped:
    pending = head.pending
    assert pending is not None and pending.sent is not None
    command, order = pending.command, pending.sent.order
    after = settle(head)
    if order.verb == "compensate":
        attempts = {**head.attempts, command.command_id: command.attempt}
        after = msgspec.structs.replace(after, attempts=dict(list(attempts.items())[-_REMEMBERED_ATTEMPTS:]))
    back = _taken_back(after, pending.sent, now, history, contract)
    return then(back, history, lambda after, later: _over(after, order, status, now, command=command, error=error))


def _taken_back(head: Head, sent: Sent, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """A refused undo never fires later: what it undid stands again."""
    found = [entry_of(history, action_id) for action_id in sent.reversals]
    actions = [_reversal(sent.order, entry, "take-back", now, sent.tries) for entry in found if entry is not None]
    return record_reversals(head, actions, history, contract)


# -- what isn't known


def doubt(
    head: Head, error: str, is_timeout: bool, now: Instant, history: HistoryReader, contract: Contract
) -> Stepped:
    """The command is out of attempts. It may have been carried out all the same, and without an answer it still may be,
    until it expires."""
    pending = head.pending
    assert pending is not None and pending.sent is not None
    until = now
    if is_timeout and pending.command.expires_at is not None:
        until = max(now, pending.command.expires_at)
    elif pending.sent.order.verb == "compensate":
        return then(
            _failed(head, error, now, history, contract),
            history,
            lambda after, later: advance(after, now, later, contract),
        )
    sent = msgspec.structs.replace(pending.sent, doubt=Doubt(since_at=now, until_at=until, error=error))
    waits = 0 if sent.order.verb == "compensate" else patience(contract)
    doubted = msgspec.structs.replace(pending, deadline_at=until + waits, retry_at=None, sent=sent)
    return Stepped(msgspec.structs.replace(head, pending=doubted))


def take_doubted(
    head: Head, observation: Observation, at: Instant, now: Instant, history: HistoryReader, contract: Contract
) -> Stepped:
    """An observation shows whether a doubted command was carried out. What isn't there yet may come until it expires."""
    pending = head.pending
    assert pending is not None and pending.sent is not None and pending.sent.doubt is not None
    sent, doubted = pending.sent, pending.sent.doubt
    if at < doubted.since_at or sent.order.verb == "compensate":
        return Stepped(head)
    paths = [change.path for change in pending.command.changes]
    then_expected = _adopt(head, sent.order, sent.adopt, now, contract).head.tree
    if not any(True for _ in unlike(then_expected, paths, observation, contract)):
        settled = _applied(head, now, history, contract)
    elif at - doubted.until_at >= contract.timing.settle_s * SECOND:
        settled = _failed(head, doubted.error, now, history, contract)
    else:
        return Stepped(head)
    return then(settled, history, lambda after, later: advance(after, now, later, contract))


def give_up(head: Head, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """Nothing was heard or seen for too long, of a doubted command or of a step that waits for an observation."""
    if head.pending is not None:
        assert head.pending.sent is not None and head.pending.sent.doubt is not None
        error = f"{head.pending.sent.doubt.error}, and nobody has seen since what became of it"
        given_up = _failed(head, error, now, history, contract)
    else:
        order = head.steps[0].order
        taken = msgspec.structs.replace(head, steps=head.steps[1:])
        given_up = _over(taken, order, "failed", now, error=_unobserved(head))
    return then(given_up, history, lambda after, later: advance(after, now, later, contract))


def _unobserved(head: Head) -> str:
    if head.unknown is not None:
        why = f"{head.resource} can't be observed: {head.unknown.rstrip('.')}"
    elif head.in_flight:
        latest = max(head.in_flight, key=lambda name: head.in_flight[name])
        why = f"{head.resource} is being worked on all the time, at last by {latest}"
    else:
        why = f"{head.resource} wasn't observed in time"
    return f"{why}. Nothing was done; see to it, then resume."
