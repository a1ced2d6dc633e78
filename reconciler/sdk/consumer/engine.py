"""The reversal consumer at work: obeys the reconciler's commands for one system, and says what became of each.

A record is read, checked, applied, answered; then its offset may be committed. Whatever goes wrong with a command is an
outcome, so that no command holds up its partition: only brokers that don't take outcomes do, and a registry that must be
asked for a schema, for half a minute.

Order: commands of one resource are worked off one after the other, as they stand in their partition; resources stand beside
each other. Checks that depend on the order (the fencing epoch) are made when a command is read, those that depend on time
(its expiry) when its turn comes.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from reconciler.records import Command, Outcome
from reconciler.sdk.consumer.applying import Applier, timed_out, where_raised
from reconciler.sdk.consumer.lanes import Lanes, Places
from reconciler.sdk.consumer.outcomes import OutcomePublisher
from reconciler.sdk.consumer.polling import Poller
from reconciler.sdk.consumer.progress import PartitionProgress
from reconciler.sdk.consumer.reading import Received, dead_letter
from reconciler.sdk.consumer.settings import ConsumerSettings
from reconciler.sdk.delivery import Delivery
from reconciler.sdk.errors import ClosedError
from reconciler.sdk.signing import SIGNATURE_HEADER, Verifier
from reconciler.targets.answers import outcome
from reconciler.wire.errors import DecodeError
from reconciler.wire.topics import TopicNames

logger = logging.getLogger("reconciler.sdk")

_PUBLISHING_TROUBLE_S: Final = 5.0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a consumer is. ``reason`` says why it isn't ready. ``waiting`` and ``applying`` count commands."""

    is_ready: bool
    reason: str | None
    partitions: tuple[int, ...]
    waiting: int
    applying: int


class _Job(msgspec.Struct, frozen=True):
    """A record on its way to its outcome: its command and why it must not be obeyed, or what is wrong with the record."""

    progress: PartitionProgress
    record: Received
    command: Command | DecodeError
    refusal: str | None
    read_at: float


class Engine:
    """One run of one consumer. `stop` and `health` are safe from anywhere, everything else belongs to the loop of `run`."""

    def __init__(self, settings: ConsumerSettings, applier: Applier, verifier: Verifier | None) -> None:
        names = TopicNames(settings.kafka.topic_prefix)
        topic = names.reversal(settings.system)
        self._settings = settings
        self._applier = applier
        self._verifier = verifier
        self._outcomes_topic = names.outcomes
        self._dead_letters_topic = names.dead_letters
        self._group = settings.group or topic
        self._has_run = False
        self._error: BaseException | None = None
        self._read = 0
        self._done = 0
        self._stuck: set[str] = set()
        self._unsticking: set[asyncio.Task[None]] = set()
        self._poller = Poller(
            settings.kafka,
            topic=topic,
            group=self._group,
            codec=settings.codec,
            session_timeout_s=settings.session_timeout_s,
            commit_interval_s=settings.commit_interval_s,
            waiting=lambda: self._waiting,
            max_waiting=settings.max_waiting,
            deliver=self._deliver,
            settle=self._settle,
        )

    @property
    def _waiting(self) -> int:
        return self._read - self._done

    def stop(self) -> None:
        """Asks the consumer to end: what is under way is finished, what waits is left to whoever comes next."""
        self._poller.stop()

    def health(self) -> Health:
        """How the consumer is, now."""
        reason = self._reason()
        applying = self._places.taken if self._has_run else 0
        return Health(
            is_ready=reason is None,
            reason=reason,
            partitions=tuple(sorted(self._poller.partitions)),
            waiting=max(0, self._waiting - applying),
            applying=applying,
        )

    def _reason(self) -> str | None:
        if not self._has_run or not self._thread.is_alive():
            return "the consumer is not running"
        if self._poller.trouble is not None:
            return self._poller.trouble
        if not self._poller.has_joined:
            return "the consumer has not joined its group yet"
        if self._publisher.failing_s > _PUBLISHING_TROUBLE_S:
            return f"outcomes could not be published for {self._publisher.failing_s:.0f} s"
        return None

    async def run(self, *, stop_on_signals: bool) -> None:
        """Works until `stop`. Raises ClosedError the second time; KafkaException where the client can't go on."""
        if self._has_run:
            raise ClosedError("a consumer runs once; make a new one")
        self._loop = asyncio.get_running_loop()
        self._delivery = Delivery(self._settings.kafka)
        self._publisher = OutcomePublisher(self._delivery, codec=self._settings.codec, topic=self._outcomes_topic)
        self._lanes = Lanes(self._work)
        self._places = Places(self._settings.concurrency)
        self._settled = asyncio.Condition()
        ended = asyncio.Event()
        self._thread = threading.Thread(target=self._poll, args=(ended,), name="reconciler-consumer", daemon=True)
        self._has_run = True
        signals = (signal.SIGTERM, signal.SIGINT) if stop_on_signals else ()
        for number in signals:
            self._loop.add_signal_handler(number, self.stop)
        self._thread.start()
        try:
            await self._until(ended)
        finally:
            for number in signals:
                self._loop.remove_signal_handler(number)
            await asyncio.to_thread(self._delivery.close)
        if self._error is not None:
            raise self._error

    async def _until(self, ended: asyncio.Event) -> None:
        """Waits for the polling thread; a cancellation stops it, and goes on when it has ended."""
        try:
            await ended.wait()
        except asyncio.CancelledError:
            self.stop()
            await ended.wait()
            raise

    # In the polling thread

    def _poll(self, ended: asyncio.Event) -> None:
        try:
            self._poller.run()
        except BaseException as error:  # noqa: BLE001 — raised by `run`
            self._error = self._error or error
        finally:
            self._loop.call_soon_threadsafe(ended.set)

    def _deliver(self, progress: PartitionProgress, record: Received, command: Command | DecodeError) -> None:
        self._read += 1
        self._loop.call_soon_threadsafe(self._accept, progress, record, command)

    def _settle(self, ending: Sequence[PartitionProgress]) -> None:
        asyncio.run_coroutine_threadsafe(self._come_to_cut(ending), self._loop).result()

    # On the event loop

    async def _come_to_cut(self, ending: Sequence[PartitionProgress]) -> None:
        """Returns when these are settled, or the time for that is over."""
        try:
            async with asyncio.timeout(self._settings.stop_timeout_s), self._settled:
                await self._settled.wait_for(lambda: all(progress.is_settled for progress in ending))
        except TimeoutError:
            logger.warning(
                "commands were still being applied when their partitions had to go; they will be delivered again"
            )
            for progress in ending:
                progress.abandon()

    def _accept(self, progress: PartitionProgress, record: Received, command: Command | DecodeError) -> None:
        progress.begin(record.offset)
        if isinstance(command, Command):
            lane, refusal = command.resource, self._refusal(progress, record, command)
        else:
            lane, refusal = f"\0{record.partition}", None
        self._lanes.add(lane, _Job(progress, record, command, refusal, time.monotonic()))
        self._tell_load()

    def _refusal(self, progress: PartitionProgress, record: Received, command: Command) -> str | None:
        """Why a command must not be obeyed. The signature comes first: what somebody else wrote says nothing about epochs."""
        if self._verifier is not None:
            assert record.value is not None
            refusal = self._verifier.refusal(record.value, record.header(SIGNATURE_HEADER))
            if refusal is not None:
                return refusal
        newest = progress.overtaken_by(command.epoch)
        if newest is not None:
            return f"the command's epoch {command.epoch} is over: this partition has seen epoch {newest}"
        return self._settings.entitlement.refusal(command, self._settings.system)

    async def _work(self, job: _Job) -> None:
        """From a record to its acknowledged outcome or dead letter."""
        try:
            if not job.progress.work_on(job.record.offset):
                return
            if await self._answer(job):
                job.progress.finish(job.record.offset)
            else:
                job.progress.give_up(job.record.offset)
        except Exception as error:
            logger.exception("the consumer can't go on")
            self._error = self._error or error
            job.progress.give_up(job.record.offset)
            self.stop()
        finally:
            self._done += 1
            self._tell_load()
            if job.progress.is_revoked:
                async with self._settled:
                    self._settled.notify_all()

    async def _answer(self, job: _Job) -> bool:
        """Publishes what became of a record; False where the brokers did not take it before the partition had to go."""
        if isinstance(job.command, DecodeError):
            letter = dead_letter(job.record, job.command, topic=self._dead_letters_topic, group=self._group)
            is_told = await self._publisher.send(letter, job.progress)
            if is_told:
                self._settings.metrics.dead_letter(type(job.command).__name__)
            return is_told
        result = await self._outcome(job.command, job.refusal)
        is_told = await self._publisher.publish(result, job.progress)
        if is_told:
            self._settings.metrics.command_done(result.status, time.monotonic() - job.read_at)
        return is_told

    async def _outcome(self, command: Command, refusal: str | None) -> Outcome:
        clock = self._settings.clock
        if refusal is not None:
            return outcome(command, "rejected", clock(), error=refusal)
        if command.resource in self._stuck:
            sentence = "an earlier command for this resource is still being applied, longer than it should take"
            return outcome(command, "transient", clock(), error=sentence)
        if not await self._places.take():
            sentence = (
                f"all {self._settings.concurrency} places are taken by commands that take longer than they should"
            )
            return outcome(command, "transient", clock(), error=sentence)
        self._tell_load()
        work = asyncio.create_task(self._apply(command))
        done, _ = await asyncio.wait({work}, timeout=self._settings.apply_timeout_s)
        if done:
            await self._places.give_back(was_stuck=False)
            return work.result()
        self._stuck.add(command.resource)
        await self._places.stick()
        work.add_done_callback(partial(self._on_unstuck, command.resource))
        if self._applier.can_cancel:
            work.cancel()
        return timed_out(command, clock, self._settings.apply_timeout_s)

    async def _apply(self, command: Command) -> Outcome:
        if command.expires_at is not None and command.expires_at <= self._settings.clock():
            return await self._applier.expired(command)
        return await self._applier.apply(command)

    def _on_unstuck(self, resource: str, work: asyncio.Task[Outcome]) -> None:
        self._stuck.discard(resource)
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.error("a command that took too long ended with %s", where_raised(error))
        task = asyncio.create_task(self._places.give_back(was_stuck=True))
        self._unsticking.add(task)
        task.add_done_callback(self._unsticking.discard)

    def _tell_load(self) -> None:
        applying = self._places.taken
        self._settings.metrics.load(len(self._poller.partitions), max(0, self._waiting - applying), applying)
