"""Whatever the feed and the readings bring, in whatever turns: the index is that of the ledger, and late actions are told once."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.contracts.model import ContractSet
from reconciler.plan.index import ActionIndex, Term
from reconciler.records import Action, GatherQuery, Selector
from reconciler.wire.codec import Codec
from reconciler.wire.partition import partition_of
from reconciler.wire.topics import TopicNames
from streams.gatherer.feed import LedgerFeed
from streams.gatherer.index_store import IndexStore, LateAction
from streams.gatherer.indexing import LedgerIndexer, LedgerRecord
from streams.gatherer.standing import Standing, StandingQuestions
from streams.transport.chunk import Chunk
from tests.core.histories import make_action

CONTRACTS = ContractSet()
CODEC = Codec.packaged()
TOPIC = TopicNames("").actions
PARTITIONS = 4
RESOURCES = [f"crm/contact/{number}" for number in range(8)]
PARTITION = partition_of(RESOURCES[0].encode(), PARTITIONS)
HERE = [resource for resource in RESOURCES if partition_of(resource.encode(), PARTITIONS) == PARTITION]
ELSEWHERE = [resource for resource in RESOURCES if resource not in HERE]


class Log:
    """A partition of the ledger, with what is good in it."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.good: dict[int, Action] = {}
        self.end = 0

    def add(self, kind: str, number: int) -> None:
        resource = ELSEWHERE[0] if kind == "misplaced" else HERE[number % len(HERE)]
        action = make_action(number, resource=resource, run_id=f"r{number % 3}")
        value = b"nonsense" if kind == "nonsense" else CODEC.encode(TOPIC, action)
        key = b"other" if kind == "wrong key" else resource.encode()
        self.records.append(SimpleNamespace(offset=self.end, timestamp=number, key=key, value=value, headers=[]))
        if kind == "good":
            self.good[self.end] = action
        self.end += 1

    def between(self, start: int, end: int) -> list[Any]:
        return [record for record in self.records if start <= record.offset < end]


KINDS = st.sampled_from(["good", "good", "good", "nonsense", "wrong key", "misplaced", "gap"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexStore]:
    opened = IndexStore(tmp_path_factory.mktemp("index") / "index", "x", CONTRACTS, most_young=4)
    yield opened
    opened.close()


@given(kinds=st.lists(KINDS, max_size=25), data=st.data())
@settings(deadline=None, max_examples=80)
def test_the_index_is_that_of_the_ledger(store: IndexStore, kinds: list[str], data: st.DataObject) -> None:
    log = Log()
    for number, kind in enumerate(kinds):
        if kind == "gap":
            log.end += 1  # a marker of a transaction, or what compaction took
        else:
            log.add(kind, number)
    asked_at = data.draw(st.integers(0, log.end))
    store.wipe_partition(PARTITION)
    world = World(store, log, asked_at, data)
    while not world.is_done:
        world.turn()
    memory = ActionIndex(CONTRACTS)
    for offset, action in log.good.items():
        memory.take(action, offset)
    for term in [Term("run", "r0"), Term("run", "r1"), Term("system", "crm"), *(Term("resource", key) for key in HERE)]:
        assert list(store.postings(PARTITION, term)) == memory.postings(term)
    assert [item.offset for item in world.told] == [
        offset for offset, action in log.good.items() if offset >= asked_at and action.run_id == "r1"
    ]


class World:
    """A table that folds the log and feeds, a gatherer that indexes it, and what may happen to them."""

    def __init__(self, store: IndexStore, log: Log, asked_at: int, data: st.DataObject) -> None:
        self._store = store
        self._log = log
        self._asked_at = asked_at
        self._data = data
        self._folded = 0
        self._reading: int | None = None
        self.told: list[LateAction] = []
        self._feed = LedgerFeed(most_records=data.draw(st.sampled_from([3, 1_000])), enough=1)
        self._begin()

    def _begin(self) -> None:
        self._store.release(PARTITION)
        self._indexer = LedgerIndexer(self._store, self._feed, CODEC, PARTITIONS)
        standing = StandingQuestions()
        query = GatherQuery(
            rollback_id="rb", round=1, partition=PARTITION, standing=True, select=Selector(run_id="r1"), occurred_at=0
        )
        standing.add(Standing("rb/1", query, self._asked_at, 0))
        self._indexer.begin(PARTITION, standing)
        self._reading = None

    @property
    def _position(self) -> int:
        position = self._indexer.position(PARTITION)
        assert position is not None
        return position.read

    @property
    def is_done(self) -> bool:
        return self._position == self._log.end

    def turn(self) -> None:
        what = self._data.draw(st.sampled_from(["fold", "fold", "gather", "gather", "restart", "rebalance", "ask"]))
        match what:
            case "fold":
                self._fold()
            case "gather":
                self._gather(is_asked=False)
            case "ask":
                self._gather(is_asked=True)
            case "restart":
                self._begin()
            case "rebalance":
                # The table begins anew where it has committed; what it folds again it feeds again.
                self._feed.forget([PARTITION])
                self._folded = self._data.draw(st.integers(0, self._folded))

    def _fold(self) -> None:
        start, end = self._folded, min(self._folded + self._data.draw(st.integers(1, 6)), self._log.end)
        if start == end:
            return
        self._folded = end
        records = self._log.between(start, end)
        # A good record may go another way too: it was folded before, or the machine refuses it.
        folded = [each.offset in self._log.good and self._data.draw(st.booleans()) for each in records]
        self._feed.put(Chunk(TOPIC, PARTITION, start, end, records, 0), folded)

    def _gather(self, *, is_asked: bool) -> None:
        """One poll of the reader."""
        if self._reading is not None:
            start, end = self._reading, min(self._reading + self._data.draw(st.integers(1, 6)), self._log.end)
            self._reading = end
            records = [LedgerRecord(it.offset, it.timestamp, it.key, it.value) for it in self._log.between(start, end)]
            self._indexer.take_read(PARTITION, records, end if end == self._log.end else 0)
        self._indexer.take_fed(PARTITION, at_once=is_asked)
        if not (is_asked or self._indexer.needs_reading(PARTITION)):
            self._reading = None
        elif self._reading is None:
            self._reading = self._position
        late = self._store.late(PARTITION, 100)
        self.told += late
        self._store.late_was_told(PARTITION, late)
