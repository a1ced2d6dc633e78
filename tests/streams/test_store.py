"""One suite for both stores, and what only a store on disk can do wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.store.memory import MemoryStore
from streams.store.port import Checkpoint, Mark, PartitionStore
from streams.store.rocks import RocksStores

MARK = Mark(epoch=2, consumed={"a": 5}, now=7, owner="w")


def checkpoint(heads: int = 3, history: int = 4) -> Checkpoint:
    return Checkpoint(heads=heads, history=history, mark=MARK, written_at=time.time())


@pytest.fixture(params=["memory", "rocksdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PartitionStore]:
    store: PartitionStore = MemoryStore() if request.param == "memory" else RocksStores(tmp_path, "cluster").open("0")
    yield store
    store.close()


def test_empty(store: PartitionStore) -> None:
    assert store.checkpoint() is None
    assert store.head(b"k") is None
    assert list(store.heads()) == list(store.due()) == []
    assert store.entry(b"k\0a") is None
    assert list(store.entries(b"k")) == []


def test_a_batch_is_there_with_its_checkpoint(store: PartitionStore) -> None:
    at = checkpoint()
    store.write([(b"k", b"1", 17), (b"l", b"2", None)], [(b"k\0a", b"x"), (b"k\0b", b"y"), (b"kk\0a", b"z")], at)
    assert store.checkpoint() == at
    assert dict(store.heads()) == {b"k": b"1", b"l": b"2"}
    assert dict(store.due()) == {b"k": 17}
    assert store.head(b"k") == b"1"
    assert store.entry(b"k\0b") == b"y"
    assert dict(store.entries(b"k")) == {b"a": b"x", b"b": b"y"}
    assert dict(store.entries(b"kk")) == {b"a": b"z"}


def test_later_batches_overwrite_and_take_away(store: PartitionStore) -> None:
    store.write([(b"k", b"1", 17)], [(b"k\0a", b"x"), (b"k\0b", b"y")], checkpoint())
    store.write([(b"k", b"2", None)], [(b"k\0a", None), (b"k\0never", None)], checkpoint(heads=9))
    assert store.head(b"k") == b"2"
    assert list(store.due()) == []
    assert dict(store.entries(b"k")) == {b"b": b"y"}
    found = store.checkpoint()
    assert found is not None
    assert found.heads == 9


def test_wiping_forgets_everything(store: PartitionStore) -> None:
    store.write([(b"k", b"1", 17)], [(b"k\0a", b"x")], checkpoint())
    store.wipe()
    assert store.checkpoint() is None
    assert list(store.heads()) == list(store.due()) == list(store.entries(b"k")) == []
    store.write([(b"k", b"3", None)], [], checkpoint())
    assert store.head(b"k") == b"3"


def test_a_scan_is_not_disturbed_by_writes(store: PartitionStore) -> None:
    store.write([(b"k%03d" % number, b"1", None) for number in range(100)], [], checkpoint())
    seen: list[bytes] = []
    for key, _ in store.heads():
        if not seen:
            store.write([(b"zz", b"new", None)], [], checkpoint())
        seen.append(key)
    assert seen == [b"k%03d" % number for number in range(100)]


def test_the_disk_keeps_a_batch(tmp_path: Path) -> None:
    store = RocksStores(tmp_path, "cluster").open("0")
    at = checkpoint()
    store.write([(b"k", b"1", 5)], [(b"k\0a", b"x")], at)
    store.close()
    store = RocksStores(tmp_path, "cluster").open("0")
    assert (store.checkpoint(), store.head(b"k"), dict(store.due())) == (at, b"1", {b"k": 5})
    store.close()


def test_a_store_of_another_cluster_is_wiped(tmp_path: Path) -> None:
    store = RocksStores(tmp_path, "cluster").open("0")
    store.write([(b"k", b"1", None)], [], checkpoint())
    store.close()
    store = RocksStores(tmp_path, "another cluster").open("0")
    assert store.checkpoint() is None
    assert store.head(b"k") is None
    store.close()


def test_row_10_a_damaged_store_is_wiped(tmp_path: Path) -> None:
    """Without this, a worker whose disk was damaged by an unclean stop would never start again."""
    store = RocksStores(tmp_path, "cluster").open("0")
    store.write([(b"k", b"1", None)], [], checkpoint())
    store.close()
    for path in (tmp_path / "0").glob("MANIFEST*"):
        path.write_bytes(b"damaged")
    store = RocksStores(tmp_path, "cluster").open("0")
    assert store.checkpoint() is None
    store.write([(b"k", b"2", None)], [], checkpoint())
    assert store.head(b"k") == b"2"
    store.close()


_KILLED = """
import os, signal, sys
from pathlib import Path
from streams.store.port import Checkpoint, Mark
from streams.store.rocks import RocksStores

store = RocksStores(Path(sys.argv[1]), "cluster").open("0")
for number, written_at in enumerate(map(float, sys.argv[2:]), 1):
    mark = Mark(epoch=2, consumed={}, now=7, owner="w")
    heads = [(b"k%d" % item, b"%d" % number, number) for item in range(10)]
    entries = [(b"k\\0%d" % number, b"x")]
    store.write(heads, entries, Checkpoint(heads=number, history=number, mark=mark, written_at=written_at))
while written_at > 300 and store._database.property_value("rocksdb.num-files-at-level0") == "0":
    pass  # it is flushed behind our back
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("written_at", "at_least"), [((0, 1, 2), 0), ((0, 1, 301, 302), 3)])
def test_a_killed_process_leaves_whole_batches_and_not_much_is_lost(
    written_at: tuple[int, ...], at_least: int, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), *map(str, written_at)], check=False, timeout=50
    )
    assert done.returncode == -signal.SIGKILL
    store = RocksStores(tmp_path, "cluster").open("0")
    found = store.checkpoint()
    batches = 0 if found is None else found.heads
    assert at_least <= batches <= len(written_at)
    assert [store.head(b"k%d" % item) for item in range(10)] == [b"%d" % batches if batches else None] * 10
    assert [entry_id for entry_id, _ in store.entries(b"k")] == [b"%d" % number for number in range(1, batches + 1)]
    assert dict(store.due()) == ({b"k%d" % item: batches for item in range(10)} if batches else {})
    store.close()


def test_a_store_that_is_in_use_is_not_wiped(tmp_path: Path) -> None:
    store = RocksStores(tmp_path, "cluster").open("0")
    store.write([(b"k", b"1", None)], [], checkpoint())
    with pytest.raises(Exception, match=r"(?i)lock"):
        RocksStores(tmp_path, "cluster").open("0")
    assert store.head(b"k") == b"1"
    store.close()
