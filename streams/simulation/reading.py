"""Reading what a simulation left behind: logs and tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from reconciler.history.entry import Entry, undone_of
from reconciler.history.tree import UNKNOWN, Node
from reconciler.ledger.checking import Stored
from reconciler.machines.head import Head, whole_history
from reconciler.machines.rollback import Head as RollbackHead
from reconciler.records import Action
from reconciler.wire.partition import partition_of
from streams.simulation.simulation import PARTITIONS, Simulation


def logged_actions(simulation: Simulation) -> dict[str, list[Action]]:
    """The actions of each resource in the order of the log where they belong, each once."""
    found: dict[str, dict[str, Action]] = {}
    for partition, record in simulation.broker.records(simulation.topics.actions):
        if partition == partition_of(record.key or b"", PARTITIONS):
            action = simulation.codec.decode(record.value)
            assert isinstance(action, Action)
            found.setdefault(action.resource, {}).setdefault(action.action_id, action)
    return {resource: list(actions.values()) for resource, actions in found.items()}


def ledger_of(simulation: Simulation) -> dict[str, list[Stored]]:
    """The records of each resource in the order of the log where they belong, each as often as it stands there; without those
    that were put aside."""
    names = simulation.topics
    dead = {
        (record.header("__dlq.errors.partition"), record.header("__dlq.errors.offset"))
        for _, record in simulation.broker.records(names.dead_letters)
        if record.header("__dlq.errors.topic") == names.actions
    }
    found: dict[str, list[Stored]] = {}
    for partition, record in simulation.broker.records(names.actions):
        is_here = partition == partition_of(record.key or b"", PARTITIONS)
        if is_here and (str(partition), str(record.offset)) not in dead:
            action = simulation.codec.decode(record.value)
            assert isinstance(action, Action)
            found.setdefault(action.resource, []).append(Stored(partition, record.offset, action))
    return found


def heads_of(simulation: Simulation) -> dict[str, Head]:
    heads: dict[str, Head] = {}
    for owner in simulation.fleet.owners():
        if owner.lane.pipeline.name == "resources":
            for resource, state in owner.table.heads():
                assert isinstance(state, Head)
                heads[resource] = state
    return heads


def history_of(simulation: Simulation, resource: str) -> tuple[Node, list[Entry]]:
    owner = simulation.fleet.owner("resources", partition_of(resource.encode(), PARTITIONS))
    if owner is None:
        return UNKNOWN, []
    base, entries = whole_history(owner.table.history.of(resource.encode()))
    return base.tree, entries


def rollback_heads(simulation: Simulation) -> dict[str, RollbackHead]:
    """The rollbacks that somebody works on, by their ids."""
    heads: dict[str, RollbackHead] = {}
    for owner in simulation.fleet.owners():
        if owner.lane.pipeline.name == "rollbacks":
            for rollback_id, state in owner.table.heads():
                assert isinstance(state, RollbackHead)
                heads[rollback_id] = state
    return heads


def undone_with(entries: Sequence[Entry], numbers: Collection[int]) -> set[str]:
    """The actions that are undone with some entries of a history: these themselves, and what an undo had undone that is in
    force again without them."""
    past = [entry for entry in entries if entry.number <= max(numbers, default=0)]
    more = undone_of(past, set(numbers)) - undone_of(past)
    return {entry.action.action_id for entry in past if entry.number in more or entry.number in numbers}


def brought_back_with(entries: Sequence[Entry], numbers: Collection[int]) -> list[Entry]:
    """What is in force again when some entries of a history are undone, because it was undone by them."""
    past = [entry for entry in entries if entry.number <= max(numbers, default=0)]
    back = undone_of(past) - undone_of(past, set(numbers))
    return [entry for entry in past if entry.number in back]
