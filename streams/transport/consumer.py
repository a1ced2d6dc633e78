"""Faust's consumer, one message a fetched chunk, with its own books of what may be committed.

What is replaced, and why, stands in docs/worker.md; the numbers in comments are Faust's issues.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.utils.futures import notify

from streams.exits import ExitCode, end_process
from streams.settings import Settings
from streams.transport.chunk import Chunk
from streams.transport.ledger import Ledger, OffsetGap
from streams.transport.thread import BatchConsumerThread, CommittedBeyondEnd

logger = logging.getLogger(__name__)

_FETCH_TIMEOUT_S = 1.0
_IDLE_S = 0.1


class BatchConsumer(driver.Consumer):
    """The consumer of a worker. `ledger` is public: the watchdog and the metrics read it."""

    logger = logging.getLogger("faust.worker")

    _thread: BatchConsumerThread

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.ledger: Ledger[TP] = Ledger(time.monotonic)
        self.commits_refused = 0
        self.chunks_dropped = 0
        self._era = 0
        self.committed_at = time.monotonic()
        super().__init__(*arguments, **options)

    @property
    def settings(self) -> Settings:
        return cast("BatchTransport", self.transport).settings

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # Back-pressure is the full queue alone: these callbacks outlive a rebalance, and would un-pause revoked partitions.
    def on_buffer_full(self, tp: TP) -> None: ...

    def on_buffer_drop(self, tp: TP) -> None: ...

    # Faust's guess at livelocks reads bookkeeping that isn't used here; the watchdog looks at the real one.
    def verify_event_path(self, now: float, tp: TP) -> None: ...

    def on_records_expired(self, place: Any, committed: int, beginning: int) -> None:
        """Retention took records before they were read."""
        logger.error(
            "records %d to %d of %s/%d were deleted by retention before this group read them; reading goes on at %d",
            committed,
            beginning - 1,
            place.topic,
            place.partition,
            beginning,
        )

    async def perform_seek(self) -> None:
        try:
            positions = await self.seek_to_committed()
        except CommittedBeyondEnd as error:
            end_process(ExitCode.TRANSPORT, str(error))
        self._era = self._thread.era
        self.ledger.sought(positions)
        self._read_offset.update(positions)
        self._committed_offset.update(positions)

    async def _drain_messages(self, fetcher: Any) -> None:
        def stopping() -> bool:
            return bool(self._stopped.is_set() or fetcher._stopped.is_set())

        try:
            while not stopping():
                for chunk in await self._next_chunks():
                    await self._deliver(chunk)
        except self.consumer_stopped_errors as error:
            if not self.app.should_stop:
                end_process(ExitCode.TRANSPORT, "the consumer was stopped while the worker runs", error)
        except asyncio.CancelledError:
            raise
        except OffsetGap as error:
            end_process(ExitCode.TRANSPORT, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is read any more
            end_process(ExitCode.TRANSPORT, f"fetching failed: {error}", error)

    async def _next_chunks(self) -> list[Chunk]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        partitions = set(self._get_active_partitions())
        if not partitions:
            await self.sleep(_IDLE_S)
            return []
        return await self._thread.fetch_chunks(partitions, _FETCH_TIMEOUT_S)

    def is_current(self, chunk: Chunk) -> bool:
        """Whether a chunk may still be worked on: nothing was sought, and no rebalance begun, since it was taken.

        The group's generation would not do for this: with static membership it need not grow.
        """
        return bool(self.flow_active and chunk.era == self._era)

    async def _deliver(self, chunk: Chunk) -> None:
        if not self.is_current(chunk):
            # A rebalance has begun. It ends with a seek to what is committed, so what is dropped here is read again;
            # the ledger would notice if it weren't.
            self.chunks_dropped += 1
            return
        place = TP(chunk.topic, chunk.partition)
        self.ledger.read(place, chunk.start, chunk.end)
        message = ConsumerMessage(
            chunk.topic,
            chunk.partition,
            chunk.end - 1,
            time.time(),
            0,
            [],
            None,
            chunk,  # type: ignore[arg-type]
            None,
            0,
            0,
            place,
            generation_id=self.app.consumer_generation_id,
        )
        # Faust's own race (#229): the callback waits for flow control, which a rebalance holds.
        await self.wait_first(self.callback(message), self.suspend_flow.wait())

    # -- acknowledgement and commit

    def ack(self, message: Any) -> bool:
        """Ends the message's life in Faust. Offsets move by `finish` alone."""
        message.acked = True
        self.release(message)
        return True

    def release(self, message: Any) -> None:
        """The message is no longer waited for: it was finished, or dropped because its partition was revoked."""
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)

    def finish(self, chunk: Chunk) -> None:
        """Everything in this chunk is durable."""
        place = TP(chunk.topic, chunk.partition)
        # A batch in flight when a rebalance begins is finished, and committed, before the partition is given up. Were it
        # given up all the same, nothing is recorded: whoever reads it again recognises it.
        if place in self.ledger.places():
            self.ledger.finished(place, chunk.end)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Tells the broker what is finished, whatever `topics` says: a commit is all that is finished and ours."""
        offsets = self.ledger.committable(self.assignment())
        if not offsets:
            return False
        try:
            accepted = await self._commit(offsets)
        except Exception as error:  # noqa: BLE001 - whatever it is, it isn't committed
            end_process(ExitCode.COMMIT, f"the brokers refused a commit: {error}", error)
        if accepted:
            self.ledger.accepted(offsets)
            self._committed_offset.update(offsets)
            self.committed_at = time.monotonic()
        else:
            self.commits_refused += 1
        return accepted

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        # Waits for the batches in flight, and commits them.
        await super().on_partitions_revoked(revoked)
        # Faust forgets its acknowledgements before that commit (#502); ours are forgotten after it.
        self.ledger.forget(revoked)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return await self._thread.commit(offsets)


class BatchTransport(driver.Transport):
    """What is assigned to `app.transport`: no URL scheme needs to be registered."""

    Consumer = BatchConsumer

    def __init__(self, url: Any, app: Any, *, settings: Settings, **options: Any) -> None:
        self.settings = settings
        super().__init__(url, app, **options)
