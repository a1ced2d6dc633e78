"""The index in RocksDB: the same answers as the one in memory, kept over restarts, wiped when it doesn't fit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.contracts.model import Contract, ContractSet
from reconciler.plan.index import ActionIndex, Term, matches, offsets_of
from reconciler.records import Action, Actor, GatherQuery, Selector
from streams.gatherer.index_store import IndexStore, LateAction, Position
from tests.core.histories import make_action

CONTRACTS = ContractSet((Contract(name="crm/contact", references={"/account": "crm/account"}),))
RESOURCES = ["crm/contact/1", "crm/contact/10", "crm/account/1", "erp/order/1"]
RUNS = ["r", "r1", "r1\0", "é"]


@st.composite
def logs(draw: st.DrawFn) -> list[Action]:
    return [
        make_action(
            number,
            stage=draw(st.sampled_from(["initiated", "succeeded", "failed", "reversed"])),
            run_id=draw(st.sampled_from(RUNS)),
            step_id=f"s{draw(st.integers(1, 3))}",
            resource=draw(st.sampled_from(RESOURCES)),
            workflow_id=draw(st.sampled_from(["", "w1", "w2"])),
            actor=draw(st.sampled_from([None, Actor(id="ana", kind="user"), Actor(id="bo", kind="user")])),
            depends_on=draw(st.lists(st.sampled_from(["r/s1", "r1/s2"]), max_size=2)),
            set=draw(st.sampled_from([{"/phone": "1"}, {"/account": "1"}])),
        )
        for number in range(draw(st.integers(0, 12)))
    ]


SELECTORS = st.sampled_from(
    [
        None,
        *(Selector(run_id=run) for run in RUNS),
        Selector(workflow_id="w1", from_at=2_000_000, to_at=5_000_000),
        Selector(actor="ana", from_at=3_000_000),
        Selector(system="crm", to_at=4_000_000),
        Selector(resource="crm/contact/1", to_at=3_000_000),
        Selector(operations=["r/s1", "nobody/knows"]),
    ]
)


@given(
    log=logs(),
    select=SELECTORS,
    operations=st.lists(st.sampled_from(["r/s1", "r1/s3"]), max_size=2),
    depended_on=st.lists(st.sampled_from(["r/s1", "r1/s2"]), max_size=2),
    referenced=st.lists(st.sampled_from(["crm/account/1"]), max_size=1),
    resources=st.lists(st.sampled_from([*RESOURCES, "crm/contact/100"]), max_size=2),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_it_answers_as_the_index_in_memory_does(
    log: list[Action], select: Selector | None, data: st.DataObject, **named: Any
) -> None:
    query = GatherQuery(rollback_id="rb", round=1, partition=3, occurred_at=0, select=select, **named)
    memory = ActionIndex(CONTRACTS)
    with tempfile.TemporaryDirectory() as folder:
        store = IndexStore(Path(folder) / "index", "x", CONTRACTS)
        cut = data.draw(st.integers(0, len(log)))
        for offset, action in enumerate(log):
            memory.take(action, offset * 2)
        store.take(3, [(offset * 2, log[offset]) for offset in range(cut)], Position(cut * 2, cut * 2))
        store.take(4, [(0, make_action(99, run_id="r"))], Position(1, 1))  # another partition's are not ours
        store.take(3, [(offset * 2, log[offset]) for offset in range(cut, len(log))], Position(100, 99))
        assert matches(query, lambda term: store.postings(3, term)) == memory.matches(query)
        for resource in RESOURCES:
            found = offsets_of(store.postings(3, Term("resource", resource)))
            assert found == memory.offsets_of(resource)
        assert store.position(3) == (100, 99)
        store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def store(folder: Path) -> Iterator[IndexStore]:
    opened = IndexStore(folder, "x", CONTRACTS)
    yield opened
    opened.close()


def runs(store: IndexStore, partition: int) -> list[int]:
    return [posting.offset for posting in store.postings(partition, Term("run", "run"))]


def test_it_is_kept_over_a_restart(folder: Path) -> None:
    store = IndexStore(folder, "x", CONTRACTS)
    store.take(0, [(7, make_action(1))], Position(9, 8), [LateAction("rb/1", 7)])
    store.answered(0, "rb/1", 5)
    store.close()
    again = IndexStore(folder, "x", CONTRACTS)
    assert (again.position(0), runs(again, 0)) == ((9, 8), [7])
    assert (again.complete_up_to(0, "rb/1"), again.complete_up_to(0, "rb/2")) == (5, None)
    assert again.late(0, 10) == [("rb/1", 7)]
    again.close()


def test_it_is_wiped_where_it_is_of_something_else(folder: Path) -> None:
    store = IndexStore(folder, "x", CONTRACTS)
    store.take(0, [(7, make_action(1))], Position(9, 8))
    store.close()
    again = IndexStore(folder, "y", CONTRACTS)
    assert (again.position(0), runs(again, 0)) == ((0, 0), [])
    again.close()


def test_it_is_made_anew_where_its_files_are_broken(folder: Path) -> None:
    store = IndexStore(folder, "x", CONTRACTS)
    store.take(0, [(7, make_action(1))], Position(9, 8))
    store.close()
    (folder / "CURRENT").write_bytes(b"nonsense")
    again = IndexStore(folder, "x", CONTRACTS)
    assert again.position(0) == (0, 0)
    again.close()


def test_one_partition_is_wiped_alone(store: IndexStore) -> None:
    for partition in (0, 1, 256):
        store.take(partition, [(7, make_action(1))], Position(9, 8), [LateAction("rb/1", 7)])
    store.wipe_partition(1)
    assert [store.position(partition) for partition in (0, 1, 256)] == [(9, 8), (0, 0), (9, 8)]
    assert [runs(store, partition) for partition in (0, 1, 256)] == [[7], [], [7]]
    assert store.late(1, 10) == []


def test_what_is_late_is_remembered_until_it_was_told(store: IndexStore) -> None:
    items = [LateAction("rb/1", 7), LateAction("rb/1", 2**40), LateAction("rb/2", 7)]
    store.take(0, [], Position(9, 8), items)
    assert store.late(0, 10) == items
    assert store.late(0, 2) == items[:2]
    store.late_was_told(0, items[:1])
    assert store.late(0, 10) == items[1:]
    store.forget_late(0, "rb/1")
    assert store.late(0, 10) == items[2:]
