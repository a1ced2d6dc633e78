"""What a resource machine does for rollbacks, on random histories of simulated targets, under whatever may go wrong."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reconciler.contracts.model import Contract, ContractSet, CreateUndo, DeleteUndo, Existence, FieldRule, Undo
from reconciler.drift.compare import compare
from reconciler.history.tree import equal
from reconciler.machines.head import history_of
from reconciler.machines.protocol import Effect, Event
from reconciler.machines.resource import ResourceMachine
from reconciler.machines.undo_decision import Acceptance, decide_undo
from reconciler.plan.commands import undo_command
from reconciler.plan.undo import undo_resource
from reconciler.records import Command, FieldDrift, Observation, Outcome, Timer, UndoStep
from reconciler.values.instant import SECOND
from reconciler.values.json_value import Absent, Json, same
from reconciler.values.pointer import Tokens, tokens_of
from tests.core.dice import Dice
from tests.core.histories import RESOURCE
from tests.core.machine_bench import Bench, DictHistory, commands, drifts, reports, reversals
from tests.core.oracle import Refused, obeyed, put, writes
from tests.core.worlds import World, observed, worlds

few = settings(max_examples=50)  # each is a life of its own, a hundred times as long as an example of other properties

STRATEGIES: list[Any] = ["manual", "expected_wins", "actual_wins", "latest_wins"]
LONG_AFTER = 1_000_000


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Contracts that put everything right at once, and leave undos to whatever strategy."""
    dice = Dice(draw)

    def rule() -> FieldRule:
        kind: Any = dice.pick([None, None, None, "map", "counter", "set"])
        conflict: Any = "merge" if kind is not None else dice.pick(STRATEGIES)
        return FieldRule(drift="correct", confirm=1, conflict=conflict, kind=kind)

    fields = {"/*": FieldRule(drift="correct", confirm=1, conflict=dice.pick(STRATEGIES)), "/a": rule(), "/b": rule()}
    archive = CreateUndo(by="archive", set={"/status": "archived"})
    return Contract(
        name="crm/contact",
        fields=fields,
        conflict_scope=dice.pick(["resource", "field"]),
        existence=Existence(missing="correct", unexpected="correct"),
        undo=Undo(create=dice.pick([CreateUndo(), CreateUndo(), archive, CreateUndo(by="keep")]), delete=DeleteUndo()),
    )


class Scene:
    """A bench with a target that does what the machine's commands say."""

    def __init__(self, contract: Contract, world: World) -> None:
        self.contract = contract
        self.bench = Bench(contract)
        self.actual: Json | Absent = world.actual
        self.second = LONG_AFTER
        for action in world.actions:
            self.bench.at(action.occurred_at / SECOND, action)

    def order(self, operations: list[str], step_id: str = "step", rollback_id: str = "rb") -> UndoStep | None:
        """What a rollback orders, planned on what is there; None where it wouldn't order anything."""
        history = history_of(self.bench.head, self.bench.history, self.contract)
        numbers = {
            number for number in history.numbers_of(*operations) if history.entry(number).action.operation != "effect"
        }
        undo = undo_resource(history, numbers, self.observation())
        if not numbers or undo.is_kept or undo.is_held:
            return None
        command = undo_command(undo, rollback_id, "Why.")
        return UndoStep(
            step_id=step_id,
            rollback_id=rollback_id,
            resource=RESOURCE,
            operations=operations,
            numbers=sorted(numbers),
            planned=[] if command is None else command.changes,
            planned_action=None if command is None else command.action,
            contract=self.contract.digest,
            reason="Why.",
            occurred_at=self.second * SECOND,
        )

    def observation(self) -> Observation:
        return observed(self.actual, self.second)

    def later(self, seconds: int = 100) -> int:
        self.second += seconds
        return self.second

    def observe(self) -> tuple[Effect, ...]:
        return self.bench.at(self.later(), self.observation())

    def drift(self) -> list[FieldDrift]:
        return compare(self.bench.head.tree, self.observation(), self.contract)[1]

    def carry_out(self, effects: tuple[Effect, ...], seen: bool) -> tuple[Effect, ...]:
        """The target does what the command among the effects says, and its service answers."""
        (command,) = commands(effects)
        self.actual = obeyed(self.actual, command)
        more = {"observed": self.observation()} if seen else {}
        return self.bench.outcome(self.later(1), "applied", **more)


def touched_by(scene: Scene, order: UndoStep) -> list[Tokens]:
    history = history_of(scene.bench.head, scene.bench.history, scene.contract)
    decided = decide_undo(history, order, scene.observation())
    return decided.touched if isinstance(decided, Acceptance) else []


def ours(changes: list[FieldDrift], before: list[FieldDrift], places: list[Tokens]) -> list[FieldDrift]:
    """The drift that is near what an undo touched; but not that of an object above it, which drifted before and still does."""
    return [
        change
        for change in changes
        if any(
            _overlap(tokens_of(change.path), place)
            and not (len(place) > len(tokens_of(change.path)) and _is_known(change, before))
            for place in places
        )
    ]


def _is_known(change: FieldDrift, before: list[FieldDrift]) -> bool:
    return any(item.path == change.path and same(item.actual, change.actual) for item in before)


def _overlap(one: Tokens, other: Tokens) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


@st.composite
def scenes(draw: st.DrawFn, externals: bool = True) -> tuple[Scene, list[str]]:
    world = draw(worlds(max_size=4, telling=("written", "whole"), externals=externals))
    scene = Scene(draw(contracts()), world)
    operations = draw(st.lists(st.sampled_from(world.operations), min_size=1, unique=True))
    return scene, operations


@few
@given(scenes(), st.booleans())
def test_what_an_undo_leaves_is_nobodys_drift(case: tuple[Scene, list[str]], seen: bool) -> None:
    """Rule 10: whatever was undone or kept, what the target now holds there opens no drift, and is corrected by nothing."""
    scene, operations = case
    order = scene.order(operations)
    assume(order is not None)
    assert order is not None
    touched, before = touched_by(scene, order), scene.drift()
    assume(scene.actual != {})  # a target that says so says nothing
    scene.bench.at(scene.second, order)
    effects = scene.observe()
    told = [report.status for report in reports(effects)]
    assert told in (["sent"], ["unchanged"], ["conflict"], ["outdated"]), told
    if told == ["sent"]:
        scene.carry_out(effects, seen)
    if told in (["sent"], ["unchanged"]):
        assert not ours(scene.drift(), before, touched)
    for _ in range(3):
        effects = scene.observe()
        assert all(report.status == "verified" for report in reports(effects))
        for event in drifts(effects):
            assert not ours(event.changes, before, touched)
        for command in commands(effects):
            assert {change.path for change in command.changes} <= {change.path for change in before}


@few
@given(scenes(), st.sampled_from(["permanent", "rejected"]), st.booleans())
def test_a_refused_undo_never_fires_later(case: tuple[Scene, list[str]], status: str, again: bool) -> None:
    scene, operations = case
    order = scene.order(operations)
    assume(order is not None)
    assert order is not None
    tree, before = scene.bench.head.tree, scene.drift()
    scene.bench.at(scene.second, order)
    effects = scene.observe()
    assume(commands(effects))
    told = reports(scene.bench.outcome(scene.later(1), status, error="no"))
    assert [report.status for report in told] == ["failed"]
    assert equal(scene.bench.head.tree, tree)
    assert scene.drift() == before
    history = history_of(scene.bench.head, scene.bench.history, scene.contract)
    assert set(order.numbers) <= history.numbers_of(*operations)
    if again:
        assert not scene.bench.at(scene.later(), order)
    for _ in range(3):
        effects = scene.observe()
        assert not reports(effects)
        if not before:
            assert not commands(effects) and not drifts(effects)


@few
@given(scenes(externals=False))
def test_an_undo_that_is_undone_puts_back_what_was_there(case: tuple[Scene, list[str]]) -> None:
    scene, operations = case
    assume(scene.contract.undo.create.by == "delete")  # else what is kept or archived stays so
    actual, tree = scene.actual, scene.bench.head.tree
    order = scene.order(operations)
    assume(order is not None)
    assert order is not None
    scene.bench.at(scene.second, order)
    effects = scene.observe()
    assume(commands(effects))
    scene.carry_out(effects, seen=True)
    adopted = any(
        entry.is_adoption for entry in history_of(scene.bench.head, scene.bench.history, scene.contract).entries
    )
    assume(not adopted)
    scene.later()
    redo = scene.order(["rb/undo"], "redo", "rb-2")
    assert redo is not None
    scene.bench.at(scene.second, redo)
    effects = scene.observe()
    assert [report.status for report in reports(effects)] == ["sent"]
    scene.carry_out(effects, seen=True)
    assert equal(scene.bench.head.tree, tree)
    assert same(scene.actual, actual)


# -- whatever happens


class Course:
    """A machine's life in the making: what happens next depends on what it said."""

    def __init__(self, dice: Dice, contract: Contract, world: World) -> None:
        self._dice = dice
        self._scene = Scene(contract, World(base=world.base, actual=world.base))
        self._names = [*world.operations, *world.operations, "rb/undo"]
        self._actions = list(world.actions)
        self._outcomes: list[Outcome] = []
        self._steps = 0
        self.events: list[tuple[int, Event]] = []

    def go_on(self) -> None:
        """Something happens: an action, an order, a withdrawal, an outcome, a reminder, an observation, or something again."""
        dice, scene = self._dice, self._scene
        head = scene.bench.head
        if self._outcomes and dice.one_in(2):
            self._happen(self._outcomes.pop(0))
            return
        match dice.below(8):
            case 0 | 1 if self._actions:
                action = self._actions.pop(0)
                for tokens, value in [] if action.stage == "reversed" else writes(action):
                    scene.actual = put(scene.actual, tokens, value)
                self._happen(action)
            case 2 | 3 if head.entries:
                self._order()
            case 4 if head.steps and dice.one_in(3):
                self._happen(msgspec.structs.replace(head.steps[0].order, verb="withdraw"))
            case 5 if self.events:
                _, event = dice.pick(self.events)
                if not isinstance(event, Observation):
                    self._happen(event)
            case 6 if dice.one_in(3):
                due = scene.bench.machine.due_at(head)
                if due is not None:
                    scene.second = max(scene.second, due // SECOND)
                    self._happen(Timer(resource=RESOURCE, due_at=due))
            case _:
                if dice.one_in(8):
                    scene.actual = put(scene.actual, dice.place(scene.actual), dice.value())
                self._happen(scene.observation())

    def _order(self) -> None:
        self._steps += 1
        step = self._scene.order([self._dice.pick(self._names)], f"step-{self._steps}")
        if step is not None:
            self._happen(step)

    def _happen(self, event: Event) -> None:
        now = self._scene.later(self._dice.pick([1, 5, 40]))
        if isinstance(event, Observation):
            event = msgspec.structs.replace(event, observed_at=now * SECOND)
        self.events.append((now, event))
        effects = self._scene.bench.at(now, event)
        for command in commands(effects):
            self._answer(command)
        for action in reversals(effects):
            if self._dice.one_in(2):
                self._actions.insert(0, action)

    def _answer(self, command: Command) -> None:
        if self._dice.one_in(4):
            return
        scene = self._scene
        status: Any = self._dice.pick(["applied", "applied", "applied", "conflict", "transient", "permanent"])
        if status == "applied":
            try:
                scene.actual = obeyed(scene.actual, command)
            except Refused:
                status = "conflict"
        self._outcomes.append(
            Outcome(
                command_id=command.command_id,
                resource=RESOURCE,
                status=status,
                occurred_at=scene.second * SECOND,
                observed=scene.observation() if self._dice.one_in(2) else None,
            )
        )


@st.composite
def courses(draw: st.DrawFn) -> tuple[Contract, list[tuple[int, Event]]]:
    """A contract, and all that happens in a machine's life under it."""
    dice = Dice(draw)
    contract = draw(contracts())
    world = draw(worlds(max_size=4, telling=("written", "whole", "nothing"), externals=True))
    course = Course(dice, contract, world)
    for _ in range(15 + dice.below(25)):
        course.go_on()
    return contract, course.events


def lived(contract: Contract, events: list[tuple[int, Event]]) -> tuple[bytes, dict[str, bytes], list[Effect]]:
    """A machine's life without a bench: its head, its history and its effects."""
    machine, history = ResourceMachine(ContractSet((contract,))), DictHistory()
    state: object = machine.initial(RESOURCE)
    all_effects: list[Effect] = []
    for now, event in events:
        state, effects = machine.step(state, event, now * SECOND, history)
        history.take(effects)
        all_effects += effects
    return machine.encode(state), history.stored, all_effects


@few
@given(courses())
def test_the_same_events_give_the_same_bytes_and_the_same_ids(
    case: tuple[Contract, list[tuple[int, Event]]],
) -> None:
    contract, events = case
    assert lived(contract, events) == lived(contract, events)


@few
@given(courses())
def test_what_is_said_comes_with_ids_of_its_own(case: tuple[Contract, list[tuple[int, Event]]]) -> None:
    """No two different reports, reversals or commands share an id; only a command sent again has that of before."""
    contract, events = case
    effects = tuple(lived(contract, events)[2])
    ids = [report.report_id for report in reports(effects)]
    assert len(ids) == len(set(ids))
    actions = [action.action_id for action in reversals(effects)]
    assert len(actions) == len(set(actions))
    sent = [(command.command_id, command.attempt) for command in commands(effects)]
    assert len(sent) == len(set(sent))


@few
@given(courses())
def test_the_head_is_what_its_own_history_folds_to(case: tuple[Contract, list[tuple[int, Event]]]) -> None:
    contract, events = case
    machine, history = ResourceMachine(ContractSet((contract,))), DictHistory()
    head: Any = machine.initial(RESOURCE)
    for now, event in events:
        head, effects = machine.step(head, event, now * SECOND, history)
        history.take(effects)
        whole = history_of(head, history, contract)
        assert equal(whole.tree, head.tree)
        assert (whole.last_number, sorted(whole.undone)) == (head.entries, head.undone)


@few
@given(courses())
def test_records_that_come_twice_change_nothing(case: tuple[Contract, list[tuple[int, Event]]]) -> None:
    """Actions, orders, outcomes and observations, each told twice running."""
    contract, events = case
    doubled = [item for item in events for _ in range(2)]
    once, twice = lived(contract, events), lived(contract, doubled)
    assert once[1] == twice[1]
    assert [effect for effect in once[2] if not _is_refusal(effect)] == [
        effect for effect in twice[2] if not _is_refusal(effect)
    ]


def _is_refusal(effect: Effect) -> bool:
    return type(effect).__name__ == "Reject"


@few
@given(courses())
def test_a_step_that_is_over_is_told_once(case: tuple[Contract, list[tuple[int, Event]]]) -> None:
    contract, events = case
    told: dict[str, list[str]] = {}
    for report in reports(tuple(lived(contract, events)[2])):
        told.setdefault(report.step_id, []).append(report.status)
    for statuses in told.values():
        ends = [status for status in statuses if status not in ("sent", "retrying", "verified", "contradicted")]
        assert len(ends) <= 1, statuses
        seen = [status for status in statuses if status in ("verified", "contradicted")]
        assert len(seen) <= 1 and (not seen or "applied" in statuses), statuses
