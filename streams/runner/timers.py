"""What is due: the instants at which heads want a timer, and the records that tell the machine that one has come.

The machine has no clock. Its states say when they next want to be woken; this remembers it for the heads of one partition
and says what has come due. A timer is sent as a record like any other, so what it does is in the log. A reminder that
changes nothing is sent again after a while, not at every tick: the machine may have seen it too early, by its own clock of
record timestamps, or the record may have been lost with a worker.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

from reconciler.values.instant import SECOND

REPEATED_AFTER: Final = 30 * SECOND


class Timers:
    """The timers of one partition. All instants are microseconds."""

    def __init__(self, due: Iterable[tuple[bytes, int]]) -> None:
        self._due: dict[bytes, int] = {}
        self._heap: list[tuple[int, bytes]] = []
        self._sent: dict[bytes, tuple[int, int]] = {}
        for key, instant in due:
            self._due[key] = instant
            self._heap.append((instant, key))
        heapq.heapify(self._heap)

    def set(self, key: bytes, due_at: int | None) -> None:
        """A head now wants to be woken then; None: not at all."""
        if due_at is None:
            self._due.pop(key, None)
            self._sent.pop(key, None)
        elif self._due.get(key) != due_at:
            self._due[key] = due_at
            heapq.heappush(self._heap, (due_at, key))

    def pop_due(self, now: int, limit: int) -> list[tuple[bytes, int]]:
        """(key, due_at) of at most `limit` heads that are due; they are due again some time later, if nothing changes."""
        popped: list[tuple[bytes, int]] = []
        repeats: list[tuple[int, bytes]] = []
        while self._heap and self._heap[0][0] <= now and len(popped) < limit:
            instant, key = heapq.heappop(self._heap)
            wanted = self._due.get(key)
            if wanted is None or wanted > instant:
                continue  # what the head wants has changed since; if it wants another time, that stands in the heap too
            sent_for, sent_at = self._sent.get(key, (None, 0))
            if sent_for == wanted and now < sent_at + REPEATED_AFTER:
                continue  # its repetition stands in the heap
            self._sent[key] = (wanted, now)
            popped.append((key, wanted))
            repeats.append((now + REPEATED_AFTER, key))
        for repeat in repeats:
            heapq.heappush(self._heap, repeat)
        return popped

    def __len__(self) -> int:
        return len(self._due)
