"""The ticker: sends a timer record for every head whose time has come."""

from __future__ import annotations

import asyncio
import logging
import time

from reconciler.records import Timer
from reconciler.values.instant import SECOND
from reconciler.wire.codec import Codec
from streams.metrics import WorkerMetrics
from streams.settings import Settings
from streams.worker.engine import Engine
from streams.worker.publisher import Publisher
from streams.worker_services import DeliveryFailed

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 500
_MICROSECONDS_A_MILLISECOND = 1000


class Ticker:
    """The only place where a wall clock decides when something is due; what it decides is a record in the log."""

    def __init__(
        self, settings: Settings, engine: Engine, codec: Codec, publisher: Publisher, metrics: WorkerMetrics
    ) -> None:
        self._interval_s = settings.timer_interval_s
        self._engine = engine
        self._codec = codec
        self._publisher = publisher
        self._metrics = metrics
        self._topic = engine.pipeline.timers

    async def run(self) -> None:
        """Ticks until it is cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.tick(round(time.time() * SECOND))
            except DeliveryFailed as error:
                # They stay due, and are sent again.
                logger.warning("timers: %s", error)

    async def tick(self, now: int) -> int:
        """Sends what is due at `now` (microseconds), and returns how much that was. Raises DeliveryFailed."""
        due = self._engine.due(now, _MOST_AT_ONCE)
        sent = [self._send(partition, key, due_at, now) for partition, key, due_at in due]
        results = await asyncio.gather(*sent, return_exceptions=True)
        self._metrics.timers.inc(len(results))
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return len(results)

    def _send(self, partition: int, key: bytes, due_at: int, now: int) -> asyncio.Future[None]:
        value = self._codec.encode(self._topic, Timer(resource=key.decode(), due_at=due_at))
        # The machine's clock is this timestamp: it must not be before what it announces. Kafka counts in milliseconds.
        timestamp_ms = -(-max(now, due_at) // _MICROSECONDS_A_MILLISECOND)
        return self._publisher.send(self._topic, key, value, partition=partition, timestamp_ms=timestamp_ms)
