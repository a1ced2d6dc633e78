"""Crashes on a real Kafka: whatever is killed whenever, the table equals a pure fold of the log, and no effect is missing or
there twice.

Every test leaves its workers to a supervisor that starts what has ended, as in production.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.estate import SYSTEM, Estate, WorkerProcess, action, assert_equals_fold, produce_actions
from tests.support.kafka import KafkaBroker
from tests.support.waiting import wait_until

KILLS = 10
KEYS = 300
READY_AT_MOST_S = 6.0


class Load(threading.Thread):
    """Produces actions at a steady rate until it is told to end."""

    def __init__(self, estate: Estate, per_second: int) -> None:
        super().__init__(daemon=True)
        self._estate = estate
        self._per_second = per_second
        self._ended = threading.Event()
        self.error: BaseException | None = None
        self.sent = 0

    def run(self) -> None:
        rng = random.Random(5)
        started = time.monotonic()
        try:
            while not self._ended.is_set():
                while self.sent < (time.monotonic() - started) * self._per_second:
                    resource = f"{SYSTEM}/contact/{rng.randrange(KEYS)}"
                    self._estate.send_record(
                        self._estate.topics.actions, action(resource, f"a{self.sent}", rng.randrange(1000))
                    )
                    self.sent += 1
                self._ended.wait(0.01)
            self._estate.flush()
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.error = error

    def end(self) -> None:
        self._ended.set()
        self.join()
        if self.error is not None:
            raise self.error


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[WorkerProcess]]:
    """Workers that are killed at the end."""
    started: list[WorkerProcess] = []
    yield started
    for worker in started:
        worker.kill()


def settle(estate: Estate, workers: list[WorkerProcess], deadline_s: float = 120) -> None:
    """Returns when everything is committed; starts workers again that end meanwhile."""

    def drained() -> bool:
        for worker in workers:
            worker.supervise()
        return estate.lag() == 0

    wait_until(drained, deadline_s=deadline_s, what="the workers commit everything")


@pytest.mark.timeout(400)
def test_killed_ten_times_under_load(kafka: KafkaBroker, tmp_path: Path, workers: list[WorkerProcess]) -> None:
    """Two workers, ten SIGKILLs at random instants of one or the other."""
    estate = Estate.real(kafka.bootstrap)
    rng = random.Random(11)
    workers += [
        WorkerProcess(estate, tmp_path / name, RECONCILER_INSTANCE_ID=name).start() for name in ("first", "second")
    ]
    for worker in workers:
        worker.wait_ready()
    load = Load(estate, 800)
    load.start()
    for _ in range(KILLS):
        victim = rng.choice(workers)
        # On a slow machine some kills hit a start or a recovery: those count too.
        ready_by = time.monotonic() + READY_AT_MOST_S
        while not victim.is_ready() and time.monotonic() < ready_by:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.1, 0.6))
        victim.kill()
        victim.start()
    load.end()
    settle(estate, workers)
    assert load.sent > 5_000
    assert_equals_fold(estate)


@pytest.mark.timeout(400)
def test_killed_during_recovery(kafka: KafkaBroker, tmp_path: Path, workers: list[WorkerProcess]) -> None:
    """A worker that is killed again and again while it takes over, with an empty disk, so that the recovery is long."""
    estate = Estate.real(kafka.bootstrap)
    produce_actions(estate, 3_000, keys=KEYS)
    worker = WorkerProcess(estate, tmp_path / "worker", RECONCILER_INSTANCE_ID="worker")
    workers.append(worker)
    worker.start().wait_ready()
    settle(estate, workers)
    produce_actions(estate, 1_000, keys=KEYS, first=3_000)
    worker.kill()
    for attempt in range(3):
        # Half of the attempts go on with a store that a killed recovery has begun to fill.
        worker.start(RECONCILER_STORE="memory" if attempt == 0 else "rocksdb", SLOW_RECOVERY_S="0.2")
        wait_until(lambda: worker.has_marker("recovering"), deadline_s=60, what="a recovery begins")
        worker.kill()
    worker.start().wait_ready()
    settle(estate, workers)
    assert_equals_fold(estate)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("point", ["between-effects-and-changelog", "before-commit"])
def test_zombie_writes_nothing(kafka: KafkaBroker, tmp_path: Path, workers: list[WorkerProcess], point: str) -> None:
    """A worker stops itself in the middle of a write, is overtaken, and goes on: the fence ends it."""
    estate = Estate.real(kafka.bootstrap)
    zombie = WorkerProcess(estate, tmp_path / "zombie")
    heir = WorkerProcess(estate, tmp_path / "heir")
    workers += [zombie, heir]
    # Its other defences are put out of the way: it is the fence that is tried here.
    zombie.start(PAUSE_AT=f"{point}:any:20", RECONCILER_LOOP_MAX_AGE_S="300", RECONCILER_DELIVERY_TIMEOUT_S="60")
    zombie.wait_ready()
    load = Load(estate, 800)
    load.start()
    wait_until(lambda: zombie.has_marker("paused"), deadline_s=60, what="the worker stops itself")
    load.end()
    heir.start().wait_ready()
    settle(estate, [heir])
    table_before = estate.read(estate.topics.expected, committed=False)
    zombie.process.resume()
    wait_until(lambda: not zombie.process.is_running(), deadline_s=60, what="the zombie ends")
    assert "(fenced)" in zombie.process.log_tail()
    stale = [found for found in estate.read(estate.topics.expected) if found not in table_before]
    assert not [found for found in stale if found.partition == int((tmp_path / "zombie" / "paused").read_text())]
    zombie.start().wait_ready()
    produce_actions(estate, 1_000, keys=KEYS, first=100_000)
    settle(estate, workers)
    assert_equals_fold(estate)


@pytest.mark.timeout(400)
def test_row_11_rebalance_with_two_workers(kafka: KafkaBroker, tmp_path: Path, workers: list[WorkerProcess]) -> None:
    """A second worker joins under load, and leaves again in order: partitions move twice and nothing is lost.

    Without the skipping of what was consumed, what is read again after each move is folded again (#502).
    """
    estate = Estate.real(kafka.bootstrap)
    first = WorkerProcess(estate, tmp_path / "first").start().wait_ready()
    workers.append(first)
    load = Load(estate, 800)
    load.start()
    second = WorkerProcess(estate, tmp_path / "second").start().wait_ready()
    workers.append(second)
    wait_until(
        lambda: second.is_ready() and second.metric("reconciler_partitions") == estate.partitions / 2,
        deadline_s=60,
        what="half of the partitions move",
    )
    wait_until(lambda: second.metric("reconciler_batches_total") > 5, deadline_s=60, what="the second worker works")
    assert second.stop() == 0
    wait_until(
        lambda: first.is_ready() and first.metric("reconciler_partitions") == estate.partitions,
        deadline_s=60,
        what="the partitions come back",
    )
    load.end()
    settle(estate, [first])
    assert first.process.is_running()
    assert_equals_fold(estate)
    assert first.stop() == 0


@pytest.mark.timeout(400)
def test_a_claim_that_takes_long_takes_nothing_from_the_next_owner(
    kafka: KafkaBroker, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    """Two workers start together, as the processes of one do: while the first claims everything, the second joins. Were its
    share given to it before those claims have reached the brokers, they would put it off, and it would end."""
    estate = Estate.real(kafka.bootstrap)
    produce_actions(estate, 500, keys=KEYS)
    first = WorkerProcess(estate, tmp_path / "first").start(SLOW_CLAIM_S="8")
    workers.append(first)
    wait_until(lambda: first.has_marker("claiming"), deadline_s=60, what="the first worker claims")
    second = WorkerProcess(estate, tmp_path / "second").start()
    workers.append(second)
    for worker in workers:
        worker.wait_ready()
    wait_until(lambda: first.metric("reconciler_recoveries_total") > 0, deadline_s=60, what="the claims are over")
    produce_actions(estate, 500, keys=KEYS, first=500)
    estate.drained(60)
    assert all(worker.process.is_running() for worker in workers)
    assert [worker.metric("reconciler_partitions") for worker in workers] == [estate.partitions / 2] * 2
    assert_equals_fold(estate)
    assert [worker.stop() for worker in workers] == [0, 0]
