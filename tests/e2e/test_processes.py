"""One worker of several processes on a real Kafka: they share the partitions, speak with one voice, and have one life."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.exits import ExitCode
from tests.e2e.rollback_estate import RollbackEstate
from tests.support.estate import Estate, WorkerProcess, assert_equals_fold, produce_actions
from tests.support.kafka import KafkaBroker
from tests.support.processes import children_of, lives
from tests.support.waiting import wait_until

PARTITIONS = 6
KEYS = 300
WITHIN_S = 90.0

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc for the processes"),
]


@pytest.fixture
def estate(kafka: KafkaBroker) -> Estate:
    return Estate.real(kafka.bootstrap, PARTITIONS)


@pytest.fixture
def worker(estate: Estate, tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker of two processes with the counting machine, ready."""
    worker = WorkerProcess(estate, tmp_path / "worker", RECONCILER_PROCESSES="2", RECONCILER_INSTANCE_ID="one").start()
    try:
        yield worker.wait_ready(WITHIN_S)
    finally:
        worker.process.stop()


def test_killed_in_any_way_it_loses_and_doubles_nothing(estate: Estate, worker: WorkerProcess) -> None:
    # They share the partitions, and the page tells of both.
    produce_actions(estate, 3_000, keys=KEYS)
    estate.drained(WITHIN_S)
    wait_until(
        lambda: worker.metric_by_process("reconciler_partitions") == {"counting-1": 3, "counting-2": 3},
        deadline_s=10,
        what="both tell of their halves",
    )
    assert worker.metric("reconciler_processes") == 2
    wait_until(lambda: worker.metric("reconciler_records_total") == 3_000, deadline_s=10, what="both tell of all")
    assert min(worker.metric_by_process("reconciler_records_total").values()) > 0
    assert (worker.data_dir / "tables").is_dir() and (worker.data_dir / "resources-2" / "tables").is_dir()

    # Of the second process' death the first one dies, in order and with a code of its own.
    (second,) = children_of(worker.process.pid)
    produce_actions(estate, 1_000, keys=KEYS, first=3_000)
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: not worker.process.is_running(), deadline_s=WITHIN_S, what="the worker ends")
    assert worker.process.exit_code == ExitCode.COMPANION

    # Started again, it goes on; of the first process' death the second one dies.
    worker.start().wait_ready(WITHIN_S)
    (second,) = children_of(worker.process.pid)
    produce_actions(estate, 1_000, keys=KEYS, first=4_000)
    worker.kill()
    wait_until(lambda: not lives(second), deadline_s=WITHIN_S, what="the second process ends")

    # With another number of processes the partitions find the state that stands nowhere on this one's disk.
    worker.start(RECONCILER_PROCESSES="1").wait_ready(WITHIN_S)
    produce_actions(estate, 1_000, keys=KEYS, first=5_000)
    estate.drained(WITHIN_S)
    assert_equals_fold(estate)
    assert worker.stop() == 0


def test_the_command_starts_them_and_ends_them_all(estate: Estate, tmp_path: Path) -> None:
    running = RollbackEstate(estate, tmp_path, ["crm"], {})
    try:
        worker = running.start("worker", "worker", "--processes", "2")
        running.ready(worker)
        children = children_of(worker.pid)
        assert len(children) == 2, "one folds, one drives rollbacks"
        worker.stop(deadline_s=WITHIN_S)
        assert worker.exit_code == 0, worker.log_tail()
        assert not any(map(lives, children))
        log = worker.log.read_text()
        assert all(f"[{name}]" in log for name in ("resources-1", "resources-2", "rollbacks"))
    finally:
        running.stop()
