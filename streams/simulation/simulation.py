"""One simulation: a world is put together, lives through its busy time and a quiet time after it, and is judged."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

import msgspec

from reconciler.contracts.model import ContractSet
from reconciler.machines.head import Head
from reconciler.machines.resource import ResourceMachine
from reconciler.machines.rollback import RollbackMachine
from reconciler.records import StepConflict
from reconciler.values.instant import SECOND
from reconciler.wire.codec import Codec
from reconciler.wire.partition import partition_of
from reconciler.wire.topics import TopicNames
from streams.runner.effects import TopicEffects
from streams.runner.pipeline import resource_pipeline, rollback_pipeline
from streams.settings import Settings
from streams.simulation.broker import Broker
from streams.simulation.chance import Chance, Faults
from streams.simulation.estate import SYSTEMS, Estate, make_estate
from streams.simulation.gathering import Gatherer
from streams.simulation.people import Hands, Rival, Run, decide_drift, edit, insist
from streams.simulation.requesting import Requester, conflicts_in
from streams.simulation.sampling import Sampler
from streams.simulation.schedule import Schedule
from streams.simulation.targets import NOBODY, Service, SimTarget
from streams.simulation.trace import Trace
from streams.simulation.weather import rates_of
from streams.simulation.workers import Fleet, Lane, Owner

PARTITIONS: Final = 2
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

    def __init__(self, seed: int, only: Collection[str] | None = None, parts: Parts | None = None) -> None:
        parts = parts or Parts()
        self.seed = seed
        self.schedule = Schedule()
        self.faults = Faults(seed, rates_of(seed), only)
        self.trace = Trace(self.schedule)
        self.estate: Estate = make_estate(seed)
        self.topics = TopicNames()
        self.codec = packaged_codec()
        self.broker = parts.broker(self.schedule, self.faults, self.trace, seed, PARTITIONS)
        self.machine = parts.machine(self.estate.contracts)
        self.targets = {name: parts.target(name, self.schedule, self.faults, self.trace) for name in SYSTEMS}
        for resource, fields in self.estate.initial.items():
            self.targets[resource.partition("/")[0]].put(resource, fields, NOBODY)
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
        Rival(self.hands, SYSTEMS)
        self.requester = Requester(self.hands, self.conflicts_of, seed)

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
        owner = self.fleet.owner("rollbacks", partition_of(rollback_id.encode(), PARTITIONS))
        if owner is None or owner.is_over:
            return {}
        return conflicts_in(dict(owner.table.history.of(rollback_id.encode()).entries()))

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
        start = self.schedule.now
        self._plan_work()
        end = start + BUSY_S * SECOND
        self.schedule.run(end)
        self.faults.is_over = True
        self.trace.add("simulation", "from here on nothing fails any more")
        self.schedule.run(end + QUIET_S * SECOND)

    def _plan_work(self) -> None:
        chance = Chance(self.seed, "work")
        start = self.schedule.now
        hands = self.hands
        kinds: tuple[tuple[str, int, int, float, Callable[[int, Chance], object]], ...] = (
            ("run", 2, 7, 0.6, lambda number, detail: Run(hands, number, detail)),
            ("edit", 4, 16, 1.0, lambda _number, detail: edit(hands, detail)),
            ("insisting", 0, 2, 0.7, lambda _number, detail: insist(hands, detail)),
            ("decision", 2, 8, 1.0, lambda _number, detail: decide_drift(hands, detail)),
            ("rollback", 0, 3, 1.0, self.requester.request),
            ("rebalance", 0, 4, 1.0, lambda _number, detail: self.fleet.move(detail)),
        )
        for kind, least, most, share, call in kinds:
            for number in range(1, 1 + least + chance.below(most - least + 1)):
                instant = chance.instant(start, start + int(BUSY_S * SECOND * share))
                self._plan(f"{kind}#{number}", instant, partial(call, number))

    def _plan(self, name: str, instant: int, call: Callable[[Chance], object]) -> None:
        detail = self.faults.detail(name)
        if detail is not None:
            self.schedule.at(instant, lambda: call(detail))


@cache
def packaged_codec() -> Codec:
    """The product's codec, with packaged ids."""
    return Codec.packaged()


@cache
def settings() -> Settings:
    """The settings of simulated workers: nothing of the environment is in them."""
    return Settings.model_construct(store="memory", partitions=PARTITIONS, cache_entries=1_000)
