"""The rows of the table of Faust's faults in docs/worker.md that need a broker or a whole worker: each has its defence here,
and says what would be seen without it. The others stand beside what they are about: 2, 3, 14, 16 in test_worker, 11 in
test_crashes, 13 in test_settings, 15 in test_guards.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from reconciler.wire.changelog import ExpectedHead
from reconciler.wire.codec import Codec
from reconciler.wire.partition import partition_of
from streams.embedded.broker import EmbeddedBroker
from streams.exits import NOTE_NAME, ExitCode
from streams.runner.pipeline import resource_pipeline
from streams.settings import load_settings
from streams.store.envelope import HeadEnvelope
from streams.store.recovery import StoreFactory
from streams.transport import consumer as consumer_module
from streams.transport.chunk import Chunk
from streams.worker.app import build_app, consumer_of
from streams.worker.topics_check import check_topics
from tests.support.counting import CountingMachine
from tests.support.engines import engine_of, feed, own
from tests.support.estate import SYSTEM, Estate, WorkerProcess, action, folded, produce_actions, shown
from tests.support.kafka import KafkaBroker
from tests.support.waiting import wait_until


@pytest.fixture
def workers() -> Iterator[list[WorkerProcess]]:
    started: list[WorkerProcess] = []
    yield started
    for worker in started:
        worker.kill()


def exit_code(worker: WorkerProcess, deadline_s: float = 60) -> int:
    wait_until(lambda: not worker.process.is_running(), deadline_s=deadline_s, what="the worker ends by itself")
    code: int = worker.process._process.returncode
    return code


# -- rows 1, 9, 10: a worker that has stopped in the middle of a batch shows what it had made durable by then


@pytest.fixture(scope="module", params=["before-commit", "before-store"])
def stopped(
    request: pytest.FixtureRequest, kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Estate, WorkerProcess]]:
    """A worker that stopped itself inside a batch, after others that were whole. The request's parameter says where."""
    estate = Estate.real(kafka.bootstrap, 2)
    worker = WorkerProcess(
        estate,
        tmp_path_factory.mktemp("stopped"),
        PAUSE_AT=f"{request.param}:any:20",
        RECONCILER_BATCH_MAX_RECORDS="50",
        RECONCILER_SESSION_TIMEOUT_S="60",
        RECONCILER_INSTANCE_ID="stopped",
    )
    try:
        worker.start().wait_ready()
        produce_actions(estate, 2_000, keys=100)
        wait_until(lambda: worker.has_marker("paused"), deadline_s=60, what="the worker stops itself")
        yield estate, worker
    finally:
        worker.kill()


def test_row_01_nothing_is_committed_that_is_not_durable(stopped: tuple[Estate, WorkerProcess]) -> None:
    """Without this, offsets are committed past the unfinished batch (#606), and it is lost when the worker dies."""
    estate, _ = stopped
    durable = {
        partition: marks[-1].consumed.get(estate.topics.actions, 0)
        for partition, marks in estate.marks().items()
        if marks
    }
    committed = estate.committed()
    assert any(durable.values())
    assert all(committed[partition] <= durable[partition] for partition in durable)


def test_row_09_effects_are_seen_only_with_the_state_that_explains_them(stopped: tuple[Estate, WorkerProcess]) -> None:
    """Without this, a crash between the two shows effects of a state that nobody has, and repeats them."""
    estate, _ = stopped
    heads = estate.heads()
    for command_id in estate.command_ids():
        resource, number, _ = command_id.split(":")
        assert int(number) <= heads[resource].actions
    assert len(estate.history_keys()) == sum(count.actions for count in heads.values())


def test_row_10_the_store_is_never_ahead_of_the_brokers(stopped: tuple[Estate, WorkerProcess]) -> None:
    """Without this, the store holds records that no changelog has: after a takeover they are folded twice (#158)."""
    estate, worker = stopped
    worker.kill()
    (cluster_folder,) = (worker.data_dir / "tables").iterdir()
    written: dict[int, dict[bytes, list[tuple[int, bytes]]]] = {0: {}, 1: {}}
    for found in estate.read(estate.topics.expected):
        assert found.key is not None
        assert found.value is not None
        written[found.partition].setdefault(found.key, []).append((found.offset, found.value))
    pipeline = resource_pipeline(CountingMachine(), estate.topics)
    settings = estate.settings(worker.data_dir)
    stores = StoreFactory(settings, pipeline, check_topics(settings, pipeline))
    assert cluster_folder.name == pipeline.name
    seen = 0
    for partition, by_key in written.items():
        store = stores.open(partition)
        checkpoint = store.checkpoint()
        # All the batches before the stop may have been of the other partition.
        end = checkpoint.heads if checkpoint is not None else 0
        for key, value in store.heads():
            before = [record for offset, record in by_key[key] if offset < end]
            assert value == before[-1]
            seen += 1
        store.close()
    assert seen > 0
    # And whoever goes on with this store gets it right.
    worker.start(PAUSE_AT="").wait_ready()
    estate.drained(60)
    assert shown(estate.heads()) == folded(estate)[0]
    sent = estate.command_ids()
    assert sorted(sent) == sorted(folded(estate)[1])


# -- row 2, its second half


def test_row_02_a_dead_letter_that_cannot_be_delivered_ends_the_worker(
    kafka: KafkaBroker, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    """Without this, a record that can be neither used nor put aside is acknowledged and lost."""
    estate = Estate.real(kafka.bootstrap, 1, dead_letters={"max.message.bytes": "1000"})
    worker = WorkerProcess(estate, tmp_path)
    workers.append(worker)
    worker.start().wait_ready()
    # Random, so that no compression gets it through.
    estate.send(estate.topics.actions, b"crm/contact/1", random.Random(1).randbytes(5_000))
    estate.flush()
    assert exit_code(worker) == ExitCode.BATCH
    assert estate.committed()[0] == 0
    assert (tmp_path / NOTE_NAME).exists()


# -- row 4


class _Thread:
    """aiokafka's side of a commit."""

    def __init__(self, answer: bool | Exception) -> None:
        self.answer = answer

    async def commit(self, offsets: Mapping[Any, int]) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def assignment(self) -> set[TP]:
        return {TP("t", 0)}


async def test_row_04_a_refused_commit_is_not_recorded_as_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, a failed commit is recorded as done (#316): it isn't tried again, and the work is repeated one day."""
    settings = load_settings(data_dir=tmp_path, store="memory")
    app = build_app(settings, engine_of(settings, Codec.packaged()), "test")
    consumer = consumer_of(app)
    place = TP("t", 0)
    consumer.ledger.sought({place: 0})
    consumer.ledger.read(place, 0, 10)
    consumer.finish(Chunk("t", 0, 0, 10, [], 0))
    consumer._thread = _Thread(False)  # type: ignore[assignment]
    assert await consumer.force_commit() is False
    assert (consumer.commits_refused, consumer.ledger.committed(place)) == (1, 0)
    assert consumer.ledger.committable([place]) == {place: 10}
    consumer._thread = _Thread(True)  # type: ignore[assignment]
    assert await consumer.force_commit() is True
    assert consumer.ledger.committed(place) == 10

    ends: list[ExitCode] = []

    def end(code: ExitCode, *_arguments: object) -> NoReturn:
        ends.append(code)
        raise SystemExit

    monkeypatch.setattr(consumer_module, "end_process", end)
    consumer.finish(Chunk("t", 0, 10, 20, [], 0))
    consumer._thread = _Thread(RuntimeError("the brokers say no"))  # type: ignore[assignment]
    with pytest.raises(SystemExit):
        await consumer.force_commit()
    assert ends == [ExitCode.COMMIT]


# -- rows 5 and 6: the watchdog's judgement stands in test_watchdog; here it really ends the process


@pytest.mark.parametrize(
    ("fault", "limits", "code", "said"),
    [
        ("commits-hang", {"RECONCILER_COMMIT_MAX_AGE_S": "2"}, ExitCode.COMMIT, "isn't committed"),
        ("fetches-hang", {"RECONCILER_PROGRESS_MAX_AGE_S": "2"}, ExitCode.STALLED, "no progress"),
        ("loop-hangs", {"RECONCILER_LOOP_MAX_AGE_S": "6"}, ExitCode.STALLED, "event loop"),
    ],
    ids=["row_05_commits", "row_06_fetches", "row_06_loop"],
)
def test_row_05_06_a_worker_that_is_stuck_ends(
    embedded_broker: EmbeddedBroker,
    tmp_path: Path,
    workers: list[WorkerProcess],
    fault: str,
    limits: dict[str, str],
    code: ExitCode,
    said: str,
) -> None:
    """Without this, it would keep its partitions for ever, and look alive (#596, #175, #523, #640)."""
    estate = Estate.embedded(embedded_broker)
    worker = WorkerProcess(estate, tmp_path)
    workers.append(worker)
    worker.start(FAULT=fault, **limits).wait_ready()
    produce_actions(estate, 100, keys=10)
    assert exit_code(worker) == code
    assert said in worker.process.log_tail()
    # Another one, without the fault, goes on where it stood.
    worker.start().wait_ready()
    estate.drained(60)
    assert shown(estate.heads()) == folded(estate)[0]


# -- row 7


def test_row_07_a_compacted_changelog_is_recovered(
    kafka: KafkaBroker, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    """Without this, recovery waits for offsets that compaction has taken (#176), or for partitions that are empty (#597)."""
    changelogs = {"segment.ms": "500", "min.cleanable.dirty.ratio": "0.01", "min.compaction.lag.ms": "0"}
    estate = Estate.real(kafka.bootstrap, 3, changelogs=changelogs)
    worker = WorkerProcess(estate, tmp_path)
    workers.append(worker)
    worker.start(RECONCILER_BATCH_MAX_RECORDS="20").wait_ready()
    key = f"{SYSTEM}/contact/only"
    full = partition_of(key.encode(), 3)

    def compacted() -> bool:
        # The cleaner never touches the segment that is being written.
        number = len(estate.read(estate.topics.actions))
        for index in range(number, number + 50):
            estate.send_record(estate.topics.actions, action(key, f"a{index}"))
        estate.flush()
        estate.drained(60)
        offsets = [found.offset for found in estate.read(estate.topics.expected) if found.partition == full]
        return bool(offsets) and offsets[0] > 0

    wait_until(compacted, deadline_s=60, what="the cleaner takes heads away")
    worker.kill()
    worker.start(RECONCILER_STORE="memory").wait_ready()
    estate.send_record(estate.topics.actions, action(key, "last"))
    estate.flush()
    estate.drained(60)
    assert shown(estate.heads()) == folded(estate)[0]


# -- row 8


def test_row_08_a_stray_record_in_the_changelog_stops_the_start(
    embedded_broker: EmbeddedBroker, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    """Without this, a record of another table is applied to this one, and an exception only warns."""
    estate = Estate.embedded(embedded_broker)
    envelope = HeadEnvelope(
        estate.codec, estate.codec.header(estate.topics.expected, ExpectedHead), "rollbacks", 1, (), 0
    )
    estate.send(estate.topics.expected, b"crm/contact/1", envelope.encode(b"crm/contact/1", (), b"{}"), partition=0)
    estate.flush()
    worker = WorkerProcess(estate, tmp_path)
    workers.append(worker)
    worker.start()
    assert exit_code(worker) == ExitCode.RECOVERY
    assert "in the table 'resources'" in worker.process.log_tail()


# -- row 12


async def test_row_12_consuming_is_by_aiokafka_and_every_partitioner_is_murmur2(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Without this, Faust's confluent driver would put the same key into another partition in every process."""
    settings = load_settings(data_dir=tmp_path, store="memory")
    assert isinstance(build_app(settings, engine_of(settings, Codec.packaged()), "test").transport, driver.Transport)
    estate = Estate.embedded(embedded_broker)
    keys = [f"{SYSTEM}/contact/{number}" for number in range(50)]
    for key in keys:
        estate.send(estate.topics.actions, key.encode(), b"")
    estate.flush()
    for found in estate.read(estate.topics.actions):
        assert found.key is not None
        assert found.partition == partition_of(found.key, estate.partitions)


# -- row 16: that timers are records is shown in test_worker; here, that there is no other way


async def test_row_16_the_table_is_written_by_batches_alone(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    """Without this, a value set from a timer or a service would miss the changelog, and be gone after a takeover."""
    estate = Estate.embedded(embedded_broker)
    produce_actions(estate, 20, keys=2)
    settings = estate.settings(tmp_path)
    engine = engine_of(settings, estate.codec)
    table: Any = build_app(settings, engine, "test").tables["resources"]
    await own(engine, range(estate.partitions))
    await feed(engine, estate, {})
    assert table.changelog_topic_name == estate.topics.expected
    assert sorted(table) == sorted(folded(estate)[0])
    key = next(iter(table))
    assert table[key] == engine.head(engine.partition_of(key), key)
    with pytest.raises(TypeError, match="by batches alone"):
        table[key] = None
    with pytest.raises(TypeError, match="outside of stream iteration"):
        del table[key]
    await engine.close()


# -- row 17, and what else stops a start


def test_row_17_no_start_without_the_topics(
    embedded_broker: EmbeddedBroker, tmp_path: Path, workers: list[WorkerProcess]
) -> None:
    """Without this, topics that are made a moment later are written to, and never consumed until the next start."""
    estate = Estate(embedded_broker.bootstrap, 4, fence="none")
    worker = WorkerProcess(estate, tmp_path / "missing")
    workers.append(worker)
    worker.start()
    assert exit_code(worker) == ExitCode.INPUT
    assert "topics are missing" in worker.process.log_tail()
    assert "reconciler topics create" in worker.process.log_tail()
    full = Estate.embedded(embedded_broker)
    other = WorkerProcess(full, tmp_path / "count", RECONCILER_PARTITIONS="12")
    workers.append(other)
    other.start()
    assert exit_code(other) == ExitCode.INPUT
    assert "has 4 partitions, not 12" in other.process.log_tail()


def test_one_living_process_an_instance_id(kafka: KafkaBroker, tmp_path: Path, workers: list[WorkerProcess]) -> None:
    estate = Estate.real(kafka.bootstrap, 2)
    first = WorkerProcess(estate, tmp_path / "first", RECONCILER_INSTANCE_ID="same")
    second = WorkerProcess(estate, tmp_path / "second", RECONCILER_INSTANCE_ID="same")
    workers += [first, second]
    first.start().wait_ready()
    second.start()
    assert exit_code(second) == ExitCode.INPUT
    assert "'same' is in use by" in second.process.log_tail()
    assert first.is_ready()
    # What a crash left behind doesn't stand in the way.
    first.kill()
    second.start().wait_ready()


def test_the_epoch_grows_with_every_owner(kafka: KafkaBroker, tmp_path: Path, workers: list[WorkerProcess]) -> None:
    """With static membership the group's generation stays the same through a crash: it would be no epoch."""
    estate = Estate.real(kafka.bootstrap, 2)
    worker = WorkerProcess(estate, tmp_path, RECONCILER_INSTANCE_ID="same")
    workers.append(worker)
    for number in range(3):
        worker.start().wait_ready()
        produce_actions(estate, 200, keys=5, first=200 * number)
        estate.drained(60)
        worker.kill()
    for partition, marks in estate.marks().items():
        epochs = [mark.epoch for mark in marks]
        assert epochs == sorted(epochs)
        assert sorted(set(epochs)) == [1, 2, 3], partition
    commands = [estate.codec.decode(found.value) for found in estate.read(estate.topics.reversal(SYSTEM))]
    assert {command.epoch for command in commands} == {1, 2, 3}  # type: ignore[attr-defined]
    assert shown(estate.heads()) == folded(estate)[0]
