"""A rollback rehearsed on a person's own data: again and again, each time with other faults and other people in between.

Each run is the whole system: the actions are folded, the request is planned, approved and driven through simulated targets that
hold what the file of actual states says. Who approves is always at hand; a rollback that stops for a passing reason is resumed.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Final

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.history.tree import known_value
from reconciler.machines.rollback import Head
from reconciler.plan.estate import estate_of
from reconciler.records import Action, Actor, Approval, Observation, RollbackEvent, RollbackRequest
from reconciler.values.instant import SECOND, Instant
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.partition import partition_of
from streams.simulation.chance import MILLISECOND, Chance
from streams.simulation.estate import Estate
from streams.simulation.people import overwrite
from streams.simulation.simulation import PARTITIONS, Scene, Simulation, Violation
from streams.simulation.targets import leaves
from streams.simulation.weather import RATES
from streams.store.producer import Outgoing

WARM_UP_S: Final = 60
"""From the last action to the request: the log is folded by then."""
BUSY_S: Final = 1_200
QUIET_S: Final = 7_200
_MOST_RESUMES: Final = 5
_MOST_EDITS: Final = 3
_SETTLED: Final = ("completed", "partial", "nothing_to_do", "rejected", "cancelled")

APPROVERS: Final = tuple(Actor(id=f"approver-{number}", kind="user") for number in range(1, 6))

FAULT_LEVELS: Final = {"none": 0.0, "some": 0.5, "many": 1.5}
"""How much of the usual rates of faults there is, and of how many runs in two people edit something."""


class Material(msgspec.Struct, frozen=True):
    """What is rehearsed on."""

    actions: list[Action]
    observations: list[Observation]
    request: RollbackRequest
    contracts: ContractSet
    level: str = "some"


class Rehearsal(msgspec.Struct, frozen=True):
    """What became of one run."""

    seed: int
    status: str
    duration_s: float | None
    """From the request to the end, in the virtual time of the run; None where it came to none."""
    reason: str
    """Why it stopped, where it did."""
    conflicts: list[str]
    """Fields on which somebody would have to decide, as resource and path."""
    blocked: list[str]
    """Operations that can't be undone, with the reason."""
    counts: dict[str, int]
    faults: list[str]
    violations: list[Violation]


def scene_of(material: Material, seed: int) -> Scene:
    """The scene of one run."""
    estate, start = _estate(material)
    rates = _rates(seed, FAULT_LEVELS[material.level])
    return Scene(estate, rates, partial(_plan, material), start, BUSY_S, QUIET_S)


def assumed(material: Material) -> list[str]:
    """The resources of which the files don't say what they hold: they are taken to hold what is expected of them."""
    seen = {item.resource for item in material.observations if item.exists is not None}
    return sorted({action.resource for action in material.actions} - seen)


def _estate(material: Material) -> tuple[Estate, Instant]:
    known = estate_of(material.actions, material.contracts, material.observations)
    initial: dict[str, dict[str, Json]] = {}
    for resource in assumed(material):
        value = known_value(known.histories[resource].tree)
        if isinstance(value, dict):
            initial[resource] = value
    for item in material.observations:
        if item.exists is None:
            continue
        initial.pop(item.resource, None)
        if item.exists:
            initial[item.resource] = item.fields
    resources = sorted({action.resource for action in material.actions} | initial.keys())
    systems = tuple(sorted({parse_resource_key(resource).system for resource in resources}))
    latest = max(
        [action.occurred_at for action in material.actions]
        + [item.observed_at for item in material.observations if item.observed_at is not None]
    )
    return Estate(material.contracts, tuple(resources), initial, systems), latest + SECOND


def _rates(seed: int, level: float) -> dict[str, float]:
    chance = Chance(seed, "rehearsal weather")
    return {kind: rate * level for kind, rate in RATES.items() if chance.hits(0.5)} if level else {}


def _plan(material: Material, simulation: Simulation) -> None:
    """The log as it is, some people's edits, and the request."""
    broker, topics, schedule = simulation.broker, simulation.topics, simulation.schedule
    for action in material.actions:
        value = simulation.codec.encode(topics.actions, action)
        timestamp_ms = action.occurred_at // MILLISECOND
        broker.append(Outgoing(topics.actions, action.resource.encode(), value, timestamp_ms=timestamp_ms))
    asked_at = schedule.now + WARM_UP_S * SECOND
    attendant = Attendant(material, simulation)
    schedule.at(asked_at, attendant.request)
    if material.level != "none":
        chance = Chance(simulation.seed, "rehearsal people")
        edits = chance.below(1 + _MOST_EDITS) if chance.hits(FAULT_LEVELS[material.level] / 2) else 0
        for number in range(1, 1 + edits):
            instant = asked_at + chance.duration(-WARM_UP_S / 2, 120)
            simulation.plan(f"edit#{number}", instant, partial(_edit, simulation))
        for number in range(1, 1 + chance.below(3)):
            instant = asked_at + chance.duration(-WARM_UP_S / 2, 120)
            simulation.plan(f"rebalance#{number}", instant, simulation.fleet.move)


def _edit(simulation: Simulation, chance: Chance) -> None:
    """A person writes into some field of some record."""
    resource = chance.pick(simulation.estate.resources)
    fields = simulation.hands.target(resource).fields(resource)
    paths = [] if isinstance(fields, Absent) else [path for path, _ in leaves(fields)]
    if paths:
        overwrite(simulation.hands, resource, chance.pick(paths))


class Attendant:
    """Makes the request, gives what consent is asked for, and resumes what stopped without a conflict."""

    def __init__(self, material: Material, simulation: Simulation) -> None:
        self._simulation = simulation
        self._first = msgspec.structs.replace(
            material.request,
            verb="request",
            mode="execute",
            requested_by=material.request.requested_by or Actor(id="rehearsal", kind="user"),
            approvals=[],
        )
        self._resumes = 0
        self._number = 0
        simulation.broker.listen(simulation.topics.rollback_events, self._on_event)

    def request(self) -> None:
        """Asks for the rollback."""
        self._say(self._first)

    def _on_event(self, partition: int) -> None:
        simulation = self._simulation
        event = simulation.codec.decode(
            simulation.broker.log(simulation.topics.rollback_events, partition).records[-1].value
        )
        assert isinstance(event, RollbackEvent)
        simulation.trace.add("rollback", "{} is {} ({})", event.rollback_id, event.status, event.error or event.reason)
        if event.status == "needs_approval" and event.plan_hash is not None and event.plan is not None:
            simulation.schedule.after(5 * SECOND, partial(self._approve, event))
        elif event.status == "halted" and not event.counts.get("conflicts") and self._resumes < _MOST_RESUMES:
            self._resumes += 1
            simulation.schedule.after(30 * SECOND, self._resume)

    def _approve(self, event: RollbackEvent) -> None:
        roles = sorted(
            {
                role
                for contract in self._simulation.estate.contracts.contracts
                for rule in contract.approvals
                for role in rule.roles
            }
        )
        for approver in APPROVERS[: max(1, event.approvals_needed)]:
            approval = Approval(by=approver, roles=roles, plan_hash=event.plan_hash)
            self._say(
                RollbackRequest(
                    rollback_id=event.rollback_id,
                    verb="approve",
                    requested_by=approver,
                    roles=roles,
                    approvals=[approval],
                    plan_hash=event.plan_hash,
                )
            )

    def _resume(self) -> None:
        first = self._first
        self._say(
            RollbackRequest(
                rollback_id=first.rollback_id, verb="resume", requested_by=first.requested_by, roles=first.roles
            )
        )

    def _say(self, request: RollbackRequest) -> None:
        simulation = self._simulation
        self._number += 1
        request = msgspec.structs.replace(
            request, request_id=f"rehearsal-{self._number}", requested_at=simulation.schedule.now
        )
        simulation.trace.add("people", "{} {}", request.verb, request.rollback_id)
        topic = simulation.topics.rollback_requests
        value = simulation.codec.encode(topic, request)
        simulation.broker.send("people", Outgoing(topic, request.rollback_id.encode(), value))


def told(material: Material, simulation: Simulation, violations: list[Violation]) -> Rehearsal:
    """What became of a run that is over."""
    rollback_id = material.request.rollback_id
    events = [
        event
        for _, record in simulation.broker.records(simulation.topics.rollback_events)
        if isinstance(event := simulation.codec.decode(record.value), RollbackEvent)
    ]
    state = simulation.fleet.state("rollbacks", partition_of(rollback_id.encode(), PARTITIONS), rollback_id)
    status = state.status if isinstance(state, Head) and state.request is not None else "never begun"
    conflicts = [
        f"{resource}{item.path}"
        for resource, items in sorted(simulation.conflicts_of(rollback_id).items())
        for item in items
    ]
    last = events[-1] if events else None
    return Rehearsal(
        seed=simulation.seed,
        status=status,
        duration_s=_duration_s(simulation, events),
        reason=_reason(simulation, state, last),
        conflicts=conflicts,
        blocked=_blocked(events),
        counts={} if last is None else last.counts,
        faults=list(simulation.faults.struck),
        violations=violations,
    )


def _duration_s(simulation: Simulation, events: list[RollbackEvent]) -> float | None:
    ends = [event.occurred_at for event in events if event.status in _SETTLED]
    asked_at = simulation.scene.start + WARM_UP_S * SECOND
    return (ends[-1] - asked_at) / SECOND if ends else None


def _reason(simulation: Simulation, state: object, last: RollbackEvent | None) -> str:
    if isinstance(state, Head) and state.halted_for:
        return state.halted_for
    if last is not None:
        return last.error or _incomplete(last)
    refusals = [record for _, record in simulation.broker.records(simulation.topics.dead_letters)]
    texts = [
        record.header("__dlq.errors.message") or ""
        for record in refusals
        if record.header("__dlq.errors.topic") == simulation.topics.rollback_requests
    ]
    return f"The request was refused: {texts[0]}" if texts else ""


def _incomplete(last: RollbackEvent) -> str:
    """What is left, in numbers, of a rollback that ended without being complete."""
    names = ("blocked", "failed", "contradicted", "conflicts", "late")
    left = [f"{last.counts[name]} {name}" for name in names if last.counts.get(name)]
    return ", ".join(left) if left or last.status != "partial" else "what others had changed was kept"


def _blocked(events: list[RollbackEvent]) -> list[str]:
    blocked: list[str] = []
    for event in events:
        items = (event.plan or {}).get("blocked", ABSENT)
        if isinstance(items, list) and items:
            blocked = [f"{item['operation_id']}: {item['reason']}" for item in items if isinstance(item, dict)]
    return blocked


def faults_of(rehearsal: Rehearsal) -> Collection[str]:
    """The kinds of faults that struck."""
    return sorted({name.partition("#")[0] for name in rehearsal.faults})
