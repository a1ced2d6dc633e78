"""How far a partition is: what was begun in order and is finished in any order, and the highest fencing epoch in it.

The epoch travels in the metadata of the committed offset, so that it outlives the process and moves with the partition.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, NamedTuple

_EPOCH: Final = "epoch="


class Finished(NamedTuple):
    """Everything below ``offset`` is finished; ``epoch`` is the highest in it."""

    offset: int
    epoch: int


def epoch_metadata(epoch: int) -> str:
    """The metadata of a committed offset."""
    return f"{_EPOCH}{epoch}"


def epoch_of(metadata: str | None) -> int:
    """The epoch in the metadata of a committed offset; 0 where there is none."""
    digits = (metadata or "").removeprefix(_EPOCH)
    return int(digits) if digits.isascii() and digits.isdigit() else 0


class PartitionProgress:
    """One assignment of one partition. Records are begun and finished on the event loop; the polling thread asks what to
    commit, and revokes."""

    def __init__(self, partition: int, epoch: int) -> None:
        self.partition = partition
        self.is_revoked = False
        """Nothing that isn't begun yet may be begun."""
        self._lock = threading.Lock()
        self._epoch = epoch
        self._under_way: deque[tuple[int, int]] = deque()
        self._finished: set[int] = set()
        self._committable: Finished | None = None

    def begin(self, offset: int) -> None:
        """The record at an offset is read. Offsets go up."""
        with self._lock:
            self._under_way.append((offset, self._epoch))

    def overtaken_by(self, epoch: int) -> int | None:
        """Takes a command's epoch into account, that of the last record begun. Gives the highest epoch seen if the command's
        is lower: it comes from a worker that was overtaken."""
        with self._lock:
            if epoch < self._epoch:
                return self._epoch
            self._epoch = epoch
            if self._under_way:
                self._under_way[-1] = (self._under_way[-1][0], epoch)
            return None

    def finish(self, offset: int) -> None:
        """The record's outcome, or dead letter, is with the brokers."""
        with self._lock:
            self._finished.add(offset)
            while self._under_way and self._under_way[0][0] in self._finished:
                first, epoch = self._under_way.popleft()
                self._finished.discard(first)
                self._committable = Finished(first + 1, epoch)

    def committable(self) -> Finished | None:
        """What may be committed; None where nothing was finished from the start on."""
        with self._lock:
            return self._committable
