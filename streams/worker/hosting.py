"""Hosting the services inside a worker: they get a context, and none of their failures reaches the folding."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler.machines.protocol import HistoryReader
from streams.metrics import WorkerMetrics
from streams.settings import Settings
from streams.transport.chunk import Chunk
from streams.worker.engine import Engine
from streams.worker.publisher import Publisher
from streams.worker_services import Headers, WorkerService

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


class HostContext:
    """Implements `WorkerContext`."""

    def __init__(self, settings: Settings, engine: Engine, publisher: Publisher, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._registry = registry
        self._engine = engine
        self._publisher = publisher

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def registry(self) -> CollectorRegistry:
        return self._registry

    @property
    def partitions(self) -> frozenset[int]:
        return self._engine.partitions

    def heads(self, partition: int) -> Iterator[tuple[str, object]]:
        return self._engine.heads(partition)

    def head(self, partition: int, resource: str) -> object | None:
        return self._engine.head(partition, resource)

    def history(self, partition: int, resource: str) -> HistoryReader:
        return self._engine.history(partition, resource)

    def consumed(self, partition: int, topic: str) -> int:
        return self._engine.consumed(partition, topic)

    def partition_of(self, resource: str) -> int:
        return self._engine.partition_of(resource)

    async def publish(self, topic: str, key: str, value: bytes, headers: Headers = ()) -> None:
        await self._publisher.send(topic, key.encode(), value, headers=headers)


class ServiceHost:
    """Runs services, and passes on what the engine tells. Implements `EngineListener`."""

    def __init__(self, services: Sequence[WorkerService], metrics: WorkerMetrics) -> None:
        self._services = services
        self._metrics = metrics
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, context: HostContext) -> None:
        """Starts every service."""
        self._tasks = [
            asyncio.create_task(self._run(service, context), name=f"service-{service.name}")
            for service in self._services
        ]

    async def stop(self) -> None:
        """Cancels every service, and waits until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, service: WorkerService, context: HostContext) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await service.run(context)
                logger.warning("the service %s ended by itself; it is started again in %.0f s", service.name, pause_s)
            except Exception:
                logger.exception("the service %s failed; it is started again in %.0f s", service.name, pause_s)
                self._metrics.service_failures.labels(service.name).inc()
            await asyncio.sleep(pause_s)
            ran_s = asyncio.get_running_loop().time() - started
            pause_s = _FIRST_PAUSE_S if ran_s > _LONGEST_PAUSE_S else min(pause_s * 2, _LONGEST_PAUSE_S)

    def on_assigned(self, partitions: frozenset[int]) -> None:
        self._tell(lambda service: service.on_assigned(partitions))

    def on_revoked(self, partitions: frozenset[int]) -> None:
        self._tell(lambda service: service.on_revoked(partitions))

    def on_touched(self, partition: int, states: Mapping[str, object]) -> None:
        self._tell(lambda service: service.on_touched(partition, states))

    def on_folded(self, chunk: Chunk, folded: Sequence[bool]) -> None:
        self._tell(lambda service: service.on_folded(chunk, folded))

    def _tell(self, call: Callable[[WorkerService], Any]) -> None:
        for service in self._services:
            try:
                call(service)
            except Exception:
                logger.exception("the service %s failed in a callback", service.name)
                self._metrics.service_failures.labels(service.name).inc()
