"""Delivery of events to the brokers: acknowledged, or on disk, or an error. Never gone without a word.

Two orders are kept. Events of one key go out one after the other, each when the one before it is acknowledged: with several
under way, one could run into its time limit while the next one still made it. And once an event went to the spool, those
that come after it go there too, until the spool is empty again.

One thread of its own serves librdkafka's reports and sends what the spool holds. Everything else runs in the callers'
threads under one lock.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from reconciler.sdk.errors import ClosedError, DeliveryError, SpoolError
from reconciler.sdk.kafka import KafkaSettings, client_logger
from reconciler.sdk.spool import Message, Spool, Spooled

logger = logging.getLogger("reconciler.sdk")

Fate: TypeAlias = Literal["delivered", "spooled"]
"""What became of an event that isn't lost: the brokers acknowledged it, or it is on disk until they do."""

MAX_PENDING: Final = 10_000
"""Events that wait for their acknowledgement; a sender beyond it waits too. librdkafka's own queue has room for 100,000."""

_POLL_S: Final = 0.1
_REPLAY_WINDOW: Final = 500
_SUSPECT_FAILURES: Final = 3

# Errors about the record itself: it will never be taken, so the spool would only hide it.
_REFUSALS: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.POLICY_VIOLATION,
        KafkaError._INVALID_ARG,
        KafkaError.TOPIC_EXCEPTION,
    }
)


class _Pending:
    """An event under way or waiting for its turn."""

    __slots__ = ("closing", "future", "message")

    def __init__(self, message: Message, closing: bool) -> None:
        self.message = message
        self.closing = closing
        self.future: Future[Fate] = Future()


_Lane: TypeAlias = deque[_Pending]
_Key: TypeAlias = tuple[str, bytes | None]


class Delivery:
    """Sends messages for one process. Safe for threads. ``retry_s`` is how often a spool that isn't empty is tried again."""

    def __init__(self, settings: KafkaSettings, *, spool: Spool | None = None, retry_s: float = 1.0) -> None:
        self._settings = settings
        self._spool = spool
        self._retry_s = retry_s
        self._lock = threading.Condition()
        self._lanes: dict[_Key, _Lane] = {}
        self._pending = 0
        self._failures = 0
        self._must_renew = False
        self._closed = False
        self._broken: BaseException | None = None
        self._set_aside: list[Message] = []
        self._next_replay = 0.0
        self._client = self._new_client()
        self._thread = threading.Thread(target=self._serve, name="reconciler-delivery", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def spooled(self) -> int:
        """How many events wait on disk."""
        with self._lock:
            return 0 if self._spool is None else self._spool.count

    def send(self, message: Message, *, closing: bool = False) -> Future[Fate]:
        """Takes an event. The future resolves within the delivery time-out (times the events of this key before it): to
        its fate, or to a DeliveryError. Raises ClosedError; SpoolError at once where the event must be spooled and can't."""
        pending = _Pending(message, closing)
        with self._lock:
            self._wait_for_room()
            self._check_open()
            key = (message.topic, message.key)
            lane = self._lanes.get(key)
            if lane is not None:
                lane.append(pending)
                self._pending += 1
            elif self._spool is not None and self._spool.count:
                self._spool.append(message, closing=closing)
                pending.future.set_result("spooled")
            else:
                self._lanes[key] = deque([pending])
                self._pending += 1
                error = self._try_produce(pending)
                if error is not None:
                    self._settle(pending, error)
        return pending.future

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until every event has its fate; False where some still have none after the time-out. Raises DeliveryError
        for spooled events that the brokers refused since the last call."""
        with self._lock:
            done = self._lock.wait_for(lambda: self._pending == 0 or self._broken is not None, timeout_s)
            self._raise_set_aside()
            return done

    def drain(self, timeout_s: float | None = None) -> bool:
        """Waits until the spool is empty too; False where it isn't after the time-out."""
        with self._lock:
            return self._lock.wait_for(
                lambda: (
                    self._broken is not None or (self._pending == 0 and (self._spool is None or not self._spool.count))
                ),
                timeout_s,
            )

    def close(self) -> None:
        """Waits until every event has its fate, then gives everything back. What is spooled stays there. Raises as `flush`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lock.wait_for(lambda: self._pending == 0 or self._broken is not None)
            self._lock.notify_all()
        self._thread.join()
        # The client knows us by its callbacks: without this its connections would live until the garbage is collected.
        del self._client
        atexit.unregister(self.close)
        if self._spool is not None:
            self._spool.close()
        with self._lock:
            self._raise_set_aside()

    # Sending

    def _wait_for_room(self) -> None:
        self._lock.wait_for(lambda: self._pending < MAX_PENDING or self._closed or self._broken is not None)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the producer is closed; make a new one")
        if self._broken is not None:
            raise DeliveryError(f"the thread that delivers events ended: {self._broken}") from self._broken

    def _try_produce(self, pending: _Pending) -> KafkaError | None:
        message = pending.message
        try:
            self._client.produce(
                message.topic,
                message.value,
                message.key,
                headers=list(message.headers),
                on_delivery=partial(self._on_report, pending),
            )
        except (KafkaException, BufferError) as error:
            return _error_of(error)
        return None

    def _on_report(self, pending: _Pending, error: KafkaError | None, _: KafkaMessage) -> None:
        with self._lock:
            self._settle(pending, error)

    def _settle(self, pending: _Pending, error: KafkaError | None) -> None:
        """The head of a lane has its answer; then it is the next one's turn."""
        key = (pending.message.topic, pending.message.key)
        lane = self._lanes[key]
        last: KafkaError | None
        while True:
            last = error
            self._decide(lane.popleft(), error)
            if self._spool is not None and self._spool.count:
                while lane:
                    self._to_spool(lane.popleft())
            if not lane:
                del self._lanes[key]
                break
            error = self._try_produce(lane[0])
            if error is None:
                break
        self._count_failure(last)

    def _decide(self, pending: _Pending, error: KafkaError | None) -> None:
        if error is None:
            self._finish(pending, "delivered")
        elif self._spool is None or error.code() in _REFUSALS:
            self._finish(pending, _delivery_error(pending.message, error))
        else:
            if not self._spool.count:
                logger.warning("the brokers don't take events, which go to the spool now: %s", error.str())
            self._to_spool(pending)

    def _to_spool(self, pending: _Pending) -> None:
        assert self._spool is not None
        try:
            self._spool.append(pending.message, closing=pending.closing)
        except SpoolError as error:
            self._finish(pending, error)
        else:
            self._next_replay = time.monotonic() + self._retry_s
            self._finish(pending, "spooled")

    def _finish(self, pending: _Pending, fate: Fate | DeliveryError) -> None:
        self._pending -= 1
        self._lock.notify_all()
        if isinstance(fate, DeliveryError):
            pending.future.set_exception(fate)
        else:
            pending.future.set_result(fate)

    # The thread

    def _serve(self) -> None:
        try:
            while True:
                self._client.poll(_POLL_S)
                with self._lock:
                    if self._closed and self._pending == 0:
                        return
                    must_renew = self._must_renew
                if must_renew:
                    self._renew_client()
                self._replay()
        except BaseException as error:
            logger.exception("the thread that delivers events ended")
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """Nobody is left to answer: everything that waits fails now, and so does what comes later."""
        with self._lock:
            self._broken = error
            waiting = [pending for lane in self._lanes.values() for pending in lane]
            self._lanes.clear()
            for pending in waiting:
                self._finish(pending, DeliveryError(f"delivery ended: {error}", (pending.message,)))

    def _replay(self) -> None:
        """Sends the oldest events of the spool, when nothing else is under way, and takes out those that were acknowledged."""
        with self._lock:
            spool = self._spool
            if (
                spool is None
                or not spool.count
                or self._pending
                or self._closed
                or time.monotonic() < self._next_replay
            ):
                return
            window = _distinct_keys(spool.oldest(_REPLAY_WINDOW))
        errors = self._send_window([entry.message for entry in window])
        failed = next((index for index, error in enumerate(errors) if error is not None), len(window))
        with self._lock:
            spool.advance(window[:failed])
            if failed < len(window):
                self._judge_replay(spool, window[failed], errors[failed])
            elif not spool.count:
                logger.info("the spool is empty again: events go to the brokers directly")
            self._lock.notify_all()

    def _judge_replay(self, spool: Spool, entry: Spooled, error: KafkaError | None) -> None:
        self._count_failure(error)
        if error is not None and error.code() in _REFUSALS:
            spool.set_aside(entry, error.str())
            self._set_aside.append(entry.message)
        else:
            self._next_replay = time.monotonic() + self._retry_s

    def _send_window(self, messages: Sequence[Message]) -> list[KafkaError | None]:
        """Sends messages of different keys together and waits for all answers, each None or an error."""
        answers: dict[int, KafkaError | None] = {}
        sent = 0

        def on_report(index: int, error: KafkaError | None, _: KafkaMessage) -> None:
            answers[index] = error

        for index, message in enumerate(messages):
            sent += 1
            try:
                self._client.produce(
                    message.topic,
                    message.value,
                    message.key,
                    headers=list(message.headers),
                    on_delivery=partial(on_report, index),
                )
            except (KafkaException, BufferError) as error:
                answers[index] = _error_of(error)
                break
        while len(answers) < sent:
            self._client.poll(_POLL_S)
            if self._must_renew or self._closed:
                # Whether they arrived is then not known: they stay in the spool, and repeated ones are recognised by their ids.
                self._client.purge()
        return [answers.get(index, KafkaError(KafkaError._FAIL)) for index in range(len(messages))]

    # The client

    def _new_client(self) -> Producer:
        return Producer({**self._settings.producer(), "error_cb": self._on_error}, logger=client_logger)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            logger.error("the Kafka client can't go on and is made anew: %s", error.str())
            self._must_renew = True

    def _count_failure(self, error: KafkaError | None) -> None:
        self._failures = 0 if error is None else self._failures + 1
        if self._failures >= _SUSPECT_FAILURES and not self._pending:
            # An idempotent producer can stay stuck after an outage without calling it fatal (confluent-kafka-dotnet #2519).
            self._must_renew = True

    def _renew_client(self) -> None:
        """A new client instead of one that failed for good. What was under way fails, and is spooled or reported."""
        old = self._client
        old.purge()
        while len(old):
            old.poll(_POLL_S)
        with self._lock:
            self._client = self._new_client()
            self._must_renew = False
            self._failures = 0

    def _raise_set_aside(self) -> None:
        if self._set_aside:
            refused = tuple(self._set_aside)
            self._set_aside.clear()
            raise DeliveryError(
                f"the brokers refused {len(refused)} spooled events for good; they were set aside", refused
            )


def open_spool(folder: Path | str | None, max_bytes: int) -> Spool | None:
    """The spool of a folder, None for none."""
    return None if folder is None else Spool(Path(folder), max_bytes=max_bytes)


def _distinct_keys(entries: list[Spooled]) -> list[Spooled]:
    """The first entries up to one whose key was there before."""
    keys: set[_Key] = set()
    for index, entry in enumerate(entries):
        key = (entry.message.topic, entry.message.key)
        if key in keys:
            return entries[:index]
        keys.add(key)
    return entries


def _error_of(error: KafkaException | BufferError) -> KafkaError:
    if isinstance(error, BufferError):
        return KafkaError(KafkaError._QUEUE_FULL)
    cause = error.args[0]
    assert isinstance(cause, KafkaError)
    return cause


def _delivery_error(message: Message, error: KafkaError) -> DeliveryError:
    about = "" if message.key is None else f" about {message.key.decode(errors='replace')}"
    return DeliveryError(f"the event{about} was not delivered to {message.topic}: {error.str()}", (message,))
