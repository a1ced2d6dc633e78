"""Taking what aiokafka's fetcher has buffered, chunk by chunk.

`Fetcher.fetched_records` gives bare lists of records, wraps each record once more, and doesn't say where the stretch that
was read begins and ends. This takes the fetcher's results itself, so that a chunk knows both: offsets that hold no record
(transaction markers, what compaction took) are then no gap, and a real gap can't hide behind them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple, Protocol

from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.structs import TopicPartition

from streams.transport.chunk import Chunk, RawRecord

_TAKEN_AT_ONCE: Final = 100
_QUIET_AFTER_S: Final = 3.0
_QUIET_WAIT_MS: Final = 100


class Reading(Protocol):
    """Whether, and in which era, something may be taken. Asked in the consumer's thread, in the same step as the taking."""

    @property
    def era(self) -> int:
        """Counts the seeks; they happen in the same thread."""
        ...

    @property
    def active(self) -> bool:
        """False from the beginning of a rebalance until the seek after it is known to whoever gets the chunks."""
        ...


class ChunkLimits(NamedTuple):
    """What one chunk holds at most. The bytes are of raw values, and looked at every so many records."""

    records: int
    bytes: int


class Restfulness:
    """How long brokers may hold a fetch. While one is held, what was taken meanwhile isn't fetched anew: so not for long. Where
    nothing has come for a while nothing was taken either, and asking five times as seldom costs a fifth."""

    def __init__(self, wait_ms: int, now_s: float) -> None:
        self._wait_ms = wait_ms
        self._heard_at_s = now_s

    def wait_ms(self, now_s: float, has_heard: bool) -> int:
        """From now on; whether the last fetches brought anything."""
        if has_heard:
            self._heard_at_s = now_s
        is_quiet = now_s - self._heard_at_s > _QUIET_AFTER_S
        return max(self._wait_ms, _QUIET_WAIT_MS) if is_quiet else self._wait_ms


async def next_chunks(
    fetcher: Fetcher, partitions: AbstractSet[Any], reading: Reading, timeout_s: float, limits: ChunkLimits
) -> list[Chunk]:
    """What is buffered of these partitions, one chunk of each; waits `timeout_s` for something to come.

    What is taken must be delivered: aiokafka goes on behind it. So nothing is taken while a rebalance is under way, also
    when this was called before it began, and a chunk bears the era of the moment of its taking.
    Raises the fetcher's own errors (authorisation, a record too large to fetch).
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if fetcher._subscriptions.reassignment_in_progress:
            # What is buffered now may not be ours when the rebalance ends.
            await fetcher._subscriptions.wait_for_assignment()
        if not reading.active:
            return []
        chunks = _drain(fetcher, partitions, reading.era, limits)
        left_s = deadline - time.monotonic()
        if chunks or left_s <= 0:
            return chunks
        waiter = fetcher._create_fetch_waiter()
        done, _ = await asyncio.wait([waiter], timeout=left_s)
        if not done or fetcher._closed:
            waiter.cancel()
            return []
        waiter.result()


def _drain(fetcher: Fetcher, partitions: AbstractSet[Any], era: int, limits: ChunkLimits) -> list[Chunk]:
    chunks: list[Chunk] = []
    for place in list(fetcher._records):
        if place not in partitions:
            if not fetcher._subscriptions.is_assigned(place):
                del fetcher._records[place]
            continue
        result = fetcher._records[place]
        if type(result) is FetchResult:
            chunk = _take(result, place, era, limits)
            if chunk is not None:
                chunks.append(chunk)
            if not result.has_more():
                del fetcher._records[place]
                fetcher._notify(fetcher._wait_consume_future)
        elif not chunks:
            # Its error is for us now; were there chunks, the next call would find it again.
            del fetcher._records[place]
            fetcher._notify(fetcher._wait_consume_future)
            result.check_raise()
    return chunks


def _take(result: FetchResult, place: TopicPartition, era: int, limits: ChunkLimits) -> Chunk | None:
    buffered = result._partition_records
    if buffered is None or not result.check_assignment(place):
        return None
    # The parser's own records serve us; wrapping each in a dataclass costs 2 µs.
    buffered._consumer_record = _unwrapped
    start = buffered.next_fetch_offset
    records: list[RawRecord] = []
    size = 0
    # What was fetched is compressed, and is taken apart as it is read: a fetch of two megabytes may hold a hundred.
    while result.has_more() and len(records) < limits.records and size < limits.bytes:
        few: list[RawRecord] = result.getall(min(_TAKEN_AT_ONCE, limits.records - len(records)))
        records += few
        size += sum([len(record.value) for record in few if record.value is not None])
    end = buffered.next_fetch_offset
    if end == start:
        return None
    return Chunk(place.topic, place.partition, start, end, records, era)


def _unwrapped(_place: TopicPartition, record: RawRecord) -> RawRecord:
    return record
