"""Fingerprints of a partition that are *young*: in memory as they came, until there are enough of them to be *sorted* for good.

Young ones are scanned, at some gigabytes a second. Sorted ones are in buckets, or, where many rows are under a fingerprint, as an
array of their own. So a term with an action or two, which most are, costs no key of the database.

A bucket holds *entries*, sorted: a fingerprint and a row as one number of 52 bits. They are doubles, which hold such a number
exactly, since Python sorts those several times as fast as integers of more than 30 bits.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from reconciler.plan.index import Term
from streams.gatherer.blocks import COLUMNS, INTEGER_BYTES, NONE, OWN, SIZES, Integers, fingerprint_of

_MANY: Final = 16
"""With so many rows a fingerprint has an array of its own."""
_LARGE_BUCKET: Final = 256
"""Entries of a bucket, which usually has some 100: only in one with more it is looked for such fingerprints."""
_BUCKET_BITS: Final = 10
_ROW_BITS: Final = 20
_NEXT: Final = float(1 << _ROW_BITS)
"""By how much the entries of one fingerprint are before those of the next."""
_NEXT_BUCKET: Final = float(1 << (32 + _ROW_BITS - _BUCKET_BITS))


class Sorted(NamedTuple):
    """What was young, sorted. `first_row` of `Young` is kept with it."""

    buckets: list[tuple[int, bytes]]
    """By the numbers of the buckets; to be looked into by `rows_in`."""
    many: list[tuple[int, bytes]]
    """The rows of fingerprints with many, in the order of the log."""


class Young:
    """The young fingerprints of a partition: some 25 bytes a row."""

    def __init__(self, first_row: int) -> None:
        self.first_row = first_row
        self.rows = 0
        self._columns = [bytearray() for _ in COLUMNS]
        self._further = bytearray()
        self._further_rows: Integers = array("I")

    @property
    def next_row(self) -> int:
        """The number that the next row has."""
        return self.first_row + self.rows

    def add(self, fingerprints: bytes) -> None:
        """Adds what `Block.fingerprints` gave."""
        rows, further = SIZES.unpack_from(fingerprints)
        at = SIZES.size
        data = memoryview(fingerprints)
        for column in self._columns:
            column.extend(data[at : at + rows * INTEGER_BYTES])
            at += rows * INTEGER_BYTES
        middle = at + further * INTEGER_BYTES
        self._further += data[at:middle]
        self._further_rows.frombytes(data[middle:])
        self.rows += rows

    def rows_under(self, term: Term) -> list[int]:
        """The rows that may be under a term, in the order of the log."""
        fingerprint = fingerprint_of(term)
        if term.kind in COLUMNS:
            first = self.first_row
            return [first + index for index in _find(self._columns[COLUMNS.index(term.kind)], fingerprint)]
        return sorted(self._further_rows[index] for index in _find(self._further, fingerprint))

    def sorted(self) -> Sorted:
        """All of it, as it is kept when it is no longer young."""
        assert self.rows < _NEXT
        further_rows = [row - self.first_row for row in self._further_rows]
        entries = _entries(_integers(self._further), further_rows)
        many: dict[int, list[int]] = {}
        for kind, column in zip(COLUMNS, map(_integers, self._columns), strict=True):
            if kind in OWN:
                entries += _entries(column, range(self.rows))
            else:
                entries += _without_many(column, range(self.rows), many)
        many.pop(NONE, None)
        entries.sort()
        buckets = list(_buckets(array("d", entries), many))
        first = self.first_row
        return Sorted(
            buckets,
            [
                (fingerprint, array("I", [first + row for row in sorted(rows)]).tobytes())
                for fingerprint, rows in many.items()
            ],
        )


def _find(column: bytearray, fingerprint: int) -> Iterator[int]:
    """Where a fingerprint stands in a column."""
    pattern = array("I", [fingerprint]).tobytes()
    at = column.find(pattern)
    while at >= 0:
        if at % INTEGER_BYTES == 0:
            yield at // INTEGER_BYTES
            at = column.find(pattern, at + INTEGER_BYTES)
        else:
            at = column.find(pattern, at + 1)


def _integers(column: bytearray) -> Sequence[int]:
    return memoryview(column).cast("I")


def _entries(fingerprints: Iterable[int], rows: Iterable[int]) -> list[float]:
    """Entries; here rows count from the first one."""
    return [fingerprint * _NEXT + row for fingerprint, row in zip(fingerprints, rows, strict=True)]


def _without_many(fingerprints: Sequence[int], rows: Sequence[int], many: dict[int, list[int]]) -> list[float]:
    """The entries but of fingerprints that have many rows, which are added to `many`."""
    if len(set(fingerprints)) == 1 and len(rows) >= _MANY:
        many.setdefault(fingerprints[0], []).extend(rows)
        return []
    found: defaultdict[int, list[int]] = defaultdict(list)
    for fingerprint, row in zip(fingerprints, rows, strict=True):
        found[fingerprint].append(row)
    entries: list[float] = []
    for fingerprint, under in found.items():
        if len(under) >= _MANY:
            many.setdefault(fingerprint, []).extend(under)
        elif fingerprint != NONE:
            entries += [fingerprint * _NEXT + row for row in under]
    return entries


def _buckets(entries: array[float], many: dict[int, list[int]]) -> Iterator[tuple[int, bytes]]:
    """Sorted entries by buckets, but of fingerprints that have many rows."""
    start, end = 0, len(entries)
    while start < end:
        number = int(entries[start] // _NEXT_BUCKET)
        stop = bisect_left(entries, (number + 1) * _NEXT_BUCKET, start, end)
        bucket = entries[start:stop]
        if stop - start > _LARGE_BUCKET:
            fingerprints = [int(entry // _NEXT) for entry in bucket]
            bucket = array("d", sorted(_without_many(fingerprints, [int(entry % _NEXT) for entry in bucket], many)))
        yield number, bucket.tobytes()
        start = stop


def bucket_of(fingerprint: int) -> int:
    """In which bucket a fingerprint is."""
    return fingerprint >> (32 - _BUCKET_BITS)


def rows_in(bucket: bytes, first_row: int, fingerprint: int) -> list[int]:
    """The rows of a fingerprint in a bucket, in the order of the log."""
    entries = memoryview(bucket).cast("d")
    first = fingerprint * _NEXT
    start = bisect_left(entries, first)
    return [first_row + int(entry - first) for entry in entries[start : bisect_left(entries, first + _NEXT, start)]]


def rows_with_many(data: bytes) -> Sequence[int]:
    """The rows of a fingerprint that has many."""
    return memoryview(data).cast("I")
