"""Looks into the store are saved where it certainly has nothing, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.store import known_ids
from streams.store.memory import MemoryStore
from tests.support.batches import Bench
from tests.support.compiled import from_source
from tests.support.estate import action

KEY = "crm/contact/1"
MODULES = pytest.mark.parametrize("module", [known_ids, from_source(known_ids)], ids=["as installed", "source"])


class WatchedStore(MemoryStore):
    """Notes which entries it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    def entry(self, key: bytes) -> bytes | None:
        self.asked.append(key)
        return super().entry(key)


@MODULES
@given(added=st.lists(st.text(min_size=1)), asked=st.lists(st.text()))
def test_what_was_added_is_never_denied(module: Any, added: list[str], asked: list[str]) -> None:
    ids = module.no_ids()
    assert not any(module.may_have(ids, entry_id) for entry_id in added + asked)
    for entry_id in added:
        module.add_id(ids, entry_id)
    assert all(module.may_have(ids, entry_id) for entry_id in added)


@MODULES
def test_of_a_thousand_ids_most_others_are_denied(module: Any) -> None:
    ids = module.no_ids()
    for number in range(1_000):
        module.add_id(ids, f"a:{number:032x}")
    denied = sum(not module.may_have(ids, f"b:{number:032x}") for number in range(1_000))
    assert denied > 700


def test_the_store_is_asked_only_for_what_it_may_have() -> None:
    store = WatchedStore()
    bench = Bench(store=store)
    bench.run([bench.raw(action(KEY, f"a{number}")) for number in range(20)])
    head = bench.table.cached[KEY.encode()]
    history = bench.table.history.of(head.key, head.ids)
    store.asked.clear()
    assert history.get("nothing of the kind") is None
    assert store.asked == []
    for number in range(20):
        assert history.get(f"a{number}") is not None
    assert len(store.asked) == 20


def test_of_a_head_that_was_there_before_the_store_is_asked() -> None:
    store = WatchedStore()
    first = Bench(store=store)
    first.run([first.raw(action(KEY, f"a{number}")) for number in range(3)])
    bench = Bench(store=store, consumed={first.topics.actions: 3})
    bench.run([bench.raw(action(KEY, "a3"), offset=3)])
    head = bench.table.cached[KEY.encode()]
    assert head.ids is None
    history = bench.table.history.of(head.key, head.ids)
    assert [history.get(f"a{number}") is not None for number in range(5)] == [True, True, True, True, False]


def test_a_batch_that_is_stepped_again_denies_nothing() -> None:
    bench = Bench()
    records = [bench.raw(action(KEY, f"a{number}")) for number in range(3)]
    bench.runner.run([bench.chunk(records)], 2**62)
    bench.table.rollback()
    head = bench.table.cached[KEY.encode()]
    assert head.ids is not None
    assert known_ids.may_have(head.ids, "a0")
    assert bench.table.history.of(head.key, head.ids).get("a0") is None
