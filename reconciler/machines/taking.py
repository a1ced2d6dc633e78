"""The resource machine's answer to actions: the fold, and the history that makes it undoable."""

from __future__ import annotations

from typing import Final

import msgspec

from reconciler.contracts.model import Contract
from reconciler.history.chain import linked
from reconciler.history.entry import NO_FACTS, Entry
from reconciler.history.flat import fold_flat
from reconciler.history.fold import fold
from reconciler.history.plain import kept_plainly
from reconciler.history.resource import is_echo, is_pre_state
from reconciler.json_form import action_digest
from reconciler.machines.head import (
    ACTION_PREFIX,
    Head,
    encode,
    entry_of,
    history_of,
    last_observation,
)
from reconciler.machines.protocol import AppendHistory, EmitAlert, HistoryReader
from reconciler.machines.recording import MOST_ENTRIES, Stepped, collapsed, digest, is_too_long, then
from reconciler.records import Action, Alert, Observation, PlainUpdate
from reconciler.values.instant import Instant
from reconciler.values.json_value import Json

_REMEMBERED_ECHOES: Final = 8
_REMEMBERED_IN_FLIGHT: Final = 1_000  # operations that began and never ended; the oldest are forgotten


def take_action(head: Head, action: Action, now: Instant, history: HistoryReader, contract: Contract) -> Stepped:
    """Takes an action of whatever stage. An action that was taken before changes nothing."""
    links, chain = head.links + 1, linked(head.chain, action)
    if action.origin is not None and _is_ours(head, action.origin) and is_echo(head.tree, action, contract):
        # What the target reports of our own correction: the history has it already, as what was expected or undone.
        if action.action_id in head.echoed:
            return Stepped(head)
        echoed = [*head.echoed, action.action_id][-_REMEMBERED_ECHOES:]
        return Stepped(msgspec.structs.replace(head, links=links, chain=chain, echoed=echoed))
    if action.stage == "initiated":
        in_flight = {**head.in_flight, action.operation_id: min(action.occurred_at, now)}
        while len(in_flight) > _REMEMBERED_IN_FLIGHT:
            del in_flight[min(in_flight, key=lambda name: in_flight[name])]
        return Stepped(msgspec.structs.replace(head, in_flight=in_flight, links=links, chain=chain))
    ended = _ended(head, action.operation_id)
    if action.stage == "failed":
        return Stepped(msgspec.structs.replace(head, in_flight=ended, links=links, chain=chain))
    known = entry_of(history, action.action_id)
    if known is not None:
        return _again(head, known, action, now)
    number = head.entries + 1
    undone, tree = head.undone, head.tree
    if action.stage == "reversed":
        whole = history_of(head, history, contract)
        whole.take(action)
        entry = msgspec.structs.replace(whole.entry(number), link=links, chain=chain)
        undone, tree = sorted(whole.undone), whole.tree
    else:
        seen = _pre_state(action, history, contract)
        tree, entry = fold(tree, number, action, contract, seen, link=links, chain=chain)
    last_write_at = (
        head.last_write_at if action.operation == "effect" else _last_write_at(head, action.occurred_at, now)
    )
    head = msgspec.structs.replace(
        head,
        tree=tree,
        entries=number,
        undone=undone,
        in_flight=ended,
        last_write_at=last_write_at,
        links=links,
        chain=chain,
    )
    stepped = Stepped(head, (AppendHistory(ACTION_PREFIX + action.action_id, encode(entry)),))
    if not is_too_long(head):
        return stepped
    return then(stepped, history, lambda after, later: collapsed(after, later, contract))


def take_plain_update(
    head: Head, update: PlainUpdate, now: Instant, history: HistoryReader
) -> tuple[Head, str, bytes] | None:
    """What `take_action` does with an update that contradicts nothing: the head after it, and the id and the value of its entry.
    None where there is anything else to do about it."""
    number = head.entries + 1
    if number - head.collapsed > MOST_ENTRIES:
        return None
    folded = fold_flat(head.tree, number, update.set, update.before)
    if folded is None:
        return None
    tree, facts = folded
    entry_id = ACTION_PREFIX + update.action_id
    if history.get(entry_id) is not None:
        return None
    link = head.links + 1
    chain, entry = kept_plainly(update, number, link, head.chain, "" if facts is NO_FACTS else encode(facts).decode())
    after = msgspec.structs.replace(
        head,
        tree=tree,
        entries=number,
        in_flight=_ended(head, update.operation_id),
        last_write_at=_last_write_at(head, update.occurred_at, now),
        links=link,
        chain=chain,
    )
    return after, entry_id, entry


def _ended(head: Head, operation_id: str) -> dict[str, Instant]:
    """What is in flight once an operation has ended."""
    in_flight = head.in_flight
    if operation_id not in in_flight:
        return in_flight
    return {name: since for name, since in in_flight.items() if name != operation_id}


def _last_write_at(head: Head, occurred_at: Instant, now: Instant) -> Instant:
    """When it was last written after another write, which can't have been later than now."""
    at = occurred_at if occurred_at < now else now
    last_write_at = head.last_write_at
    return at if last_write_at is None or at > last_write_at else last_write_at


def _is_ours(head: Head, command_id: str) -> bool:
    """Whether a command of this resource bears the id."""
    is_pending = head.pending is not None and head.pending.command.command_id == command_id
    return is_pending or command_id in head.settled


def _again(head: Head, known: Entry, action: Action, now: Instant) -> Stepped:
    if action_digest(known.action) == action_digest(action):
        return Stepped(head) if known.link else _link(head, known, action)
    message = (
        f"The action {action.action_id} on {action.resource} came again with another content; the first one stands."
        " Give every action an id of its own."
    )
    return Stepped(head, (alert("action_contradicted", action.resource, message, now, action.action_id),))


def _link(head: Head, known: Entry, action: Action) -> Stepped:
    """A reversal of our own, which the history has had since it was decided, comes by in the ledger and becomes its link."""
    links, chain = head.links + 1, linked(head.chain, action)
    entry = msgspec.structs.replace(known, link=links, chain=chain)
    head = msgspec.structs.replace(head, links=links, chain=chain)
    return Stepped(head, (AppendHistory(ACTION_PREFIX + action.action_id, encode(entry)),))


def alert(kind: str, resource: str, message: str, now: Instant, *about: Json) -> EmitAlert:
    """An alert, whose id is a function of what it is about."""
    identity = digest(kind, resource, *about)
    return EmitAlert(Alert(alert_id=identity, subject=resource, kind=kind, message=message, occurred_at=now))


def _pre_state(action: Action, history: HistoryReader, contract: Contract) -> Observation | None:
    """The last observation, where it must and may serve as the action's pre-state."""
    if action.before is not None or action.operation not in ("update", "delete"):
        return None
    seen = last_observation(history)
    return seen if seen is not None and is_pre_state(action, seen, contract) else None
