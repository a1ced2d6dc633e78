"""The values of the changelog topics, written and read by hand: they name their table and key, and say who wrote them.

The format is that of `reconciler.wire.changelog`; what stays the same within a partition is joined once. A value that is
framed by another version of the schema takes the codec's general way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from reconciler.wire.changelog import ExpectedHead, HistoryEntry, avro_long, avro_string
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from streams.store.port import Mark

T = TypeVar("T")

MARK_SYSTEM = "reconciler.internal"
"""The system of the resource that a partition's mark is kept under, in the history's changelog."""

_SEPARATOR = b"\0"


class ChangelogMismatch(Exception):
    """A changelog holds a value that is not of this table, not of its key, or not readable: nothing can be recovered from it."""


class HeadEnvelope:
    """Writes and reads heads of one partition. Source offsets are lists by the position of the topic in `topics`; -1 is none."""

    def __init__(
        self, codec: Codec, header: bytes, table: str, machine_version: int, topics: Sequence[str], partition: int
    ) -> None:
        self._codec = codec
        self._header = header
        self._table = table
        self._topics = tuple(topics)
        self._index = {topic: index for index, topic in enumerate(topics)}
        self._index_raw = {topic.encode(): index for index, topic in enumerate(topics)}
        self._partition = partition
        self._prefix = header + avro_string(table)
        self._version = avro_long(machine_version)
        self._version_epoch = self._version + avro_long(0)
        self._places = [avro_string(topic) + avro_long(partition) for topic in topics]

    def set_epoch(self, epoch: int) -> None:
        """The epoch of everything that is written from now on."""
        self._version_epoch = self._version + avro_long(epoch)

    def encode(self, key: bytes, sources: Sequence[int], state: bytes) -> bytes:
        """The changelog value of a head; `state` is JSON text."""
        places = self._places
        count = 0
        offsets = b""
        for index, offset in enumerate(sources):
            if offset >= 0:
                count += 1
                offsets += places[index] + _natural(offset)
        block = _natural(count) + offsets + b"\0" if count else b"\0"
        return b"".join(
            (self._prefix, _natural(len(key)), key, self._version_epoch, block, _natural(len(state)), state)
        )

    def decode(self, key: bytes, value: bytes) -> tuple[int, list[int], bytes]:
        """(epoch, source offsets, state). Raises ChangelogMismatch."""
        if not value.startswith(self._header):
            return self._decode_slowly(key, value)
        prefix = self._prefix + avro_long(len(key)) + key
        if not value.startswith(prefix):
            raise ChangelogMismatch(f"the value under the key {key!r} is not of that key in the table {self._table!r}")
        try:
            return self._decode_rest(value, len(prefix))
        except IndexError:
            raise ChangelogMismatch(f"the value under the key {key!r} is cut short") from None

    def _decode_rest(self, value: bytes, at: int) -> tuple[int, list[int], bytes]:
        _, at = read_long(value, at)
        epoch, at = read_long(value, at)
        sources = [-1] * len(self._topics)
        count, at = read_long(value, at)
        while count:
            if count < 0:
                # An Avro block may begin with its size in bytes.
                count = -count
                _, at = read_long(value, at)
            for _ in range(count):
                length, at = read_long(value, at)
                index = self._index_raw.get(value[at : at + length])
                partition, at = read_long(value, at + length)
                offset, at = read_long(value, at)
                if index is not None and partition == self._partition:
                    sources[index] = offset
            count, at = read_long(value, at)
        length, at = read_long(value, at)
        state = value[at : at + length]
        if len(state) != length:
            raise IndexError
        return epoch, sources, state

    def _decode_slowly(self, key: bytes, value: bytes) -> tuple[int, list[int], bytes]:
        head = _decoded(self._codec, ExpectedHead, key, value)
        if head.table != self._table or head.resource.encode() != key:
            raise ChangelogMismatch(
                f"the value under the key {key!r} is of {head.resource!r} in the table {head.table!r}, not in {self._table!r}"
            )
        sources = [-1] * len(self._topics)
        for source in head.sources:
            if source.topic in self._index and source.partition == self._partition:
                sources[self._index[source.topic]] = source.offset
        return head.epoch, sources, head.state


class EntryEnvelope:
    """Writes and reads history entries and the mark of one partition."""

    def __init__(self, codec: Codec, header: bytes, table: str, machine_version: int, partition: int) -> None:
        self._codec = codec
        self._header = header
        self._table = table
        self.mark_key = entry_key(f"{MARK_SYSTEM}/partition/{partition}".encode(), "mark")
        self._prefix = header + avro_string(table)
        self._version = avro_long(machine_version)
        self._version_epoch = self._version + avro_long(0)

    def set_epoch(self, epoch: int) -> None:
        """The epoch of everything that is written from now on."""
        self._version_epoch = self._version + avro_long(epoch)

    def encode(self, key: bytes, entry: bytes) -> bytes:
        """The changelog value of an entry; `key` is resource + 0x00 + entry id, the entry JSON text."""
        return b"".join((self._prefix, _key_fields(key), self._version_epoch, _natural(len(entry)), entry))

    def encode_mark(self, mark: Mark) -> bytes:
        """The changelog value of the partition's mark."""
        return self.encode(self.mark_key, msgspec.json.encode(mark))

    def decode(self, key: bytes, value: bytes) -> tuple[int, bytes]:
        """(epoch, entry). Raises ChangelogMismatch."""
        if not value.startswith(self._header):
            return self._decode_slowly(key, value)
        prefix = self._prefix + _key_fields(key)
        if not value.startswith(prefix):
            raise ChangelogMismatch(f"the value under the key {key!r} is not of that key in the table {self._table!r}")
        try:
            _, at = read_long(value, len(prefix))
            epoch, at = read_long(value, at)
            length, at = read_long(value, at)
        except IndexError:
            raise ChangelogMismatch(f"the value under the key {key!r} is cut short") from None
        entry = value[at : at + length]
        if len(entry) != length:
            raise ChangelogMismatch(f"the value under the key {key!r} is cut short")
        return epoch, entry

    def decode_mark(self, value: bytes) -> Mark:
        """The partition's mark. Raises ChangelogMismatch."""
        try:
            return msgspec.json.decode(self.decode(self.mark_key, value)[1], type=Mark)
        except msgspec.DecodeError as error:
            raise ChangelogMismatch(f"a partition's mark can't be read: {error}") from None

    def _decode_slowly(self, key: bytes, value: bytes) -> tuple[int, bytes]:
        record = _decoded(self._codec, HistoryEntry, key, value)
        if record.table != self._table or entry_key(record.resource.encode(), record.entry_id) != key:
            raise ChangelogMismatch(
                f"the value under the key {key!r} is of {record.resource!r} in the table {record.table!r}, not in {self._table!r}"
            )
        return record.epoch, record.entry


def entry_key(resource: bytes, entry_id: str) -> bytes:
    """The key of a history entry."""
    return resource + _SEPARATOR + entry_id.encode()


def _key_fields(key: bytes) -> bytes:
    resource, separator, entry_id = key.partition(_SEPARATOR)
    if not separator:
        raise ChangelogMismatch(f"the key {key!r} names no history entry")
    return b"".join((_natural(len(resource)), resource, _natural(len(entry_id)), entry_id))


def _natural(number: int) -> bytes:
    """`avro_long` of a number that isn't negative, without a loop up to 2^27: lengths and most offsets."""
    if number >= 0x8000000:
        return avro_long(number)
    coded = number << 1
    if coded < 0x80:
        return _ONE_BYTE[coded]
    if coded < 0x4000:
        return bytes((coded & 0x7F | 0x80, coded >> 7))
    if coded < 0x200000:
        return bytes((coded & 0x7F | 0x80, coded >> 7 & 0x7F | 0x80, coded >> 14))
    return bytes((coded & 0x7F | 0x80, coded >> 7 & 0x7F | 0x80, coded >> 14 & 0x7F | 0x80, coded >> 21))


_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))


def read_long(value: bytes, at: int) -> tuple[int, int]:
    """(integer, next position) of Avro's zigzag coding. Raises IndexError at the end of the bytes."""
    coded = value[at]
    at += 1
    rest = coded & 0x7F
    shift = 7
    while coded & 0x80:
        coded = value[at]
        at += 1
        rest |= (coded & 0x7F) << shift
        shift += 7
    return (rest >> 1) ^ -(rest & 1), at


def _decoded(codec: Codec, kind: type[T], key: bytes, value: bytes) -> T:
    try:
        record = codec.decode(value)
    except DecodeError as error:
        raise ChangelogMismatch(f"the value under the key {key!r} can't be read: {error}") from None
    if not isinstance(record, kind):
        raise ChangelogMismatch(f"the value under the key {key!r} is a {type(record).__name__}, not a {kind.__name__}")
    return record
