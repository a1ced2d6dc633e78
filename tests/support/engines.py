"""An engine in the test's own process, without Faust: fed from the topics by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from reconciler.machines.protocol import Machine
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.metrics import WorkerMetrics
from streams.runner.effects import TopicEffects
from streams.runner.pipeline import resource_pipeline
from streams.settings import Settings
from streams.store.recovery import StoreFactory
from streams.transport.chunk import Chunk
from streams.worker.engine import Engine, EngineListener
from streams.worker.process import Work
from tests.support.counting import CountingMachine
from tests.support.estate import Estate, Found


def engine_of(
    settings: Settings,
    codec: Codec,
    machine: Machine | None = None,
    listeners: Sequence[EngineListener] = (),
) -> Engine:
    """An engine with the counting machine."""
    names = TopicNames(settings.topic_prefix)
    pipeline = resource_pipeline(machine or CountingMachine(), names)
    return Engine(
        settings=settings,
        pipeline=pipeline,
        codec=codec,
        effects=TopicEffects(codec, names, lambda topic: True),
        stores=StoreFactory(settings, pipeline, "cluster"),
        metrics=WorkerMetrics(),
        owner="test",
        listeners=listeners,
    )


async def own(engine: Engine, partitions: Sequence[int], generation: int = 1) -> None:
    """Takes partitions over and makes the engine ready."""
    await engine.recover(frozenset(partitions), generation, lambda: True)
    engine.resume()


def raw(found: Found) -> Any:
    """A record as the consumer hands it on."""
    return SimpleNamespace(
        offset=found.offset,
        key=found.key,
        value=found.value,
        timestamp=found.timestamp_ms,
        headers=list(found.headers.items()),
    )


async def feed(
    engine: Engine, estate: Estate, positions: dict[int, int], size: int = 100, topic: str | None = None
) -> None:
    """Hands over all actions (or what is in another topic) of the owned partitions beyond `positions`, and returns when they
    are durable."""
    topic = topic or estate.topics.actions
    by_partition: dict[int, list[Any]] = {}
    for found in await asyncio.to_thread(estate.read, topic):
        if found.offset >= positions.get(found.partition, 0) and found.partition in engine.partitions:
            by_partition.setdefault(found.partition, []).append(raw(found))
    waiting = []
    for partition, records in by_partition.items():
        for start in range(0, len(records), size):
            part = records[start : start + size]
            chunk = Chunk(topic, partition, part[0].offset, part[-1].offset + 1, part, 0)
            finished = asyncio.Event()
            waiting.append(finished.wait())
            await engine.submit(Work(chunk, lambda: True, finished.set, finished.set))
        positions[partition] = records[-1].offset + 1
    await asyncio.gather(*waiting)


class Told:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []

    def on_assigned(self, partitions: frozenset[int]) -> None:
        self.calls.append(("assigned", partitions))

    def on_revoked(self, partitions: frozenset[int]) -> None:
        self.calls.append(("revoked", partitions))

    def on_touched(self, partition: int, states: Mapping[str, object]) -> None:
        self.calls.append(("touched", (partition, dict(states))))

    def on_folded(self, chunk: Chunk, folded: Sequence[bool]) -> None: ...
