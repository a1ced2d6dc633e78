"""Taking the ledger into the index, from the feed or as it was read: the same comes of both.

Which of the two serves a partition is asked before each step (`needs_reading`), and whichever brings something, it counts only
from where the index ends. So they may overlap, and change places at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from reconciler.records import Action, operation_of
from reconciler.wire.codec import Codec
from reconciler.wire.errors import DecodeError
from reconciler.wire.partition import partition_of
from streams.gatherer.feed import Folded, LedgerFeed
from streams.gatherer.index_store import IndexStore, LateAction, Position
from streams.gatherer.standing import StandingQuestions
from streams.transport.chunk import RawRecord


class LedgerRecord(NamedTuple):
    """A record of the ledger as it was read."""

    offset: int
    timestamp_ms: int
    key: bytes | str | None
    value: bytes | str | None


class _Taken(NamedTuple):
    """What is to be indexed of one partition, in the order of the log."""

    actions: list[tuple[int, Action]]
    """With their offsets."""
    timestamps_ms: list[int]
    """Of their records; empty where nobody is to be told of late actions."""
    records: int
    """The offset after the last record, be it an action or not; 0: there was none."""
    end: int
    """Up to where there are no others; 0: not known."""


class LedgerIndexer:
    """Indexes the partitions that were begun. To be used from one thread."""

    def __init__(self, store: IndexStore, feed: LedgerFeed, codec: Codec, partitions: int) -> None:
        self._store = store
        self._feed = feed
        self._codec = codec
        self._partitions = partitions
        self._positions: dict[int, Position] = {}
        self._standing: dict[int, StandingQuestions] = {}
        self.with_late: set[int] = set()
        """The partitions in which something late may be left to tell."""

    @property
    def partitions(self) -> list[int]:
        """Those that were begun."""
        return list(self._positions)

    def position(self, partition: int) -> Position | None:
        """How far a partition has come; None where it wasn't begun."""
        return self._positions.get(partition)

    def begin(self, partition: int, standing: StandingQuestions) -> None:
        """Indexes a partition from now on, from where its index ends. `standing` holds all questions that stand already."""
        self._positions[partition] = self._store.position(partition)
        self._standing[partition] = standing
        self.with_late.add(partition)

    def end(self, partition: int) -> None:
        """Indexes a partition no longer."""
        self._positions.pop(partition, None)
        self._standing.pop(partition, None)
        self._store.release(partition)
        self.with_late.discard(partition)

    def needs_reading(self, partition: int) -> bool:
        """Whether something must be read of the ledger, as the feed doesn't have it."""
        return not self._feed.covers(partition, self._positions[partition].read)

    def take_read(self, partition: int, records: Sequence[LedgerRecord], end: int = 0) -> int:
        """Takes records as they were read, one after the other, up to `end`, or to the last of them. Says how many actions
        were new."""
        position = self._positions[partition].read
        taken = _Taken([], [], records[-1].offset + 1 if records else 0, end)
        for record in records:
            if record.offset >= position:
                action = self._action(partition, record.key, record.value)
                if action is not None:
                    taken.actions.append((record.offset, action))
                    taken.timestamps_ms.append(record.timestamp_ms)
        return self._index(partition, taken)

    def take_fed(self, partition: int, *, at_once: bool = False) -> int:
        """Takes what was fed, if it is enough or `at_once`. Says how many actions were new."""
        if not at_once and not self._feed.is_due(partition):
            return 0
        position = self._positions[partition].read
        folded = self._feed.take(partition, position)
        return self._index(partition, self._fed(partition, position, folded)) if folded else 0

    def _fed(self, partition: int, position: int, folded: Sequence[Folded]) -> _Taken:
        """What the feed brings."""
        actions: list[tuple[int, Action]] = []
        timestamps_ms: list[int] = []
        last = 0
        with_timestamps = len(self._standing[partition]) > 0
        for chunk, is_folded in folded:
            if chunk.records:
                last = chunk.records[-1].offset + 1
            for record, was_folded in zip(chunk.records, is_folded, strict=True):
                if record.offset < position:
                    continue
                # What the table had no use for may be an action all the same, such as one that it had folded before.
                action = self._known_action(record) if was_folded else self._action(partition, record.key, record.value)
                if action is not None:
                    actions.append((record.offset, action))
                    if with_timestamps:
                        timestamps_ms.append(record.timestamp)
        return _Taken(actions, timestamps_ms, last, folded[-1].chunk.end)

    def _known_action(self, record: RawRecord) -> Action:
        """The action of a record that was folded: so it can be read, and is of this partition."""
        return cast("Action", self._codec.decode(record.value))

    def _index(self, partition: int, taken: _Taken) -> int:
        before = self._positions[partition]
        standing = self._standing[partition]
        late: list[LateAction] = []
        if len(standing):
            for (offset, action), timestamp_ms in zip(taken.actions, taken.timestamps_ms, strict=True):
                for question in standing.asking(action, offset, timestamp_ms):
                    late.append(LateAction(question, offset, operation_of(action), action.resource))
        records = max(taken.records, before.records)
        position = Position(max(records, taken.end, before.read), records)
        if position != before:
            self._store.take(partition, taken.actions, position, late)
            self._positions[partition] = position
        if late:
            self.with_late.add(partition)
        return len(taken.actions)

    def _action(self, partition: int, key: object, value: bytes | str | None) -> Action | None:
        """The action of a record, None for what the table doesn't fold either."""
        try:
            action = self._codec.decode(cast("bytes | None", value))
        except DecodeError:
            return None
        if not isinstance(action, Action) or key != action.resource.encode():
            return None
        return action if partition_of(action.resource.encode(), self._partitions) == partition else None
