"""A store in RocksDB: one database a partition, every batch and its checkpoint in one WriteBatch.

The batch is written only after the brokers have it, so the store is never ahead of the changelog. There is no write-ahead log:
the changelog is one. An unclean stop loses what RocksDB had in memory alone, which is whole batches, the last ones; the
checkpoint that is left says from where they are read again. What doesn't fit (another cluster, another format, a corrupt file)
is wiped and read again.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import msgspec
from rocksdict import BlockBasedOptions, Cache, Options, WriteBatch, WriteOptions

from streams.store.disposable import DisposableDatabase
from streams.store.port import Checkpoint, EntryChange, HeadChange

logger = logging.getLogger(__name__)

_HEAD = b"h"
_DUE = b"d"
_ENTRY = b"e"
_CHECKPOINT = b"checkpoint"
_FORMAT = "1"
_BLOOM_BITS = 10
_MEMTABLE_BLOOM_SHARE = 0.05
_WRITE_BUFFER_BYTES = 16 << 20
_KEPT_LOGS = 2
_FLUSHED_EVERY_S = 300.0
"""Not more than what came in so much time is in memory alone, also where little comes."""
_DUE_FORMAT = struct.Struct(">q")

# Shared by all partitions of the process.
_BLOCK_CACHE_BYTES = 64 << 20


class RocksStores:
    """Opens the stores of a worker, with one block cache for all."""

    def __init__(self, folder: Path, identity: str) -> None:
        """`identity` names cluster and topics: a store of any other is wiped."""
        self._folder = folder
        self._identity = f"{_FORMAT} {identity}"
        self._cache = Cache(_BLOCK_CACHE_BYTES)

    def open(self, name: str) -> RocksStore:
        """The store of this name. One process at a time: RocksDB's own lock sees to it."""
        return RocksStore(self._folder / name, self._identity, self._cache)


class RocksStore(DisposableDatabase):
    """Implements `PartitionStore`."""

    def __init__(self, path: Path, identity: str, cache: Cache) -> None:
        sentence = "the store %s can't be opened (%s); it is rebuilt from the changelog"
        super().__init__(path, identity.encode(), lambda: _options(cache), sentence)
        self._with_timer: set[bytes] | None = None
        """The heads that want a timer; None until the first write. Nearly none does, so nearly none need be deleted."""
        self._flushed_at: float | None = None

    def checkpoint(self) -> Checkpoint | None:
        value = self._database.get(_CHECKPOINT)
        if value is None:
            return None
        try:
            return msgspec.json.decode(value, type=Checkpoint)
        except msgspec.DecodeError:
            logger.warning("the store %s has no readable checkpoint; it is rebuilt from the changelog", self._path)
            self.wipe()
            return None

    def head(self, key: bytes) -> bytes | None:
        value: bytes | None = self._database.get(_HEAD + key)
        return value

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        return self._scan(_HEAD)

    def due(self) -> Iterator[tuple[bytes, int]]:
        for key, value in self._scan(_DUE):
            yield key, _DUE_FORMAT.unpack(value)[0]

    def entry(self, key: bytes) -> bytes | None:
        value: bytes | None = self._database.get(_ENTRY + key)
        return value

    def entries(self, resource: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._scan(_ENTRY + resource + b"\0")

    def _scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        length = len(prefix)
        # In raw mode keys and values are bytes; the stubs know only the other mode.
        for key, value in cast("Iterator[tuple[bytes, bytes]]", self._database.items(from_key=prefix)):
            if not key.startswith(prefix):
                return
            yield key[length:], value

    def write(self, heads: Sequence[HeadChange], entries: Sequence[EntryChange], checkpoint: Checkpoint) -> None:
        with_timer = self._with_timer
        if with_timer is None:
            with_timer = self._with_timer = {key for key, _ in self.due()}
        batch = WriteBatch(raw_mode=True)
        for key, value, due_at in heads:
            batch.put(_HEAD + key, value)
            if due_at is not None:
                batch.put(_DUE + key, _DUE_FORMAT.pack(due_at))
                with_timer.add(key)
            elif key in with_timer:
                batch.delete(_DUE + key)
                with_timer.remove(key)
        for key, entry in entries:
            if entry is None:
                batch.delete(_ENTRY + key)
            else:
                batch.put(_ENTRY + key, entry)
        batch.put(_CHECKPOINT, msgspec.json.encode(checkpoint))
        self._database.write(batch, _UNLOGGED)
        if self._flushed_at is None:
            self._flushed_at = checkpoint.written_at
        elif checkpoint.written_at - self._flushed_at >= _FLUSHED_EVERY_S:
            self._flushed_at = checkpoint.written_at
            self._database.flush(False)  # it goes on behind our back

    def wipe(self) -> None:
        super().wipe()
        self._with_timer = None

    def close(self) -> None:
        self._database.close()


def _unlogged() -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[assignment,method-assign]  # the stubs have a method where it is a property
    return options


_UNLOGGED = _unlogged()


def _options(cache: Cache) -> Options:
    # Given at every opening: rocksdict reloads none of it.
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(_BLOOM_BITS, block_based=False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    # Nearly every action asks for an entry that isn't there.
    options.set_memtable_whole_key_filtering(True)
    options.set_memtable_prefix_bloom_ratio(_MEMTABLE_BLOOM_SHARE)
    options.set_keep_log_file_num(_KEPT_LOGS)
    return options
