"""The feed: what the table has folded of the ledger, handed over in memory, so that the gatherer need not read it again.

It holds for each partition one stretch of the ledger without a gap, the last that was folded, and not much of it: what finds no
room is forgotten, the oldest first, and is then read from the ledger. While the gatherer is further behind than what there is room
for, it reads from the ledger anyhow, and nothing is held: held memory is memory that the next batch can't have.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Final, NamedTuple

from streams.transport.chunk import Chunk

MOST_RECORDS: Final = 50_000
MOST_BYTES: Final = 32 << 20
"""Of raw values."""
ENOUGH: Final = 2_000
WAIT_S: Final = 1.0
"""So many records are worth a look at a partition, or any that waited for so long: many are cheaper than few."""


class Folded(NamedTuple):
    """A chunk of the ledger that is durable in the table."""

    chunk: Chunk
    is_folded: Sequence[bool]
    """Of each of its records."""


class _Lane:
    """Of one partition."""

    __slots__ = ("asked", "begin", "bytes", "end", "items", "records", "since")

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.end = begin
        self.asked = begin
        """From where on the gatherer has last asked for it: there it is."""
        self.items: deque[tuple[Folded, int]] = deque()
        """With the bytes of each."""
        self.records = 0
        self.bytes = 0
        self.since = 0.0
        """When the first of them came."""

    def add(self, folded: Folded, size: int, now: float) -> None:
        if not self.items:
            self.since = now
        self.items.append((folded, size))
        self.end = folded.chunk.end
        self.records += len(folded.chunk.records)
        self.bytes += size

    def skip(self, end: int) -> None:
        """Nothing before an offset is held."""
        self.items.clear()
        self.begin = self.end = end
        self.records = self.bytes = 0

    def drop_first(self) -> None:
        folded, size = self.items.popleft()
        self.begin = folded.chunk.end
        self.records -= len(folded.chunk.records)
        self.bytes -= size


class LedgerFeed:
    """To be filled in one thread and emptied in another."""

    def __init__(
        self,
        *,
        most_records: int = MOST_RECORDS,
        most_bytes: int = MOST_BYTES,
        enough: int = ENOUGH,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_records = most_records
        self._most_bytes = most_bytes
        self._enough = enough
        self._monotonic = monotonic
        self._lanes: dict[int, _Lane] = {}
        self._lock = Lock()

    def put(self, chunk: Chunk, is_folded: Sequence[bool]) -> None:
        """Adds what was folded. One that doesn't begin where the one before it ended begins a new stretch."""
        with self._lock:
            lane = self._lanes.get(chunk.partition)
            if lane is None or lane.end != chunk.start:
                lane = self._lanes[chunk.partition] = _Lane(chunk.start)
            if chunk.start - lane.asked > self._most_records // len(self._lanes):
                lane.skip(chunk.end)
                return
            size = sum([len(record.value or b"") for record in chunk.records])
            lane.add(Folded(chunk, is_folded), size, self._monotonic())
            self._make_room()

    def _make_room(self) -> None:
        lanes = self._lanes.values()
        while sum(lane.records for lane in lanes) > self._most_records:
            max(lanes, key=lambda lane: lane.records).drop_first()
        while sum(lane.bytes for lane in lanes) > self._most_bytes:
            max(lanes, key=lambda lane: lane.bytes).drop_first()

    def covers(self, partition: int, position: int) -> bool:
        """Whether all from an offset on is here, or will be: nothing from there on need be read."""
        with self._lock:
            lane = self._asked(partition, position)
            return lane is not None and lane.begin <= position

    def is_due(self, partition: int) -> bool:
        """Whether it is worth while to take."""
        with self._lock:
            lane = self._lanes.get(partition)
            if lane is None or not lane.items:
                return False
            return lane.records >= self._enough or self._monotonic() - lane.since >= WAIT_S

    def take(self, partition: int, position: int) -> list[Folded]:
        """Takes all there is from an offset on; nothing where something before it is missing here. The first may begin before
        that offset."""
        with self._lock:
            lane = self._asked(partition, position)
            if lane is None or lane.begin > position:
                return []
            taken = [folded for folded, _ in lane.items if folded.chunk.end > position]
            while lane.items:
                lane.drop_first()
            return taken

    def _asked(self, partition: int, position: int) -> _Lane | None:
        lane = self._lanes.get(partition)
        if lane is not None:
            lane.asked = position
        return lane

    def forget(self, partitions: Iterable[int]) -> None:
        """These are no longer folded here."""
        with self._lock:
            for partition in partitions:
                self._lanes.pop(partition, None)
