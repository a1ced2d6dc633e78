"""Taking chunks from aiokafka's fetcher: nothing is taken that would not be delivered."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, NamedTuple

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition

from streams.transport.fetching import ChunkLimits, Restfulness, next_chunks

PLACE = TopicPartition("topic", 0)
TEN = ChunkLimits(records=10, bytes=1_000_000)


class Record(NamedTuple):
    """As much of a record as is looked at."""

    offset: int
    value: bytes | None = b"."


class Records:
    """aiokafka's `PartitionRecords`: records, and where its stretch stands."""

    def __init__(self, start: int, *stretches: tuple[int, Record | None]) -> None:
        self.next_fetch_offset = start
        self._left = deque(stretches)

    def __iter__(self) -> Records:
        return self

    def __next__(self) -> Record:
        while self._left:
            end, found = self._left.popleft()
            self.next_fetch_offset = end
            if found is not None:
                return found
        raise StopIteration


class State:
    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def consumed_to(self, position: int) -> None:
        self.position = position


class Fetcher:
    """As much of aiokafka's as is used: its buffer, its waiters, its assignment."""

    _closed = False

    def __init__(self, position: int = 0) -> None:
        self._records: dict[TopicPartition, Any] = {}
        self._subscriptions = self
        self._wait_consume_future = None
        self._waiters: list[asyncio.Future[None]] = []
        self.reassignment_in_progress = False
        self.active = True
        self.state = State(position)

    def state_value(self, _place: TopicPartition) -> State:
        return self.state

    def is_assigned(self, _place: TopicPartition) -> bool:
        return True

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        self._waiters.append(asyncio.get_running_loop().create_future())
        return self._waiters[-1]

    def _notify(self, _future: Any) -> None: ...

    def fetched(self, records: Records) -> None:
        self._records[PLACE] = FetchResult(PLACE, assignment=self, partition_records=records, backoff=0)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Reading:
    era = 1
    active = True


def record(offset: int, value: bytes | None = b".") -> tuple[int, Record | None]:
    return (offset + 1, Record(offset, value))


def no_record(until: int) -> tuple[int, Record | None]:
    return (until, None)


async def test_a_chunk_knows_the_stretch_that_it_stands_for() -> None:
    fetcher = Fetcher()
    fetcher.fetched(Records(0, record(0), no_record(3), record(3), record(4), no_record(9)))
    (chunk,) = await next_chunks(fetcher, {PLACE}, Reading(), 1, TEN)
    assert (chunk.start, chunk.end, [found.offset for found in chunk.records]) == (0, 9, [0, 3, 4])
    assert fetcher.state.position == 9


async def test_transaction_markers_alone_are_a_chunk_too() -> None:
    fetcher = Fetcher()
    fetcher.fetched(Records(0, no_record(2)))
    (chunk,) = await next_chunks(fetcher, {PLACE}, Reading(), 1, TEN)
    assert (chunk.start, chunk.end, chunk.records) == (0, 2, [])


async def test_long_fetches_are_taken_in_parts() -> None:
    fetcher = Fetcher()
    fetcher.fetched(Records(0, *(record(offset) for offset in range(25))))
    stretches = []
    for _ in range(3):
        (chunk,) = await next_chunks(fetcher, {PLACE}, Reading(), 1, TEN)
        stretches.append((chunk.start, chunk.end, len(chunk.records)))
    assert stretches == [(0, 10, 10), (10, 20, 10), (20, 25, 5)]


async def test_a_fetch_that_is_larger_than_it_looked_is_taken_in_parts() -> None:
    """A fetch is bounded as it comes, compressed: what it holds would be in memory all at once."""
    fetcher = Fetcher()
    fetcher.fetched(Records(0, record(0, None), *(record(offset, bytes(1_000)) for offset in range(1, 450))))
    sizes = []
    while PLACE in fetcher._records:
        (chunk,) = await next_chunks(fetcher, {PLACE}, Reading(), 1, ChunkLimits(records=10_000, bytes=150_000))
        sizes.append(len(chunk.records))
    assert sizes == [200, 200, 50]


async def test_what_was_fetched_before_a_seek_is_not_taken() -> None:
    fetcher = Fetcher(position=0)
    fetcher.fetched(Records(50, record(50)))
    assert await next_chunks(fetcher, {PLACE}, Reading(), 0, TEN) == []


async def test_nothing_is_taken_once_a_rebalance_has_begun() -> None:
    """A call that waits while a rebalance comes and goes took the first records of the new era under the label of the old:
    they were dropped, and the consumer stood behind them."""
    fetcher, reading = Fetcher(), Reading()
    waiting = asyncio.create_task(next_chunks(fetcher, {PLACE}, reading, 20, TEN))
    while not fetcher._waiters:
        await asyncio.sleep(0)
    reading.active = False
    fetcher.fetched(Records(0, record(0)))
    assert await waiting == []
    assert fetcher.state.position == 0
    reading.active, reading.era = True, 2
    (chunk,) = await next_chunks(fetcher, {PLACE}, reading, 1, TEN)
    assert (chunk.era, chunk.start) == (2, 0)


async def test_a_chunk_bears_the_era_of_its_taking() -> None:
    fetcher, reading = Fetcher(), Reading()
    waiting = asyncio.create_task(next_chunks(fetcher, {PLACE}, reading, 20, TEN))
    while not fetcher._waiters:
        await asyncio.sleep(0)
    reading.era = 2
    fetcher.fetched(Records(0, record(0)))
    (chunk,) = await waiting
    assert chunk.era == 2


def test_where_it_is_quiet_brokers_hold_fetches_longer() -> None:
    restfulness = Restfulness(20, now_s=100.0)
    assert restfulness.wait_ms(102.0, False) == 20
    assert restfulness.wait_ms(103.5, False) == 100
    assert restfulness.wait_ms(104.0, True) == 20
    assert restfulness.wait_ms(106.5, False) == 20
    assert restfulness.wait_ms(107.5, False) == 100
    assert Restfulness(500, now_s=0.0).wait_ms(50.0, False) == 500
