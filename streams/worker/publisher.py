"""The worker's own producer for what is no part of a batch: timers, and what services publish. It bears repetition."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from confluent_kafka import KafkaException, Producer

from streams.settings import Settings
from streams.store.producer import ANY_PARTITION, producer_config
from streams.worker_services import DeliveryFailed, Headers

_POLL_S = 0.1


class Publisher:
    """Sends records and waits for their acknowledgement. To be made and used on the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(
            {**producer_config(settings), "message.timeout.ms": round(settings.delivery_timeout_s * 1000)}
        )
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="publisher", daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        *,
        partition: int = ANY_PARTITION,
        headers: Headers = (),
        timestamp_ms: int = 0,
    ) -> asyncio.Future[None]:
        """Hands a record over; the future ends with its acknowledgement, or raises DeliveryFailed."""
        future: asyncio.Future[None] = self._loop.create_future()

        def report(error: Any, _message: Any) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_settle, future, error)

        try:
            self._producer.produce(topic, value, key, partition, report, None, timestamp_ms, list(headers))
        except (BufferError, KafkaException) as error:
            future.set_exception(DeliveryFailed(f"a record for {topic} was not taken: {error}"))
        return future

    def close(self) -> None:
        """Sends what is on its way, and ends."""
        self._producer.flush(_POLL_S * 50)
        self._closed.set()
        self._thread.join()
        self._producer.close()


def _settle(future: asyncio.Future[None], error: Any) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(DeliveryFailed(f"the brokers did not take a record: {error.str()}"))
