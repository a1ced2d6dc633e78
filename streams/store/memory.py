"""A store in memory: rebuilt from the changelog at every start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streams.store.port import Checkpoint, EntryChange, HeadChange

_SEPARATOR = b"\0"


class MemoryStore:
    """Implements `PartitionStore`."""

    def __init__(self) -> None:
        self.wipe()

    def wipe(self) -> None:
        self._heads: dict[bytes, bytes] = {}
        self._due: dict[bytes, int] = {}
        self._entries: dict[bytes, dict[bytes, bytes]] = {}
        self._checkpoint: Checkpoint | None = None

    def checkpoint(self) -> Checkpoint | None:
        return self._checkpoint

    def head(self, key: bytes) -> bytes | None:
        return self._heads.get(key)

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        yield from list(self._heads.items())

    def due(self) -> Iterator[tuple[bytes, int]]:
        yield from list(self._due.items())

    def entry(self, key: bytes) -> bytes | None:
        resource, _, entry_id = key.partition(_SEPARATOR)
        return self._entries.get(resource, {}).get(entry_id)

    def entries(self, resource: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from list(self._entries.get(resource, {}).items())

    def write(self, heads: Sequence[HeadChange], entries: Sequence[EntryChange], checkpoint: Checkpoint) -> None:
        for key, value, due_at in heads:
            self._heads[key] = value
            if due_at is None:
                self._due.pop(key, None)
            else:
                self._due[key] = due_at
        for key, entry in entries:
            resource, _, entry_id = key.partition(_SEPARATOR)
            if entry is not None:
                self._entries.setdefault(resource, {})[entry_id] = entry
            elif resource in self._entries:
                self._entries[resource].pop(entry_id, None)
                if not self._entries[resource]:
                    del self._entries[resource]
        self._checkpoint = checkpoint

    def close(self) -> None:
        self.wipe()
