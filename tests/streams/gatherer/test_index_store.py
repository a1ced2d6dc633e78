"""The index in RocksDB: the same answers as the one in memory, kept over restarts, wiped when it doesn't fit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.contracts.model import Contract, ContractSet
from reconciler.plan.index import ActionIndex, Term, matches, offsets_of, terms_of
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
    for offset, action in enumerate(log):
        memory.take(action, offset * 2)
    with tempfile.TemporaryDirectory() as folder:
        store = kept_in_pieces(Path(folder) / "index", log, data)
        assert matches(query, lambda term: store.postings(3, term)) == memory.matches(query)
        for resource in RESOURCES:
            found = offsets_of(store.postings(3, Term("resource", resource)))
            assert found == memory.offsets_of(resource)
        assert store.position(3) == (100, 99)
        store.close()


def kept_in_pieces(folder: Path, log: list[Action], data: st.DataObject) -> IndexStore:
    """An index that took a log in several reads, sorted what was young now and then, and was begun anew now and then."""
    most_young = data.draw(st.integers(0, 12))
    store = IndexStore(folder, "x", CONTRACTS, most_young=most_young)
    left = [(offset * 2, action) for offset, action in enumerate(log)]
    while left:
        size = data.draw(st.integers(1, len(left)))
        piece, left = left[:size], left[size:]
        store.take(3, piece, Position(piece[-1][0] + 1, piece[-1][0] + 1))
        store.take(4, [(0, make_action(99, run_id="r"))], Position(1, 1))  # another partition's are not ours
        if data.draw(st.booleans()):
            store.release(3)  # what is in memory is read again, as after a restart
    store.take(3, [], Position(100, 99))
    return store


@pytest.mark.parametrize("checksum", [lambda data, seed: 0, lambda data, seed: 0xFFFF_FFF0 + len(data) % 3])
def test_terms_of_one_fingerprint_are_told_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch, checksum: Callable[[bytes, int], int]
) -> None:
    monkeypatch.setattr("streams.gatherer.blocks.crc32", checksum)
    store = IndexStore(folder, "x", CONTRACTS, most_young=60)
    actions = [
        make_action(
            number,
            run_id=f"r{number % 3}",
            resource=RESOURCES[number % 4],
            workflow_id=["", "w"][number % 2],
            actor=Actor(id=f"r{number % 2}", kind="user") if number % 5 else None,
            depends_on=["r0"],
        )
        for number in range(200)
    ]
    memory = ActionIndex(CONTRACTS)
    for start in range(0, 200, 7):
        piece = list(enumerate(actions[start : start + 7], start))
        store.take(0, piece, Position(start + 7, start + 7))
        for offset, action in piece:
            memory.take(action, offset)
    for term in {term for action in actions for term in terms_of(action, CONTRACTS)} | {Term("workflow", "")}:
        assert list(store.postings(0, term)) == memory.postings(term), term
    store.close()


def test_long_logs_are_found_again(folder: Path) -> None:
    """So long that groups fill, terms have many rows, and what was young is sorted several times."""
    store = IndexStore(folder, "x", CONTRACTS, most_young=700)
    actions = [
        make_action(
            number, run_id=f"r{number // 3}", resource=f"crm/contact/{number % 50}", workflow_id=f"w{number % 2}"
        )
        for number in range(3_000)
    ]
    sizes = [1, 15, 16, 17, 300, 500]
    memory, start = ActionIndex(CONTRACTS), 0
    while start < len(actions):
        size = sizes[start % len(sizes)]
        piece = list(enumerate(actions[start : start + size], start))
        store.take(0, piece, Position(start + size, start + size))
        for offset, action in piece:
            memory.take(action, offset)
        start += size
    for term in {term for action in actions for term in terms_of(action, CONTRACTS)}:
        assert list(store.postings(0, term)) == memory.postings(term), term
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
    store.take(0, [(7, make_action(1))], Position(9, 8), [LateAction("rb/1", 7, "run/step", "crm/contact/42")])
    store.answered(0, "rb/1", 5)
    store.close()
    again = IndexStore(folder, "x", CONTRACTS)
    assert (again.position(0), runs(again, 0)) == ((9, 8), [7])
    assert (again.complete_up_to(0, "rb/1"), again.complete_up_to(0, "rb/2")) == (5, None)
    assert again.late(0, 10) == [("rb/1", 7, "run/step", "crm/contact/42")]
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
        store.take(
            partition, [(7, make_action(1))], Position(9, 8), [LateAction("rb/1", 7, "run/step", "crm/contact/42")]
        )
    store.wipe_partition(1)
    assert [store.position(partition) for partition in (0, 1, 256)] == [(9, 8), (0, 0), (9, 8)]
    assert [runs(store, partition) for partition in (0, 1, 256)] == [[7], [], [7]]
    assert store.late(1, 10) == []


def test_what_is_late_is_remembered_until_it_was_told(store: IndexStore) -> None:
    items = [
        LateAction("rb/1", 7, "run/step", "crm/contact/42"),
        LateAction("rb/1", 2**40, "run/step", "é/contact/42"),
        LateAction("rb/2", 7, "run/other", "crm/contact/42"),
    ]
    store.take(0, [], Position(9, 8), items)
    assert store.late(0, 10) == items
    assert store.late(0, 2) == items[:2]
    store.late_was_told(0, items[:1])
    assert store.late(0, 10) == items[1:]
    store.forget_late(0, "rb/1")
    assert store.late(0, 10) == items[2:]
