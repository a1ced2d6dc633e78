"""The index of the ledger in RocksDB: where the actions of each partition are found, and how far it has come.

    <partition> a <offset>                      an action's posting
    <partition> t <kind> <length> <value> <offset>   an action under a term
    <partition> p                               up to where the ledger is in here
    <partition> q <question>                    up to where the answer to a standing question was complete
    <partition> l <question> <offset>           an action that came later and is still to be told

Postings, terms and the position of a read are one write batch, so that an unclean stop leaves the index at the end of some
read. All of it can be computed from the topics: what doesn't fit is wiped, and read again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast, get_args

import msgspec
from rocksdict import BlockBasedOptions, Cache, Options, WriteBatch

from reconciler.contracts.model import ContractSet
from reconciler.plan.index import Posting, Term, TermKind, posting_of, terms_of
from reconciler.records import Action
from streams.store.disposable import DisposableDatabase

_FORMAT: Final = "1"
_PARTITION: Final = struct.Struct(">I")
_OFFSET: Final = struct.Struct(">Q")
_LENGTH: Final = struct.Struct(">I")
_POSITION: Final = struct.Struct(">QQ")
_KINDS: Final[dict[TermKind, bytes]] = {kind: bytes((number,)) for number, kind in enumerate(get_args(TermKind), 1)}
_POSTING: Final = msgspec.msgpack.Decoder(Posting)

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


class IndexStore(DisposableDatabase):
    """One database for all partitions. To be used from one thread."""

    def __init__(self, path: Path, identity: str, contracts: ContractSet) -> None:
        """`identity` names cluster, topics and all that the index depends on: one of any other is wiped."""
        self._contracts = contracts
        cache = Cache(_BLOCK_CACHE_BYTES)
        sentence = "the index %s can't be opened (%s); it is made anew from the ledger"
        super().__init__(path, f"{_FORMAT} {identity}".encode(), lambda: _options(cache), sentence)

    def wipe_partition(self, partition: int) -> None:
        """Forgets one partition."""
        prefix = _PARTITION.pack(partition)
        self._database.delete_range(prefix, _PARTITION.pack(partition + 1))

    # -- the ledger

    def position(self, partition: int) -> Position:
        """How far a partition has come."""
        value = self._database.get(_PARTITION.pack(partition) + b"p")
        return Position(0, 0) if value is None else Position(*_POSITION.unpack(value))

    def take(
        self, partition: int, actions: Sequence[tuple[int, Action]], position: Position, late: Sequence[LateAction] = ()
    ) -> None:
        """Takes what was read of a partition: actions with their offsets, and the new position."""
        prefix = _PARTITION.pack(partition)
        batch = WriteBatch(raw_mode=True)
        for offset, action in actions:
            place = _OFFSET.pack(offset)
            posting = posting_of(action, offset)
            batch.put(prefix + b"a" + place, msgspec.msgpack.encode(posting))
            for term in terms_of(action, self._contracts):
                batch.put(prefix + _term(term) + place, b"")
        for item in late:
            batch.put(prefix + _late(item), b"")
        batch.put(prefix + b"p", _POSITION.pack(*position))
        self._database.write(batch)

    def postings(self, partition: int, term: Term) -> Iterator[Posting]:
        """What is found under a term, in the order of the log."""
        prefix = _PARTITION.pack(partition)
        for place in self._below(prefix + _term(term)):
            posting = self.posting(partition, _OFFSET.unpack(place)[0])
            if posting is not None:
                yield posting

    def posting(self, partition: int, offset: int) -> Posting | None:
        """The action at an offset."""
        value = self._database.get(_PARTITION.pack(partition) + b"a" + _OFFSET.pack(offset))
        return None if value is None else _POSTING.decode(value)

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
        for key in self._below(_PARTITION.pack(partition) + b"l"):
            if len(found) == limit:
                break
            found.append(LateAction(key[: -_OFFSET.size - 1].decode(), _OFFSET.unpack(key[-_OFFSET.size :])[0]))
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
        for place in self._below(prefix):
            batch.delete(prefix + place)
        self._database.write(batch)

    def _below(self, prefix: bytes) -> Iterator[bytes]:
        """What the keys that begin so go on with."""
        length = len(prefix)
        # In raw mode keys are bytes; the stubs know only the other mode.
        for key in cast("Iterator[bytes]", self._database.keys(from_key=prefix)):
            if not key.startswith(prefix):
                return
            yield key[length:]

    def close(self) -> None:
        """Gives back files and the lock."""
        self._database.close()


def _term(term: Term) -> bytes:
    value = term.value.encode()
    # The length goes before the value, so that no value is the beginning of another.
    return b"".join((b"t", _KINDS[term.kind], _LENGTH.pack(len(value)), value))


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
