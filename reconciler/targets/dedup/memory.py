"""Deduplication within one process."""

from __future__ import annotations

import time
from collections.abc import Callable

from reconciler.targets.dedup.config import MemoryDedupConfig
from reconciler.targets.dedup.store import Entry, Held

Monotonic = Callable[[], float]

_SWEEP_EVERY = 1_000


class MemoryDedup:
    """A dict; what is older than it need be is swept out now and then."""

    shared = False

    def __init__(self, config: MemoryDedupConfig, *, monotonic: Monotonic = time.monotonic) -> None:
        self._keep_s = config.keep_s
        self._monotonic = monotonic
        self._leases: dict[str, tuple[str, float]] = {}
        self._entries: dict[str, tuple[Entry, float]] = {}
        self._kept = 0

    async def claim(self, command_id: str, owner: str, lease_s: float) -> Entry:
        now = self._monotonic()
        holder = self._leases.get(command_id)
        if holder is not None and holder[1] > now:
            raise Held
        self._leases[command_id] = (owner, now + lease_s)
        entry, until = self._entries.get(command_id, (Entry(), 0.0))
        return entry if until > now else Entry()

    async def keep(self, command_id: str, owner: str, entry: Entry) -> None:
        if self._leases.get(command_id, ("", 0.0))[0] != owner:
            raise Held
        now = self._monotonic()
        self._entries[command_id] = (entry, now + self._keep_s)
        self._kept += 1
        if self._kept % _SWEEP_EVERY == 0:
            self._entries = {name: kept for name, kept in self._entries.items() if kept[1] > now}
            self._leases = {name: lease for name, lease in self._leases.items() if lease[1] > now}

    async def release(self, command_id: str, owner: str) -> None:
        if self._leases.get(command_id, ("", 0.0))[0] == owner:
            del self._leases[command_id]

    async def close(self) -> None:
        """Nothing is held open."""
