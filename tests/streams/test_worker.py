"""One worker on the embedded broker, as a process: what it folds, what it puts aside, what it shows, how it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from reconciler.records import Observation
from reconciler.wire.partition import partition_of
from streams.embedded.broker import EmbeddedBroker
from streams.exits import ExitCode
from tests.support.estate import SYSTEM, Estate, Found, WorkerProcess, action, folded, produce_actions, shown
from tests.support.waiting import wait_until

SECOND = 1_000_000


@pytest.fixture(scope="module")
def estate(embedded_broker: EmbeddedBroker) -> Estate:
    return Estate.embedded(embedded_broker)


@pytest.fixture(scope="module")
def worker(estate: Estate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker that all tests of this module share: it must still be alive when the last one ends."""
    worker = WorkerProcess(estate, tmp_path_factory.mktemp("worker")).start().wait_ready()
    yield worker
    alive = worker.process.is_running()
    worker.kill()
    assert alive, worker.process.log_tail()


def dead_letters_of(estate: Estate, key: bytes | None) -> list[Found]:
    return [found for found in estate.read(estate.topics.dead_letters) if found.key == key]


def test_the_table_is_the_fold_of_the_log(estate: Estate, worker: WorkerProcess) -> None:
    produce_actions(estate, 2_000, keys=100)
    estate.drained(60)
    counts, commands = folded(estate)
    heads = shown(estate.heads())
    assert {key: heads[key] for key in counts} == counts
    assert sorted(estate.command_ids()) == sorted(commands)
    assert worker.metric("reconciler_records_total") >= 2_000


def test_row_02_a_fault_in_the_machine_does_not_lose_the_record(estate: Estate, worker: WorkerProcess) -> None:
    """Without this, Faust acknowledges the event whose agent raised, and the record is gone without a trace."""
    key = f"{SYSTEM}/fault/1"
    for action_id, step in (("a", "count"), ("b", "boom"), ("c", "count")):
        estate.send_record(estate.topics.actions, action(key, action_id, step_id=step))
    estate.flush()
    estate.drained(60)
    (letter,) = dead_letters_of(estate, key.encode())
    assert estate.codec.decode(letter.value) == action(key, "b", step_id="boom")
    assert letter.headers["__dlq.errors.exception"] == b"RuntimeError"
    assert estate.heads()[key].actions == 2
    assert any(found.key == key.encode() for found in estate.read(estate.topics.alerts))


def test_row_03_bytes_that_cannot_be_decoded_do_not_reach_the_agent_as_an_error(
    estate: Estate, worker: WorkerProcess
) -> None:
    """Without this, a decoding error is acknowledged and thrown into the agent: all that waits behind it is delayed or lost."""
    key = f"{SYSTEM}/bytes/1"
    good = estate.codec.encode(estate.topics.actions, action(key, "good"))
    bad = {
        "magic": b"\x01" + good[1:],
        "schema id": b"\0\0\0\0\x09" + good[5:],
        "truncated": good[:-2],
        "gigabytes": good[:6] + b"\xfe\xff\xff\xff\x0f" + good[7:],
        "empty": b"",
        "null": None,
        "json": b'{"resource": 1}',
    }
    for value in bad.values():
        estate.send(estate.topics.actions, key.encode(), value)
    estate.send(estate.topics.actions, key.encode(), good)
    estate.flush()
    estate.drained(60)
    letters = dead_letters_of(estate, key.encode())
    assert [letter.value or None for letter in letters] == [value or None for value in bad.values()]
    assert all(letter.headers["__dlq.errors.topic"] == estate.topics.actions.encode() for letter in letters)
    assert estate.heads()[key].actions == 1


def test_records_that_say_the_wrong_thing(estate: Estate, worker: WorkerProcess) -> None:
    key = f"{SYSTEM}/wrong/1"
    day_ms = 86_400_000
    now_ms = round(time.time() * 1000)
    value = estate.codec.encode(estate.topics.actions, action(key, "x"))
    estate.send(estate.topics.actions, f"{SYSTEM}/wrong/2".encode(), value)
    estate.send(estate.topics.actions, None, value)
    estate.send(estate.topics.actions, key.encode(), value, timestamp_ms=now_ms + 300 * day_ms)
    for instant in ("1970-01-21T00:00:00Z", "2096-01-01T00:00:00Z"):
        estate.send_record(estate.topics.actions, action(key, instant, occurred_at=instant))
    observation = Observation(resource=key, exists=True, observed_at=now_ms * 1000)
    estate.send(estate.topics.actions, key.encode(), estate.codec.encode(estate.topics.observations, observation))
    estate.send_record(estate.topics.actions, action(key, "rejected", step_id="reject"))
    estate.send_record(estate.topics.actions, action(key, "good"))
    estate.flush()
    estate.drained(60)
    reasons = [letter.headers["__dlq.errors.exception"].decode() for letter in dead_letters_of(estate, key.encode())]
    assert sorted(reasons) == ["InstantAhead", "InstantTooOld", "Rejected", "TimestampAhead", "WrongRecord"]
    (other,) = dead_letters_of(estate, f"{SYSTEM}/wrong/2".encode())
    assert other.headers["__dlq.errors.exception"] == b"WrongKey"
    assert [letter.value for letter in dead_letters_of(estate, None)] == [value]
    assert estate.heads()[key].actions == 1


def test_a_record_in_the_wrong_partition_is_folded_where_it_belongs(estate: Estate, worker: WorkerProcess) -> None:
    key = f"{SYSTEM}/misplaced/1"
    right = partition_of(key.encode(), estate.partitions)
    value = estate.codec.encode(estate.topics.actions, action(key, "a"))
    for wrong in range(estate.partitions):
        if wrong != right:
            estate.send(estate.topics.actions, key.encode(), value, partition=wrong)
    estate.flush()
    forwarded = estate.partitions - 1
    wait_until(
        lambda: (
            worker.metric('reconciler_records_total{topic="' + estate.topics.actions + '",verdict="forwarded"}') >= 1
        ),
        deadline_s=60,
        what="something is forwarded",
    )
    estate.drained(60)
    found = [found for found in estate.read(estate.topics.actions) if found.key == key.encode()]
    assert sum(record.partition == right for record in found) == forwarded
    # The machine knows an action by its id: it is folded once, however often it comes.
    assert estate.heads()[key].actions == 1
    assert {record.partition for record in estate.read(estate.topics.expected) if record.key == key.encode()} == {right}


def test_row_16_timers_go_through_a_topic(estate: Estate, worker: WorkerProcess) -> None:
    """Without this, a timer would change the table outside of the stream, and its change would miss the changelog."""
    key = f"{SYSTEM}/timer/1"
    estate.send_record(estate.topics.actions, action(key, "t", step_id="timer", set={"/after": SECOND // 2}))
    estate.flush()
    wait_until(
        lambda: key in (heads := estate.heads()) and heads[key].fired == 1, deadline_s=60, what="the timer fires"
    )
    (timer,) = [found for found in estate.read(estate.topics.timers) if found.key == key.encode()]
    assert timer.partition == partition_of(key.encode(), estate.partitions)
    assert timer.timestamp_ms * 1000 >= estate.codec.decode(timer.value).due_at  # type: ignore[attr-defined]
    estate.drained(60)


def test_every_changelog_value_is_readable_and_says_where_it_came_from(estate: Estate, worker: WorkerProcess) -> None:
    produce_actions(estate, 50, keys=10, first=50_000)
    estate.drained(60)
    for topic in (estate.topics.expected, estate.topics.history):
        for found in estate.read(topic):
            if found.value is not None:
                record = estate.codec.decode(found.value)
                assert record.table == "resources"  # type: ignore[attr-defined]
                assert record.epoch >= 1  # type: ignore[attr-defined]
                assert found.key is not None
                assert found.key.decode().startswith(record.resource)  # type: ignore[attr-defined]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_records_of_producers_that_compress(estate: Estate, worker: WorkerProcess, codec: str) -> None:
    key = f"{SYSTEM}/compressed/{codec}"
    producer = Producer(
        {
            "bootstrap.servers": estate.bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": codec,
            "linger.ms": 50,
        }
    )
    for number in range(20):
        value = estate.codec.encode(estate.topics.actions, action(key, f"a{number}"))
        producer.produce(estate.topics.actions, value, key)
    assert producer.flush(20) == 0
    estate.drained(60)
    assert estate.heads()[key].actions == 20


def test_row_14_nothing_listens_but_the_configured_address(worker: WorkerProcess) -> None:
    """Without this, Faust's web server listens on all interfaces, and serves the table's data to everybody."""
    port = int((worker.data_dir / "port").read_text())
    assert listening(worker.process.pid) == {("127.0.0.1", port)}


def test_health_and_metrics(estate: Estate, worker: WorkerProcess) -> None:
    assert worker.is_ready()
    assert worker.get("/live") == b'{"live": true}'
    assert worker.metric("reconciler_partitions") == estate.partitions
    assert worker.metric("reconciler_batches_total") > 0
    page = worker.get("/metrics").decode()
    for name in (
        "reconciler_records_total",
        "reconciler_dead_letters_total",
        "reconciler_effects_total",
        "reconciler_batch_seconds_bucket",
        "reconciler_uncommitted_age_seconds",
        "reconciler_recovery_seconds_bucket",
    ):
        assert name in page
    assert SYSTEM + "/" not in page
    wait_until(lambda: "reconciler_lag_records{" in worker.get("/metrics").decode(), deadline_s=60, what="lag is shown")


def test_sigterm_finishes_commits_and_leaves(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    estate = Estate.embedded(embedded_broker)
    worker = WorkerProcess(estate, tmp_path).start().wait_ready()
    try:
        produce_actions(estate, 500, keys=20)
        wait_until(lambda: worker.metric("reconciler_records_total") > 0, deadline_s=60, what="something is folded")
        assert worker.stop() == ExitCode.CLEAN
        worker.start().wait_ready()
        estate.drained(60)
        assert shown(estate.heads()) == folded(estate)[0]
    finally:
        worker.kill()


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses that a process listens on, from /proc."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].rpartition(":")
                octets = bytes.fromhex(address)[::-1]
                found.add((".".join(str(octet) for octet in octets), int(port, 16)))
    return found
