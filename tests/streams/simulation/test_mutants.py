"""Every invariant can fail: a system with one rule broken is found out within some seeds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from reconciler.contracts.model import Contract, ContractSet, FieldRule
from reconciler.machines.head import Head
from reconciler.machines.protocol import Effect, EmitDrift, EmitRollback, Event, HistoryReader, RollbackInput
from reconciler.machines.resource import ResourceMachine
from reconciler.machines.rollback import RollbackMachine
from reconciler.plan.build import build
from reconciler.plan.model import Planned
from reconciler.records import Action, Command, Observation, PlainUpdate, StepReport, Timer
from reconciler.targets.apply import Fields, Refusal
from reconciler.values.json_value import Absent
from streams.runner.batch import Batch
from streams.simulation.broker import Broker
from streams.simulation.judging import judge
from streams.simulation.people import written
from streams.simulation.simulation import Parts
from streams.simulation.targets import SimTarget
from streams.simulation.workers import Owner
from streams.store.producer import Outgoing
from tests.core.machine_bench import DictHistory

SEEDS = 250


def invariants_broken_by(parts: Parts, wanted: str) -> None:
    """Passes once a seed finds the invariant broken; what else breaks on the way doesn't matter."""
    found: set[str] = set()
    for seed in range(1, SEEDS):
        found |= {violation.invariant for violation in judge(seed, parts=parts).violations}
        if wanted in found:
            return
    pytest.fail(f"{SEEDS} seeds don't notice; they found {found or 'nothing'}")


# -- the machine


class Mutant(ResourceMachine):
    """A machine of which tests change single steps."""

    take_plain_update = None  # type: ignore[assignment]  # so that every action comes by in `step`

    def step(self, state: object, event: Event, now: int, history: HistoryReader) -> tuple[object, tuple[Effect, ...]]:
        stepped = super().step(state, event, now, history)
        assert isinstance(state, Head)
        return self.mutated(state, event, *stepped)

    def mutated(
        self, before: Head, event: Event, after: object, effects: tuple[Effect, ...]
    ) -> tuple[object, tuple[Effect, ...]]:
        raise NotImplementedError


class Forgetful(Mutant):
    """Loses an action now and then."""

    def mutated(self, before: Head, event: Event, after: object, effects: Any) -> Any:
        if isinstance(event, Action) and event.stage == "succeeded" and before.entries % 5 == 4:
            return before, ()
        return after, effects


class Moody(Mutant):
    """Remembers something beside its states."""

    def __init__(self, contracts: ContractSet) -> None:
        super().__init__(contracts)
        self._steps = 0

    def mutated(self, before: Head, event: Event, after: object, effects: Any) -> Any:
        self._steps += 1
        if isinstance(event, Observation) and isinstance(after, Head) and after is not before:
            after = msgspec.structs.replace(after, unknown=f"{self._steps}")
        return after, effects


class Sleepy(Mutant):
    """Never wants to be woken."""

    def due_at(self, state: object) -> int | None:
        return None

    def mutated(self, before: Head, event: Event, after: object, effects: Any) -> Any:
        return (before, ()) if isinstance(event, Timer) else (after, effects)


class Secretive(Mutant):
    """Tells nobody of drift that closes."""

    def mutated(self, before: Head, event: Event, after: object, effects: Any) -> Any:
        return after, tuple(
            effect for effect in effects if not (isinstance(effect, EmitDrift) and effect.event.status == "closed")
        )


class Brittle(Mutant):
    """Fails on what it doesn't like."""

    def mutated(self, before: Head, event: Event, after: object, effects: Any) -> Any:
        if isinstance(event, Observation) and event.exists is False:
            raise RuntimeError("a resource must exist")
        return after, effects


class Deaf(Mutant):
    """Doesn't hear that a field was taken away."""

    def mutated(self, before: Head, event: Event, after: object, effects: Any) -> Any:
        if isinstance(event, Action) and event.unset and isinstance(after, Head):
            after = msgspec.structs.replace(after, tree=before.tree)
        return after, effects


class Unlinked(Mutant):
    """Leaves what failed out of the ledger's chain."""

    def mutated(self, before: Head, event: Event, after: object, effects: Any) -> Any:
        if isinstance(event, Action) and event.stage == "failed" and isinstance(after, Head):
            after = msgspec.structs.replace(after, links=before.links, chain=before.chain)
        return after, effects


class Unaware(ResourceMachine):
    """Doesn't look whether it has had an update before."""

    def take_plain_update(self, state: object, update: PlainUpdate, now: int, _history: HistoryReader) -> Any:
        return super().take_plain_update(state, update, now, DictHistory())


class Zealous(ResourceMachine):
    """Corrects what it should only report."""

    def __init__(self, contracts: ContractSet) -> None:
        super().__init__(ContractSet(tuple(_zealous(contract) for contract in contracts.contracts)))


def _zealous(contract: Contract) -> Contract:
    fields = {path: msgspec.structs.replace(rule, drift="correct") for path, rule in contract.fields.items()}
    fields.setdefault("/note", FieldRule(drift="correct"))
    return msgspec.structs.replace(contract, fields=fields)


class Blind(ResourceMachine):
    """Sees no drift."""

    def step(self, state: object, event: Event, now: int, history: HistoryReader) -> Any:
        if isinstance(event, Observation):
            assert isinstance(state, Head)
            return msgspec.structs.replace(state, observed_at=max(event.observed_at or 0, state.observed_at or 0)), ()
        return super().step(state, event, now, history)


@pytest.mark.parametrize(
    ("machine", "invariant"),
    [
        (Forgetful, "no lost action"),
        (Deaf, "table is fold"),
        (Unlinked, "ledger is in order"),
        (Unaware, "ledger is in order"),
        (Moody, "replay equals run"),
        (Sleepy, "converged"),
        (Blind, "converged"),
        (Secretive, "told as it is"),
        (Brittle, "no machine failed"),
        (Zealous, "no edit destroyed"),
    ],
)
def test_machine(machine: Callable[[ContractSet], ResourceMachine], invariant: str) -> None:
    invariants_broken_by(Parts(machine=machine), invariant)


class Stubborn(Mutant):
    """Writes down what is undone, and goes on expecting it."""

    def mutated(self, before: Head, event: Event, after: object, effects: Any) -> Any:
        if isinstance(after, Head) and set(after.undone) - set(before.undone):
            after = msgspec.structs.replace(after, tree=before.tree)
        return after, effects


def test_a_correction_that_puts_back_what_was_undone() -> None:
    invariants_broken_by(Parts(machine=Stubborn), "undone stays undone")


# -- the rollback machine


class Credulous(RollbackMachine):
    """Takes a command that was sent for one that was seen to be carried out."""

    def step(self, state: object, event: RollbackInput, now: int, history: HistoryReader) -> Any:
        if isinstance(event, StepReport) and event.status == "sent":
            event = msgspec.structs.replace(event, status="verified")
        return super().step(state, event, now, history)


class Inattentive(RollbackMachine):
    """Doesn't hear that something was verified, and doesn't wonder."""

    def step(self, state: object, event: RollbackInput, now: int, history: HistoryReader) -> Any:
        if isinstance(event, Timer) or (isinstance(event, StepReport) and event.status in ("verified", "contradicted")):
            return state, ()
        return super().step(state, event, now, history)


class Taciturn(RollbackMachine):
    """Swallows an event now and then."""

    def step(self, state: object, event: RollbackInput, now: int, history: HistoryReader) -> Any:
        after, effects = super().step(state, event, now, history)
        return after, tuple(
            effect for effect in effects if not (isinstance(effect, EmitRollback) and effect.event.sequence % 3 == 2)
        )


@pytest.mark.parametrize(
    ("machine", "invariant"),
    [
        (Credulous, "completed is true"),
        (Inattentive, "rollbacks come to rest"),
        (Taciturn, "events in order"),
    ],
)
def test_rollback_machine(machine: Callable[[ContractSet, int], RollbackMachine], invariant: str) -> None:
    invariants_broken_by(Parts(rollback_machine=machine), invariant)


def test_a_planner_that_forgets_what_it_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*arguments: Any) -> Planned:
        planned = build(*arguments)
        return msgspec.structs.replace(planned, plan=msgspec.structs.replace(planned.plan, operations=[]))

    monkeypatch.setattr("reconciler.machines.rollback.planning.build", forgetful)
    invariants_broken_by(Parts(), "plans stand up")


# -- the target


class Careless(SimTarget):
    """Sets what a command says, whatever stands there."""

    def _decided(self, current: Fields | Absent, command: Command) -> Fields | Absent | Refusal:
        if isinstance(current, Absent) or command.action != "patch":
            return super()._decided(current, command)
        set_ = {change.path: change.value for change in command.changes if change.op == "set"}
        return written(
            copy.deepcopy(current), set_, [change.path for change in command.changes if change.op == "unset"]
        )


class Oblivious(Careless):
    """Doesn't know a command again either."""

    def _known(self, command: Command) -> None:
        return None


def test_a_target_that_ignores_what_a_command_expects() -> None:
    invariants_broken_by(Parts(target=Careless), "no edit destroyed")


def test_a_target_that_carries_out_every_copy_of_a_command() -> None:
    invariants_broken_by(Parts(target=Oblivious), "no effect twice")


# -- the protocol


class Unfenced(Broker):
    """Lets everybody write."""

    def check_claim(self, transactional_id: str, claim: int) -> None:
        """Nobody is held back."""


class Leaky(Broker):
    """Acknowledges what it then loses."""

    def append(self, outgoing: Outgoing) -> tuple[int, int]:
        self._appended = getattr(self, "_appended", 0) + 1
        is_entry = outgoing.topic.endswith("internal.history") and b"mark" not in (outgoing.key or b"")
        if is_entry and self._appended % 29 == 0:
            self.log(outgoing.topic, outgoing.partition).skip(1)
            return outgoing.partition, self.log(outgoing.topic, outgoing.partition).end - 1
        return super().append(outgoing)


class Drowsy(Owner):
    """Falls asleep over its work."""

    def wake(self) -> None:
        if len(self._fleet.consumed.get((self.lane.pipeline.name, self.partition), [])) < 20:
            super().wake()


class Hasty(Owner):
    """Commits a batch before it is written."""

    def _write(self, latest: int, batch: Batch) -> None:
        for chunk, _ in batch.parts:
            self._fleet.committed[chunk.topic, chunk.partition] = chunk.end
        super()._write(latest, batch)


class Repeating(Owner):
    """Takes what it is given again for new."""

    def __init__(self, fleet: Any, process: Any, lane: Any, owned: Any) -> None:
        for key, value in owned.table._store.heads():
            _, sources, state = owned.head_envelope.decode(key, value)
            forgotten = owned.head_envelope.encode(key, [-1] * len(sources), state)
            owned.table._store._heads[key] = forgotten
        super().__init__(fleet, process, lane, replace(owned, mark=msgspec.structs.replace(owned.mark, consumed={})))


def test_a_worker_that_was_overtaken_and_writes_all_the_same() -> None:
    invariants_broken_by(Parts(broker=Unfenced), "replay equals run")


def test_a_changelog_that_lacks_something() -> None:
    invariants_broken_by(Parts(broker=Leaky), "changelog equals table")


def test_a_worker_that_stops_working() -> None:
    invariants_broken_by(Parts(owner=Drowsy), "at work")


def test_a_commit_before_the_effects() -> None:
    invariants_broken_by(Parts(owner=Hasty), "no lost action")


def test_what_is_delivered_again_is_folded_again() -> None:
    invariants_broken_by(Parts(owner=Repeating), "no effect twice")
