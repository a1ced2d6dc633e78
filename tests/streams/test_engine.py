"""The engine in the test's process, on the embedded broker: takeovers, what is kept, and what services see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.records import Action, Timer
from reconciler.values.instant import SECOND
from streams.embedded.broker import EmbeddedBroker
from streams.metrics import WorkerMetrics
from streams.runner.pipeline import resource_pipeline
from streams.store.changelog import ChangelogReader, RecoveryAborted, RecoveryStalled
from streams.store.envelope import ChangelogMismatch
from streams.store.port import Checkpoint
from streams.store.recovery import StoreFactory
from streams.transport.chunk import Chunk
from streams.worker.engine import Engine
from streams.worker.hosting import HostContext, ServiceHost
from streams.worker.process import Work
from streams.worker.publisher import Publisher
from streams.worker.ticker import Ticker
from streams.worker_services import PartitionNotOwned, WorkerContext
from tests.support.counting import CountingMachine
from tests.support.engines import Told, engine_of, feed, own, raw
from tests.support.estate import SYSTEM, Estate, action, folded, produce_actions, shown

ALL = (0, 1, 2, 3)


@pytest.fixture
def estate(embedded_broker: EmbeddedBroker) -> Estate:
    return Estate.embedded(embedded_broker)


def states(engine: Engine) -> dict[str, Any]:
    return {key: state for partition in engine.partitions for key, state in engine.heads(partition)}


async def test_a_new_engine_finds_what_another_left(estate: Estate, tmp_path: Path) -> None:
    produce_actions(estate, 400, keys=40)
    positions: dict[int, int] = {}
    engine = engine_of(estate.settings(tmp_path / "one"), estate.codec)
    await own(engine, ALL)
    await feed(engine, estate, positions)
    await engine.close()
    for store, folder in (("rocksdb", "one"), ("rocksdb", "two"), ("memory", "three")):
        engine = engine_of(estate.settings(tmp_path / folder, store=store), estate.codec)
        await own(engine, ALL)
        assert shown(states(engine)) == folded(estate)[0]
        # What is handed over again is recognised.
        await feed(engine, estate, {})
        assert shown(states(engine)) == folded(estate)[0]
        await engine.close()
    assert sorted(estate.command_ids()) == sorted(folded(estate)[1])


async def test_partitions_are_given_up_kept_and_taken_back(estate: Estate, tmp_path: Path) -> None:
    produce_actions(estate, 200, keys=40)
    told = Told()
    engine = engine_of(estate.settings(tmp_path), estate.codec, listeners=[told])
    positions: dict[int, int] = {}
    await own(engine, ALL)
    await feed(engine, estate, positions)
    kept = engine._processes[2]
    engine.suspend()
    assert engine.partitions == frozenset()
    with pytest.raises(PartitionNotOwned):
        engine.head(2, "crm/contact/1")
    await own(engine, (2, 3), 2)
    assert engine.partitions == {2, 3}
    assert engine._processes[2] is kept
    engine.suspend()
    # A generation in which somebody else may have owned it, and nothing that holds him off: begin anew.
    await own(engine, ALL, 4)
    assert engine._processes[2] is not kept
    assert shown(states(engine)) == folded(estate)[0]
    assert [name for name, _ in told.calls if name != "touched"] == ["assigned", "revoked"] * 2 + ["assigned"]
    await engine.close()


async def test_a_takeover_ends_when_a_rebalance_begins(estate: Estate, tmp_path: Path) -> None:
    produce_actions(estate, 100, keys=10)
    engine = engine_of(estate.settings(tmp_path), estate.codec)
    with pytest.raises(RecoveryAborted):
        await engine.recover(frozenset(ALL), 1, lambda: False)
    assert not engine.ready
    await own(engine, ALL, 2)
    await feed(engine, estate, {})
    assert shown(states(engine)) == folded(estate)[0]
    await engine.close()


async def test_what_waits_when_a_rebalance_begins_is_dropped(estate: Estate, tmp_path: Path) -> None:
    engine = engine_of(estate.settings(tmp_path), estate.codec)
    await own(engine, ALL)
    outcome: list[str] = []
    chunk = Chunk(estate.topics.actions, 0, 0, 1, [], 0)
    await engine.submit(Work(chunk, lambda: False, lambda: outcome.append("done"), lambda: outcome.append("dropped")))
    engine.suspend()
    await engine.submit(Work(chunk, lambda: True, lambda: outcome.append("done"), lambda: outcome.append("dropped")))
    assert outcome == ["dropped", "dropped"]
    await engine.close()


async def test_a_chunk_is_finished_when_the_last_of_its_batches_is_durable(estate: Estate, tmp_path: Path) -> None:
    produce_actions(estate, 400, keys=40)
    engine = engine_of(estate.settings(tmp_path).model_copy(update={"batch_max_bytes": 100}), estate.codec)
    await own(engine, ALL)
    await feed(engine, estate, {}, size=400)
    await engine.close()
    assert all(len(marks) > 5 for marks in estate.marks().values())
    assert shown(estate.heads()) == folded(estate)[0]


async def test_a_rebalance_ends_what_would_be_many_batches(estate: Estate, tmp_path: Path) -> None:
    """Without this, it waits for all that one chunk becomes."""
    produce_actions(estate, 400, keys=40)
    engine = engine_of(estate.settings(tmp_path).model_copy(update={"batch_max_bytes": 100}), estate.codec)
    await own(engine, (0,))
    records = [raw(found) for found in estate.read(estate.topics.actions) if found.partition == 0]
    chunk = Chunk(estate.topics.actions, 0, 0, records[-1].offset + 1, records, 0)
    outcome: list[str] = []
    ended = asyncio.Event()

    def is_current() -> bool:
        # It is asked when it is handed over, and after each batch; the rebalance begins within the third.
        outcome.append("asked")
        return len(outcome) < 4

    def dropped() -> None:
        outcome.append("dropped")
        ended.set()

    await engine.submit(Work(chunk, is_current, lambda: outcome.append("done"), dropped))
    await ended.wait()
    assert outcome == [*["asked"] * 4, "dropped"]
    consumed = engine.consumed(0, chunk.topic)
    assert 0 < consumed < chunk.end
    # Whoever reads it again goes on where that ended.
    await feed(engine, estate, {})
    assert engine.consumed(0, chunk.topic) == chunk.end
    await engine.close()
    expected, _ = folded(estate)
    assert shown(estate.heads()) == {key: state for key, state in expected.items() if engine.partition_of(key) == 0}


async def test_a_head_iteration_ends_with_the_ownership(estate: Estate, tmp_path: Path) -> None:
    produce_actions(estate, 100, keys=40)
    engine = engine_of(estate.settings(tmp_path), estate.codec)
    await own(engine, ALL)
    await feed(engine, estate, {})
    heads = engine.heads(1)
    next(heads)
    engine.suspend()
    with pytest.raises(PartitionNotOwned):
        next(heads)
    await engine.close()


# -- rows 7 and 10: what a store is not gone on with


class _Stalling(ChangelogReader):
    """Comes to no end, so many times."""

    left = 0

    def read(self, starts: Any) -> Any:
        if _Stalling.left:
            _Stalling.left -= 1
            raise RecoveryStalled("nothing comes", frozenset(place.partition for place in starts))
        yield from super().read(starts)


async def test_row_07_a_stalled_recovery_is_begun_anew_and_then_given_up(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this, the worker would wait for ever for an end of the changelog that doesn't come."""
    produce_actions(estate, 200, keys=30)
    engine = engine_of(estate.settings(tmp_path), estate.codec)
    await own(engine, ALL)
    await feed(engine, estate, {})
    await engine.close()
    monkeypatch.setattr("streams.store.recovery.ChangelogReader", _Stalling)
    _Stalling.left = 1
    engine = engine_of(estate.settings(tmp_path), estate.codec)
    await own(engine, ALL)
    assert shown(states(engine)) == folded(estate)[0]
    await engine.close()
    _Stalling.left = 2
    engine = engine_of(estate.settings(tmp_path), estate.codec)
    with pytest.raises(RecoveryStalled):
        await own(engine, ALL)
    await engine.close()


@pytest.mark.parametrize("problem", ["too old", "ahead"])
async def test_row_10_a_store_that_does_not_fit_is_rebuilt(estate: Estate, tmp_path: Path, problem: str) -> None:
    """Without this, a store that missed deletions, or that is of a log that was lost, would be gone on with."""
    produce_actions(estate, 100, keys=10)
    settings = estate.settings(tmp_path)
    engine = engine_of(settings, estate.codec)
    await own(engine, ALL)
    await feed(engine, estate, {})
    await engine.close()
    pipeline = resource_pipeline(CountingMachine(), estate.topics)
    store = StoreFactory(settings, pipeline, "cluster").open(0)
    at = store.checkpoint()
    assert at is not None
    written_at = time.time() - 86_400 if problem == "too old" else at.written_at
    heads = at.heads + 1_000 if problem == "ahead" else at.heads
    nonsense = [(b"crm/contact/nonsense", b"", None)]
    store.write(nonsense, [], Checkpoint(heads=heads, history=at.history, mark=at.mark, written_at=written_at))
    store.close()
    engine = engine_of(settings, estate.codec)
    await own(engine, ALL)
    assert shown(states(engine)) == folded(estate)[0]
    await engine.close()


async def test_an_input_topic_that_was_made_anew_stops_the_takeover(estate: Estate, tmp_path: Path) -> None:
    """Without this, all its records up to the old offsets would be taken for replays, and skipped."""
    engine = engine_of(estate.settings(tmp_path), estate.codec)
    await own(engine, ALL)
    await engine.close()
    pipeline = resource_pipeline(CountingMachine(), estate.topics)
    store = StoreFactory(estate.settings(tmp_path), pipeline, "cluster").open(0)
    at = store.checkpoint()
    assert at is not None
    assert at.mark is not None
    mark = msgspec.structs.replace(at.mark, consumed={estate.topics.actions: 7})
    store.write([], [], msgspec.structs.replace(at, mark=mark))
    store.close()
    engine = engine_of(estate.settings(tmp_path), estate.codec)
    with pytest.raises(ChangelogMismatch, match="up to 7, but it ends at 0"):
        await own(engine, ALL)
    await engine.close()


async def test_records_of_an_earlier_owner_after_a_later_ones_are_ignored(estate: Estate, tmp_path: Path) -> None:
    """The embedded broker has no fence: what a zombie writes there must at least not be recovered."""
    key = f"{SYSTEM}/contact/1"
    positions: dict[int, int] = {}
    zombie = engine_of(estate.settings(tmp_path / "zombie"), estate.codec)
    await own(zombie, ALL)
    estate.send_record(estate.topics.actions, action(key, "a"))
    estate.flush()
    heir = engine_of(estate.settings(tmp_path / "heir"), estate.codec)
    await own(heir, ALL)
    await feed(heir, estate, positions)
    estate.send_record(estate.topics.actions, action(key, "b"))
    estate.flush()
    await feed(heir, estate, positions)
    await heir.close()
    # The zombie knows of neither; it goes on with the first and overwrites what the heir has made of both.
    estate.send_record(estate.topics.actions, action(key, "c"))
    estate.flush()
    (third,) = [found for found in estate.read(estate.topics.actions) if found.offset == 2]
    await feed(zombie, estate, {third.partition: 2})
    await zombie.close()
    third_owner = engine_of(estate.settings(tmp_path / "third", store="memory"), estate.codec)
    await own(third_owner, ALL)
    assert shown(states(third_owner))[key][0] == 2
    await third_owner.close()


# -- services, timers


def actions_of(estate: Estate, key: str) -> set[str]:
    found = [estate.codec.decode(each.value) for each in estate.read(estate.topics.actions)]
    return {each.action_id for each in found if isinstance(each, Action) and each.resource == key}


def ends(estate: Estate) -> dict[int, int]:
    found = dict.fromkeys(ALL, 0)
    return found | {each.partition: each.offset + 1 for each in estate.read(estate.topics.actions)}


class Service:
    """A service that fails once, reads heads and publishes."""

    name = "probe"

    def __init__(self) -> None:
        self.runs = 0
        self.touched: dict[str, object] = {}
        self.context: WorkerContext | None = None

    async def run(self, context: WorkerContext) -> None:
        self.runs += 1
        self.context = context
        if self.runs == 1:
            raise RuntimeError("not yet")
        await asyncio.Event().wait()

    def on_assigned(self, partitions: frozenset[int]) -> None:
        raise RuntimeError("a service's fault")

    def on_revoked(self, partitions: frozenset[int]) -> None: ...

    def on_touched(self, partition: int, states: Mapping[str, object]) -> None:
        self.touched |= states

    def on_folded(self, chunk: Chunk, folded: Sequence[bool]) -> None: ...


async def test_services_see_heads_and_cannot_hurt(estate: Estate, tmp_path: Path) -> None:
    settings = estate.settings(tmp_path)
    service, metrics = Service(), WorkerMetrics()
    host = ServiceHost([service], metrics)
    engine = engine_of(settings, estate.codec, listeners=[host])
    publisher = Publisher(settings)
    host.start(HostContext(settings, engine, publisher, metrics.registry))
    produce_actions(estate, 100, keys=10)
    await own(engine, ALL)
    await feed(engine, estate, {})
    assert shown(service.touched) == shown(states(engine)) == folded(estate)[0]  # type: ignore[arg-type]
    deadline = time.monotonic() + 60
    while service.runs < 2 and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    context = service.context
    assert service.runs == 2
    assert context is not None
    key = f"{SYSTEM}/contact/3"
    head = context.head(context.partition_of(key), key)
    assert shown({key: head}) == {key: folded(estate)[0][key]}  # type: ignore[dict-item]
    assert context.head(context.partition_of("crm/contact/none"), "crm/contact/none") is None
    history = context.history(context.partition_of(key), key)
    assert {entry_id for entry_id, _ in history.entries()} == actions_of(estate, key)
    assert {partition: context.consumed(partition, estate.topics.actions) for partition in ALL} == ends(estate)
    assert context.consumed(0, estate.topics.outcomes) == 0
    await context.publish(estate.topics.observations, key, b"bytes", [("name", b"value")])
    (found,) = estate.read(estate.topics.observations)
    assert (found.key, found.value, found.headers) == (key.encode(), b"bytes", {"name": b"value"})
    assert found.partition == context.partition_of(key)
    assert b'reconciler_service_failures_total{service="probe"} 2.0' in metrics.render()
    await host.stop()
    await engine.close()
    publisher.close()


async def test_timers_survive_a_change_of_owner(estate: Estate, tmp_path: Path) -> None:
    key = f"{SYSTEM}/timer/1"
    settings = estate.settings(tmp_path)
    estate.send_record(estate.topics.actions, action(key, "t", step_id="timer", set={"/after": 3600 * SECOND}))
    estate.flush()
    engine = engine_of(settings, estate.codec)
    await own(engine, ALL)
    await feed(engine, estate, {})
    (due_at,) = [state.due_at for state in states(engine).values()]
    await engine.close()
    for store in ("rocksdb", "memory"):
        settings = estate.settings(tmp_path, store=store)
        engine = engine_of(settings, estate.codec)
        await own(engine, ALL)
        publisher = Publisher(settings)
        ticker = Ticker(settings, engine, estate.codec, publisher, WorkerMetrics())
        assert await ticker.tick(due_at - 1) == 0
        assert await ticker.tick(due_at) == 1
        assert await ticker.tick(due_at + 1) == 0
        await engine.close()
        publisher.close()
    timers = estate.read(estate.topics.timers)
    assert [estate.codec.decode(found.value) for found in timers] == [Timer(resource=key, due_at=due_at)] * 2
    assert all(found.timestamp_ms * 1000 >= due_at for found in timers)
