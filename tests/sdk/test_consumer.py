"""The reversal consumer on the embedded broker: every command has its outcome, and nothing holds up a partition."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from reconciler.records import Command, Outcome, OutcomeStatus
from reconciler.sdk import (
    AsyncReversalConsumer,
    ClosedError,
    ConsumerSettings,
    Entitlement,
    HandlerResult,
    HmacSigner,
    HmacVerifier,
    KafkaSettings,
    MemoryDedup,
    ReversalConsumer,
    TransientError,
)
from reconciler.targets.memory import MemoryTarget
from streams.embedded.broker import EmbeddedBroker
from tests.sdk.support import (
    CODEC,
    Commands,
    SilentBroker,
    in_thread,
    patch,
    read_outcomes,
    read_raw,
    unique,
)
from tests.support.waiting import wait_until

RESOURCE = "crm/contact/42"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Consuming = ReversalConsumer | AsyncReversalConsumer


class Noted:
    """Metrics that a test can look at."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.letters: Counter[str] = Counter()
        self.loads: list[tuple[int, int, int]] = []

    def command_done(self, status: OutcomeStatus, duration_s: float) -> None:
        assert duration_s >= 0
        self.statuses[status] += 1

    def dead_letter(self, kind: str) -> None:
        self.letters[kind] += 1

    def load(self, partitions: int, waiting: int, applying: int) -> None:
        self.loads.append((partitions, waiting, applying))


class Setup:
    """A broker, a prefix of the test's own, and what comes and goes through it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = unique("sdk")
        self.commands = Commands(bootstrap, self.prefix)
        self.metrics = Noted()

    def settings(self, **changed: Any) -> ConsumerSettings:
        kafka = KafkaSettings(
            bootstrap_servers=self.bootstrap,
            topic_prefix=self.prefix,
            delivery_timeout_s=changed.pop("delivery_timeout_s", 30.0),
            client=changed.pop("client", {}),
        )
        given: dict[str, Any] = {"kafka": kafka, "system": "crm", "commit_interval_s": 0.1, "metrics": self.metrics}
        # When somebody joins twice, the embedded broker waits for nearly the whole session time-out.
        given["session_timeout_s"] = 6.0
        return ConsumerSettings(**(given | changed))

    def outcomes(self, count: int) -> list[Outcome]:
        return read_outcomes(self.bootstrap, self.prefix, count)

    def statuses(self, count: int) -> dict[str, str]:
        """The first outcome's status of each command."""
        result: dict[str, str] = {}
        for outcome in self.outcomes(count):
            result.setdefault(outcome.command_id, outcome.status)
        return result

    def committed(self) -> list[tuple[int, int, str | None]]:
        """Partition, offset and metadata of every committed offset."""
        topic = self.commands.topic
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": topic})
        try:
            offsets = consumer.committed([TopicPartition(topic, partition) for partition in range(4)], timeout=10)
        finally:
            consumer.close()
        return [(each.partition, each.offset, each.metadata) for each in offsets if each.offset >= 0]


@pytest.fixture
def setup(embedded_broker: EmbeddedBroker) -> Setup:
    setup = Setup(embedded_broker.bootstrap)
    embedded_broker.create_topics([setup.commands.topic, f"{setup.prefix}reversal.outcomes"])
    return setup


@contextmanager
def consuming(consumer: Consuming) -> Iterator[Consuming]:
    """Runs a consumer beside the test until the block ends."""

    def run() -> None:
        if isinstance(consumer, AsyncReversalConsumer):
            asyncio.run(consumer.run())
        else:
            consumer.run()

    with in_thread(run, consumer.stop):
        yield consumer


class Contacts:
    """A service's own store and its handler, which counts what it does."""

    def __init__(self) -> None:
        self.applied: list[str] = []

    def __call__(self, command: Command) -> HandlerResult:
        self.applied.append(command.command_id)
        return HandlerResult()


def handled(setup: Setup, handler: Any, **changed: Any) -> ReversalConsumer:
    verifier = changed.pop("verifier", None)
    return ReversalConsumer(setup.settings(**changed), handler, dedup=MemoryDedup(), verifier=verifier)


def test_a_command_is_applied_answered_and_committed(setup: Setup) -> None:
    contacts = Contacts()
    setup.commands.send(patch(1, traceparent=TRACE, epoch=7))
    with consuming(handled(setup, contacts)) as consumer:
        (outcome,) = setup.outcomes(1)
        assert (outcome.command_id, outcome.status, outcome.traceparent) == ("c1", "applied", TRACE)
        wait_until(setup.committed, deadline_s=60, what="the commit")
        health = consumer.health()
        assert health.is_ready and health.partitions == (0, 1, 2, 3) and health.applying == 0
    assert contacts.applied == ["c1"]
    assert [each[1:] for each in setup.committed()] == [(1, "epoch=7")]
    assert setup.metrics.statuses == {"applied": 1}
    assert not consumer.health().is_ready
    (message,) = read_raw(setup.bootstrap, f"{setup.prefix}reversal.outcomes", until=lambda found: len(found) == 1)
    assert message.key() == RESOURCE.encode() and message.headers() == [("traceparent", TRACE.encode())]


def test_a_target_is_served_and_sees_each_command_once(setup: Setup) -> None:
    target = MemoryTarget("crm")
    target.put(RESOURCE, {"n": 0})
    setup.commands.send(patch(1), patch(1), patch(2), patch(9))
    with consuming(AsyncReversalConsumer(setup.settings(), target)):
        outcomes = setup.outcomes(4)
    assert [outcome.status for outcome in outcomes] == ["applied", "already_applied", "applied", "conflict"]
    assert outcomes[2].observed is not None and outcomes[2].observed.fields == {"n": 2}
    assert target.fields(RESOURCE) == {"n": 2}


async def test_an_async_handler_is_served_on_the_same_loop(setup: Setup) -> None:
    loop = asyncio.get_running_loop()

    async def handler(command: Command) -> HandlerResult:
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        return HandlerResult()

    consumer = AsyncReversalConsumer(setup.settings(), handler, dedup=MemoryDedup())
    running = asyncio.create_task(consumer.run())
    setup.commands.send(*(patch(number, f"crm/contact/{number}") for number in range(20)))
    outcomes = await asyncio.to_thread(setup.outcomes, 20)
    assert {outcome.status for outcome in outcomes} == {"applied"}
    consumer.stop()
    await running
    with pytest.raises(ClosedError):
        await consumer.run()


async def test_a_cancelled_run_finishes_what_is_under_way(setup: Setup) -> None:
    begun = threading.Event()

    async def handler(_: Command) -> HandlerResult:
        begun.set()
        await asyncio.sleep(0.5)
        return HandlerResult()

    running = asyncio.create_task(AsyncReversalConsumer(setup.settings(), handler, dedup=MemoryDedup()).run())
    setup.commands.send(patch(1))
    await asyncio.to_thread(begun.wait, 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [outcome.status for outcome in setup.outcomes(1)] == ["applied"]
    assert [each[1] for each in setup.committed()] == [1]


def test_bad_records_go_to_the_dead_letters_and_the_partition_goes_on(setup: Setup) -> None:
    contacts = Contacts()
    good = CODEC.encode(setup.commands.topic, patch(1))
    bad: list[tuple[bytes | None, bytes | None]] = [
        (RESOURCE.encode(), b"\x01not avro"),
        (RESOURCE.encode(), good[:-3]),
        (RESOURCE.encode(), b"\0\0\0\0\x63" + good[5:]),
        (RESOURCE.encode(), None),
        (None, good),
        (b"crm/contact/1", good),
    ]
    for key, value in bad:
        setup.commands.send_raw(key, value, {"traceparent": TRACE.encode()})
    setup.commands.send(patch(1))
    with consuming(handled(setup, contacts)):
        assert setup.statuses(1) == {"c1": "applied"}
        letters = read_raw(
            setup.bootstrap, f"{setup.prefix}reconciler.dead-letters", until=lambda found: len(found) >= len(bad)
        )
        wait_until(lambda: sum(each[1] for each in setup.committed()) == 7, deadline_s=60, what="all commits")
    assert Counter((letter.key(), letter.value()) for letter in letters) == Counter(bad)
    for letter in letters:
        headers = dict(letter.headers() or [])
        assert headers["__dlq.errors.topic"] == setup.commands.topic.encode()
        assert headers["__dlq.errors.group"] == setup.commands.topic.encode()
        assert int(headers["__dlq.errors.offset"] or "") >= 0 and int(headers["__dlq.errors.partition"] or "") >= 0
        assert headers["traceparent"] == TRACE.encode()
        assert headers["__dlq.errors.message"]
    assert sum(setup.metrics.letters.values()) == len(bad)
    assert contacts.applied == ["c1"]


def test_commands_that_must_not_be_obeyed_are_rejected_with_the_reason(setup: Setup) -> None:
    contacts = Contacts()
    now = 1_000_000
    setup.commands.send(
        patch(1, action="delete"),
        patch(2, "crm/invoice/1"),
        patch(3, "billing/contact/42"),
        patch(4, expires_at=now),
        patch(5, expires_at=now + 1),
    )
    entitlement = Entitlement(actions=frozenset({"patch"}), types=frozenset({"contact"}))
    with consuming(handled(setup, contacts, entitlement=entitlement, clock=lambda: now)):
        outcomes = {outcome.command_id: outcome for outcome in setup.outcomes(5)}
    assert {command_id: outcome.status for command_id, outcome in outcomes.items()} == {
        "c1": "rejected",
        "c2": "rejected",
        "c3": "rejected",
        "c4": "rejected",
        "c5": "applied",
    }
    for command_id, why in {"c1": "delete", "c2": "invoice", "c3": "billing", "c4": "expired"}.items():
        assert why in (outcomes[command_id].error or "")
    assert contacts.applied == ["c5"]


def test_expiry_counts_when_a_commands_turn_comes(setup: Setup) -> None:
    now = [1]

    def handler(_: Command) -> HandlerResult:
        now[0] = 100
        return HandlerResult()

    setup.commands.send(patch(1, expires_at=50), patch(2, expires_at=50))
    with consuming(handled(setup, handler, clock=lambda: now[0])):
        assert setup.statuses(2) == {"c1": "applied", "c2": "rejected"}


def test_unsigned_and_wrongly_signed_commands_are_rejected(setup: Setup) -> None:
    contacts = Contacts()
    key, other = b"k" * 32, b"o" * 32
    setup.commands.send(patch(1, epoch=99))
    setup.commands.send(patch(2, epoch=99), signer=HmacSigner("2026", other))
    setup.commands.send(patch(3), signer=HmacSigner("2026", key))
    with consuming(handled(setup, contacts, verifier=HmacVerifier({"2026": key}))):
        outcomes = setup.outcomes(3)
    assert [outcome.status for outcome in outcomes] == ["rejected", "rejected", "applied"]
    assert "not signed" in (outcomes[0].error or "")
    # And what was not signed says nothing about epochs: the third has a lower one.
    assert contacts.applied == ["c3"]


def test_a_worker_that_was_overtaken_is_not_obeyed_also_after_a_restart(setup: Setup) -> None:
    contacts = Contacts()
    setup.commands.send(patch(1, epoch=5), patch(2, epoch=4), patch(3, epoch=5), patch(4, epoch=6))
    with consuming(handled(setup, contacts)):
        assert setup.statuses(4) == {"c1": "applied", "c2": "rejected", "c3": "applied", "c4": "applied"}
    setup.commands.send(patch(5, epoch=5), patch(6, epoch=6))
    with consuming(handled(setup, contacts)):
        assert setup.statuses(6) == {
            "c1": "applied", "c2": "rejected", "c3": "applied", "c4": "applied", "c5": "rejected", "c6": "applied",
        }  # fmt: skip
    assert contacts.applied == ["c1", "c3", "c4", "c6"]


def test_a_transient_failure_is_an_outcome_and_holds_up_nobody(setup: Setup) -> None:
    def handler(command: Command) -> HandlerResult:
        if command.command_id == "c1":
            raise TransientError("rate limited", retry_after_s=9.0)
        return HandlerResult()

    setup.commands.send(patch(1), patch(2))
    with consuming(handled(setup, handler)):
        first, second = setup.outcomes(2)
    assert (first.status, first.error, first.retry_after_s) == ("transient", "rate limited", 9.0)
    assert second.status == "applied"
    assert sum(each[1] for each in setup.committed()) == 2


def test_resources_stand_beside_each_other_and_each_keeps_its_order(setup: Setup) -> None:
    together: list[int] = []
    running = 0
    lock = threading.Lock()
    seen: dict[str, list[str]] = {}

    def handler(command: Command) -> HandlerResult:
        nonlocal running
        with lock:
            running += 1
            together.append(running)
        time.sleep(0.01)
        with lock:
            seen.setdefault(command.resource, []).append(command.command_id)
            running -= 1
        return HandlerResult()

    setup.commands.send(*(patch(number, f"crm/contact/{number % 10}") for number in range(100)))
    with consuming(handled(setup, handler, concurrency=4)):
        setup.outcomes(100)
    assert 1 < max(together) <= 4
    for resource, ids in seen.items():
        assert ids == [f"c{number}" for number in range(100) if resource == f"crm/contact/{number % 10}"]


def test_a_handler_that_hangs_is_given_up_and_the_others_go_on(setup: Setup) -> None:
    gate = threading.Event()
    applied: list[str] = []

    def handler(command: Command) -> HandlerResult:
        if command.command_id == "c1":
            gate.wait(60)
        applied.append(command.command_id)
        return HandlerResult()

    setup.commands.send(patch(1), patch(2), patch(3, "crm/contact/43"))
    with consuming(handled(setup, handler, apply_timeout_s=2)) as consumer:
        outcomes = {outcome.command_id: outcome for outcome in setup.outcomes(3)}
        assert {key: outcome.status for key, outcome in outcomes.items()} == {
            "c1": "transient", "c2": "transient", "c3": "applied",
        }  # fmt: skip
        assert "not known" in (outcomes["c1"].error or "") and "earlier command" in (outcomes["c2"].error or "")
        gate.set()
        wait_until(lambda: "c1" in applied, deadline_s=60, what="the late end")
        wait_until(lambda: consumer.health().applying == 0, deadline_s=60, what="the late end is taken in")
        # The late end was remembered: the command isn't applied a second time.
        setup.commands.send(patch(1, attempt=2), patch(2, attempt=2))
        later = setup.outcomes(5)[-2:]
    assert [outcome.status for outcome in sorted(later, key=lambda each: each.command_id)] == [
        "already_applied",
        "applied",
    ]
    assert applied == ["c3", "c1", "c2"]


def test_when_every_place_hangs_the_answer_is_transient_at_once(setup: Setup) -> None:
    gate = threading.Event()

    def handler(_: Command) -> HandlerResult:
        gate.wait(60)
        return HandlerResult()

    setup.commands.send(*(patch(number, f"crm/contact/{number}") for number in range(6)))
    with consuming(handled(setup, handler, apply_timeout_s=0.5, concurrency=2)):
        outcomes = setup.outcomes(6)
        assert {outcome.status for outcome in outcomes} == {"transient"}
        assert sum("places" in (outcome.error or "") for outcome in outcomes) == 4
        gate.set()


async def test_a_coroutine_that_hangs_is_cancelled(setup: Setup) -> None:
    cancelled = threading.Event()

    async def handler(command: Command) -> HandlerResult:
        if command.command_id == "c1":
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()
        return HandlerResult()

    consumer = AsyncReversalConsumer(setup.settings(apply_timeout_s=1), handler, dedup=MemoryDedup())
    setup.commands.send(patch(1), patch(2))
    running = asyncio.create_task(consumer.run())
    outcomes = await asyncio.to_thread(setup.outcomes, 2)
    assert [outcome.status for outcome in outcomes] == ["transient", "applied"]
    assert cancelled.is_set()
    consumer.stop()
    await running


def test_a_stop_finishes_what_is_under_way_and_leaves_the_rest(setup: Setup) -> None:
    begun, gate = threading.Event(), threading.Event()
    contacts = Contacts()

    def handler(command: Command) -> HandlerResult:
        begun.set()
        gate.wait(60)
        return contacts(command)

    setup.commands.send(patch(1), patch(2), patch(3))
    with consuming(handled(setup, handler)) as consumer:
        assert begun.wait(60)
        consumer.stop()
        time.sleep(0.5)
        gate.set()
    assert contacts.applied == ["c1"]
    assert setup.statuses(1) == {"c1": "applied"}
    assert [each[1] for each in setup.committed()] == [1]
    with consuming(handled(setup, contacts)):
        assert setup.statuses(3) == {"c1": "applied", "c2": "applied", "c3": "applied"}
    assert contacts.applied == ["c1", "c2", "c3"]


def test_no_more_is_read_than_is_told(setup: Setup) -> None:
    gate = threading.Event()

    def handler(_: Command) -> HandlerResult:
        gate.wait(60)
        return HandlerResult()

    setup.commands.send(*(patch(number, f"crm/contact/{number}") for number in range(1_000)))
    with consuming(handled(setup, handler, max_waiting=10, concurrency=2)) as consumer:
        wait_until(lambda: consumer.health().waiting >= 8, deadline_s=60, what="enough waits")
        # Longer than the consumer waits before it pauses its partitions.
        time.sleep(3)
        assert (consumer.health().waiting, consumer.health().applying) == (8, 2)
        gate.set()
        assert len(setup.statuses(1_000)) == 1_000


def test_an_outcome_that_is_too_large_goes_without_the_resource(setup: Setup) -> None:
    target = MemoryTarget("crm")
    target.put(RESOURCE, {"n": 0, "blob": "x" * 2_000_000})
    setup.commands.send(patch(1))
    with consuming(ReversalConsumer(setup.settings(), target)):
        (outcome,) = setup.outcomes(1)
    assert outcome.status == "applied" and outcome.observed is None and "can't be told" in (outcome.error or "")


def test_brokers_that_take_no_outcome_stop_the_commit_and_nothing_is_lost() -> None:
    with SilentBroker() as broker:
        setup = Setup(broker.bootstrap)
        contacts = Contacts()

        def handler(command: Command) -> HandlerResult:
            broker.fall_silent()
            return contacts(command)

        setup.commands.send(patch(1))
        with consuming(handled(setup, handler, delivery_timeout_s=1)) as consumer:
            wait_until(lambda: contacts.applied, deadline_s=60, what="the command is applied")
            time.sleep(2.5)
            assert consumer.health().applying == 0 and consumer.health().waiting == 1
            broker.speak()
            assert setup.statuses(1) == {"c1": "applied"}
            wait_until(setup.committed, deadline_s=60, what="the commit")
    assert contacts.applied == ["c1"]


def test_a_topic_that_is_not_there_yet_is_no_end(setup: Setup) -> None:
    """And the consumer says that it isn't ready."""
    contacts = Contacts()
    prefix = unique("late")
    setup.prefix, setup.commands = prefix, Commands(setup.bootstrap, prefix)
    with consuming(handled(setup, contacts, client={"topic.metadata.refresh.interval.ms": 500})) as consumer:
        wait_until(
            lambda: "can't be read" in (consumer.health().reason or ""), deadline_s=60, what="the consumer complains"
        )
        setup.commands.send(patch(1))
        wait_until(lambda: contacts.applied, deadline_s=60, what="the command is applied")
        wait_until(lambda: consumer.health().is_ready, deadline_s=60, what="the consumer is content")


def test_a_fault_of_our_own_ends_the_run_and_commits_nothing(setup: Setup) -> None:
    class Broken(Noted):
        def command_done(self, status: OutcomeStatus, duration_s: float) -> None:
            raise RuntimeError("metrics must not raise")

    setup.commands.send(patch(1))
    consumer = handled(setup, Contacts(), metrics=Broken())
    with pytest.raises(RuntimeError, match="must not raise"):
        consumer.run()
    assert setup.committed() == []
