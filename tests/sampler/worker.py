"""The edge of the sampler: a worker that owns partitions and keeps what is published, and a sampler that runs in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from reconciler.contracts.model import Timing
from reconciler.machines.protocol import HistoryReader
from reconciler.machines.sampling import SamplingNeeds
from reconciler.records import Observation
from reconciler.targets.port import Target
from reconciler.wire.codec import Codec
from reconciler.wire.partition import partition_of
from reconciler.wire.topics import TopicNames
from streams.sampler.service import Sampler
from streams.sampler.settings import SamplerSettings, load_sampler_settings
from streams.sampler.slots import Slots, own_slots
from streams.settings import load_settings
from streams.worker_services import DeliveryFailed, Headers, PartitionNotOwned

TOPIC = TopicNames("").observations
CODEC = Codec.packaged()
QUIET = SamplingNeeds()
HASTY = Timing(settle_s=0.2, sample_every_s=0.5)
"""Everything twice a second."""

FAST = load_sampler_settings(
    attention_first_s=0.1,
    retry_first_s=0.1,
    breaker_failures=3,
    breaker_pause_first_s=0.1,
    breaker_pause_cap_s=0.3,
    gather_s=0.01,
    heartbeat_periods=1_000,
    redis_timeout_s=0.2,
    redis_retry_s=0.2,
)


def with_limits(settings: SamplerSettings = FAST, **limits: Any) -> SamplerSettings:
    generous = {"reads_per_s": 10_000, "burst": 1_000, "concurrency": 2, "timeout_s": 20.0}
    return load_sampler_settings(**{**settings.model_dump(), "limits": {**generous, **limits}})


class FakeWorker:
    """Implements WorkerContext. Its states are the needs themselves."""

    def __init__(
        self, states: Mapping[str, SamplingNeeds], *, redis_url: str | None = None, partitions: int = 4
    ) -> None:
        self.settings = load_settings(partitions=partitions, redis_url=redis_url, data_dir=Path("unused"))
        self.states = dict(states)
        self.registry = CollectorRegistry()
        self.owned = frozenset(range(partitions))
        self.published: list[Observation] = []
        self.refuses = False

    @property
    def partitions(self) -> frozenset[int]:
        return self.owned

    def partition_of(self, resource: str) -> int:
        return partition_of(resource.encode(), self.settings.partitions)

    def heads(self, partition: int) -> Iterator[tuple[str, object]]:
        for resource, state in list(self.states.items()):
            if partition not in self.owned:
                raise PartitionNotOwned(str(partition))
            if self.partition_of(resource) == partition:
                yield resource, state

    def head(self, partition: int, resource: str) -> object | None:
        return self.states.get(resource)

    def history(self, partition: int, resource: str) -> HistoryReader:
        raise AssertionError("the sampler reads no history")

    def consumed(self, partition: int, topic: str) -> int:
        raise AssertionError("the sampler asks for no offsets")

    async def publish(self, topic: str, key: str, value: bytes, headers: Headers = ()) -> None:
        await asyncio.sleep(0)
        if self.refuses:
            raise DeliveryFailed("no broker")
        observation = CODEC.decode(value)
        assert isinstance(observation, Observation)
        assert (topic, key) == (TOPIC, observation.resource)
        self.published.append(observation)

    def of(self, resource: str) -> list[Observation]:
        return [observation for observation in self.published if observation.resource == resource]

    # -- what the worker tells the sampler

    def change(self, sampler: Sampler, resource: str, needs: SamplingNeeds) -> None:
        """A batch has given a resource a new state."""
        self.states[resource] = needs
        if self.partition_of(resource) in self.owned:
            sampler.on_touched(self.partition_of(resource), {resource: needs})

    def revoke(self, sampler: Sampler, partitions: frozenset[int]) -> None:
        self.owned -= partitions
        sampler.on_revoked(partitions)

    def assign(self, sampler: Sampler, partitions: frozenset[int]) -> None:
        self.owned |= partitions
        sampler.on_assigned(self.owned)


def sampler_of(
    targets: Mapping[str, Target],
    *,
    timing: Timing = HASTY,
    settings: SamplerSettings | None = None,
    needs_of: Callable[[object], SamplingNeeds] | None = None,
    slots_of: Callable[[str, int], Slots] = own_slots,
) -> Sampler:
    return Sampler(
        open_targets=lambda: targets,
        needs_of=needs_of or (lambda state: msgspec.convert(state, SamplingNeeds)),
        timing_of=lambda resource: timing,
        topic=TOPIC,
        encode=lambda observation: CODEC.encode(TOPIC, observation),
        settings=settings or with_limits(),
        slots_of=slots_of,
    )


def metric(sampler: Sampler, name: str, **labels: str) -> float:
    return sampler.metrics.value(name, **labels)


@asynccontextmanager
async def running(sampler: Sampler, worker: FakeWorker) -> AsyncIterator[Sampler]:
    run = asyncio.create_task(sampler.run(worker))
    try:
        yield sampler
    finally:
        is_over = run.done()
        run.cancel()
        results = await asyncio.gather(run, return_exceptions=True)
        assert not is_over, results


async def eventually(condition: Callable[[], Any], *, within_s: float = 60.0, poll_s: float = 0.01) -> None:
    """Returns once the condition holds; fails at the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        await asyncio.sleep(poll_s)


def keys(system: str, count: int) -> list[str]:
    return [f"{system}/record/{number}" for number in range(count)]


def records(count: int) -> dict[str, dict[str, Any]]:
    return {str(number): {"name": f"n{number}", "phone": None} for number in range(count)}


def kinds(observations: Sequence[Observation]) -> set[bool | None]:
    return {observation.exists for observation in observations}
