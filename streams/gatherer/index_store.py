"""The index of the ledger in RocksDB: where the actions of each partition are found, and how far it has come.

    <partition> p                               up to where the ledger is in here, and how many rows there are
    <partition> a <group>                       a group of rows
    <partition> n <row>                         young fingerprints of a read, of the rows from this one on
    <partition> h <bucket> <row>                sorted fingerprints of a bucket, of rows from this one on
    <partition> f <fingerprint> <row>           rows of a fingerprint that has many, from this one on
    <partition> q <question>                    up to where the answer to a standing question was complete
    <partition> l <question> <offset>           an action that came later and is still to be told

What these words mean stands in `blocks` and `young`. What is young is in memory as well; when there is enough of it, it is
sorted. So an action costs a fraction of a key, and a look goes to what is young, to one bucket for every 30,000 actions, and to
the groups of what is found.

All that a read changes is one write batch, so that an unclean stop leaves the index at the end of some read. All of it can be
computed from the topics: what doesn't fit is wiped, and read again.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from heapq import merge
from pathlib import Path
from typing import Final, NamedTuple, cast

import msgspec
from rocksdict import BlockBasedOptions, Cache, Options, WriteBatch

from reconciler.contracts.model import ContractSet
from reconciler.plan.index import Posting, Term
from reconciler.records import Action
from streams.gatherer.blocks import GROUP, Row, fingerprint_of, grouped, pack, place_of, rows_of
from streams.gatherer.young import Young, bucket_of, rows_in, rows_with_many
from streams.store.disposable import DisposableDatabase

# The arrays are as this machine has them.
_FORMAT: Final = f"2 {sys.byteorder}"
_PARTITION: Final = struct.Struct(">I")
_OFFSET: Final = struct.Struct(">Q")
_NUMBER: Final = struct.Struct(">I")
_POSITION: Final = struct.Struct(">QQI")
_TOLD: Final = msgspec.msgpack.Decoder(tuple[str, str])

MOST_YOUNG: Final = 32_768
"""Rows of a partition that are young at the most: a mebibyte of memory."""
_KEPT_GROUPS: Final = 128
"""Decoded groups that are kept while something is looked up."""

# All of it is small: this is read once in a while, and memory belongs to folding.
_BLOCK_CACHE_BYTES: Final = 16 << 20
_WRITE_BUFFER_BYTES: Final = 8 << 20
_BLOOM_BITS: Final = 10
_KEPT_LOGS: Final = 2


class Position(NamedTuple):
    """How far a partition of the ledger is in the index."""

    read: int
    """The next offset to read."""
    records: int
    """The offset after the last record that was read: beyond it, up to `read`, there are none."""


class LateAction(NamedTuple):
    """An action that came after the answer to a standing question."""

    question: str
    offset: int
    operation_id: str
    """As of `operation_of`."""
    resource: str


class _Growing(NamedTuple):
    """What of a partition goes on changing."""

    young: Young
    tail: bytes
    """The last group, where it isn't full."""


class IndexStore(DisposableDatabase):
    """One database for all partitions. To be used from one thread."""

    def __init__(self, path: Path, identity: str, contracts: ContractSet, *, most_young: int = MOST_YOUNG) -> None:
        """`identity` names cluster, topics and all that the index depends on: one of any other is wiped. When more than
        `most_young` rows of a partition are young, they are sorted."""
        self._contracts = contracts
        self._most_young = most_young
        self._growing: dict[int, _Growing] = {}
        cache = Cache(_BLOCK_CACHE_BYTES)
        sentence = "the index %s can't be opened (%s); it is made anew from the ledger"
        super().__init__(path, f"{_FORMAT} {identity}".encode(), lambda: _options(cache), sentence)

    def wipe(self) -> None:
        self._growing.clear()
        super().wipe()

    def wipe_partition(self, partition: int) -> None:
        """Forgets one partition."""
        self._growing.pop(partition, None)
        prefix = _PARTITION.pack(partition)
        self._database.delete_range(prefix, _PARTITION.pack(partition + 1))

    def release(self, partition: int) -> None:
        """Frees the memory that a partition takes: it won't be asked for soon."""
        self._growing.pop(partition, None)

    # -- the ledger

    def position(self, partition: int) -> Position:
        """How far a partition has come."""
        read, records, _ = self._marked(partition)
        return Position(read, records)

    def _marked(self, partition: int) -> tuple[int, int, int]:
        value = self._database.get(_PARTITION.pack(partition) + b"p")
        return (0, 0, 0) if value is None else _POSITION.unpack(value)

    def take(
        self, partition: int, actions: Sequence[tuple[int, Action]], position: Position, late: Sequence[LateAction] = ()
    ) -> None:
        """Takes what was read of a partition: actions with their offsets, and the new position."""
        prefix = _PARTITION.pack(partition)
        batch = WriteBatch(raw_mode=True)
        growing = self._growing.pop(partition, None) or self._read_growing(partition)
        if actions:
            growing = self._add(batch, prefix, growing, actions)
        for item in late:
            batch.put(prefix + _late(item), msgspec.msgpack.encode((item.operation_id, item.resource)))
        batch.put(prefix + b"p", _POSITION.pack(*position, growing.young.next_row))
        self._database.write(batch)
        # Only now: where the write failed, it is read again.
        self._growing[partition] = growing

    def _add(
        self, batch: WriteBatch, prefix: bytes, growing: _Growing, actions: Sequence[tuple[int, Action]]
    ) -> _Growing:
        """Adds actions, and says what goes on changing then."""
        young, tail = growing
        first = young.next_row
        block = pack(actions, first, self._contracts)
        for number, group in enumerate(grouped(block.rows, tail), first // GROUP):
            batch.put(prefix + b"a" + _NUMBER.pack(number), group)
            tail = group
        fingerprints = block.fingerprints()
        young.add(fingerprints)
        if young.rows <= self._most_young:
            batch.put(prefix + b"n" + _NUMBER.pack(first), fingerprints)
        else:
            self._sort(batch, prefix, young)
            young = Young(young.next_row)
        return _Growing(young, tail if young.next_row % GROUP else b"")

    @staticmethod
    def _sort(batch: WriteBatch, prefix: bytes, young: Young) -> None:
        batch.delete_range(prefix + b"n", prefix + b"o")
        first = _NUMBER.pack(young.first_row)
        found = young.sorted()
        for bucket, entries in found.buckets:
            batch.put(prefix + b"h" + _NUMBER.pack(bucket) + first, entries)
        for fingerprint, rows in found.many:
            batch.put(prefix + b"f" + _NUMBER.pack(fingerprint) + first, rows)

    def _read_growing(self, partition: int) -> _Growing:
        prefix = _PARTITION.pack(partition)
        _, _, rows = self._marked(partition)
        found = list(self._items_below(prefix + b"n"))
        young = Young(_NUMBER.unpack(found[0][0])[0] if found else rows)
        for _, fingerprints in found:
            young.add(fingerprints)
        tail = self._database.get(prefix + b"a" + _NUMBER.pack(rows // GROUP)) if rows % GROUP else None
        return _Growing(young, tail or b"")

    # -- looking up

    def postings(self, partition: int, term: Term) -> Iterator[Posting]:
        """What is found under a term, in the order of the log."""
        prefix = _PARTITION.pack(partition) + b"a"
        groups: dict[int, list[Row]] = {}
        last = -1
        for row in self._rows(partition, term):
            if row == last:
                continue  # two of its terms have one fingerprint
            last = row
            number, index = place_of(row)
            rows = groups.get(number)
            if rows is None:
                if len(groups) == _KEPT_GROUPS:
                    groups.clear()
                rows = groups[number] = self._group(prefix + _NUMBER.pack(number))
            if rows[index].is_under(term):
                yield rows[index].posting()

    def _group(self, key: bytes) -> list[Row]:
        group = self._database.get(key)
        assert group is not None
        return rows_of(group)

    def _rows(self, partition: int, term: Term) -> Iterator[int]:
        """The rows that may be under a term, in the order of the log."""
        fingerprint = fingerprint_of(term)
        return merge(self._few(partition, term, fingerprint), self._many(partition, fingerprint))

    def _few(self, partition: int, term: Term, fingerprint: int) -> Iterator[int]:
        bucket = _PARTITION.pack(partition) + b"h" + _NUMBER.pack(bucket_of(fingerprint))
        for first, entries in self._items_below(bucket):
            yield from rows_in(entries, _NUMBER.unpack(first)[0], fingerprint)
        growing = self._growing.get(partition)
        if growing is None:
            growing = self._growing[partition] = self._read_growing(partition)
        yield from growing.young.rows_under(term)

    def _many(self, partition: int, fingerprint: int) -> Iterator[int]:
        prefix = _PARTITION.pack(partition) + b"f" + _NUMBER.pack(fingerprint)
        for _, rows in self._items_below(prefix):
            yield from rows_with_many(rows)

    # -- standing questions

    def complete_up_to(self, partition: int, question: str) -> int | None:
        """Up to where the answer to a question was complete; None where it isn't known here."""
        value = self._database.get(_PARTITION.pack(partition) + b"q" + question.encode())
        return None if value is None else _OFFSET.unpack(value)[0]

    def answered(self, partition: int, question: str, complete_up_to: int) -> None:
        """Remembers that a question was answered."""
        self._database.put(_PARTITION.pack(partition) + b"q" + question.encode(), _OFFSET.pack(complete_up_to))

    def late(self, partition: int, limit: int) -> list[LateAction]:
        """Actions that are still to be told, by question and offset."""
        found: list[LateAction] = []
        for key, value in self._items_below(_PARTITION.pack(partition) + b"l"):
            if len(found) == limit:
                break
            question, offset = key[: -_OFFSET.size - 1].decode(), _OFFSET.unpack(key[-_OFFSET.size :])[0]
            found.append(LateAction(question, offset, *_TOLD.decode(value)))
        return found

    def late_was_told(self, partition: int, told: Sequence[LateAction]) -> None:
        """These need not be told any more."""
        prefix = _PARTITION.pack(partition)
        batch = WriteBatch(raw_mode=True)
        for item in told:
            batch.delete(prefix + _late(item))
        self._database.write(batch)

    def forget_late(self, partition: int, question: str) -> None:
        """Nothing that came before is to be told to a question: its answer has it."""
        prefix = _PARTITION.pack(partition) + b"l" + question.encode() + b"\0"
        batch = WriteBatch(raw_mode=True)
        for place, _ in self._items_below(prefix):
            batch.delete(prefix + place)
        self._database.write(batch)

    def _items_below(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """What the keys that begin so go on with, and their values."""
        length = len(prefix)
        # In raw mode keys and values are bytes; the stubs know only the other mode.
        for key, value in cast("Iterator[tuple[bytes, bytes]]", self._database.items(from_key=prefix)):
            if not key.startswith(prefix):
                return
            yield key[length:], value

    def close(self) -> None:
        """Gives back files and the lock."""
        self._database.close()


def _late(item: LateAction) -> bytes:
    return b"".join((b"l", item.question.encode(), b"\0", _OFFSET.pack(item.offset)))


def _options(cache: Cache) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(_BLOOM_BITS, block_based=False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(_KEPT_LOGS)
    return options
