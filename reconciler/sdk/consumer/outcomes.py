"""Publishing what became of records: acknowledged by the brokers, however long that takes, or not at all."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import msgspec

from reconciler.records import Outcome
from reconciler.sdk.consumer.progress import PartitionProgress
from reconciler.sdk.delivery import Delivery
from reconciler.sdk.errors import DeliveryError
from reconciler.sdk.spool import Message
from reconciler.sdk.tracing import TRACEPARENT_HEADER
from reconciler.values.traceparent import usable_traceparent
from reconciler.wire.codec import MAX_RECORD_BYTES, Codec
from reconciler.wire.errors import EncodeError

logger = logging.getLogger("reconciler.sdk")

MAX_OUTCOME_BYTES: Final = MAX_RECORD_BYTES - 16 * 1024
"""Room for headers and the batch around the record."""

_RETRY_S: Final = 1.0
_ERROR_CHARACTERS: Final = 10_000


class OutcomePublisher:
    """Sends outcomes and dead letters. Belongs to one event loop."""

    def __init__(self, delivery: Delivery, *, codec: Codec, topic: str) -> None:
        self._delivery = delivery
        self._codec = codec
        self._topic = topic
        self._failing_since: float | None = None

    @property
    def failing_s(self) -> float:
        """For how long nothing could be published; 0 where publishing works."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    async def publish(self, outcome: Outcome, progress: PartitionProgress) -> bool:
        """Sends an outcome; False as `send`."""
        headers: tuple[tuple[str, bytes], ...] = ()
        trace = usable_traceparent(outcome.traceparent)
        if trace is not None:
            headers = ((TRACEPARENT_HEADER, trace.encode()),)
        message = Message(self._topic, outcome.resource.encode(), self._encoded(outcome), headers)
        return await self.send(message, progress)

    async def send(self, message: Message, progress: PartitionProgress) -> bool:
        """Sends a message, again and again; False where its partition was revoked before the brokers acknowledged it."""
        while True:
            try:
                await asyncio.wrap_future(self._delivery.send(message))
            except DeliveryError as error:
                if self._failing_since is None:
                    self._failing_since = time.monotonic()
                logger.warning("%s; trying again", error)
            else:
                self._failing_since = None
                return True
            if progress.is_revoked:
                return False
            await asyncio.sleep(_RETRY_S)

    def _encoded(self, outcome: Outcome) -> bytes:
        """The outcome's bytes; without what the resource holds, where that can't be told."""
        try:
            payload = self._codec.encode(self._topic, outcome)
        except EncodeError as error:
            note = f"what the resource holds can't be told: {error}"
        else:
            if len(payload) <= MAX_OUTCOME_BYTES:
                return payload
            note = f"what the resource holds is too large to be told ({len(payload)} bytes)"
        # What became of the command matters more than what the resource holds, which the sampler will see.
        told = note if outcome.error is None else f"{outcome.error[:_ERROR_CHARACTERS]}; {note}"
        return self._codec.encode(self._topic, msgspec.structs.replace(outcome, observed=None, error=told))
