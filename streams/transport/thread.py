"""The thread in which aiokafka's consumer lives: made with other settings than Faust's, and sought without exceptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, ConsumerStoppedError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver

from streams.transport.chunk import Chunk
from streams.transport.fetching import ChunkLimits, Restfulness, next_chunks

if TYPE_CHECKING:
    from streams.transport.consumer import BatchConsumer

logger = logging.getLogger(__name__)


class CommittedBeyondEnd(Exception):
    """The group's committed offset is beyond the end of the log: the topic was made anew under the old name."""


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """One per worker."""

    logger = logging.getLogger("faust.worker")

    consumer: BatchConsumer

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        settings = self.consumer.settings
        # Hard-coded as 1500 by Faust, which on a real broker stalls every second fetch. The fetcher is made later, in start().
        consumer._fetch_max_wait_ms = settings.fetch_max_wait_ms
        self._restfulness = Restfulness(settings.fetch_max_wait_ms, time.monotonic())
        # Forwarded records and undo steps come in transactions; those of a worker that was overtaken are aborted.
        consumer._isolation_level = "read_committed"
        return consumer

    era = 0
    """Counts the seeks. Changed in this thread alone, together with the positions."""

    @property
    def active(self) -> bool:
        """Whether what is taken from the fetcher will be delivered."""
        return bool(self.consumer.flow_active)

    async def fetch_chunks(self, partitions: AbstractSet[Any], timeout_s: float) -> list[Chunk]:
        """The next chunks of these partitions, an empty list when nothing came in time."""
        return await self.call_thread(self._fetch_chunks, partitions, timeout_s)  # type: ignore[no-any-return]

    async def _fetch_chunks(self, partitions: AbstractSet[Any], timeout_s: float) -> list[Chunk]:
        if not self.active:
            # Asked again here: a rebalance may have begun while the call was on its way to this thread.
            return []
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        settings = self.consumer.settings
        limits = ChunkLimits(settings.batch_max_records, settings.batch_max_bytes)
        with fetcher._subscriptions.fetch_context():
            chunks = await next_chunks(fetcher, partitions, self, timeout_s, limits)
        fetcher._fetch_max_wait_ms = self._restfulness.wait_ms(time.monotonic(), bool(chunks))
        return chunks

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Puts every assigned partition at its committed offset, or at its beginning where there is none.

        aiokafka's own skips partitions without a commit: what was fetched from them before a rebalance, and dropped in it,
        was then lost. Raises CommittedBeyondEnd.
        """
        return await self.call_thread(self._seek_to_committed)  # type: ignore[no-any-return]

    async def _seek_to_committed(self) -> dict[TopicPartition, int]:
        consumer = self._ensure_consumer()
        assignment = list(consumer.assignment())
        if not assignment:
            self.era += 1
            return {}
        beginnings = await consumer.beginning_offsets(assignment)
        ends = await consumer.end_offsets(assignment)
        committed = await consumer._coordinator.fetch_committed_offsets(assignment)
        positions: dict[TopicPartition, int] = {}
        for place in assignment:
            known = committed.get(place)
            offset = -1 if known is None else known.offset
            if offset > ends[place]:
                raise CommittedBeyondEnd(
                    f"the group's committed offset {offset} of {place.topic}/{place.partition} is beyond its end "
                    f"{ends[place]}: the topic was made anew; reset the group's offsets, or use another application_id"
                )
            if 0 <= offset < beginnings[place]:
                self.consumer.on_records_expired(place, offset, beginnings[place])
            positions[place] = max(offset, beginnings[place])
        # From here on in one step: whatever is taken from the fetcher afterwards is of the new era.
        for place, position in positions.items():
            consumer.seek(place, position)
        self.era += 1
        return positions

    async def commit(self, offsets: Mapping[Any, int]) -> bool:
        """Commits; True only if the broker accepted it. False when the group has moved on without us; raises all else."""
        return await self.call_thread(self._commit, offsets)  # type: ignore[no-any-return]

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        consumer = self._ensure_consumer()
        try:
            await consumer.commit(
                {TopicPartition(*place): OffsetAndMetadata(offset, "") for place, offset in offsets.items()}
            )
        except CommitFailedError as error:
            logger.warning("commit refused, nothing is recorded as committed: %s", error)
            return False
        return True
