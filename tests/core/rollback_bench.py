"""A rollback machine on a bench: partitions that answer it, resources that carry out its orders, and mail between them.

Every step of the rollback machine begins from its stored bytes, as after a crash, and is made twice. Mail between two
parties keeps its order; whose mail is delivered next is the schedule's choice.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.machines.dossier import dossier_of
from reconciler.machines.head import Head as ResourceHead
from reconciler.machines.protocol import (
    Effect,
    EmitAlert,
    EmitQuery,
    EmitRollback,
    EmitUndoStep,
    Reject,
    RollbackInput,
)
from reconciler.machines.resource import ResourceMachine
from reconciler.machines.rollback import Head, RollbackMachine
from reconciler.machines.rollback.turn import Turn
from reconciler.plan.index import ActionIndex, is_told_later
from reconciler.records import (
    Action,
    Actor,
    Alert,
    Approval,
    Command,
    Gathered,
    GatherQuery,
    Observation,
    RollbackEvent,
    RollbackRequest,
    Selector,
    StepConflict,
    StepReport,
    Timer,
    UndoStep,
)
from reconciler.targets.apply import Refusal, decide
from reconciler.values.instant import SECOND
from reconciler.values.json_value import ABSENT, Absent, Json
from tests.core.histories import make_action
from tests.core.machine_bench import DictHistory

PARTITIONS = 3
ANA = Actor(id="ana@example.com", kind="user")
BO = Actor(id="bo@example.com", kind="user")
CY = Actor(id="cy@example.com", kind="user")

Actual = dict[str, Json] | None


def partition_of(resource: str) -> int:
    return zlib.crc32(resource.encode()) % PARTITIONS


class Bench:
    """An estate with one rollback."""

    def __init__(self, contracts: ContractSet, rollback_id: str = "rb") -> None:
        self.contracts = contracts
        self.rollback_id = rollback_id
        self.now = 1_000 * SECOND
        self.machine = RollbackMachine(contracts, PARTITIONS)
        self.stored = self.machine.encode(self.machine.initial(rollback_id))
        self.history = DictHistory()
        self.resource_machine = ResourceMachine(contracts)
        self.heads: dict[str, ResourceHead] = {}
        self.histories: dict[str, DictHistory] = {}
        self.indexes = [ActionIndex(contracts) for _ in range(PARTITIONS)]
        self.log: list[Action] = []
        self.standing: list[GatherQuery] = []
        self.actual: dict[str, Actual] = {}
        self.mail: dict[str, deque[Callable[[], object]]] = {}
        self.scripts: dict[str, list[str]] = {}
        """What a resource answers to its next orders, instead of doing them: `conflict`, `outdated`, `failed`, …"""
        self.repeats: Callable[[], bool] = lambda: False
        """Whether a report comes a second time, some time later."""
        self.orders: list[UndoStep] = []
        self.taken: set[str] = set()
        self.withdrawn: set[str] = set()
        self.compensated: list[str] = []
        self.events: list[RollbackEvent] = []
        self.alerts: list[Alert] = []
        self.rejects: list[Reject] = []

    # -- the estate

    @property
    def head(self) -> Head:
        head = self.machine.decode(self.rollback_id, self.stored)
        assert isinstance(head, Head)
        return head

    def act(self, action: Action, actual: Actual | Absent = ABSENT) -> None:
        """A workflow's action, and what its target holds afterwards (not given: what its `set` says)."""
        self.now += SECOND
        self._record(action)
        if action.operation != "effect" and action.stage == "succeeded":
            there = self.actual.get(action.resource) or {}
            there = {**there, **{path[1:]: value for path, value in action.set.items()}}
            self.actual[action.resource] = None if action.operation == "delete" else there
        if actual is not ABSENT:
            self.actual[action.resource] = actual

    def _record(self, action: Action) -> None:
        """An action comes to the ledger, and from there to its resource and to standing questions."""
        partition = partition_of(action.resource)
        self.indexes[partition].take(action, len(self.log))
        self.log.append(action)
        head, history = self._resource(action.resource)
        state, effects = self.resource_machine.step(head, action, self.now, history)
        self._keep(action.resource, state, effects)
        for query in self.standing:
            if query.partition == partition and is_told_later(query, action):
                self._post(f"partition {partition}", partial(self._tell_late, query, action))

    def observe(self, resource: str) -> Observation:
        """The resource machine is shown what is there."""
        self.now += SECOND
        there = self.actual.get(resource)
        seen = Observation(resource=resource, exists=there is not None, fields=there or {}, observed_at=self.now)
        head, history = self._resource(resource)
        state, effects = self.resource_machine.step(head, seen, self.now, history)
        self._keep(resource, state, effects)
        return seen

    def observe_all(self) -> None:
        for resource in list(self.heads):
            self.observe(resource)

    def _resource(self, resource: str) -> tuple[ResourceHead, DictHistory]:
        if resource not in self.heads:
            self.heads[resource] = self.resource_machine.initial(resource)
            self.histories[resource] = DictHistory()
        return self.heads[resource], self.histories[resource]

    def _keep(self, resource: str, state: object, effects: tuple[Effect, ...]) -> None:
        assert isinstance(state, ResourceHead)
        self.heads[resource] = state
        self.histories[resource].take(effects)

    # -- people

    def say(self, verb: Any = "request", by: Actor | None = ANA, **fields: Any) -> None:
        """A person speaks, and is heard at once."""
        self.now += SECOND
        given: dict[str, Any] = {"request_id": f"request at {self.now}", "requested_at": self.now}
        self.step(RollbackRequest(rollback_id=self.rollback_id, verb=verb, requested_by=by, **(given | fields)))

    def undo(self, run_id: str = "run", **fields: Any) -> None:
        """Ana wants a run undone, and everything takes its way."""
        self.say("request", select=Selector(run_id=run_id), mode="execute", **fields)
        self.run()

    def approve(self, by: Actor = BO, *roles: str, **fields: Any) -> None:
        approval = Approval(by=by, roles=list(roles))
        self.say("approve", by=by, approvals=[approval], **({"plan_hash": self.plan_hash} | fields))

    @property
    def plan_hash(self) -> str:
        assert self.head.plan is not None
        return self.head.plan.plan_hash

    @staticmethod
    def stranger(number: int) -> Actor:
        """Somebody who had nothing to do with it so far."""
        return Actor(id=f"person-{number}@example.com", kind="user")

    # -- mail

    def run(self, choose: Callable[[int], int] = lambda _: 0, steps: int = 100_000) -> None:
        """Delivers mail until there is none."""
        for _ in range(steps):
            if not self.deliver(choose):
                return
        raise AssertionError("the mail never ends")

    def deliver(self, choose: Callable[[int], int] = lambda _: 0) -> bool:
        """Delivers one piece of mail, of a party that the schedule chooses."""
        waiting = [name for name, box in self.mail.items() if box]
        if not waiting:
            return False
        self.now += SECOND
        self.mail[waiting[choose(len(waiting))]].popleft()()
        for name in [name for name, box in self.mail.items() if not box]:
            del self.mail[name]
        return True

    def _post(self, box: str, deliver: Callable[[], object]) -> None:
        self.mail.setdefault(box, deque()).append(deliver)

    # -- the rollback machine

    def step(self, event: RollbackInput) -> tuple[Effect, ...]:
        """Steps from the stored state, twice, and checks what must hold of every step."""
        before = self.machine.decode(self.rollback_id, self.stored)
        state, effects = self.machine.step(before, event, self.now, self.history)
        assert self.machine.encode(before) == self.stored, "a step changed the state that it was given"
        again, same = self.machine.step(
            self.machine.decode(self.rollback_id, self.stored), event, self.now, self.history
        )
        assert self.machine.encode(again) == self.machine.encode(state)
        assert same == effects
        self.stored = self.machine.encode(state)
        self.history.take(effects)
        for effect in effects:
            self._take(effect)
        self.check()
        return effects

    def check(self) -> None:
        """What holds at any time."""
        head = self.head
        assert all(number > 0 for number in head.counts.values()), head.counts
        if head.status in ("completed", "partial"):
            assert not {"ordered", "sent", "retrying", "applied", "planned"} & head.counts.keys(), head.counts
        sequences = [event.sequence for event in self.events]
        assert sequences == list(range(1, len(sequences) + 1))

    def _check_order(self, order: UndoStep) -> None:
        """What holds of every order: it was agreed to, nobody has cancelled, and nothing is ordered twice."""
        head = self.head
        assert head.plan is not None and head.mode == "execute" and head.status not in ("cancelled", "rejected")
        if order.verb == "withdraw":
            return
        assert head.then is None and head.status == "executing"
        assert order.step_id not in {other.step_id for other in self.orders if other.verb != "withdraw"}
        if not head.plan.is_covered:
            for needed in head.plan.approvals:
                people = {
                    item.by.id
                    for item in head.approvals
                    if item.plan_hash == head.plan.plan_hash and item.by != ANA and item.by.id not in head.deciders
                }
                assert len(people) >= needed.count, "ordered without consent"

    def _take(self, effect: Effect) -> None:
        match effect:
            case EmitQuery(query=query):
                self._post(f"partition {query.partition}", lambda: self._answer(query))
            case EmitUndoStep(step=order):
                self._check_order(order)
                self.orders.append(order)
                self._post(f"orders of {order.resource}", lambda: self._carry_out(order))
            case EmitRollback(event=event):
                self.events.append(event)
            case EmitAlert(alert=alert):
                self.alerts.append(alert)
            case Reject():
                self.rejects.append(effect)

    # -- partitions

    def _answer(self, query: GatherQuery) -> None:
        if query.standing:
            self.standing.append(query)
        found = self.indexes[query.partition].matches(query)
        self._tell(query, found.operations, found.resources)

    def _tell_late(self, query: GatherQuery, action: Action) -> None:
        self._tell(query, [action.operation_id], [action.resource], is_late=True)

    def _tell(self, query: GatherQuery, operations: list[str], resources: list[str], *, is_late: bool = False) -> None:
        index = self.indexes[query.partition]
        dossiers = [
            dossier_of(self.heads[name], self.histories[name], query.partition, index.offsets_of(name))
            for name in resources
        ]
        pieces = [dossiers[start : start + 2] for start in range(0, len(dossiers), 2)] or [[]]
        for part, piece in enumerate(pieces, 1):
            answer = Gathered(
                rollback_id=self.rollback_id,
                round=query.round,
                partition=query.partition,
                part=part,
                parts=len(pieces),
                complete_up_to=len(self.log),
                matched=operations if part == 1 else [],
                dossiers=piece,
                is_late=is_late,
                occurred_at=self.now,
            )
            self._post(f"answers of {query.partition}", partial(self.step, answer))

    # -- resources, as far as a script of theirs doesn't say otherwise

    def _carry_out(self, order: UndoStep) -> None:
        if order.verb == "withdraw":
            if order.step_id not in self.taken:
                self.withdrawn.add(order.step_id)
                self.report(order, "withdrawn")
            return
        self._post(f"work of {order.resource}", lambda: self._work(order))

    def _work(self, order: UndoStep) -> None:
        if order.step_id in self.taken or order.step_id in self.withdrawn:
            return
        self.taken.add(order.step_id)
        script = self.scripts.get(order.resource)
        if script and not isinstance(self._applied(order), Refusal):
            for status in script.pop(0).split():
                self.report(order, status)
                if status == "applied":
                    self._undo(order)
            return
        if order.verb == "compensate":
            assert order.action_id is not None
            self.compensated.append(order.action_id)
            self._undo(order)
            for status in ("sent", "applied"):
                self.report(order, status)
            return
        if isinstance(self._applied(order), Refusal):
            there = (self.actual.get(order.resource) or {}).get("phone", ABSENT)
            self.report(order, "conflict", conflicts=[StepConflict(path="/phone", actual=there)])
            return
        self._undo(order)
        for status in ("sent", "applied", "verified") if order.planned_action else ("unchanged",):
            self.report(order, status)

    def _undo(self, order: UndoStep) -> None:
        """Writes the target, and what was undone into the history."""
        if order.verb == "undo" and order.planned_action is not None:
            after = self._applied(order)
            assert not isinstance(after, Refusal), after
            self.actual[order.resource] = None if isinstance(after, Absent) else after
        for name in order.operations:
            undo = make_action(
                len(self.log) + 1,
                stage="reversed",
                operation_id=name,
                run_id=self.rollback_id,
                step_id="undo",
                resource=order.resource,
                reverses=order.action_id,
                action_id=f"{order.step_id} {name}",
            )
            self.act(undo)
        self.observe(order.resource)

    def _applied(self, order: UndoStep) -> dict[str, Json] | Absent | Refusal:
        """What the target would hold."""
        there = self.actual.get(order.resource)
        current = ABSENT if there is None else there
        if order.planned_action is None:
            return current
        command = Command(
            command_id=order.step_id,
            resource=order.resource,
            action=order.planned_action,
            changes=order.planned,
            expect_exists=order.planned_action != "create",
        )
        return decide(current, None, command)

    def report(self, order: UndoStep, status: Any, **fields: Any) -> None:
        """A resource reports to the rollback."""
        number = fields.pop("number", len(self.log))
        report = StepReport(
            report_id=f"{order.step_id} {status} {number}",
            rollback_id=self.rollback_id,
            step_id=order.step_id,
            resource=order.resource,
            status=status,
            occurred_at=self.now,
            **fields,
        )
        for _ in range(2 if self.repeats() else 1):
            self._post(f"reports of {order.resource}", partial(self.step, report))

    # -- time

    def tick(self) -> None:
        """Lets the time pass until the rollback wants to be reminded, and reminds it."""
        due = self.machine.due_at(self.head)
        assert due is not None
        self.now = max(self.now, due)
        self.step(Timer(resource=self.rollback_id, due_at=due))

    def open_conflicts(self, resource: str) -> list[StepConflict]:
        """The conflicts of a record that the rollback waits to see decided."""
        return Turn(self.head, self.now, self.history, self.contracts, PARTITIONS).conflicts(resource)

    @property
    def statuses(self) -> list[str]:
        """The statuses as they were published, each once in a row."""
        statuses: list[str] = []
        for event in self.events:
            if not statuses or statuses[-1] != event.status:
                statuses.append(event.status)
        return statuses

    @property
    def said(self) -> list[str]:
        """Why requests and records were refused."""
        return [reject.reason for reject in self.rejects]


def wrote(number: int, resource: str, *, after: Iterable[int] = (), **fields: Any) -> Action:
    """A step of `run` that wrote a phone."""
    given: dict[str, Any] = {
        "before": {"/phone": "1"},
        "set": {"/phone": "2"},
        "depends_on": [f"run/step-{needed}" for needed in after],
    }
    return make_action(number, resource=resource, **(given | fields))


def undone(bench: Bench, *resources: str) -> bool:
    """Whether the phones of all these are what they were."""
    return all((bench.actual[name] or {}).get("phone") == "1" for name in resources)


__all__ = ["ANA", "BO", "CY", "PARTITIONS", "Bench", "msgspec", "partition_of", "undone", "wrote"]
