"""The resource machine's answer to outcomes, time-outs and people: retries, fallbacks, holds and releases."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from reconciler.contracts.masking import shown_error
from reconciler.contracts.model import Contract
from reconciler.machines.drifting import adopt, correct, dispatch, hold, settle, signature
from reconciler.machines.head import Head, Pending, last_observation
from reconciler.machines.observing import take_observation
from reconciler.machines.protocol import HistoryReader, Reject
from reconciler.machines.recording import Stepped, then
from reconciler.machines.taking import alert
from reconciler.machines.undoing import advance, doubt, give_up, report, take_sent_outcome
from reconciler.records import Command, Decision, Outcome
from reconciler.values.instant import SECOND, Instant

_REMEMBERED_FAILURES: Final = 8
_REMEMBERED_DECISIONS: Final = 32


def take_outcome(head: Head, outcome: Outcome, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """Takes what became of a command."""
    pending = head.pending
    if pending is None or pending.command.command_id != outcome.command_id:
        if outcome.command_id in head.settled:
            return Stepped(head)
        return Stepped(head, (Reject("is of a command that was never sent to this resource", "command_id"),))
    if outcome.status == "transient":
        if pending.retry_at is not None:
            # Nothing is on its way: this is of an attempt that was given up already, or it is told twice.
            return Stepped(head)
        return _retry(head, pending, outcome.retry_after_s, outcome.error or "", now, history, contract)
    if pending.sent is not None:
        settled = take_sent_outcome(head, outcome, now, history, contract)
    elif outcome.status in ("permanent", "rejected"):
        return _give_up(head, pending, outcome.error or "the target gave no reason", now, contract)
    else:
        # Where the target has changed since, what it holds now decides anew.
        settled = Stepped(settle(_applied(head, pending, now) if outcome.status != "conflict" else head))
    settled = then(settled, history, lambda after, later: _with_observed(after, outcome, now, later, contract))
    return then(settled, history, lambda after, later: advance(after, now, later, contract))


def _applied(head: Head, pending: Pending, now: Instant) -> Head:
    corrected = dict(head.corrected)
    for change in pending.command.changes:
        corrected[change.path] = [*corrected.get(change.path, ()), now]
    return msgspec.structs.replace(head, corrected=corrected, last_write_at=max(now, head.last_write_at or now))


def _with_observed(head: Head, outcome: Outcome, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    if outcome.observed is None:
        return Stepped(head)
    return take_observation(head, outcome.observed, now, history, contract, is_outcome=True)


def _retry(
    head: Head,
    pending: Pending,
    retry_after_s: float | None,
    error: str,
    now: Instant,
    history: HistoryReader,
    contract: Contract,
    *,
    is_timeout: bool = False,
) -> Stepped:
    """Waits for the next attempt, or gives up after the last."""
    before = 0 if pending.sent is None else pending.sent.attempts_before
    attempt, retry = pending.command.attempt - before, contract.retry
    if attempt >= retry.attempts or (is_timeout and _may_act_twice(pending.command, contract)):
        error = f"after {attempt} attempt{'' if attempt == 1 else 's'}: {error or 'no answer'}"
        if pending.sent is not None:
            return doubt(head, error, is_timeout, now, history, contract)
        return _give_up(head, pending, error, now, contract)
    wait_s = min(retry.first_s * retry.factor ** (attempt - 1), retry.cap_s) * jitter(pending.command)
    waiting = msgspec.structs.replace(pending, retry_at=now + int(max(wait_s, retry_after_s or 0.0) * SECOND))
    after = msgspec.structs.replace(head, pending=waiting)
    if pending.sent is None:
        return Stepped(after)
    order, more = pending.sent.order, {"error": error or None, "is_timeout": is_timeout}
    return Stepped(after, (report(order, "retrying", now, pending.command, **more),))


def _may_act_twice(command: Command, contract: Contract) -> bool:
    """Whether a command that may have arrived must not be sent again: the contract lists what its service promises, and that
    a repeated one acts once isn't among it. Any other command finds its expected values gone the second time."""
    promises = contract.service.promises
    return command.action == "compensate" and bool(promises) and "deduplicates" not in promises


def jitter(command: Command) -> float:
    """What a wait is multiplied by, from 0.75 to 1.25: always alike for one attempt at one command, so that commands that
    failed together aren't all sent again together, and a replay waits as long."""
    seed = hashlib.blake2b(f"{command.command_id} {command.attempt}".encode(), digest_size=4).digest()
    return 0.75 + 0.5 * int.from_bytes(seed, "big") / 2**32


def _give_up(head: Head, pending: Pending, error: str, now: Instant, contract: Contract) -> Stepped:
    """A command failed for good: it isn't sent again for this drift, and the contract says what happens else."""
    command = pending.command
    head = settle(head)
    head = msgspec.structs.replace(head, failed=[*head.failed, signature(command)][-_REMEMBERED_FAILURES:])
    message = f"Putting {head.resource} right failed: {shown_error(contract, error)}."
    if contract.fallback == "skip":
        return Stepped(head, (alert("correction_failed", head.resource, message, now, command.command_id),))
    return hold(head, "failure", f"{message} Mend the cause, then release the hold.", now, contract)


def due_at(head: Head) -> Instant | None:
    """When the head next wants to be reminded: of a retry, of an outcome that should have come, or of a step that has waited
    long enough for an observation."""
    if head.pending is not None:
        return head.pending.deadline_at if head.pending.retry_at is None else head.pending.retry_at
    return head.steps[0].give_up_at if head.steps else None


def take_timer(head: Head, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """Does what is due."""
    due, pending = due_at(head), head.pending
    if due is None or now < due:
        return Stepped(head)
    if pending is None or (pending.sent is not None and pending.sent.doubt is not None):
        return give_up(head, now, history, contract)
    if pending.retry_at is None:
        return _retry(head, pending, None, "no outcome came in time", now, history, contract, is_timeout=True)
    command = msgspec.structs.replace(pending.command, attempt=pending.command.attempt + 1)
    stepped = dispatch(head, command, now, contract, pending.sent)
    if pending.sent is None:
        return stepped
    return Stepped(stepped.head, (*stepped.effects, report(pending.sent.order, "sent", now, command)))


def take_decision(head: Head, decision: Decision, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """Does what a person decided, once however often it is told: a release that comes again must not end a later hold.

    A decision on a version that is no longer there is refused.
    """
    if decision.decision_id in head.decided:
        return Stepped(head)
    stepped = _decided(head, decision, now, history, contract)
    if any(isinstance(effect, Reject) for effect in stepped.effects):
        return stepped
    decided = [*stepped.head.decided, decision.decision_id][-_REMEMBERED_DECISIONS:]
    return Stepped(msgspec.structs.replace(stepped.head, decided=decided), stepped.effects)


def _decided(head: Head, decision: Decision, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    if decision.verb == "hold":
        reason = decision.reason or f"held by {decision.decided_by.id}"
        if head.hold is not None and (head.hold.kind, head.hold.reason) == ("person", reason):
            return Stepped(head)  # it is held just so
        return hold(head, "person", reason, now, contract)
    if decision.version_seen is not None and head.drift is not None and head.drift.version != decision.version_seen:
        reason = "was made on a version of the resource that is no longer there; look again and decide again"
        return Stepped(head, (Reject(reason, "version_seen"),))
    released = msgspec.structs.replace(head, hold=None, failed=[], corrected={})
    if decision.verb == "release" or released.drift is None:
        return Stepped(released)
    changes = [change for change in released.drift.changes if decision.path is None or change.path == decision.path]
    if decision.verb == "adopt":
        fields = [change for change in changes if change.path]
        if not fields:
            reason = "names nothing that can be adopted; a missing or unexpected resource is put right or left"
            return Stepped(head, (Reject(reason, "path"),))
        return adopt(released, fields, now, contract)
    seen = last_observation(history)
    if not changes or seen is None or released.pending is not None:
        return Stepped(head, (Reject("names nothing that has drifted now; look again", "path"),))
    forced = [msgspec.structs.replace(change, policy="correct") for change in changes]
    return correct(released, forced, seen, now, contract)
