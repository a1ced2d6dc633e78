"""The resource machine's answer to observations: what drifted, whether that is sure, and what is done about it."""

from __future__ import annotations

from typing import Final

import msgspec

from reconciler.contracts.masking import masked_drift
from reconciler.contracts.model import Contract
from reconciler.drift.compare import compare
from reconciler.drift.correct import correction
from reconciler.history.tree import node_at, owners_in
from reconciler.machines.head import Adopted, Drift, Head, Hold, Pending, Sent, whole_history
from reconciler.machines.protocol import Effect, EmitCommand, EmitDrift, HistoryReader
from reconciler.machines.recording import Stepped, digest, record_adoption
from reconciler.machines.taking import alert
from reconciler.records import Command, DriftEvent, DriftStatus, FieldDrift, Observation, Verdict
from reconciler.values.instant import SECOND, Instant
from reconciler.values.json_value import same
from reconciler.values.pointer import tokens_of
from reconciler.values.traceparent import usable_traceparent

FIGHT_WINDOW: Final = 3_600 * SECOND
FIGHT_CORRECTIONS: Final = 3
"""A path that was corrected so often within the window and drifts again is fought over."""

BACKOFF_FIRST_S, BACKOFF_FACTOR, BACKOFF_CAP_S = 2, 3, 300
"""The wait after the n-th correction of a resource within the window, before the next one."""

_EXPIRY_IN_ACK_TIMES: Final = (
    10  # a command that lay so many times its acknowledgement's time is not carried out any more
)

_REMEMBERED_COMMANDS: Final = 64
"""Settled commands whose outcomes, should they come again, are recognised. While somebody writes all the time, each conflict
gives another command, and an outcome that was sent twice may come a dozen of them later."""


def judge(head: Head, observation: Observation, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """What an observation says about drift, that is neither too early nor stale, while nothing is under way."""
    verdict, changes = compare(head.tree, observation, contract)
    trace = _trace(head, changes, history) if changes and head.drift is None else None
    return _judge(head, verdict, changes, observation, now, contract, trace)


def _trace(head: Head, changes: list[FieldDrift], history: HistoryReader) -> str | None:
    """The trace of the last step that wrote one of the fields and tells one."""
    writers = {owner for change in changes for owner in owners_in(node_at(head.tree, tokens_of(change.path)))}
    _, entries = whole_history(history)
    return usable_traceparent(*(entry.action.traceparent for entry in reversed(entries) if entry.number in writers))


def _judge(
    head: Head,
    verdict: Verdict,
    changes: list[FieldDrift],
    observation: Observation,
    now: Instant,
    contract: Contract,
    trace: str | None,
) -> Stepped:
    if not changes:
        return _closed(head, now, contract)
    drift = _drift(head, verdict, changes, observation, trace)
    effects: tuple[Effect, ...] = ()
    if head.drift is None or not _same_changes(head.drift.changes, changes):
        effects = (drift_event(head, drift, "opened" if head.drift is None else "changed", now, contract),)
    head = msgspec.structs.replace(head, drift=drift)
    if head.hold is not None:
        return Stepped(head, effects)
    adopted = _adopt(head, now, contract)
    if adopted is not None:
        return Stepped(adopted.head, effects + adopted.effects)
    corrected = correct(head, confirmed(drift, "correct", contract), observation, now, contract)
    return Stepped(corrected.head, effects + corrected.effects)


def _closed(head: Head, now: Instant, contract: Contract) -> Stepped:
    if head.drift is None:
        return Stepped(head)
    event = drift_event(head, head.drift, "closed", now, contract)
    return Stepped(msgspec.structs.replace(head, drift=None, failed=[]), (event,))


def _drift(
    head: Head, verdict: Verdict, changes: list[FieldDrift], observation: Observation, trace: str | None
) -> Drift:
    """The open drift after this observation; a path's count goes on as long as it is seen again."""
    before = {} if head.drift is None else head.drift.seen
    return Drift(
        drift_id=digest(head.resource, "drift", head.observed_at) if head.drift is None else head.drift.drift_id,
        verdict=verdict,
        changes=changes,
        seen={change.path: before.get(change.path, 0) + 1 for change in changes},
        version=observation.version,
        observed_at=head.observed_at,
        traceparent=trace if head.drift is None else head.drift.traceparent,
    )


def drift_event(
    head: Head, drift: Drift, status: DriftStatus, now: Instant, contract: Contract, reason: str = ""
) -> EmitDrift:
    """What is published about a drift, for people to see."""
    return EmitDrift(
        DriftEvent(
            drift_id=drift.drift_id,
            resource=head.resource,
            status=status,
            verdict="in_sync" if status == "closed" else drift.verdict,
            changes=[] if status == "closed" else [masked_drift(contract, change) for change in drift.changes],
            occurred_at=now,
            observed_at=drift.observed_at,
            command_id=head.settled[-1] if status == "closed" and head.settled and not reason else None,
            reason=reason,
            contract=f"{contract.name}@{contract.version}",
            traceparent=drift.traceparent,
        )
    )


def confirmed(drift: Drift, policy: str, contract: Contract) -> list[FieldDrift]:
    """The changes of a policy that were seen often enough to be acted on."""
    return [
        change
        for change in drift.changes
        if change.policy == policy and drift.seen.get(change.path, 0) >= contract.rule(change.path).confirm
    ]


def _adopt(head: Head, now: Instant, contract: Contract) -> Stepped | None:
    """Takes what is there as expected where the contract says so, or None where it says so of nothing."""
    assert head.drift is not None
    changes = [change for change in confirmed(head.drift, "adopt", contract) if change.path]
    return adopt(head, changes, now, contract) if changes else None


def adopt(head: Head, changes: list[FieldDrift], now: Instant, contract: Contract) -> Stepped:
    """Takes the actual values of some fields as expected: an external write goes into the history."""
    assert head.drift is not None
    fields = [Adopted(path=change.path, value=change.actual) for change in changes]
    identity = digest(head.resource, "adoption", head.drift.drift_id, head.entries)
    after, effects = record_adoption(head, fields, identity, now, contract)
    left = [change for change in head.drift.changes if all(change.path != item.path for item in changes)]
    if left:
        drift = msgspec.structs.replace(head.drift, changes=left)
        after = msgspec.structs.replace(after, drift=drift)
        return Stepped(after, (*effects, drift_event(after, drift, "changed", now, contract, "adopted")))
    event = drift_event(after, head.drift, "closed", now, contract, "adopted")
    return Stepped(msgspec.structs.replace(after, drift=None, failed=[]), (*effects, event))


def close_drift(head: Head, now: Instant, contract: Contract, reason: str) -> Stepped:
    """Ends an open drift for a reason that isn't a correction; the next observation opens what is left of it."""
    if head.drift is None:
        return Stepped(head)
    event = drift_event(head, head.drift, "closed", now, contract, reason)
    return Stepped(msgspec.structs.replace(head, drift=None, failed=[]), (event,))


def correct(
    head: Head, changes: list[FieldDrift], observation: Observation, now: Instant, contract: Contract
) -> Stepped:
    """Sends the command that puts these changes right, unless that would be a fight, too early, or a failure repeated."""
    command = correction(
        head.resource, changes, observation, contract, None if head.drift is None else head.drift.drift_id
    )
    if command is None or signature(command) in head.failed:
        return Stepped(head)
    recent = {
        path: kept
        for path, times in head.corrected.items()
        if (kept := [time for time in times if now - time < FIGHT_WINDOW])
    }
    head = msgspec.structs.replace(head, corrected=recent)
    fought = [change.path for change in changes if len(recent.get(change.path, ())) >= FIGHT_CORRECTIONS]
    if fought:
        reason = (
            f"{', '.join(fought)} of {head.resource} was put right {FIGHT_CORRECTIONS} times within an hour and changed"
            " back again: somebody or something else writes it. Find out who, then release the hold."
        )
        return hold(head, "fight", reason, now, contract)
    times = [time for kept in recent.values() for time in kept]
    if times and now - max(times) < _backoff_s(len(set(times))) * SECOND:
        return Stepped(head)
    trace = None if head.drift is None else head.drift.traceparent
    return send(head, msgspec.structs.replace(command, traceparent=trace), now, contract)


def _backoff_s(corrections: int) -> float:
    return float(min(BACKOFF_FIRST_S * BACKOFF_FACTOR ** (corrections - 1), BACKOFF_CAP_S))


def send(head: Head, command: Command, now: Instant, contract: Contract) -> Stepped:
    """Sends a correction. The same drift corrected twice is two commands."""
    identity = digest(command.command_id, head.observed_at, now)
    return dispatch(head, msgspec.structs.replace(command, command_id=identity), now, contract)


def dispatch(head: Head, command: Command, now: Instant, contract: Contract, sent: Sent | None = None) -> Stepped:
    """Sends a command, or sends it once more: the same id tells that it is the same."""
    ack_within = int(contract.service.ack_within_s * SECOND)
    command = msgspec.structs.replace(command, issued_at=now, expires_at=now + _EXPIRY_IN_ACK_TIMES * ack_within)
    pending = Pending(command=command, deadline_at=now + ack_within, sent=sent)
    return Stepped(msgspec.structs.replace(head, pending=pending), (EmitCommand(command),))


def settle(head: Head) -> Head:
    """The pending command has come to an end, and its outcome is known again if it is told again."""
    assert head.pending is not None
    settled = [*head.settled, head.pending.command.command_id][-_REMEMBERED_COMMANDS:]
    return msgspec.structs.replace(head, pending=None, settled=settled)


def hold(head: Head, kind: str, reason: str, now: Instant, contract: Contract) -> Stepped:
    """Stops corrections of this resource and tells people."""
    held = msgspec.structs.replace(head, hold=Hold(kind=kind, reason=reason, since_at=now))  # type: ignore[arg-type]
    effects: tuple[Effect, ...] = (alert(f"held_{kind}", head.resource, reason, now, now),)
    if held.drift is not None:
        effects += (drift_event(held, held.drift, "held", now, contract, reason),)
    return Stepped(held, effects)


def signature(command: Command) -> str:
    """What a command would do, whenever it is sent: two of one signature are the same command for the same drift."""
    return digest(command.action, [msgspec.to_builtins(change) for change in command.changes])


def _same_changes(one: list[FieldDrift], other: list[FieldDrift]) -> bool:
    return len(one) == len(other) and all(
        left.path == right.path
        and left.policy == right.policy
        and same(left.expected, right.expected)
        and same(left.actual, right.actual)
        for left, right in zip(one, other, strict=True)
    )
