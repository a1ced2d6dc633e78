"""Both producers on the embedded broker: the events of a step, fences, failures, outages."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from reconciler.records import Action
from reconciler.sdk import (
    AsyncProducer,
    ClosedError,
    DeliveryError,
    FencedError,
    InputError,
    KafkaSettings,
    ObservationError,
    Producer,
    ProducerSettings,
    SpoolError,
    SpoolFullError,
)
from reconciler.sdk.delivery import Fate
from reconciler.sdk.spool import Message, Spool
from reconciler.sdk.tracing import TRACEPARENT_HEADER
from reconciler.targets.memory import MemoryTarget
from streams.embedded.broker import EmbeddedBroker
from tests.sdk.support import CODEC, SilentBroker, read_actions, read_raw, unique
from tests.support.waiting import wait_until

RESOURCE = "crm/contact/42"


class Setup:
    """A broker, a prefix of the test's own, and settings for both."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = unique("sdk")

    def settings(self, **changed: Any) -> ProducerSettings:
        timeout_s = changed.pop("delivery_timeout_s", 30.0)
        kafka = KafkaSettings(bootstrap_servers=self.bootstrap, topic_prefix=self.prefix, delivery_timeout_s=timeout_s)
        return ProducerSettings(kafka=kafka, **changed)

    def actions(self, count: int) -> list[Action]:
        return read_actions(self.bootstrap, self.prefix, count)


@pytest.fixture
def setup(embedded_broker: EmbeddedBroker) -> Setup:
    return Setup(embedded_broker.bootstrap)


@pytest.fixture
def silent_broker() -> Iterator[SilentBroker]:
    with SilentBroker() as broker:
        yield broker


class StaticFence:
    """Fences one run."""

    def is_fenced(self, run_id: str) -> str | None:
        return "rolled back by ana" if run_id == "fenced" else None


class AsyncStaticFence:
    async def is_fenced(self, run_id: str) -> str | None:
        return StaticFence().is_fenced(run_id)


def stages(actions: list[Action]) -> list[str]:
    return [action.stage for action in actions]


def test_a_step_is_initiated_and_succeeds(setup: Setup) -> None:
    with Producer(setup.settings()) as producer:
        with producer.action(RESOURCE, run_id="run-7", step_id="update", observe=lambda _: {"phone": "1"}) as action:
            assert stages(setup.actions(1)) == ["initiated"]
            action.set("/phone", "2")
        with producer.action(RESOURCE, "delete", run_id="run-7", step_id="delete", observe=lambda _: {"phone": "2"}):
            pass
    events = setup.actions(4)
    assert stages(events) == ["initiated", "succeeded"] * 2
    assert (events[1].before, events[1].set) == ({"/phone": "1"}, {"/phone": "2"})
    assert events[3].before == {"/phone": "2"}
    assert len({event.action_id for event in events}) == 4


def test_the_record_is_what_everybody_can_read(setup: Setup) -> None:
    with Producer(setup.settings()) as producer, producer.action(RESOURCE, run_id="r", step_id="s") as action:
        pass
    messages = read_raw(setup.bootstrap, f"{setup.prefix}workflow.actions", until=lambda found: len(found) == 2)
    for message in messages:
        assert message.key() == RESOURCE.encode()
        assert message.headers() == [(TRACEPARENT_HEADER, action.traceparent.encode())]
        value = message.value()
        assert value is not None and value[0] == 0


def test_a_step_that_raises_has_failed(setup: Setup) -> None:
    with (  # noqa: PT012
        Producer(setup.settings()) as producer,
        pytest.raises(ZeroDivisionError),
        producer.action(RESOURCE, run_id="r", step_id="s") as action,
    ):
        action.set("/phone", "2")
        raise ZeroDivisionError
    events = setup.actions(2)
    assert stages(events) == ["initiated", "failed"]
    assert events[1].set == {}


def test_a_target_tells_both_states(setup: Setup) -> None:
    target = MemoryTarget("crm")
    target.put(RESOURCE, {"phone": "1", "fax": "9"})
    with (
        Producer(setup.settings()) as producer,
        producer.action(RESOURCE, run_id="r", step_id="s", observe=target, observe_after=True),
    ):
        target.put(RESOURCE, {"phone": "2"})
    event = setup.actions(2)[1]
    assert (event.before, event.set, event.unset) == ({"/phone": "1", "/fax": "9"}, {"/phone": "2"}, ["/fax"])
    assert event.version_before != event.version_after


def test_a_state_that_cant_be_seen_afterwards_is_no_success(setup: Setup) -> None:
    answers: Iterator[Any] = iter([{"phone": "1"}, None])
    with (
        Producer(setup.settings()) as producer,
        pytest.raises(ObservationError),
        producer.action(RESOURCE, run_id="r", step_id="s", observe=lambda _: next(answers), observe_after=True),
    ):
        pass
    assert stages(setup.actions(2)) == ["initiated", "failed"]


def test_a_fenced_run_does_not_begin(setup: Setup) -> None:
    with Producer(setup.settings(), fence=StaticFence()) as producer:
        with pytest.raises(FencedError, match="rolled back by ana"):
            producer.action(RESOURCE, run_id="fenced", step_id="s").__enter__()
        with pytest.raises(FencedError):
            producer.emit(
                Action(
                    stage="initiated",
                    run_id="fenced",
                    step_id="s",
                    occurred_at=1,
                    resource=RESOURCE,
                    operation="update",
                )
            )
        # What has happened must still be told.
        producer.emit(
            Action(
                stage="succeeded", run_id="fenced", step_id="s", occurred_at=1, resource=RESOURCE, operation="update"
            )
        )
        with producer.action(RESOURCE, run_id="free", step_id="s"):
            pass
    assert [(event.run_id, event.stage) for event in setup.actions(3)] == [
        ("fenced", "succeeded"),
        ("free", "initiated"),
        ("free", "succeeded"),
    ]


def test_a_step_that_needs_its_pre_state_does_not_begin_without(setup: Setup) -> None:
    with Producer(setup.settings()) as producer:
        with pytest.raises(ObservationError):
            producer.action(RESOURCE, run_id="r", step_id="s", observe=lambda _: None, require_before=True).__enter__()
        with pytest.raises(InputError, match="returned list"):
            producer.action(RESOURCE, run_id="r", step_id="s", observe=lambda _: []).__enter__()  # type: ignore[arg-type]
        with producer.action(RESOURCE, run_id="r", step_id="s"):
            pass
    assert len(setup.actions(2)) == 2


def test_a_raw_action_is_completed(setup: Setup) -> None:
    raw = Action(
        stage="succeeded", run_id="r", step_id="s", occurred_at=1, resource=RESOURCE, operation="update", set={"/a": 1}
    )
    with Producer(setup.settings()) as producer:
        sent = producer.emit(raw)
        assert producer.emit(raw).action_id == sent.action_id
        with pytest.raises(InputError, match="system/type/id"):
            producer.emit(
                Action(stage="failed", run_id="r", step_id="s", occurred_at=1, resource="x", operation="update")
            )
    assert sent.operation_id == "r/s" and sent.action_id and sent.traceparent
    assert setup.actions(2)[0] == sent


def test_a_closed_producer_says_so(setup: Setup) -> None:
    producer = Producer(setup.settings())
    producer.close()
    producer.close()
    with pytest.raises(ClosedError):
        producer.action(RESOURCE, run_id="r", step_id="s").__enter__()


def test_many_threads_share_a_producer_and_each_resource_keeps_its_order(setup: Setup) -> None:
    with Producer(setup.settings(wait=False)) as producer:

        def work(thread: int) -> None:
            for number in range(25):
                with producer.action(f"crm/contact/{thread}", run_id="r", step_id=f"{number:03}") as action:
                    action.set("/n", number)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert producer.flush(30)
    events = setup.actions(8 * 50)
    for thread in range(8):
        mine = [event for event in events if event.resource == f"crm/contact/{thread}"]
        assert [(event.step_id, event.stage) for event in mine] == [
            (f"{number:03}", stage) for number in range(25) for stage in ("initiated", "succeeded")
        ]


def test_without_a_spool_an_outage_raises_before_anything_begins(silent_broker: SilentBroker) -> None:
    setup = Setup(silent_broker.bootstrap)
    with Producer(setup.settings(delivery_timeout_s=3)) as producer, producer.action(RESOURCE, run_id="r", step_id="1"):
        silent_broker.fall_silent()
        with pytest.raises(DeliveryError, match=RESOURCE) as caught:
            producer.action(RESOURCE, run_id="r", step_id="2").__enter__()
        assert [each.key for each in caught.value.undelivered] == [RESOURCE.encode()]
        silent_broker.speak()
    assert {event.stage for event in setup.actions(2) if event.step_id == "1"} == {"initiated", "succeeded"}


def test_an_end_that_is_lost_raises_instead_of_what_the_step_raised(silent_broker: SilentBroker) -> None:
    setup = Setup(silent_broker.bootstrap)
    producer = Producer(setup.settings(delivery_timeout_s=3))
    with pytest.raises(DeliveryError) as caught, producer.action(RESOURCE, run_id="r", step_id="1"):  # noqa: PT012
        silent_broker.fall_silent()
        raise ZeroDivisionError
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    silent_broker.speak()
    with pytest.raises(KeyboardInterrupt) as interrupted, producer.action(RESOURCE, run_id="r", step_id="2"):  # noqa: PT012
        silent_broker.fall_silent()
        raise KeyboardInterrupt
    assert "was not delivered" in interrupted.value.__notes__[0]
    producer.close()


def test_without_waiting_what_is_lost_is_told_to_the_next_caller(silent_broker: SilentBroker) -> None:
    setup = Setup(silent_broker.bootstrap)
    producer = Producer(setup.settings(delivery_timeout_s=3, wait=False))
    with producer.action(RESOURCE, run_id="r", step_id="1"):
        pass
    assert producer.flush(30)
    silent_broker.fall_silent()
    with producer.action(RESOURCE, run_id="r", step_id="2"):
        pass
    with pytest.raises(DeliveryError, match="2 events") as caught:
        producer.flush(30)
    assert len(caught.value.undelivered) == 2
    with producer.action(RESOURCE, run_id="r", step_id="3"):
        pass
    with pytest.raises(DeliveryError, match="2 events"):
        producer.close()


def test_the_spool_takes_what_the_broker_does_not_and_gives_it_back_in_order(
    silent_broker: SilentBroker, tmp_path: Path
) -> None:
    setup = Setup(silent_broker.bootstrap)
    settings = setup.settings(delivery_timeout_s=3, spool_folder=tmp_path, spool_retry_s=0.2)
    with Producer(settings) as producer:
        step(producer, 0)
        silent_broker.fall_silent()
        for number in range(1, 8):
            step(producer, number)
        assert producer.spooled == 14
        silent_broker.speak()
        assert producer.drain(30)
        assert producer.spooled == 0
        step(producer, 8)
    assert steps_told(setup, 9) == list(range(9))


def test_a_spool_outlives_its_process(silent_broker: SilentBroker, tmp_path: Path) -> None:
    """Same bytes, same ids, same order, and before anything that the next producer says."""
    setup = Setup(silent_broker.bootstrap)
    settings = setup.settings(delivery_timeout_s=3, spool_folder=tmp_path, spool_retry_s=0.2)
    silent_broker.fall_silent()
    with Producer(settings) as producer:
        for number in range(3):
            step(producer, number)
        kept = [entry.message for entry in producer._delivery._spool.oldest(10)]  # type: ignore[union-attr]
    silent_broker.speak()
    with Producer(settings) as producer:
        for number in range(3, 6):
            step(producer, number)
        assert producer.drain(30)
    assert steps_told(setup, 6) == list(range(6))
    messages = read_raw(setup.bootstrap, f"{setup.prefix}workflow.actions", until=lambda found: len(found) >= 12)
    values = [message.value() for message in messages]
    assert [value for value in values if value in {each.value for each in kept}][:6] == [each.value for each in kept]


def test_a_full_spool_raises(silent_broker: SilentBroker, tmp_path: Path) -> None:
    setup = Setup(silent_broker.bootstrap)
    silent_broker.fall_silent()
    producer = Producer(setup.settings(delivery_timeout_s=3, spool_folder=tmp_path, spool_max_bytes=2_000))
    with pytest.raises(SpoolFullError):  # noqa: PT012 — somewhere in here
        for number in range(100):
            step(producer, number)
    silent_broker.speak()
    producer.close()


def test_a_spool_belongs_to_one_producer(setup: Setup, tmp_path: Path) -> None:
    with Producer(setup.settings(spool_folder=tmp_path)), pytest.raises(SpoolError, match="another process"):
        Producer(setup.settings(spool_folder=tmp_path))


def test_an_event_that_no_broker_will_ever_take_raises_and_is_not_spooled(setup: Setup, tmp_path: Path) -> None:
    with Producer(setup.settings(spool_folder=tmp_path)) as producer:
        refused = producer._delivery.send(Message(f"{setup.prefix}workflow.actions", b"k", b"x" * 3_000_000))
        with pytest.raises(DeliveryError, match=r"(?i)too large"):
            refused.result(30)
        assert producer.spooled == 0


def test_an_action_that_is_too_large_to_be_told_has_failed(setup: Setup) -> None:
    with (
        Producer(setup.settings()) as producer,
        pytest.raises(InputError, match="limit"),
        producer.action(RESOURCE, run_id="r", step_id="s") as action,
    ):
        action.set("/blob", "x" * 3_000_000)
    assert stages(setup.actions(2)) == ["initiated", "failed"]


def test_a_refused_event_in_the_spool_does_not_hold_up_the_others(setup: Setup, tmp_path: Path) -> None:
    """Spooled by a client that allowed larger records than this one."""
    topic = f"{setup.prefix}workflow.actions"
    spool = Spool(tmp_path)
    spool.append(Message(topic, b"crm/contact/1", b"x" * 3_000_000))
    spool.close()
    producer = Producer(setup.settings(spool_folder=tmp_path, spool_retry_s=0.1))
    step(producer, 1)
    assert wait_until((tmp_path / "set-aside").exists, deadline_s=60, what="the event is set aside")
    with pytest.raises(DeliveryError, match="refused 1 spooled") as caught:
        wait_until(lambda: producer.drain(5) and producer.flush(), deadline_s=60, what="the others are sent")
    assert [each.key for each in caught.value.undelivered] == [b"crm/contact/1"]
    producer.close()
    assert steps_told(setup, 1) == [1]


def test_a_client_that_fails_for_good_is_replaced(setup: Setup, tmp_path: Path) -> None:
    with Producer(setup.settings(spool_folder=tmp_path, spool_retry_s=0.1)) as producer:
        step(producer, 0)
        delivery = producer._delivery
        old = delivery._client
        delivery._on_error(KafkaError(KafkaError._FATAL, "as if", fatal=True))
        wait_until(lambda: delivery._client is not old, deadline_s=60, what="a new client")
        step(producer, 1)
        assert producer.drain(30)
    assert steps_told(setup, 2) == [0, 1]


def test_if_the_delivering_thread_ends_everybody_is_told(setup: Setup, tmp_path: Path, caplog: Any) -> None:
    producer = Producer(setup.settings(spool_folder=tmp_path, spool_retry_s=0.1))
    delivery = producer._delivery
    delivery._replay = None  # type: ignore[assignment,method-assign]  # a broken invariant, of whatever kind
    with caplog.at_level(logging.CRITICAL):
        wait_until(lambda: delivery._broken is not None, deadline_s=60, what="the thread ends")
    with pytest.raises(DeliveryError, match="thread"):
        step(producer, 0)
    producer.close()


async def test_an_async_step_is_initiated_and_succeeds(setup: Setup) -> None:
    target = MemoryTarget("crm")
    target.put(RESOURCE, {"phone": "1"})
    async with AsyncProducer(setup.settings(), fence=AsyncStaticFence()) as producer:
        async with producer.action(RESOURCE, run_id="r", step_id="1", observe=target) as action:
            action.set("/phone", "2")

        async def observe(_: str) -> dict[str, str]:
            return {"phone": "2"}

        async with producer.action(RESOURCE, run_id="r", step_id="2", observe=observe) as action:
            action.after({"phone": "3"})
        with pytest.raises(ZeroDivisionError):
            async with producer.action(RESOURCE, run_id="r", step_id="3"):
                raise ZeroDivisionError
        with pytest.raises(FencedError):
            await producer.action(RESOURCE, run_id="fenced", step_id="4").__aenter__()
        await producer.emit(
            Action(stage="failed", run_id="r", step_id="5", occurred_at=1, resource=RESOURCE, operation="update")
        )
        assert await producer.flush(30)
    events = setup.actions(7)
    assert [(event.step_id, event.stage) for event in events] == [
        ("1", "initiated"),
        ("1", "succeeded"),
        ("2", "initiated"),
        ("2", "succeeded"),
        ("3", "initiated"),
        ("3", "failed"),
        ("5", "failed"),
    ]
    assert (events[1].before, events[3].before, events[3].set) == ({"/phone": "1"}, {"/phone": "2"}, {"/phone": "3"})


async def test_a_cancelled_step_has_failed_and_is_still_told(setup: Setup) -> None:
    async with AsyncProducer(setup.settings()) as producer:
        begun = asyncio.Event()

        async def work() -> None:
            async with producer.action(RESOURCE, run_id="r", step_id="1"):
                begun.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert stages(setup.actions(2)) == ["initiated", "failed"]


async def test_an_event_on_its_way_survives_a_cancellation(
    silent_broker: SilentBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(silent_broker.bootstrap)
    producer = AsyncProducer(setup.settings(delivery_timeout_s=3))
    silent_broker.fall_silent()
    send, taken = producer._delivery.send, threading.Event()

    def noted(message: Message, *, closing: bool = False) -> Future[Fate]:
        try:
            return send(message, closing=closing)
        finally:
            taken.set()

    monkeypatch.setattr(producer._delivery, "send", noted)
    task = asyncio.create_task(producer.action(RESOURCE, run_id="r", step_id="1").__aenter__())
    assert await asyncio.to_thread(taken.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(DeliveryError, match="1 events"):
        await producer.flush(30)
    silent_broker.speak()
    await producer.close()


async def test_the_loop_turns_while_an_event_waits(silent_broker: SilentBroker) -> None:
    setup = Setup(silent_broker.bootstrap)
    async with AsyncProducer(setup.settings(delivery_timeout_s=30)) as producer:
        silent_broker.fall_silent()
        threading.Timer(1.0, silent_broker.speak).start()
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        turning = asyncio.create_task(turn())
        async with producer.action(RESOURCE, run_id="r", step_id="1"):
            pass
        turning.cancel()
    assert turns > 5, "a loop that is held up for the second takes one turn"


def step(producer: Producer, number: int) -> None:
    with producer.action(RESOURCE, run_id="r", step_id=str(number)) as action:
        action.before({"n": number - 1})
        action.set("/n", number)


def steps_told(setup: Setup, count: int) -> list[int]:
    """The steps in the order of the ledger, each event once (by its id), in pairs."""
    seen: dict[str, Action] = {}

    def is_complete(found: list[Any]) -> bool:
        for message in found:
            action = CODEC.decode(message.value())
            assert isinstance(action, Action)
            seen.setdefault(action.action_id, action)
        return len(seen) >= 2 * count

    read_raw(setup.bootstrap, f"{setup.prefix}workflow.actions", until=is_complete)
    events = list(seen.values())
    assert [event.stage for event in events] == ["initiated", "succeeded"] * count
    assert [event.step_id for event in events[::2]] == [event.step_id for event in events[1::2]]
    return [int(event.step_id) for event in events[::2]]
