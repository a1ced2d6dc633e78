"""The invariants: what must hold after any simulation, whatever failed in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

from reconciler.contracts.model import Contract
from reconciler.history.entry import Entry
from reconciler.history.replay import History, Known, State, Value, look
from reconciler.history.tree import UNKNOWN, Gone, Leaf, Node, Object, equal
from reconciler.history.undo import without
from reconciler.ledger.checking import Kept, check
from reconciler.records import DriftEvent
from reconciler.values.json_value import ABSENT, Absent, Json, same
from reconciler.values.pointer import Tokens, path_of, tokens_of, value_at
from streams.simulation.reading import brought_back_with, heads_of, history_of, ledger_of, logged_actions, undone_with
from streams.simulation.replaying import contents, effect_id, replayed
from streams.simulation.rollback_checks import (
    completed_is_true,
    events_in_order,
    plans_stand_up,
    reversals_are_told,
    rollbacks_come_to_rest,
    undone_stays_undone,
)
from streams.simulation.simulation import PARTITIONS, Simulation, Violation
from streams.simulation.targets import COMMAND, Loss
from streams.simulation.witnessing import steps_in
from streams.store.producer import Outgoing

Check: TypeAlias = Callable[[Simulation], Iterator[Violation]]

K = TypeVar("K")

_PIPELINE: Final = "resources"


def violations(simulation: Simulation, checks: Sequence[Check]) -> list[Violation]:
    """Whatever of these doesn't hold."""
    return [violation for check in checks for violation in check(simulation)]


# -- the table


def everybody_works(simulation: Simulation) -> Iterator[Violation]:
    """Once nothing fails any more, every partition has an owner that has consumed all there is."""
    for partition in range(PARTITIONS):
        owner = simulation.fleet.owner(_PIPELINE, partition)
        if owner is None or owner.is_over:
            yield Violation("at work", f"nobody works on partition {partition}")
        elif owner.is_behind():
            yield Violation("at work", f"partition {partition} has records that nobody takes")


def no_lost_action(simulation: Simulation) -> Iterator[Violation]:
    """Every action that a producer was given is in the log, and every one in the log in its resource's history, in order."""
    logged = logged_actions(simulation)
    known = {action.action_id for actions in logged.values() for action in actions}
    for action in simulation.hands.reported:
        if action.action_id not in known:
            yield Violation("no lost action", f"{action.action_id} was sent and isn't in the log")
    for resource, actions in logged.items():
        wanted = [action.action_id for action in actions if action.stage == "succeeded"]
        _, entries = history_of(simulation, resource)
        kept = [entry.action.action_id for entry in entries if not (entry.is_adoption or entry.is_reversal)]
        if kept != wanted:
            yield Violation("no lost action", f"the history of {resource} has {kept} instead of {wanted}")


def table_is_fold(simulation: Simulation) -> Iterator[Violation]:
    """The expected state is the plain fold of the log, as `reconciler.history.replay` defines it."""
    logged = logged_actions(simulation)
    for resource, head in heads_of(simulation).items():
        base, entries = history_of(simulation, resource)
        contract = simulation.estate.contracts.for_resource(resource)
        if not equal(without(entries, frozenset(head.undone), contract, base), head.tree):
            yield Violation("table is fold", f"{resource} is not what its own history folds to")
        if contract.kinds or any(entry.facts.observed_at is not None for entry in entries):
            continue  # the plain replay knows neither kinds nor observations
        actions = {action.action_id: action for action in logged.get(resource, [])}
        history = History()
        for entry in entries:
            if entry.is_reversal:
                history.fold(entry.action)
            elif entry.is_adoption:
                for tokens, value in entry.external_writes():
                    history.step(None, tokens, value)
            elif entry.action.action_id in actions:
                history.fold(actions[entry.action.action_id])
        if not equal(_tree(history.now), head.tree):
            yield Violation(
                "table is fold", f"{resource} is expected to be {head.tree}, but the log says {_tree(history.now)}"
            )


def ledger_is_in_order(simulation: Simulation) -> Iterator[Violation]:
    """Whoever holds the log against the table's hash chains finds no fault, and nothing that wasn't read."""
    heads = heads_of(simulation)
    for resource, records in ledger_of(simulation).items():
        head = heads.get(resource)
        if head is None:
            continue
        _, entries = history_of(simulation, resource)
        kept = Kept(links=head.links, chain=head.chain, entries=entries, is_collapsed=head.collapsed > 0)
        checked = check(resource, records, kept)
        for fault in checked.faults:
            yield Violation("ledger is in order", f"{resource}: {fault.kind} {fault.place}: {fault.message}")
        if checked.unread:
            yield Violation("ledger is in order", f"{resource}: {checked.unread} records are part of no chain")


def replay_equals_run(simulation: Simulation) -> Iterator[Violation]:
    """Replaying what was consumed gives the same heads, history and effects; so does recovering from the changelog alone."""
    fleet = simulation.fleet
    for lane in fleet.lanes:
        for partition in range(PARTITIONS):
            owner = fleet.owner(lane.pipeline.name, partition)
            if owner is None or owner.is_over:
                continue
            consumed = fleet.consumed.get((lane.pipeline.name, partition), [])
            again = replayed(lane, simulation.codec, partition, PARTITIONS, consumed)
            heads, entries = contents(owner.table, owner.store, lane)
            yield from _differences("replay equals run", heads, again.heads)
            yield from _differences("replay equals run", entries, again.entries)
            yield from _same_effects(fleet.written.get((lane.pipeline.name, partition), []), again.effects)


def changelog_equals_table(simulation: Simulation) -> Iterator[Violation]:
    """A worker with an empty disk recovers the same table."""
    for owner in simulation.fleet.owners():
        heads, entries = contents(owner.table, owner.store, owner.lane)
        table, store = simulation.fleet.recovered(owner)
        recovered_heads, recovered_entries = contents(table, store, owner.lane)
        yield from _differences("changelog equals table", heads, recovered_heads)
        yield from _differences("changelog equals table", entries, recovered_entries)


def _same_effects(first: list[Outgoing], again: list[Outgoing]) -> Iterator[Violation]:
    written = Counter((outgoing.topic, effect_id(outgoing)) for outgoing in first)
    repeated = Counter((outgoing.topic, effect_id(outgoing)) for outgoing in again)
    for effect in sorted((written - repeated) + (repeated - written)):
        yield Violation(
            "replay equals run",
            f"the effect {effect} was written {written[effect]} times, replayed {repeated[effect]} times",
        )
    for (topic, identity), count in sorted(written.items()):
        if count > 1:
            yield Violation("no effect twice", f"{identity} stands {count} times on {topic}")


def _differences(invariant: str, found: dict[K, bytes], wanted: dict[K, bytes]) -> Iterator[Violation]:
    for key in sorted(found.keys() | wanted.keys(), key=repr):
        if found.get(key) != wanted.get(key):
            yield Violation(invariant, f"{key} is {_text(found.get(key))} instead of {_text(wanted.get(key))}")


def _text(value: bytes | None) -> str:
    return "not there" if value is None else value.decode()


def no_machine_failed(simulation: Simulation) -> Iterator[Violation]:
    """No record brought the machine, or the runner, to a fault; and none was refused that we made ourselves."""
    for _, record in simulation.broker.records(simulation.topics.dead_letters):
        message = f"{record.header('__dlq.errors.topic')}: {record.header('__dlq.errors.message')}"
        if record.header("__dlq.errors.exception") != "Rejected" or "never sent" in message:
            yield Violation("no machine failed", message)


# -- the targets


def no_effect_twice(simulation: Simulation) -> Iterator[Violation]:
    """A command changes its target once, and each execution of an effect is made good once."""
    for target in simulation.targets.values():
        for what, count in (target.carried_out | target.compensated).items():
            if count > 1:
                yield Violation("no effect twice", f"{what} was carried out {count} times at {target.system}")


def no_edit_destroyed(simulation: Simulation) -> Iterator[Violation]:
    """What a command replaces, it has seen; and what isn't the reconciler's own, a contract or a person has given up."""
    for target in simulation.targets.values():
        for loss in target.losses:
            if not _was_seen(loss):
                yield Violation("no edit destroyed", f"{_told(loss)}, which it had not seen")
            elif loss.writer.kind != COMMAND and not _was_decided(simulation, loss):
                yield Violation("no edit destroyed", f"{_told(loss)}, though nobody had decided that")


def _told(loss: Loss) -> str:
    return (
        f"{loss.command.command_id[:8]} ({loss.command.action}) took away {loss.value!r} at {loss.path} of {loss.resource},"
        f" written by {loss.writer.kind} {loss.writer.id}"
    )


def _was_seen(loss: Loss) -> bool:
    place = tokens_of(loss.path)
    for change in loss.command.changes:
        tokens = tokens_of(change.path)
        if place[: len(tokens)] == tokens and change.op not in ("set", "unset"):
            return True  # it adds to, or takes from, whatever is there
        if place[: len(tokens)] == tokens:
            return not isinstance(change.expect, Absent) and same(
                value_at(change.expect, place[len(tokens) :]), loss.value
            )
    return False


def _was_decided(simulation: Simulation, loss: Loss) -> bool:
    """Whether the contract gives such a value up, or a person has."""
    change = next(item for item in loss.command.changes if _is_at_or_below(loss.path, item.path))
    if loss.command.rollback_id is not None:
        return _was_undone(simulation, loss) or _was_given_up(simulation, loss, change.path)
    contract = simulation.estate.contracts.for_resource(loss.resource)
    return _is_corrected(contract, change.path, loss) or any(
        decision.verb == "expected" and decision.resource == loss.resource and decision.path in (None, change.path)
        for decision in simulation.hands.decided
    )


def _is_at_or_below(path: str, above: str) -> bool:
    tokens = tokens_of(above)
    return tokens_of(path)[: len(tokens)] == tokens


def _was_undone(simulation: Simulation, loss: Loss) -> bool:
    """Whether it is the value of an action that the rollback undoes, or gives way to a write that by the log came later and
    that the rollback puts back."""
    assert loss.command.rollback_id is not None
    _, entries = history_of(simulation, loss.resource)
    orders = [step.order for step in steps_in(simulation.rollback_entries(loss.command.rollback_id))]
    return any(
        loss.writer.id in undone_with(entries, order.numbers) or _is_overwritten(entries, order.numbers, loss)
        for order in orders
        if order.resource == loss.resource
    )


def _is_overwritten(entries: list[Entry], numbers: list[int], loss: Loss) -> bool:
    number = next((entry.number for entry in entries if entry.action.action_id == loss.writer.id), None)
    return number is not None and any(
        entry.number > number and any(_is_at_or_below(loss.path, path_of(tokens)) for tokens, _ in entry.writes())
        for entry in brought_back_with(entries, numbers)
    )


def _was_given_up(simulation: Simulation, loss: Loss, path: str) -> bool:
    contract = simulation.estate.contracts.for_resource(loss.resource)
    if {contract.rule(path).conflict, contract.rule(loss.path).conflict} & {"expected_wins", "latest_wins", "merge"}:
        return True
    return any(
        item.resource == loss.resource and item.take != "keep" and _is_near(loss.path, item.path)
        for item in simulation.requester.resolved
    )


def _is_corrected(contract: Contract, path: str, loss: Loss) -> bool:
    if path:
        return contract.rule(path).drift == "correct" or contract.rule(loss.path).drift == "correct"
    return contract.existence.unexpected == "correct" if loss.command.action == "delete" else True


# -- the end


def converged_or_explained(simulation: Simulation) -> Iterator[Violation]:
    """Once nothing fails any more, what workflows wrote is there, or the state says why it isn't."""
    for resource, head in heads_of(simulation).items():
        if head.pending is not None:
            yield Violation(
                "converged", f"{resource} waits for the outcome of {head.pending.command.command_id} for ever"
            )
            continue
        contract = simulation.estate.contracts.for_resource(resource)
        actual = simulation.hands.target(resource).fields(resource)
        wrong = dict(_wrong(head.tree, actual))
        drifting = {} if head.drift is None else {change.path: change for change in head.drift.changes}
        for path in sorted(wrong):
            expected, found = wrong[path]
            near = [change for change in drifting.values() if _is_near(path, change.path)]
            if _is_unwatched(contract, path):
                continue
            if not near:
                told = f"{resource}{path} is {_shown(found)}, expected {_shown(expected)}, and nothing says so"
                yield Violation("converged", told)
            elif head.hold is None and not head.failed and any(change.policy == "correct" for change in near):
                yield Violation("converged", f"{resource}{path} is to be corrected, and nobody does")
        if drifting and not wrong:
            yield Violation("converged", f"{resource} is reported as drifting at {sorted(drifting)}, and isn't")


def told_as_it_is(simulation: Simulation) -> Iterator[Violation]:
    """The last drift event of a resource says what its state says."""
    last: dict[str, DriftEvent] = {}
    for _, record in simulation.broker.records(simulation.topics.drift):
        event = simulation.codec.decode(record.value)
        assert isinstance(event, DriftEvent)
        last[event.resource] = event
    for resource, head in heads_of(simulation).items():
        told = last.get(resource)
        open_one = None if told is None or told.status == "closed" else told.drift_id
        if open_one != (None if head.drift is None else head.drift.drift_id):
            yield Violation("told as it is", f"{resource}: the last event is {told}, the state {head.drift}")


def _is_unwatched(contract: Contract, path: str) -> bool:
    if not path:
        return False
    rule = contract.rule(path)
    return rule.drift == "ignore" or rule.generated


def _is_near(path: str, other: str) -> bool:
    one, two = tokens_of(path), tokens_of(other)
    length = min(len(one), len(two))
    return one[:length] == two[:length]


def _wrong(
    node: Node, actual: Json | Absent, tokens: Tokens = ()
) -> Iterator[tuple[str, tuple[Json | Absent, Json | Absent]]]:
    """(path, (expected, actual)) of what a workflow wrote and isn't so."""
    if isinstance(node, Object):
        if type(actual) is dict:
            for name, member in node.members.items():
                yield from _wrong(member, actual.get(name, ABSENT), (*tokens, name))
            if tokens and node.closed and node.owner > 0 and not node.made:
                for name in actual.keys() - node.members.keys():
                    yield path_of((*tokens, name)), (ABSENT, actual[name])
        elif _is_owned(node):
            yield path_of(tokens), ("an object", actual)
    elif isinstance(node, Leaf):
        if node.owner > 0 and not same(node.value, actual):
            yield path_of(tokens), (node.value, actual)
    elif isinstance(node, Gone) and node.owner > 0 and actual is not ABSENT:
        yield path_of(tokens), (ABSENT, actual)


def _is_owned(node: Node) -> bool:
    if isinstance(node, Object):
        return node.owner > 0 or any(map(_is_owned, node.members.values()))
    return isinstance(node, Leaf) and node.owner > 0


def _shown(value: Json | Absent) -> str:
    return "absent" if isinstance(value, Absent) else repr(value)


def _tree(state: State, place: Tokens = ()) -> Node:
    """What the replay says, as a tree."""
    what = look(state, place)
    if isinstance(what, Value):
        return Leaf(0, what.value)
    if what is Known.NOTHING:
        return Gone(0)
    if what is Known.UNKNOWN:
        return UNKNOWN
    names = {other[len(place)] for other in state if len(other) > len(place) and other[: len(place)] == place}
    return Object(0, what is Known.CLOSED, {name: _tree(state, (*place, name)) for name in sorted(names)})


CHECKS: Final[tuple[Check, ...]] = (
    everybody_works,
    no_machine_failed,
    no_lost_action,
    table_is_fold,
    ledger_is_in_order,
    replay_equals_run,
    changelog_equals_table,
    no_effect_twice,
    no_edit_destroyed,
    converged_or_explained,
    told_as_it_is,
    plans_stand_up,
    rollbacks_come_to_rest,
    completed_is_true,
    undone_stays_undone,
    events_in_order,
    reversals_are_told,
)
"""All, for a world that was made up to be checked."""

CHECKS_OF_THE_SYSTEM: Final[tuple[Check, ...]] = (
    everybody_works,
    no_machine_failed,
    no_lost_action,
    replay_equals_run,
    changelog_equals_table,
    no_effect_twice,
    plans_stand_up,
    rollbacks_come_to_rest,
    events_in_order,
)
"""Those that hold whatever the data and the contracts are."""
