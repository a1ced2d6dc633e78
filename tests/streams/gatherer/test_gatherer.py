"""The gatherer in a worker, on brokers: what it answers, when, and what it tells later, also after a restart."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge

from reconciler.contracts.model import ContractSet
from reconciler.machines.resource import ResourceMachine
from reconciler.records import Action, Alert, Dossier, Gathered, GatherQuery, Observation, Selector, operation_of
from reconciler.wire.partition import partition_of
from streams.embedded.broker import EmbeddedBroker
from streams.gatherer.feed import LedgerFeed
from streams.gatherer.service import Gatherer
from streams.metrics import WorkerMetrics
from streams.worker.engine import Engine
from streams.worker.hosting import HostContext, ServiceHost
from streams.worker.publisher import Publisher
from tests.core.histories import make_action
from tests.support.engines import engine_of, feed, own
from tests.support.estate import Estate
from tests.support.kafka import KafkaBroker

CONTRACTS = ContractSet()
JUNE_2026 = 1_780_272_000_000_000
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(params=["embedded", "real"])
def estate(request: pytest.FixtureRequest) -> Estate:
    if request.param == "embedded":
        broker: EmbeddedBroker = request.getfixturevalue("embedded_broker")
        return Estate.embedded(broker)
    kafka: KafkaBroker = request.getfixturevalue("kafka")
    return Estate.real(kafka.bootstrap, partitions=4)


class Worker:
    """An engine with the resource machine and a gatherer, fed by hand."""

    def __init__(self, estate: Estate, engine: Engine, gatherer: Gatherer) -> None:
        self._estate = estate
        self.engine = engine
        self.metrics = gatherer.metrics
        self.positions: dict[int, int] = {}

    async def fold(self) -> None:
        """Folds all that there is."""
        await feed(self.engine, self._estate, self.positions)

    async def is_fed(self) -> None:
        """Returns when nothing of the ledger is read a second time any more."""
        await until(lambda: value_of(self.metrics.reading) == 0)

    async def has_indexed(self, actions: int) -> None:
        """Returns when so many actions are in the index."""
        await until(lambda: value_of(self.metrics.fed) + value_of(self.metrics.read) == actions)


def value_of(metric: Counter | Gauge) -> float:
    (family,) = metric.collect()
    return family.samples[0].value


@asynccontextmanager
async def working(
    estate: Estate,
    folder: Path,
    partitions: tuple[int, ...] = (0, 1, 2, 3),
    unseen_quiet_s: float = 0,
    ledger_feed: LedgerFeed | None = None,
) -> AsyncIterator[Worker]:
    settings = estate.settings(folder)
    metrics = WorkerMetrics()
    gatherer = Gatherer(
        topics=estate.topics,
        codec=estate.codec,
        contracts=CONTRACTS,
        unseen_quiet_s=unseen_quiet_s,
        feed=ledger_feed,
    )
    host = ServiceHost([gatherer], metrics)
    engine = engine_of(settings, estate.codec, ResourceMachine(CONTRACTS), listeners=[host])
    publisher = Publisher(settings)
    host.start(HostContext(settings, engine, publisher, metrics.registry))
    try:
        await own(engine, partitions)
        yield Worker(estate, engine, gatherer)
        assert b'reconciler_service_failures_total{service="gatherer"}' not in metrics.render()
    finally:
        await host.stop()
        await engine.close()
        publisher.close()


def act(estate: Estate, number: int, resource: str, run_id: str = "run-7", **fields: Any) -> Action:
    given = {"run_id": run_id, "set": {"/phone": str(number)}, "occurred_at": JUNE_2026 + number}
    action = make_action(number, resource=resource, **given | fields)
    estate.send_record(estate.topics.actions, action)
    return action


def ask(estate: Estate, round_: int = 1, *, partitions: int = 4, **fields: Any) -> None:
    for partition in range(partitions):
        query = GatherQuery(rollback_id="rb", round=round_, partition=partition, occurred_at=1, **fields)
        topic = estate.topics.gather_queries
        value = estate.codec.encode(topic, query)
        estate.send(topic, b"rb", value, partition=partition, headers=[("traceparent", TRACE)])
    estate.flush()


def answers(estate: Estate) -> list[Gathered]:
    found = [estate.codec.decode(each.value) for each in estate.read(estate.topics.gathered)]
    return [answer for answer in found if isinstance(answer, Gathered)]


async def until(what: Callable[[], Any], deadline_s: float = 60) -> Any:
    end = time.monotonic() + deadline_s
    while not (value := await asyncio.to_thread(what)):
        assert time.monotonic() < end, "it didn't come"
        await asyncio.sleep(0.05)
    return value


def complete(estate: Estate, round_: int = 1, partitions: int = 4) -> list[Gathered]:
    """The answers to a round, once every partition has answered."""
    found = [answer for answer in answers(estate) if answer.round == round_ and not answer.is_late]
    return found if {answer.partition for answer in found} == set(range(partitions)) else []


def late(estate: Estate) -> list[Gathered]:
    return [answer for answer in answers(estate) if answer.is_late]


def dossiers(found: list[Gathered]) -> dict[str, Dossier]:
    return {dossier.resource: dossier for answer in found for dossier in answer.dossiers}


async def test_every_partition_answers_with_what_it_knows(estate: Estate, tmp_path: Path) -> None:
    actions = [act(estate, number, f"crm/contact/{number % 7}") for number in range(1, 15)]
    act(estate, 99, "crm/contact/other", run_id="run-8")
    estate.flush()
    async with working(estate, tmp_path) as worker:
        await worker.fold()
        ask(estate, select=Selector(run_id="run-7"))
        found = await until(lambda: complete(estate))
    told = dossiers(found)
    assert sorted(name for answer in found for name in answer.matched) == sorted(map(operation_of, actions))
    assert told.keys() == {action.resource for action in actions}
    for resource, dossier in told.items():
        mine = [action.action_id for action in actions if action.resource == resource]
        assert set(dossier.offsets) == set(mine)
        assert len(dossier.entries) == len(mine)
        assert dossier.partition == worker.engine.partition_of(resource)
    ends = {place.partition: place.offset + 1 for place in estate.read(estate.topics.actions)}
    assert {answer.partition: answer.complete_up_to for answer in found if answer.partition in ends} == ends
    traces = {each.headers.get("traceparent") for each in estate.read(estate.topics.gathered)}
    assert traces == {TRACE}


async def test_an_answer_waits_for_the_table(estate: Estate, tmp_path: Path) -> None:
    async with working(estate, tmp_path) as worker:
        act(estate, 1, "crm/contact/1")
        act(estate, 2, "crm/contact/1")
        ask(estate, select=Selector(run_id="run-7"))
        behind = worker.engine.partition_of("crm/contact/1")
        await until(lambda: {answer.partition for answer in answers(estate)} == {0, 1, 2, 3} - {behind})
        await worker.fold()
        found = await until(lambda: complete(estate))
    assert [len(dossier.entries) for dossier in dossiers(found).values()] == [2]


async def test_an_answer_waits_for_observations_of_what_was_never_seen(estate: Estate, tmp_path: Path) -> None:
    act(estate, 1, "crm/contact/1")
    estate.flush()
    async with working(estate, tmp_path, unseen_quiet_s=60) as worker:
        await worker.fold()
        ask(estate, select=Selector(run_id="run-7"))
        behind = worker.engine.partition_of("crm/contact/1")
        await until(lambda: {answer.partition for answer in answers(estate)} == {0, 1, 2, 3} - {behind})
        seen = Observation(resource="crm/contact/1", exists=True, fields={"phone": "1"}, observed_at=JUNE_2026 + 9)
        estate.send_record(estate.topics.observations, seen)
        estate.flush()
        await feed(worker.engine, estate, {}, topic=estate.topics.observations)
        found = await until(lambda: complete(estate))
    assert [dossier.observation for dossier in dossiers(found).values()] == [seen]


async def test_an_answer_waits_for_an_observation_since_the_last_write(estate: Estate, tmp_path: Path) -> None:
    act(estate, 1, "crm/contact/1")
    before = Observation(resource="crm/contact/1", exists=True, fields={"phone": "1"}, observed_at=JUNE_2026 + 2)
    estate.send_record(estate.topics.observations, before)
    act(estate, 3, "crm/contact/1")
    estate.flush()
    async with working(estate, tmp_path, unseen_quiet_s=60) as worker:
        await worker.fold()
        await feed(worker.engine, estate, {}, topic=estate.topics.observations)
        ask(estate, select=Selector(run_id="run-7"))
        behind = worker.engine.partition_of("crm/contact/1")
        await until(lambda: {answer.partition for answer in answers(estate)} == {0, 1, 2, 3} - {behind})
        after = Observation(resource="crm/contact/1", exists=True, fields={"phone": "3"}, observed_at=JUNE_2026 + 9)
        estate.send_record(estate.topics.observations, after)
        estate.flush()
        await feed(worker.engine, estate, {}, topic=estate.topics.observations)
        found = await until(lambda: complete(estate))
    assert [dossier.observation for dossier in dossiers(found).values()] == [after]


async def test_an_answer_does_not_wait_for_ever(estate: Estate, tmp_path: Path) -> None:
    act(estate, 1, "crm/contact/1")
    estate.flush()
    async with working(estate, tmp_path, unseen_quiet_s=1) as worker:
        await worker.fold()
        ask(estate, select=Selector(run_id="run-7"))
        found = await until(lambda: complete(estate))
    assert [dossier.observation for dossier in dossiers(found).values()] == [None]


async def test_later_actions_are_told_to_standing_questions_alone(estate: Estate, tmp_path: Path) -> None:
    act(estate, 1, "crm/contact/1")
    async with working(estate, tmp_path) as worker:
        await worker.fold()
        ask(estate, 1, select=Selector(run_id="run-7"), standing=True)
        ask(estate, 2, select=Selector(run_id="run-7"))
        await until(lambda: complete(estate, 1) and complete(estate, 2))
        act(estate, 2, "crm/contact/2", run_id="run-8")
        later = act(estate, 3, "crm/contact/1")
        estate.flush()
        await worker.fold()
        (told,) = await until(lambda: late(estate))
    assert (told.round, told.matched, told.partition) == (
        1,
        [operation_of(later)],
        dossiers([told])[later.resource].partition,
    )
    assert len(dossiers([told])[later.resource].entries) == 2


@pytest.mark.parametrize("is_wiped", [False, True])
async def test_after_a_restart_nothing_is_answered_twice_and_later_actions_are_still_told(
    estate: Estate, tmp_path: Path, is_wiped: bool
) -> None:
    act(estate, 1, "crm/contact/1")
    async with working(estate, tmp_path) as worker:
        await worker.fold()
        ask(estate, select=Selector(run_id="run-7"), standing=True)
        await until(lambda: complete(estate))
    if is_wiped:
        shutil.rmtree(tmp_path / "gatherer")
    before = len(answers(estate))
    later = act(estate, 2, "crm/contact/2")
    estate.flush()
    async with working(estate, tmp_path) as worker:
        await worker.fold()
        await until(lambda: [told for told in late(estate) if operation_of(later) in told.matched])
        ask(estate, 2, select=Selector(run_id="run-7"))
        found = await until(lambda: complete(estate, 2))
    # Without the index nobody knows any more what was told; telling it again does no harm.
    assert len(answers(estate)) == before + len(found) + (2 if is_wiped else 1)
    assert dossiers(found).keys() == {"crm/contact/1", "crm/contact/2"}


async def test_what_was_asked_while_nobody_was_there_is_answered(estate: Estate, tmp_path: Path) -> None:
    act(estate, 1, "crm/contact/1")
    ask(estate, operations=["run-7/step-1"])
    async with working(estate, tmp_path) as worker:
        await worker.fold()
        found = await until(lambda: complete(estate))
    assert dossiers(found).keys() == {"crm/contact/1"}


async def test_partitions_that_come_and_go_are_answered_by_their_owner(estate: Estate, tmp_path: Path) -> None:
    for number in range(1, 20):
        act(estate, number, f"crm/contact/{number}")
    estate.flush()
    async with working(estate, tmp_path / "one", (0, 1)) as worker:
        await worker.fold()
        ask(estate, select=Selector(run_id="run-7"))
        await until(lambda: {answer.partition for answer in answers(estate)} == {0, 1})
        worker.engine.suspend()
        await own(worker.engine, (1, 2), generation=2)
        await worker.fold()
        await until(lambda: {answer.partition for answer in answers(estate)} == {0, 1, 2})
    async with working(estate, tmp_path / "two", (3,)) as worker:
        await worker.fold()
        found = await until(lambda: complete(estate))
    assert len(found) == 4
    assert len(dossiers(found)) == 19


async def test_what_can_not_be_indexed_is_passed_over(estate: Estate, tmp_path: Path) -> None:
    estate.send(estate.topics.actions, b"crm/contact/1", b"nonsense", partition=0)
    estate.send(estate.topics.gather_queries, b"rb", b"nonsense", partition=0)
    wrong = make_action(1, resource="crm/contact/1", run_id="run-7")
    value = estate.codec.encode(estate.topics.actions, wrong)
    for partition in range(4):
        estate.send(estate.topics.actions, b"crm/contact/1", value, partition=partition)
        estate.send(estate.topics.actions, b"crm/contact/2", value, partition=partition)
    ask(estate, select=Selector(run_id="run-7"))
    async with working(estate, tmp_path) as worker:
        await worker.fold()
        await worker.fold()  # what was forwarded
        found = await until(lambda: complete(estate))
        own_partition = worker.engine.partition_of("crm/contact/1")
    assert [answer.partition for answer in found if answer.matched] == [own_partition]


async def test_a_history_that_fits_into_no_message_is_told_to_people(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reconciler.wire import codec

    act(estate, 1, "crm/contact/1", before={"/note": "x" * 200_000})
    estate.flush()
    monkeypatch.setattr(codec, "MAX_STATE_BYTES", 100_000)
    estate.codec._max_record_bytes = 100_000
    async with working(estate, tmp_path) as worker:
        await worker.fold()
        ask(estate, select=Selector(run_id="run-7"))
        (found,) = await until(lambda: estate.read(estate.topics.alerts))
        await until(lambda: len(answers(estate)) == 3)
    alert = estate.codec.decode(found.value)
    assert isinstance(alert, Alert)
    assert (alert.kind, alert.subject) == ("rollback_unanswerable", "rb")


RESOURCE = "crm/contact/1"
PARTITION = partition_of(RESOURCE.encode(), 4)


async def test_what_the_table_folds_is_not_read_again(estate: Estate, tmp_path: Path) -> None:
    act(estate, 1, RESOURCE)
    estate.flush()
    async with working(estate, tmp_path, (PARTITION,)) as worker:
        await worker.fold()
        await worker.has_indexed(1)
        await worker.is_fed()
        read, fed = value_of(worker.metrics.read), value_of(worker.metrics.fed)
        for number in range(2, 12):
            act(estate, number, RESOURCE)
            estate.send(estate.topics.actions, RESOURCE.encode(), b"nonsense", partition=PARTITION)
        refused = act(estate, 12, RESOURCE, occurred_at=1)  # a dead letter, but an action of the ledger
        estate.flush()
        await worker.fold()
        await worker.has_indexed(12)
        assert (value_of(worker.metrics.read), value_of(worker.metrics.fed)) == (read, fed + 11)
        ask(estate, select=Selector(run_id="run-7"))
        await until(lambda: answers(estate))
    (answer,) = answers(estate)
    assert len(answer.matched) == 12
    assert operation_of(refused) in answer.matched
    assert len(dossiers([answer])[RESOURCE].offsets) == 11
    assert answer.complete_up_to == max(each.offset for each in estate.read(estate.topics.actions)) + 1


async def test_later_actions_that_are_fed_are_told_once(estate: Estate, tmp_path: Path) -> None:
    act(estate, 1, RESOURCE)
    async with working(estate, tmp_path, (PARTITION,)) as worker:
        await worker.fold()
        ask(estate, select=Selector(run_id="run-7"), standing=True)
        await until(lambda: answers(estate))
        await worker.is_fed()
        fed = value_of(worker.metrics.fed)
        for number in range(2, 5):
            act(estate, number, RESOURCE)
        act(estate, 5, RESOURCE, run_id="run-8")
        estate.flush()
        # It is asked before the table has come so far: what then is read, is fed as well.
        ask(estate, 2, select=Selector(run_id="run-8"))
        await worker.fold()
        await until(lambda: len(late(estate)) >= 3 and [it for it in answers(estate) if it.round == 2])
        await worker.is_fed()
        later = act(estate, 6, RESOURCE)
        estate.flush()
        await worker.fold()
        told = await until(lambda: [each for each in late(estate) if operation_of(later) in each.matched])
        assert value_of(worker.metrics.fed) > fed
    assert len(told) == 1
    assert [each.matched for each in late(estate)] == [[f"run-7/step-{number}"] for number in (2, 3, 4, 6)]


async def test_what_finds_no_room_in_the_feed_is_read(estate: Estate, tmp_path: Path) -> None:
    async with working(estate, tmp_path, (PARTITION,), ledger_feed=LedgerFeed(most_records=1)) as worker:
        for number in range(1, 31, 10):
            for each in range(number, number + 10):
                act(estate, each, RESOURCE)
            estate.flush()
            await worker.fold()
            await worker.has_indexed(number + 9)
            await worker.is_fed()
        assert value_of(worker.metrics.read) == 30
        ask(estate, select=Selector(run_id="run-7"))
        (answer,) = await until(lambda: answers(estate))
    assert len(answer.matched) == 30


async def test_a_partition_that_comes_back_is_indexed_without_a_gap(estate: Estate, tmp_path: Path) -> None:
    act(estate, 1, RESOURCE)
    estate.flush()
    async with working(estate, tmp_path, (PARTITION,)) as worker:
        await worker.fold()
        await worker.is_fed()
        worker.engine.suspend()
        # Another one folds what comes meanwhile; this one's positions go on behind it.
        act(estate, 2, RESOURCE)
        estate.flush()
        skipped = dict(worker.positions)
        await own(worker.engine, (PARTITION,), generation=2)
        worker.positions[PARTITION] = skipped[PARTITION] + 1
        act(estate, 3, RESOURCE)
        estate.flush()
        await worker.fold()
        await worker.has_indexed(3)
        await worker.is_fed()
        ask(estate, select=Selector(run_id="run-7"))
        (answer,) = await until(lambda: answers(estate))
    assert len(answer.matched) == 3
