"""One simulation: a world is put together, lives through its busy time and a quiet time after it, and is judged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.machines.head import Head
from reconciler.machines.resource import ResourceMachine
from reconciler.machines.rollback import RollbackMachine
from reconciler.records import StepConflict
from reconciler.values.instant import SECOND, Instant
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire.codec import Codec
from reconciler.wire.partition import partition_of
from reconciler.wire.topics import TopicNames
from streams.runner.effects import TopicEffects
from streams.runner.pipeline import resource_pipeline, rollback_pipeline
from streams.settings import Settings
from streams.simulation.broker import Broker
from streams.simulation.chance import Chance, Faults
from streams.simulation.estate import Estate, make_estate
from streams.simulation.gathering import Gatherer
from streams.simulation.people import Hands, Rival, Run, decide_drift, edit, insist
from streams.simulation.requesting import Requester, conflicts_in
from streams.simulation.sampling import Sampler
from streams.simulation.schedule import BEGINNING, Schedule
from streams.simulation.targets import NOBODY, Service, SimTarget
from streams.simulation.trace import Trace
from streams.simulation.weather import rates_of
from streams.simulation.witnessing import Witness
from streams.simulation.workers import Fleet, Lane, Owner

PARTITIONS: Final = 2
_CACHE_MAX_BYTES: Final = 4 << 10
_BATCH_MAX_BYTES: Final = 2 << 10
"""Little of both, so that heads are often read again and batches often end before what they were given."""
BUSY_S: Final = 1_800
QUIET_S: Final = 3_000
"""After the last fault, until everything must have come to rest: longer than any retry, backoff or late copy of a record."""


@dataclass(frozen=True)
class Parts:
    """What a simulation is made of. Tests put broken parts in, to see that they are found out."""

    machine: Callable[[ContractSet], ResourceMachine] = ResourceMachine
    rollback_machine: Callable[[ContractSet, int], RollbackMachine] = RollbackMachine
    target: type[SimTarget] = SimTarget
    broker: type[Broker] = Broker
    owner: type[Owner] = Owner


@dataclass(frozen=True)
class Scene:
    """Where a simulation takes place, what may fail there, and what is done."""

    estate: Estate
    rates: Mapping[str, float]
    plan: Callable[[Simulation], object]
    """Plans what workflows and people do."""
    start: Instant = BEGINNING
    busy_s: float = BUSY_S
    quiet_s: float = QUIET_S


class Violation(msgspec.Struct, frozen=True):
    """An invariant that doesn't hold."""

    invariant: str
    message: str


class Verdict(msgspec.Struct, frozen=True):
    """What became of a simulation."""

    seed: int
    digest: str
    """Of all records of all topics: two runs that have it alike were alike in every byte."""
    violations: list[Violation]
    faults: list[str]
    """What struck and happened, by name, in order."""
    counts: dict[str, int]

    @property
    def is_good(self) -> bool:
        return not self.violations


class Simulation:
    """A world under a seed."""

    def __init__(
        self,
        seed: int,
        only: Collection[str] | None = None,
        parts: Parts | None = None,
        scene: Scene | None = None,
    ) -> None:
        parts = parts or Parts()
        scene = scene or scene_of(seed)
        self.seed = seed
        self.scene = scene
        self.schedule = Schedule(scene.start)
        self.faults = Faults(seed, scene.rates, only)
        self.trace = Trace(self.schedule)
        self.estate = scene.estate
        self.topics = TopicNames()
        self.codec = packaged_codec()
        self.broker = parts.broker(self.schedule, self.faults, self.trace, seed, PARTITIONS)
        self.machine = parts.machine(self.estate.contracts)
        self.targets = {
            name: parts.target(name, self.schedule, self.faults, self.trace) for name in self.estate.systems
        }
        for resource, fields in self.estate.initial.items():
            self.targets[parse_resource_key(resource).system].put(resource, fields, NOBODY)
        self.services = [
            Service(target, self.broker, self.codec, self.topics, self.schedule, self.faults, self.trace, seed)
            for target in self.targets.values()
        ]
        self.sampler = Sampler(
            schedule=self.schedule,
            broker=self.broker,
            codec=self.codec,
            topic=self.topics.observations,
            contracts=self.estate.contracts,
            targets=self.targets,
            trace=self.trace,
            seed=seed,
        )
        self.gatherer = Gatherer(
            schedule=self.schedule,
            faults=self.faults,
            trace=self.trace,
            broker=self.broker,
            codec=self.codec,
            topics=self.topics,
            contracts=self.estate.contracts,
            seed=seed,
        )
        self.fleet = self._fleet(parts)
        self.hands = Hands(
            schedule=self.schedule,
            faults=self.faults,
            trace=self.trace,
            broker=self.broker,
            codec=self.codec,
            topics=self.topics,
            estate=self.estate,
            targets=self.targets,
            head_of=self.head_of,
        )
        Rival(self.hands, self.estate.systems)
        self.requester = Requester(self.hands, self.conflicts_of, seed)
        self.witness = Witness(
            broker=self.broker,
            codec=self.codec,
            topics=self.topics,
            targets=self.targets,
            entries_of=self.rollback_entries,
        )

    def _fleet(self, parts: Parts) -> Fleet:
        chance = Chance(self.seed, "installation")
        effects = TopicEffects(self.codec, self.topics, lambda _topic: True)
        return Fleet(
            schedule=self.schedule,
            faults=self.faults,
            trace=self.trace,
            broker=self.broker,
            codec=self.codec,
            settings=settings(),
            lanes=[
                Lane(resource_pipeline(self.machine, self.topics), effects),
                Lane(
                    rollback_pipeline(parts.rollback_machine(self.estate.contracts, PARTITIONS), self.topics), effects
                ),
            ],
            seed=self.seed,
            workers=chance.pick((1, 2, 2, 3)),
            is_compacted=chance.hits(0.5),
            on_touched=self.sampler.on_touched,
            on_moved=self._on_moved,
            owner_type=parts.owner,
        )

    def _on_moved(self, owner: Owner) -> None:
        self.sampler.on_moved(owner)
        self.gatherer.on_moved(owner)

    def conflicts_of(self, rollback_id: str) -> dict[str, list[StepConflict]]:
        """The conflicts of a rollback that nobody has decided yet; none where nobody owns it just now."""
        return conflicts_in(self.rollback_entries(rollback_id))

    def rollback_entries(self, rollback_id: str) -> dict[str, bytes]:
        """What the table keeps of a rollback beside its head; nothing where nobody owns it just now."""
        owner = self.fleet.owner("rollbacks", partition_of(rollback_id.encode(), PARTITIONS))
        return {} if owner is None else dict(owner.table.history.of(rollback_id.encode()).entries())

    def head_of(self, resource: str) -> Head | None:
        """A resource's head as people see it; None where nobody owns it just now, or knows it."""
        state = self.fleet.state("resources", partition_of(resource.encode(), PARTITIONS), resource)
        return state if isinstance(state, Head) else None

    def counts(self) -> dict[str, int]:
        """How much there was of what."""
        topics = self.topics
        of = {
            "actions": topics.actions,
            "observations": topics.observations,
            "drift events": topics.drift,
            "outcomes": topics.outcomes,
            "rollback events": topics.rollback_events,
            "alerts": topics.alerts,
            "dead letters": topics.dead_letters,
        }
        return {name: sum(1 for _ in self.broker.records(topic)) for name, topic in of.items()}

    # -- what happens

    def live(self) -> None:
        """The busy time with all that was planned for it, then the quiet time."""
        self.scene.plan(self)
        end = self.schedule.now + int(self.scene.busy_s * SECOND)
        self.schedule.run(end)
        self.faults.is_over = True
        self.trace.add("simulation", "from here on nothing fails any more")
        self.schedule.run(end + int(self.scene.quiet_s * SECOND))

    def plan(self, name: str, instant: int, call: Callable[[Chance], object]) -> None:
        """Plans something that has a name, and can be left out by it."""
        detail = self.faults.detail(name)
        if detail is not None:
            self.schedule.at(instant, lambda: call(detail))


def scene_of(seed: int) -> Scene:
    """The scene of a seed: everything in it is made up."""
    return Scene(make_estate(seed), rates_of(seed), _plan_work)


def _plan_work(simulation: Simulation) -> None:
    """Workflows, people and rebalances, spread over the busy time."""
    chance = Chance(simulation.seed, "work")
    start = simulation.schedule.now
    hands = simulation.hands
    kinds: tuple[tuple[str, int, int, float, float, Callable[[int, Chance], object]], ...] = (
        ("run", 2, 7, 0.0, 0.6, lambda number, detail: Run(hands, number, detail)),
        ("edit", 4, 16, 0.0, 1.0, lambda _number, detail: edit(hands, detail)),
        ("insisting", 0, 2, 0.0, 0.7, lambda _number, detail: insist(hands, detail)),
        ("decision", 2, 8, 0.0, 1.0, lambda _number, detail: decide_drift(hands, detail)),
        ("rollback", 0, 3, 0.2, 1.0, simulation.requester.request),
        ("rebalance", 0, 4, 0.0, 1.0, lambda _number, detail: simulation.fleet.move(detail)),
    )
    for kind, least, most, first, last, call in kinds:
        for number in range(1, 1 + least + chance.below(most - least + 1)):
            instant = start + int(BUSY_S * chance.instant(int(first * SECOND), int(last * SECOND)))
            simulation.plan(f"{kind}#{number}", instant, partial(call, number))


@cache
def packaged_codec() -> Codec:
    """The product's codec, with packaged ids."""
    return Codec.packaged()


@cache
def settings() -> Settings:
    """The settings of simulated workers: nothing of the environment is in them."""
    return Settings.model_construct(
        store="memory", partitions=PARTITIONS, cache_max_bytes=_CACHE_MAX_BYTES, batch_max_bytes=_BATCH_MAX_BYTES
    )
