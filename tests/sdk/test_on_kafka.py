"""The SDK on a real Apache Kafka: crashes, rebalances, redelivery, and brokers that go away."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from reconciler.contracts.model import ContractSet
from reconciler.offline import folded
from reconciler.records import Action, Change, Command, Outcome
from reconciler.sdk import (
    ConsumerSettings,
    HandlerResult,
    KafkaSettings,
    MemoryDedup,
    Producer,
    ProducerSettings,
    ReversalConsumer,
)
from reconciler.targets.memory import MemoryTarget
from tests.sdk.support import Served, in_thread, patch
from tests.support.estate import Estate
from tests.support.kafka import KafkaBroker
from tests.support.waiting import wait_until

PARTITIONS = 6


@pytest.fixture
def estate(kafka: KafkaBroker) -> Estate:
    return Estate.real(kafka.bootstrap, PARTITIONS)


class Crm:
    """A CRM in SQLite whose trigger counts every write of a contact."""

    def __init__(self, folder: Path, contacts: int) -> None:
        self.folder = folder
        self.path = folder / "crm.db"
        self.targets = folder / "targets.yaml"
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        self._connection.executescript(
            "CREATE TABLE contact (id TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT;"
            "CREATE TABLE written (id TEXT, n INTEGER);"
            "CREATE TRIGGER seen AFTER UPDATE ON contact BEGIN INSERT INTO written VALUES (new.id, new.n); END;"
        )
        self._connection.executemany("INSERT INTO contact VALUES (?, 0)", [(str(n),) for n in range(contacts)])
        self.targets.write_text(
            "crm:\n  kind: sqlite\n  path: crm.db\n  resources:\n"
            "    contact: {table: contact, id: id, fields: {/n: n}}\n"
        )

    def writes(self) -> Counter[str]:
        """How often each contact was written."""
        return Counter(id_ for (id_,) in self._connection.execute("SELECT id FROM written"))

    def numbers(self) -> dict[str, int]:
        return dict(self._connection.execute("SELECT id, n FROM contact"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else can write meanwhile."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")


def increment(number: int, contact: int) -> Command:
    """A command that does harm when it is applied twice."""
    return Command(
        command_id=f"c{number}",
        resource=f"crm/contact/{contact}",
        action="patch",
        changes=[Change(path="/n", op="increment", value=1)],
    )


def send(estate: Estate, *commands: Command) -> None:
    for command in commands:
        estate.send_record(estate.topics.reversal("crm"), command)
    estate.flush()


def outcomes(estate: Estate) -> list[Outcome]:
    records = [estate.codec.decode(found.value) for found in estate.read(estate.topics.outcomes)]
    assert all(isinstance(record, Outcome) for record in records)
    return records  # type: ignore[return-value]  # asserted


def statuses(estate: Estate) -> dict[str, set[str]]:
    result: dict[str, set[str]] = {}
    for outcome in outcomes(estate):
        result.setdefault(outcome.command_id, set()).add(outcome.status)
    return result


def served(estate: Estate, crm: Crm) -> Served:
    return Served("crm", crm.targets, estate.bootstrap, estate.prefix, crm.folder)


def applying(process: Served) -> bool:
    page = urllib.request.urlopen(f"{process.url}/metrics", timeout=2).read().decode()
    return "reconciler_commands_applying 1.0" in page


def settings(estate: Estate, **changed: Any) -> ConsumerSettings:
    given: dict[str, Any] = {
        "kafka": KafkaSettings(bootstrap_servers=estate.bootstrap, topic_prefix=estate.prefix),
        "system": "crm",
        "commit_interval_s": 0.1,
        "session_timeout_s": 6.0,
    }
    return ConsumerSettings(**(given | changed))


@pytest.mark.timeout(300)
def test_a_crash_between_application_and_outcome_applies_once(
    kafka: KafkaBroker, estate: Estate, tmp_path: Path
) -> None:
    crm = Crm(tmp_path, 1)
    with served(estate, crm) as process:
        with crm.locked():
            send(estate, increment(1, 0))
            wait_until(lambda: applying(process), deadline_s=60, what="the command is about to be applied")
            kafka.process.pause()
        try:
            wait_until(lambda: crm.numbers() == {"0": 1}, deadline_s=60, what="the command is applied")
            process.kill()
        finally:
            kafka.process.resume()
    assert outcomes(estate) == []
    with served(estate, crm):
        wait_until(lambda: outcomes(estate), deadline_s=60, what="the outcome")
    assert statuses(estate) == {"c1": {"already_applied"}}
    assert crm.writes() == {"0": 1}


@pytest.mark.timeout(300)
def test_killed_again_and_again_under_load_every_command_is_applied_once(estate: Estate, tmp_path: Path) -> None:
    chance = random.Random(7)
    crm = Crm(tmp_path, 20)
    commands = [increment(number, number % 20) for number in range(400)]

    def worked_until(number: int) -> bool:
        return sum(crm.writes().values()) >= number

    for start in range(0, len(commands), 100):
        send(estate, *commands[start : start + 100])
        enough = sum(crm.writes().values()) + chance.randrange(5, 60)
        with served(estate, crm) as process:
            wait_until(partial(worked_until, enough), deadline_s=60, what="some are applied")
            process.kill()
    with served(estate, crm) as process:
        wait_until(lambda: len(statuses(estate)) == len(commands), deadline_s=60, what="all outcomes")
        assert process.terminate() == 0
    assert crm.numbers() == {str(contact): 20 for contact in range(20)}
    assert crm.writes() == {str(contact): 20 for contact in range(20)}
    assert all(each <= {"applied", "already_applied"} for each in statuses(estate).values())


class Working:
    """A slow service that remembers what it was told, in the order in which it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seen: dict[str, list[str]] = {}
        self.workers: set[str] = set()

    def handler(self, name: str) -> Any:
        def handle(command: Command) -> HandlerResult:
            time.sleep(0.02)
            with self._lock:
                self.workers.add(name)
                self.seen.setdefault(command.resource, []).append(command.command_id)
            return HandlerResult()

        return handle

    @property
    def count(self) -> int:
        with self._lock:
            return sum(map(len, self.seen.values()))


@pytest.mark.timeout(300)
def test_members_that_come_and_go_lose_nothing_repeat_nothing_and_keep_the_order(estate: Estate) -> None:
    """Each has a memory of its own: what keeps a command from being applied twice is the commit before partitions go."""
    work = Working()
    sent = 0

    def member(name: str) -> ReversalConsumer:
        return ReversalConsumer(settings(estate, concurrency=4), work.handler(name), dedup=MemoryDedup())

    def has_worked(name: str) -> bool:
        """Whether a member has. Until then there is always more to do, however long it takes to join."""
        nonlocal sent
        if sent - work.count < 400:
            send(estate, *(patch(number, f"crm/contact/{number % 30}") for number in range(sent, sent + 200)))
            sent += 200
        return name in work.workers

    first, second, third = member("first"), member("second"), member("third")
    with in_thread(first.run, first.stop):
        wait_until(lambda: has_worked("first") and work.count > 50, deadline_s=60, what="the first works")
        with in_thread(second.run, second.stop):
            wait_until(lambda: has_worked("second"), deadline_s=60, what="the second works")
            with in_thread(third.run, third.stop):
                wait_until(lambda: has_worked("third"), deadline_s=60, what="the third works")
            # The third has left, the second leaves now, and the first goes on.
        wait_until(lambda: len(statuses(estate)) == sent, deadline_s=120, what="all outcomes")
    in_order: dict[str, list[str]] = {}
    for found in estate.read(estate.topics.reversal("crm")):
        command = estate.codec.decode(found.value)
        assert isinstance(command, Command)
        in_order.setdefault(command.resource, []).append(command.command_id)
    assert work.seen == in_order
    assert Counter(outcome.status for outcome in outcomes(estate)) == {"applied": sent}


def test_what_is_delivered_again_is_recognised(estate: Estate) -> None:
    target = MemoryTarget("crm")
    for contact in range(10):
        target.put(f"crm/contact/{contact}", {"n": 0})
    send(estate, *(increment(number, number % 10) for number in range(50)))
    consumer = ReversalConsumer(settings(estate), target)
    with in_thread(consumer.run, consumer.stop):
        wait_until(lambda: len(outcomes(estate)) == 50, deadline_s=60, what="all outcomes")
    topic = estate.topics.reversal("crm")
    group = Consumer({"bootstrap.servers": estate.bootstrap, "group.id": topic})
    group.commit(offsets=[TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)], asynchronous=False)
    group.close()
    consumer = ReversalConsumer(settings(estate), target)
    with in_thread(consumer.run, consumer.stop):
        wait_until(lambda: len(outcomes(estate)) == 100, deadline_s=60, what="all outcomes again")
    assert all(each == {"applied", "already_applied"} for each in statuses(estate).values())
    assert all(target.fields(f"crm/contact/{contact}") == {"n": 5} for contact in range(10))


def test_an_epoch_outlives_the_process_on_a_real_broker(estate: Estate) -> None:
    work = Working()
    send(estate, patch(1, epoch=5), patch(2, epoch=4))
    for expected in ({"c1": {"applied"}, "c2": {"rejected"}}, None):
        consumer = ReversalConsumer(settings(estate), work.handler("one"), dedup=MemoryDedup())
        with in_thread(consumer.run, consumer.stop):
            if expected is None:
                send(estate, patch(3, epoch=4), patch(4, epoch=5))
                wait_until(lambda: len(statuses(estate)) == 4, deadline_s=60, what="the outcomes after the restart")
            else:
                wait_until(lambda: statuses(estate) == expected, deadline_s=60, what="the first outcomes")  # noqa: B023
    assert statuses(estate) == {"c1": {"applied"}, "c2": {"rejected"}, "c3": {"rejected"}, "c4": {"applied"}}


@pytest.mark.timeout(300)
def test_brokers_that_go_while_actions_are_told_lose_nothing_and_change_no_order(tmp_path: Path) -> None:
    """Twice, once killed and once stopped in order; at the end a second producer sends what the first left behind."""
    with KafkaBroker() as broker:
        estate = Estate.real(broker.bootstrap, PARTITIONS)
        producer_settings = ProducerSettings(
            kafka=KafkaSettings(bootstrap_servers=broker.bootstrap, topic_prefix=estate.prefix, delivery_timeout_s=3),
            spool_folder=tmp_path / "spool",
            spool_retry_s=0.3,
        )
        number = 0

        def tell(producer: Producer, count: int) -> None:
            nonlocal number
            for _ in range(count):
                number += 1
                resource = f"crm/contact/{number % 5}"
                with producer.action(resource, run_id="run", step_id=str(number)) as action:
                    action.before({} if number <= 5 else {"n": number - 5})
                    action.set("/n", number)

        with Producer(producer_settings) as producer:
            tell(producer, 25)
            assert producer.drain(60)
            broker.kill()
            tell(producer, 25)
            assert producer.spooled == 50
            broker.start()
            assert producer.drain(60)
            tell(producer, 25)
            broker.stop()
            tell(producer, 25)
        broker.start()
        with Producer(producer_settings) as producer:
            tell(producer, 25)
            assert producer.drain(60)
        events = [estate.codec.decode(found.value) for found in estate.read(estate.topics.actions)]
    actions = [event for event in events if isinstance(event, Action)]
    unique = list({action.action_id: action for action in reversed(actions)}.values())[::-1]
    assert len(unique) == 2 * 125
    for contact in range(5):
        mine = [action for action in unique if action.resource == f"crm/contact/{contact}"]
        assert [(int(action.step_id), action.stage) for action in mine] == [
            (step, stage) for step in range(contact or 5, 126, 5) for stage in ("initiated", "succeeded")
        ]
    # And whatever was sent twice counts once.
    states = list(folded(actions, ContractSet()))
    assert states == list(folded(unique, ContractSet()))
    assert {state["resource"]: state["fields"] for state in states} == {
        f"crm/contact/{contact}": {"/n": 120 + (contact or 5)} for contact in range(5)
    }
