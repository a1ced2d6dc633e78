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
    """One assignment of one partition.

    Records are begun, worked on and finished on the event loop; the polling thread asks what to commit, and revokes. A commit
    reaches only as far as everything before it is finished. So a partition that goes is brought to a clean cut first: what
    stands before the last record that was worked on is worked on too, and nothing behind it.
    """

    def __init__(self, partition: int, epoch: int) -> None:
        self.partition = partition
        self._lock = threading.Lock()
        self._epoch = epoch
        self._begun: deque[tuple[int, int]] = deque()
        self._finished: set[int] = set()
        self._given_up: set[int] = set()
        self._last_worked_on = -1
        self._cut: int | None = None
        self._committable: Finished | None = None

    def begin(self, offset: int) -> None:
        """The record at an offset is read. Offsets go up."""
        with self._lock:
            self._begun.append((offset, self._epoch))

    def overtaken_by(self, epoch: int) -> int | None:
        """Takes a command's epoch into account, that of the last record begun. Gives the highest epoch seen if the command's
        is lower: it comes from a worker that was overtaken."""
        with self._lock:
            if epoch < self._epoch:
                return self._epoch
            self._epoch = epoch
            if self._begun:
                self._begun[-1] = (self._begun[-1][0], epoch)
            return None

    def work_on(self, offset: int) -> bool:
        """Whether a record may be worked on now; not if the partition goes, and the record stands behind the cut."""
        with self._lock:
            if self._cut is not None:
                return offset <= self._cut
            self._last_worked_on = max(self._last_worked_on, offset)
            return True

    def finish(self, offset: int) -> None:
        """The record's outcome, or dead letter, is with the brokers."""
        with self._lock:
            self._finished.add(offset)
            while self._begun and self._begun[0][0] in self._finished:
                first, epoch = self._begun.popleft()
                self._finished.discard(first)
                self._committable = Finished(first + 1, epoch)

    def give_up(self, offset: int) -> None:
        """The brokers did not take what became of the record: it will be delivered again."""
        with self._lock:
            self._given_up.add(offset)

    def committable(self) -> Finished | None:
        """What may be committed; None where nothing was finished from the start on."""
        with self._lock:
            return self._committable

    def revoke(self) -> None:
        """The partition goes."""
        with self._lock:
            if self._cut is None:
                self._cut = self._last_worked_on

    def abandon(self) -> None:
        """There is no time left: nothing more is worked on."""
        with self._lock:
            self._cut = -1

    @property
    def is_revoked(self) -> bool:
        """Whether the partition goes, or is gone."""
        return self._cut is not None

    @property
    def is_settled(self) -> bool:
        """Whether a partition that goes has come to its cut."""
        with self._lock:
            done = self._finished | self._given_up
            return self._cut is not None and all(offset > self._cut or offset in done for offset, _ in self._begun)
