"""The resource machine's answer to observations: what drifted, whether that is sure, and what is done about it."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from reconciler.contracts.model import Contract
from reconciler.drift.compare import compare, is_empty, is_settling
from reconciler.drift.correct import correction
from reconciler.history.entry import Entry, Facts
from reconciler.history.members import STEPPED
from reconciler.history.tree import Editor, node_of
from reconciler.machines.head import ACTION_PREFIX, OBSERVATION_ENTRY, Drift, Head, Hold, Pending, encode
from reconciler.machines.protocol import AppendHistory, Effect, EmitCommand, EmitDrift, Reject
from reconciler.machines.taking import Stepped, alert
from reconciler.records import Action, Actor, Command, DriftEvent, DriftStatus, FieldDrift, Observation, Verdict
from reconciler.values.instant import SECOND, Instant
from reconciler.values.json_value import ABSENT, Json, canonical, same
from reconciler.values.pointer import tokens_of

FIGHT_WINDOW: Final = 3_600 * SECOND
FIGHT_CORRECTIONS: Final = 3
"""A path that was corrected so often within the window and drifts again is fought over."""

BACKOFF_FIRST_S, BACKOFF_FACTOR, BACKOFF_CAP_S = 2, 3, 300
"""The wait after the n-th correction of a resource within the window, before the next one."""

_EXPIRY_IN_ACK_TIMES: Final = (
    10  # a command that lay so many times its acknowledgement's time is not carried out any more
)


def take_observation(
    head: Head, observation: Observation, now: Instant, contract: Contract, *, is_outcome: bool = False
) -> Stepped:
    """Takes an observation. One that an outcome carries was made by who had just written, and needs no settling."""
    at = now if observation.observed_at is None else min(observation.observed_at, now)
    if observation.exists is None:
        return Stepped(msgspec.structs.replace(head, unknown=observation.reason or "the target did not say why"))
    if is_empty(head.tree, observation):
        return Stepped(msgspec.structs.replace(head, unknown="the target named no field of it at all"))
    if head.observed_at is not None and at <= head.observed_at:
        if is_outcome or at == head.observed_at:
            return Stepped(head)
        reason = "is older than the last observation of this resource, and says nothing new; check the sampler's clock"
        return Stepped(head, (Reject(reason, "observed_at"),))
    head = msgspec.structs.replace(head, observed_at=at, unknown=None, in_flight=_still_in_flight(head, at, contract))
    stored: tuple[Effect, ...] = (AppendHistory(OBSERVATION_ENTRY, encode(observation)),)
    since = max(head.in_flight.values(), default=None)
    if head.pending is not None or since is not None:
        return Stepped(head, stored)
    if not is_outcome and is_settling(contract, head.last_write_at, None, at):
        return Stepped(head, stored)
    verdict, changes = compare(head.tree, observation, contract)
    judged = _judge(head, verdict, changes, observation, now, contract)
    return Stepped(judged.head, stored + judged.effects)


def _still_in_flight(head: Head, at: Instant, contract: Contract) -> dict[str, Instant]:
    if not head.in_flight:
        return head.in_flight
    return {name: since for name, since in head.in_flight.items() if at - since < contract.timing.in_flight_s * SECOND}


def _judge(
    head: Head, verdict: Verdict, changes: list[FieldDrift], observation: Observation, now: Instant, contract: Contract
) -> Stepped:
    if not changes:
        return _closed(head, now, contract)
    drift = _drift(head, verdict, changes, observation)
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


def _drift(head: Head, verdict: Verdict, changes: list[FieldDrift], observation: Observation) -> Drift:
    """The open drift after this observation; a path's count goes on as long as it is seen again."""
    before = {} if head.drift is None else head.drift.seen
    return Drift(
        drift_id=_digest(head.resource, "drift", head.observed_at) if head.drift is None else head.drift.drift_id,
        verdict=verdict,
        changes=changes,
        seen={change.path: before.get(change.path, 0) + 1 for change in changes},
        version=observation.version,
        observed_at=head.observed_at,
    )


def drift_event(
    head: Head, drift: Drift, status: DriftStatus, now: Instant, contract: Contract, reason: str = ""
) -> EmitDrift:
    """What is published about a drift."""
    return EmitDrift(
        DriftEvent(
            drift_id=drift.drift_id,
            resource=head.resource,
            status=status,
            verdict="in_sync" if status == "closed" else drift.verdict,
            changes=[] if status == "closed" else drift.changes,
            occurred_at=now,
            observed_at=drift.observed_at,
            command_id=head.settled[-1] if status == "closed" and head.settled else None,
            reason=reason,
            contract=f"{contract.name}@{contract.version}",
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
    number = head.entries + 1
    editor = Editor(head.tree)
    for change in sorted(changes, key=lambda item: tokens_of(item.path)):
        editor.write(tokens_of(change.path), node_of(change.actual, -number), -number)
    facts = Facts(
        external_set={change.path: change.actual for change in changes if change.actual is not ABSENT},
        external_unset=[change.path for change in changes if change.actual is ABSENT],
        was={
            change.path: [] if change.expected is ABSENT else [change.expected]
            for change in changes
            if contract.rule(change.path).kind in STEPPED
        },
    )
    entry = Entry(number=number, action=_adoption(head, now), facts=facts)
    left = [change for change in head.drift.changes if all(change.path != item.path for item in changes)]
    effects: tuple[Effect, ...] = (AppendHistory(ACTION_PREFIX + entry.action.action_id, encode(entry)),)
    after = msgspec.structs.replace(head, tree=editor.root, entries=number)
    if left:
        drift = msgspec.structs.replace(head.drift, changes=left)
        after = msgspec.structs.replace(after, drift=drift)
        return Stepped(after, (*effects, drift_event(after, drift, "changed", now, contract, "adopted")))
    event = drift_event(after, head.drift, "closed", now, contract, "adopted")
    return Stepped(msgspec.structs.replace(after, drift=None, failed=[]), (*effects, event))


def _adoption(head: Head, now: Instant) -> Action:
    """The action in whose stead an adoption stands in the history: it writes nothing itself."""
    assert head.drift is not None
    identity = _digest(head.resource, "adoption", head.drift.drift_id, head.entries)
    return Action(
        stage="succeeded",
        run_id="reconciler",
        step_id="adopt",
        occurred_at=now,
        resource=head.resource,
        operation="effect",
        operation_id=f"adopt/{identity}",
        action_id=f"adopt/{identity}",
        actor=Actor(id="reconciler", kind="service"),
    )


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
    return send(head, command, now, contract)


def _backoff_s(corrections: int) -> float:
    return float(min(BACKOFF_FIRST_S * BACKOFF_FACTOR ** (corrections - 1), BACKOFF_CAP_S))


def send(head: Head, command: Command, now: Instant, contract: Contract) -> Stepped:
    """Sends a command, or sends it once more."""
    ack_within = int(contract.service.ack_within_s * SECOND)
    command = msgspec.structs.replace(
        command,
        # The same drift corrected twice is two commands; a command that is sent twice is one.
        command_id=command.command_id if command.attempt > 1 else _digest(command.command_id, head.observed_at, now),
        issued_at=now,
        expires_at=now + _EXPIRY_IN_ACK_TIMES * ack_within,
    )
    pending = Pending(command=command, deadline_at=now + ack_within)
    return Stepped(msgspec.structs.replace(head, pending=pending), (EmitCommand(command),))


def hold(head: Head, kind: str, reason: str, now: Instant, contract: Contract) -> Stepped:
    """Stops corrections of this resource and tells people."""
    held = msgspec.structs.replace(head, hold=Hold(kind=kind, reason=reason, since_at=now))  # type: ignore[arg-type]
    effects: tuple[Effect, ...] = (alert(f"held_{kind}", head.resource, reason, now, now),)
    if held.drift is not None:
        effects += (drift_event(held, held.drift, "held", now, contract, reason),)
    return Stepped(held, effects)


def signature(command: Command) -> str:
    """What a command would do, whenever it is sent: two of one signature are the same command for the same drift."""
    return _digest(command.action, [msgspec.to_builtins(change) for change in command.changes])


def _same_changes(one: list[FieldDrift], other: list[FieldDrift]) -> bool:
    return len(one) == len(other) and all(
        left.path == right.path
        and left.policy == right.policy
        and same(left.expected, right.expected)
        and same(left.actual, right.actual)
        for left, right in zip(one, other, strict=True)
    )


def _digest(*inputs: Json) -> str:
    return hashlib.blake2b(canonical(list(inputs)), digest_size=16).hexdigest()
