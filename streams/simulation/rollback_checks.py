"""What must hold of rollbacks, whatever failed on their way: an honest end, and no undo that is itself undone by accident."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from reconciler.history.entry import Entry, undone_of
from reconciler.machines.rollback import Head
from reconciler.records import Command, RollbackEvent
from reconciler.values.pointer import tokens_of
from streams.simulation.reading import heads_of, history_of, logged_actions, rollback_heads, undone_with
from streams.simulation.simulation import Simulation, Violation
from streams.simulation.targets import WORKFLOW
from streams.simulation.witnessing import steps_in

_RESTLESS: Final = ("gathering", "executing", "verifying")
_MISLEADING: Final = ("read-stale", "read-partial", "apply-lies")
"""Faults after which the target itself has said, when asked, that all was well."""


def rollbacks_come_to_rest(simulation: Simulation) -> Iterator[Violation]:
    """Once nothing fails any more, a rollback has ended, or waits for people and has said so."""
    for head in rollback_heads(simulation).values():
        if head.request is not None and head.status in _RESTLESS and not _left_nothing(simulation, head.rollback_id):
            yield Violation("rollbacks come to rest", f"{head.rollback_id} is {head.status} for ever: {_shown(head)}")
    for resource, state in heads_of(simulation).items():
        waiting = getattr(state, "steps", None)
        if waiting:
            yield Violation("rollbacks come to rest", f"{resource} has orders that it never carries out: {waiting}")


def _left_nothing(simulation: Simulation, rollback_id: str) -> bool:
    """Whether it left a record without any field: an empty answer about it counts as unknown, so nobody can verify that."""
    steps = steps_in(simulation.rollback_entries(rollback_id))
    return any(simulation.hands.target(step.order.resource).fields(step.order.resource) == {} for step in steps)


def plans_stand_up(simulation: Simulation) -> Iterator[Violation]:
    """No plan is found wrong by the independent look at it."""
    for head in rollback_heads(simulation).values():
        if "fault of the reconciler" in head.halted_for:
            yield Violation("plans stand up", f"{head.rollback_id}: {head.halted_for}")


def _shown(head: Head) -> str:
    return f"steps {head.counts}, gathering {head.gathering}, halted for {head.halted_for!r}"


def completed_is_true(simulation: Simulation) -> Iterator[Violation]:
    """When a rollback says that it is completed, nothing that the undone operations wrote is at the targets any more."""
    if any(name.startswith(_MISLEADING) for name in simulation.faults.struck):
        return
    for rollback_id, step, writers in (
        (item.rollback_id, item.step, item.writers) for item in simulation.witness.completed
    ):
        order = step.order
        if order.verb != "undo":
            continue
        _, entries = history_of(simulation, order.resource)
        undone = undone_with(entries, order.numbers)
        for path, writer in sorted(writers.items()):
            if writer.kind == WORKFLOW and writer.id in undone and not _was_overwritten(entries, writer.id, path):
                told = f"{rollback_id} is completed, and {path} of {order.resource} still holds what {writer.id} wrote"
                yield Violation("completed is true", told)


def _was_overwritten(entries: list[Entry], action_id: str, path: str) -> bool:
    """Whether by the log somebody wrote there after an action: then it wasn't this one's value that was undone."""
    number = next(entry.number for entry in entries if entry.action.action_id == action_id)
    place = tokens_of(path)
    return any(
        place[: len(tokens)] == tokens
        for entry in entries
        if entry.number > number
        for tokens, _ in (*entry.external_writes(), *entry.writes())
    )


def undone_stays_undone(simulation: Simulation) -> Iterator[Violation]:
    """No correction of drift writes a value that was undone by then."""
    written = _values_written(simulation)
    for target in simulation.targets.values():
        for command in target.obeyed:
            if command.drift_id is None or command.issued_at is None:
                continue
            _, entries = history_of(simulation, command.resource)
            past = _entries_until(entries, command.issued_at)
            undone = undone_of(past)
            for path, action_id in _restored(command, written):
                entry = next((entry for entry in past if entry.action.action_id == action_id), None)
                if entry is not None and entry.number in undone:
                    told = f"the correction {command.command_id[:8]} put back {path} of {command.resource}, which {action_id}"
                    yield Violation("undone stays undone", f"{told} had written and a rollback undone")


def _values_written(simulation: Simulation) -> dict[str, str]:
    """Which action wrote a text: no two write the same."""
    written: dict[str, str] = {}
    for actions in logged_actions(simulation).values():
        for action in actions:
            for value in action.set.values():
                if isinstance(value, str):
                    written.setdefault(value, action.action_id)
    return written


def _restored(command: Command, written: dict[str, str]) -> Iterator[tuple[str, str]]:
    for change in command.changes:
        if change.op == "set" and isinstance(change.value, str) and change.value in written and tokens_of(change.path):
            yield change.path, written[change.value]


def _entries_until(entries: list[Entry], instant: int) -> list[Entry]:
    """The entries from before the first undo that came after an instant."""
    for place, entry in enumerate(entries):
        if entry.is_reversal and entry.action.occurred_at > instant:
            return entries[:place]
    return entries


def events_in_order(simulation: Simulation) -> Iterator[Violation]:
    """The events of a rollback count without a gap, and nothing follows the end but late work."""
    sequences: dict[str, list[int]] = {}
    for _, record in simulation.broker.records(simulation.topics.rollback_events):
        event = simulation.codec.decode(record.value)
        assert isinstance(event, RollbackEvent)
        sequences.setdefault(event.rollback_id, []).append(event.sequence)
    for rollback_id, found in sequences.items():
        if found != list(range(1, len(found) + 1)):
            yield Violation("events in order", f"the events of {rollback_id} are numbered {found}")


def reversals_are_told(simulation: Simulation) -> Iterator[Violation]:
    """Every undo in a history is in the ledger, and the other way round."""
    logged = logged_actions(simulation)
    for resource in heads_of(simulation):
        _, entries = history_of(simulation, resource)
        kept = sorted(entry.action.action_id for entry in entries if entry.is_reversal)
        told = sorted(action.action_id for action in logged.get(resource, []) if action.stage == "reversed")
        if kept != told:
            yield Violation("no lost action", f"{resource} has the undos {kept}, and the ledger {told}")
