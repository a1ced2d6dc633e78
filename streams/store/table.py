"""The table of one owned partition: decoded heads in front of the store, and the changes of the batch in flight.

A head that a batch touches is changed where it stands; there is no way back but the one for a batch that is stepped again
(`rollback`). If a batch can't be written, the process ends and the table with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from reconciler.machines.protocol import Machine
from reconciler.wire.codec import MAX_STATE_BYTES
from streams.store.envelope import HeadEnvelope, entry_key
from streams.store.known_ids import add_id, may_have, no_ids
from streams.store.port import Checkpoint, EntryChange, HeadChange, PartitionStore

# How much of the cache goes at once when it is full: evicting one by one costs more than a miss.
_EVICTED_SHARE = 10


_LEAST_BYTES = 200
"""What a decoded head takes beside its state, as bytes of the changelog: also one of which nothing was ever written."""

# What the envelope around a state may take: the key three times over, and offsets of some dozens of inputs.
_ENVELOPE_BYTES = 16 * 1024
MOST_STATE_BYTES = MAX_STATE_BYTES - _ENVELOPE_BYTES
"""What the changelog takes of an encoded state or entry."""


class StateTooLarge(Exception):
    """A head or history entry that no changelog record can hold."""


def check_state_size(resource: str, size: int) -> None:
    """Raises StateTooLarge for an encoded state or entry that is beyond what the changelog takes."""
    if size > MOST_STATE_BYTES:
        raise StateTooLarge(f"{size} bytes for {resource} are beyond the limit of {MOST_STATE_BYTES}")


class Head:
    """What the table holds for one resource, decoded."""

    __slots__ = ("due_at", "ids", "key", "resource", "size", "sources", "state")

    def __init__(
        self, key: bytes, resource: str, state: object, sources: list[int], due_at: int | None, size: int
    ) -> None:
        self.key = key
        self.resource = resource
        self.state = state
        self.sources = sources
        """The offset of the last record of each input that went into it; -1 where there was none."""
        self.due_at = due_at
        self.size = size
        """Its bytes in the changelog, when it was last read from there or written; 0 when it is new."""
        self.ids: bytearray | None = None if size else no_ids()
        """Which entries its history may have; None where that isn't known, as it had some before it was read."""

    @property
    def cached_bytes(self) -> int:
        """What it takes in the cache."""
        return self.size + _LEAST_BYTES + (0 if self.ids is None else len(self.ids))


class BatchChanges:
    """What a batch changed, encoded, ready to be written."""

    __slots__ = ("checkpointed_heads", "entries", "heads", "touched")

    def __init__(
        self,
        heads: Sequence[tuple[bytes, bytes]],
        checkpointed_heads: Sequence[HeadChange],
        entries: Sequence[EntryChange],
        touched: Mapping[str, object],
    ) -> None:
        self.heads = heads
        self.checkpointed_heads = checkpointed_heads
        self.entries = entries
        self.touched = touched


class PartitionTable:
    """Heads and history of one partition. Used from one thread but for `persist`, which writes the store alone."""

    def __init__(
        self, machine: Machine, store: PartitionStore, envelope: HeadEnvelope, inputs: int, cache_max_bytes: int
    ) -> None:
        self._machine = machine
        self._store = store
        self._envelope = envelope
        self._inputs = inputs
        self._cache_max_bytes = cache_max_bytes
        self._cached_bytes = 0
        self.touched_bytes = 0
        """What the heads that the batch in flight has changed took before it."""
        self.cached: dict[bytes, Head] = {}
        """Decoded heads by key. The runner's loop reads it directly; only `load` and `_evict` change its members."""
        self._touched: dict[bytes, tuple[Head, object, list[int], int | None]] = {}
        self._entries: dict[bytes, dict[bytes, bytes | None]] = {}
        """What the batch in flight does to the histories, by key and `entry_key`; None is an entry that goes."""
        self.history = History(store, self._entries)

    def load(self, key: bytes, resource: str) -> Head:
        """The head of a key that isn't cached, new where the table has none. Raises ChangelogMismatch."""
        value = self._store.head(key)
        if value is None:
            head = Head(key, resource, self._machine.initial(resource), [-1] * self._inputs, None, 0)
        else:
            _, sources, state = self._envelope.decode(key, value)
            decoded = self._machine.decode(resource, state)
            head = Head(key, resource, decoded, sources, self._machine.due_at(decoded), len(value))
        self._cached_bytes += head.cached_bytes
        self.cached[key] = head
        return head

    def has(self, key: bytes) -> bool:
        """Whether the table has a head under this key."""
        return key in self.cached or self._store.head(key) is not None

    def touch(self, head: Head) -> None:
        """To be called before a head is first changed in a batch."""
        if head.key not in self._touched:
            self._touched[head.key] = (head, head.state, list(head.sources), head.due_at)
            self.touched_bytes += head.size

    @property
    def touched(self) -> Mapping[bytes, object]:
        """The heads that the batch in flight has changed, by key."""
        return self._touched

    def add_entry(self, head: Head, entry_id: str, entry: bytes) -> None:
        """The batch in flight adds an entry to a history, or writes it over."""
        changed = self._entries.get(head.key)
        if changed is None:
            changed = self._entries[head.key] = {}
        changed[entry_key(head.key, entry_id)] = entry
        if head.ids is not None:
            add_id(head.ids, entry_id)

    def drop_entries(self, head: Head, entry_ids: Iterable[str]) -> None:
        """The batch in flight takes entries away."""
        changed = self._entries.setdefault(head.key, {})
        changed.update((entry_key(head.key, entry_id), None) for entry_id in entry_ids)

    def encode_changes(self) -> BatchChanges:
        """The batch, encoded: each touched head once. Raises whatever the machine's `encode` raises, and StateTooLarge."""
        machine_encode, encode, due_at_of = self._machine.encode, self._envelope.encode, self._machine.due_at
        heads: list[tuple[bytes, bytes]] = []
        changes: list[HeadChange] = []
        states: dict[str, object] = {}
        for key, (head, *_) in self._touched.items():
            state = head.state
            encoded = machine_encode(state)
            if len(encoded) > MOST_STATE_BYTES:
                check_state_size(head.resource, len(encoded))
            value = encode(key, head.sources, encoded)
            self._cached_bytes += len(value) - head.size
            head.size = len(value)
            due_at = head.due_at = due_at_of(state)
            heads.append((key, value))
            changes.append((key, value, due_at))
            states[head.resource] = state
        entries: list[EntryChange] = []
        for changed in self._entries.values():
            entries += changed.items()
        return BatchChanges(heads, changes, entries, states)

    def rollback(self) -> None:
        """Takes the batch in flight back, so that it can be stepped again."""
        for head, state, sources, due_at in self._touched.values():
            head.state, head.sources, head.due_at = state, sources, due_at
        self._forget_changes()

    def persist(self, changes: BatchChanges, checkpoint: Checkpoint) -> None:
        """Writes a batch that the brokers have to the store. From any thread; the batch is still visible meanwhile."""
        self._store.write(changes.checkpointed_heads, changes.entries, checkpoint)

    def settle(self) -> None:
        """The batch is in the store: the next may begin."""
        self._forget_changes()
        if self._cached_bytes > self._cache_max_bytes:
            self._evict()

    def _forget_changes(self) -> None:
        self._touched.clear()
        self._entries.clear()
        self.touched_bytes = 0

    def _evict(self) -> None:
        # In order of loading: good enough, and free. Nothing is in flight here, so nothing can be lost.
        kept_bytes = self._cache_max_bytes - self._cache_max_bytes // _EVICTED_SHARE
        for key in list(self.cached):
            if self._cached_bytes <= kept_bytes:
                return
            self._cached_bytes -= self.cached.pop(key).cached_bytes

    def heads(self) -> Iterator[tuple[str, object]]:
        """(resource, state) of all heads; those that are cached may be one batch ahead of what is durable."""
        for key, value in self._store.heads():
            head = self.cached.get(key)
            resource = key.decode()
            if head is not None:
                yield resource, head.state
            else:
                yield resource, self._machine.decode(resource, self._envelope.decode(key, value)[2])

    def peek(self, key: bytes) -> object | None:
        """The state under a key, None where the table has none. Doesn't fill the cache."""
        head = self.cached.get(key)
        if head is not None:
            return head.state if any(offset >= 0 for offset in head.sources) else None
        value = self._store.head(key)
        return None if value is None else self._machine.decode(key.decode(), self._envelope.decode(key, value)[2])

    def history_of(self, key: bytes) -> History:
        """The history that goes with what `peek` gives: what the batch in flight has added or taken away included."""
        return History(self._store, self._entries).of(key)

    def due(self) -> Iterator[tuple[bytes, int]]:
        """The heads that want a timer, and when, as of the store."""
        return self._store.due()

    def close(self) -> None:
        self._store.close()


class History:
    """Implements `HistoryReader` for one resource after the other: `of` turns it to the next."""

    __slots__ = ("_entries", "_ids", "_key", "_store")

    def __init__(self, store: PartitionStore, entries: Mapping[bytes, Mapping[bytes, bytes | None]]) -> None:
        self._store = store
        self._entries = entries
        self._key = b""
        self._ids: bytearray | None = None

    def of(self, key: bytes, ids: bytearray | None = None) -> History:
        """The history of this resource, as of now: what the batch in flight has added or taken away included. `ids` are those
        of its head, where it is at hand."""
        self._key = key
        self._ids = ids
        return self

    def get(self, entry_id: str) -> bytes | None:
        if self._ids is not None and not may_have(self._ids, entry_id):
            return None
        key = entry_key(self._key, entry_id)
        changed = self._entries.get(self._key)
        if changed is not None and key in changed:
            return changed[key]
        return self._store.entry(key)

    def entries(self) -> Iterator[tuple[str, bytes]]:
        begin = entry_key(self._key, "")
        changed = self._entries.get(self._key, {})
        for raw_id, entry in self._store.entries(self._key):
            if begin + raw_id not in changed:
                yield raw_id.decode(), entry
        for key, added in list(changed.items()):
            if added is not None:
                yield key[len(begin) :].decode(), added
