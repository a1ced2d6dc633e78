"""What the consumer hands on: the raw records that one fetch brought for one topic's partition."""

from __future__ import annotations

from typing import Protocol

import msgspec


class RawRecord(Protocol):
    """A record as aiokafka's parser makes it; nothing is decoded yet."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds; -1 where the record has none."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> list[tuple[str, bytes | None]]: ...


class Chunk(msgspec.Struct, frozen=True):
    """Records of one topic's partition, in order, and the stretch of offsets that they stand for.

    The stretch [start, end) holds no other record that a reader of committed transactions would see; it may be longer
    than its records, by what compaction took and by transaction markers, and may hold none at all.
    """

    topic: str
    partition: int
    start: int
    end: int
    records: list[RawRecord]
    era: int
    """Which reading this belongs to: every seek and every rebalance begins another."""

    def split(self, records: int) -> tuple[Chunk, Chunk]:
        """The chunk of its first so many records, fewer than it has, and that of the others."""
        middle = self.records[records].offset
        return (
            Chunk(self.topic, self.partition, self.start, middle, self.records[:records], self.era),
            Chunk(self.topic, self.partition, middle, self.end, self.records[records:], self.era),
        )
