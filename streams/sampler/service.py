"""The sampler as a service of the worker: turns partitions that come and go and states that change into the schedules of lanes.

Its callbacks only take notes. One task of its own, the feeder, works them off in slices, so that neither a partition with a
million resources nor a storm of changes keeps the event loop from folding.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from urllib.parse import unquote

from reconciler.machines.sampling import SamplingNeeds
from reconciler.records import Observation
from reconciler.targets.port import Target
from streams.sampler.budget import SharedBudgets
from streams.sampler.clock import Clock, SystemClock
from streams.sampler.lane import Lane, Publish
from streams.sampler.metrics import SamplerMetrics
from streams.sampler.settings import SamplerSettings
from streams.sampler.slots import Slots, own_slots
from streams.sampler.timing import ContractTiming, sample_timing
from streams.transport.chunk import Chunk
from streams.worker_services import PartitionNotOwned, WorkerContext

logger = logging.getLogger(__name__)

_SLICE = 100
"""Resources that the feeder handles before the event loop gets its turn: about a millisecond."""
_MEASURE_EVERY_S = 1.0
_FAULTS_LOGGED_EVERY_S = 60.0
_MOST_SYSTEMS_NAMED = 100

Encode = Callable[[Observation], bytes]
"""The wire form of an observation."""


class Sampler:
    """Reads the actual state of the resources of the partitions that the worker owns.

    `open_targets` gives the targets by system, anew for each run, which closes them at its end. `needs_of` is
    `reconciler.machines.resource.sampling_needs`, `timing_of` the timing of the contract that rules a resource.
    """

    name = "sampler"

    def __init__(
        self,
        *,
        open_targets: Callable[[], Mapping[str, Target]],
        needs_of: Callable[[object], SamplingNeeds],
        timing_of: Callable[[str], ContractTiming],
        topic: str,
        encode: Encode,
        settings: SamplerSettings,
        clock: Clock | None = None,
        slots_of: Callable[[str, int], Slots] = own_slots,
    ) -> None:
        """`slots_of` gives so many slots by a name, which tells those of one target from another's: those of this process
        alone, or of several together."""
        self._open_targets = open_targets
        self._needs_of = needs_of
        self._timing_of = timing_of
        self._topic = topic
        self._encode = encode
        self._settings = settings
        self.metrics = SamplerMetrics()
        self._clock = clock or SystemClock()
        self._slots_of = slots_of
        self._lanes: dict[str, Lane] = {}
        self._owned: set[int] = set()
        self._to_load: dict[
            int, object
        ] = {}  # each assignment has an object of its own: the heads are read once for each
        self._touched: dict[int, dict[str, object]] = {}
        self._dropped: set[int] = set()  # of which the schedules still know what was published
        self._without_target: set[str] = set()
        self._next_fault_logged_at = -math.inf
        self._news = asyncio.Event()

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """Their heads are read as soon as the feeder comes to it."""
        self._owned |= partitions
        for partition in self._dropped - self._owned:
            self._forget_dropped(partition)
        self._to_load.update((partition, object()) for partition in sorted(partitions))
        self._news.set()

    def on_revoked(self, partitions: frozenset[int]) -> None:
        """From here on none of their resources is read, and what is being read is not published."""
        for partition in partitions:
            self._drop(partition)

    def on_touched(self, partition: int, states: Mapping[str, object]) -> None:
        """Of states that change again before the feeder comes to them, only the last counts."""
        if partition in self._owned:
            self._touched.setdefault(partition, {}).update(states)
            self._news.set()

    def on_folded(self, chunk: Chunk, folded: Sequence[bool]) -> None:
        """Nothing to do: states are what counts here."""

    async def run(self, context: WorkerContext) -> None:
        """Samples until it is cancelled."""
        self.metrics.serve_with(context.registry)
        settings = context.settings
        budgets = SharedBudgets(
            settings.redis_url,
            prefix=settings.topic_prefix,
            settings=self._settings,
            share=lambda: len(context.partitions) / settings.partitions,
            monotonic=self._clock.monotonic,
        )
        targets = self._open_targets()
        self._begin(context, targets, budgets)
        try:
            async with asyncio.TaskGroup() as tasks:
                for system, lane in self._lanes.items():
                    tasks.create_task(lane.run(), name=f"sampler-{system}")
                tasks.create_task(self._feed(context), name="sampler-feeder")
                tasks.create_task(self._measure(budgets), name="sampler-metrics")
        finally:
            self._lanes = {}
            await _close(targets)
            await budgets.close()

    def _begin(self, context: WorkerContext, targets: Mapping[str, Target], budgets: SharedBudgets) -> None:
        async def publish(observation: Observation) -> None:
            await context.publish(self._topic, observation.resource, self._encode(observation))

        self._lanes = {system: self._lane(system, target, budgets, publish) for system, target in targets.items()}
        self._owned.clear()
        self._dropped.clear()
        self._to_load.clear()
        self._touched.clear()  # the heads have it all
        self.on_assigned(context.partitions)

    def _lane(self, system: str, target: Target, budgets: SharedBudgets, publish: Publish) -> Lane:
        limits = self._settings.limits_of(system)
        return Lane(
            system,
            target,
            budget=budgets.budget(system, limits),
            slots=self._slots_of(f"{system}/reads", limits.concurrency),
            scan_slots=self._slots_of(f"{system}/scans", 1),
            publish=publish,
            settings=self._settings,
            clock=self._clock,
            metrics=self.metrics,
        )

    def _drop(self, partition: int) -> None:
        self._owned.discard(partition)
        self._to_load.pop(partition, None)
        self._touched.pop(partition, None)
        self._dropped.add(partition)
        for lane in self._lanes.values():
            lane.schedule.drop_partition(partition)

    def _forget_dropped(self, partition: int) -> None:
        self._dropped.discard(partition)
        for lane in self._lanes.values():
            lane.schedule.forget_dropped(partition)

    async def _feed(self, context: WorkerContext) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._to_load:
                await self._load(context, next(iter(self._to_load)))
            await self._take_in_touched()
            await asyncio.sleep(self._settings.gather_s)

    async def _load(self, context: WorkerContext, partition: int) -> None:
        """Puts all resources of a partition into the schedules. What was touched meanwhile goes first: it is newer."""
        assignment = self._to_load[partition]
        try:
            heads = context.heads(partition)
            while self._to_load.get(partition) is assignment:
                await self._take_in_touched()
                if self._to_load.get(partition) is assignment and not self._load_slice(partition, heads):
                    del self._to_load[partition]
                    self._forget_dropped(partition)
                await asyncio.sleep(0)
        except PartitionNotOwned:
            if self._to_load.get(partition) is assignment:
                self._drop(partition)
        self._wake()

    def _load_slice(self, partition: int, heads: Iterator[tuple[str, object]]) -> bool:
        """Whether there is more to load."""
        for _ in range(_SLICE):
            head = next(heads, None)
            if head is None:
                return False
            self._put(partition, *head, is_newest=False)
        return True

    async def _take_in_touched(self) -> None:
        while self._touched:
            partition, states = next(iter(self._touched.items()))
            for _ in range(min(_SLICE, len(states))):
                resource = next(iter(states))
                self._put(partition, resource, states.pop(resource), is_newest=True)
            if not states:
                del self._touched[partition]
            self._wake()
            await asyncio.sleep(0)

    def _put(self, partition: int, resource: str, state: object, *, is_newest: bool) -> None:
        system = _system_of(resource)
        lane = self._lanes.get(system)
        if lane is None:
            self._miss(system)
        elif is_newest or (partition, resource) not in lane.schedule:
            try:
                timing = sample_timing(self._timing_of(resource), self._settings.heartbeat_periods)
                lane.schedule.put(partition, resource, self._needs_of(state), timing, self._clock.now())
            except Exception as error:  # noqa: BLE001 - one resource that can't be scheduled must not keep the others from it
                self._fault(system, error)

    def _miss(self, system: str) -> None:
        if system not in self._without_target and len(self._without_target) < _MOST_SYSTEMS_NAMED:
            self._without_target.add(system)
            logger.warning("no target is configured for the system %r: its resources are not observed", system)

    def _fault(self, system: str, error: Exception) -> None:
        """Counts a fault; the log has one a minute, because what fails for one resource is apt to fail for a million."""
        self.metrics.faults.labels(system).inc()
        if self._clock.monotonic() >= self._next_fault_logged_at:
            self._next_fault_logged_at = self._clock.monotonic() + _FAULTS_LOGGED_EVERY_S
            logger.error("a resource of %s could not be scheduled", system, exc_info=error)

    def _wake(self) -> None:
        for lane in self._lanes.values():
            lane.wake()

    async def _measure(self, budgets: SharedBudgets) -> None:
        while True:
            for lane in self._lanes.values():
                lane.measure()
            self.metrics.budget_shared.set(budgets.is_shared)
            self.metrics.without_target.set(len(self._without_target))
            await asyncio.sleep(_MEASURE_EVERY_S)


async def _close(targets: Mapping[str, Target]) -> None:
    """Closes all targets; one that fails to close keeps no other from it."""
    for system, outcome in zip(
        targets,
        await asyncio.gather(*(target.close() for target in targets.values()), return_exceptions=True),
        strict=True,
    ):
        if isinstance(outcome, Exception):
            logger.warning("the target %s failed to close: %s: %s", system, type(outcome).__name__, outcome)


@lru_cache(maxsize=1024)
def _unquoted(system: str) -> str:
    return unquote(system)


def _system_of(resource: str) -> str:
    return _unquoted(resource.partition("/")[0])
