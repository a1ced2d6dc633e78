"""What a partition's local store must do. It is a copy of the changelog topics, never more: it may be wiped at any time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

import msgspec

HeadChange: TypeAlias = tuple[bytes, bytes, int | None]
"""(key, changelog value, when it next wants a timer)."""

EntryChange: TypeAlias = tuple[bytes, bytes | None]
"""(resource + 0x00 + entry id, entry); None takes it away."""


class Mark(msgspec.Struct, frozen=True):
    """How far a partition has come: written with every batch, to the changelog and to the store."""

    epoch: int
    """Counts the owners of the partition; each claims the next one."""
    consumed: dict[str, int]
    """The next offset of each input topic: all before it is in the table."""
    now: int
    """The greatest record timestamp so far, in microseconds."""
    owner: str
    """Who wrote this: for people."""


class Checkpoint(msgspec.Struct, frozen=True):
    """Up to where the changelog is in the store."""

    heads: int
    """The next offset of the heads' changelog."""
    history: int
    """The next offset of the history's changelog."""
    mark: Mark | None
    written_at: float
    """Wall clock in seconds: a store that lay idle too long may have missed deletions."""


class PartitionStore(Protocol):
    """Reads may come from another thread than writes; writes come one at a time."""

    def checkpoint(self) -> Checkpoint | None:
        """None: empty, or of another cluster, topic or format than asked for; then it has been wiped."""
        ...

    def head(self, key: bytes) -> bytes | None:
        """The changelog value of a head."""
        ...

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        """All heads, as of the first step of the iterator."""
        ...

    def due(self) -> Iterator[tuple[bytes, int]]:
        """The heads that want a timer, and when."""
        ...

    def entry(self, key: bytes) -> bytes | None:
        """One history entry, by resource + 0x00 + entry id."""
        ...

    def entries(self, resource: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The history of a resource: (entry id, entry)."""
        ...

    def write(self, heads: Sequence[HeadChange], entries: Sequence[EntryChange], checkpoint: Checkpoint) -> None:
        """All of it or nothing, also through a crash."""
        ...

    def wipe(self) -> None:
        """Forgets everything."""
        ...

    def close(self) -> None:
        """Gives back files and locks. Reading afterwards is an error."""
        ...
