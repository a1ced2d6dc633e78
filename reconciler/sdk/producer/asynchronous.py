"""The producer for event loops."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from types import TracebackType
from typing import Self, Unpack

from reconciler.records import Action, Operation, Stage
from reconciler.sdk.delivery import Delivery, Fate, open_spool
from reconciler.sdk.errors import DeliveryError, FencedError
from reconciler.sdk.fences import AsyncFence
from reconciler.sdk.producer.failures import Failures
from reconciler.sdk.producer.open_action import ActionDetails, OpenAction
from reconciler.sdk.producer.outgoing import Encoder, ProducerSettings, completed
from reconciler.sdk.producer.pre_state import AsyncObserve, observed
from reconciler.sdk.spool import Message

logger = logging.getLogger("reconciler.sdk")


class AsyncProducer:
    """`Producer` for event loops: the same promises, the same events.

    async with AsyncProducer(ProducerSettings(kafka=KafkaSettings(bootstrap_servers="kafka:9092"))) as producer:
        async with producer.action("crm/contact/42", run_id="run-7", step_id="update-contact", observe=crm) as action:
            await crm.update("42", phone="2")
            action.set("/phone", "2")
    """

    def __init__(self, settings: ProducerSettings, *, fence: AsyncFence | None = None) -> None:
        """Raises SpoolError where the spool's folder can't be used."""
        self._settings = settings
        self._fence = fence
        self._encoder = Encoder(settings)
        self._delivery = Delivery(
            settings.kafka,
            spool=open_spool(settings.spool_folder, settings.spool_max_bytes),
            retry_s=settings.spool_retry_s,
        )
        self._failures = Failures()

    @property
    def spooled(self) -> int:
        """How many events wait on disk for the brokers."""
        return self._delivery.spooled

    def action(
        self,
        resource: str,
        operation: Operation = "update",
        *,
        run_id: str,
        step_id: str,
        observe: AsyncObserve | None = None,
        observe_after: bool = False,
        require_before: bool = False,
        **details: Unpack[ActionDetails],
    ) -> AsyncActionScope:
        """As `Producer.action`, for ``async with``. A cancelled block has failed; its event is still sent."""
        action = OpenAction(
            resource=resource,
            operation=operation,
            run_id=run_id,
            step_id=step_id,
            began_at=self._settings.clock(),
            details=details,
        )
        return AsyncActionScope(self, action, observe, observe_after, require_before)

    async def emit(self, action: Action) -> Action:
        """As `Producer.emit`."""
        self._failures.raise_unseen()
        ready = completed(action)
        if ready.stage == "initiated":
            await self._check_fence(ready.run_id)
        await self._send(self._encoder.message(ready))
        return ready

    async def flush(self, timeout_s: float | None = None) -> bool:
        """As `Producer.flush`."""
        done = await asyncio.to_thread(self._delivery.flush, timeout_s)
        self._failures.raise_unseen()
        return done

    async def drain(self, timeout_s: float | None = None) -> bool:
        """As `Producer.drain`."""
        done = await asyncio.to_thread(self._delivery.drain, timeout_s)
        self._failures.raise_unseen()
        return done

    async def close(self) -> None:
        """As `Producer.close`."""
        await asyncio.to_thread(self._delivery.close)
        self._failures.raise_unseen()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _begin(self, action: OpenAction, observe: AsyncObserve | None, require_before: bool) -> None:
        self._failures.raise_unseen()
        await self._check_fence(action.run_id)
        if observe is not None:
            action.saw_before(await observed(observe, action.resource), required=require_before)
        await self._send(self._message(action, "initiated"))

    async def _ended(self, action: OpenAction, observe: AsyncObserve | None) -> Message:
        if observe is not None:
            action.saw_after(await observed(observe, action.resource))
        return self._message(action, "succeeded")

    def _message(self, action: OpenAction, stage: Stage) -> Message:
        return self._encoder.message(action.event(stage, self._settings.clock()))

    async def _check_fence(self, run_id: str) -> None:
        reason = None if self._fence is None else await self._fence.is_fenced(run_id)
        if reason is not None:
            raise FencedError(run_id, reason)

    async def _send(self, message: Message, *, closing: bool = False) -> None:
        # In a thread, because it may wait for the disk or for room; and not cut short by a cancellation, because then
        # nobody could say whether the event was taken.
        taking = asyncio.ensure_future(asyncio.to_thread(self._delivery.send, message, closing=closing))
        try:
            future = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._watch_taken)
            raise
        if not self._settings.wait:
            self._failures.watch(future)
            return
        delivered = asyncio.wrap_future(future)
        try:
            await asyncio.shield(delivered)
        except asyncio.CancelledError:
            delivered.add_done_callback(_seen)
            self._failures.watch(future)
            raise

    def _watch_taken(self, taking: asyncio.Future[Future[Fate]]) -> None:
        error = taking.exception()
        if error is None:
            self._failures.watch(taking.result())
        elif isinstance(error, DeliveryError):
            self._failures.keep(error)


class AsyncActionScope:
    """The context manager that `AsyncProducer.action` makes. Used once."""

    def __init__(
        self,
        producer: AsyncProducer,
        action: OpenAction,
        observe: AsyncObserve | None,
        observe_after: bool,
        require_before: bool,
    ) -> None:
        self._producer = producer
        self._action = action
        self._observe = observe
        self._observe_after = observe_after
        self._require_before = require_before

    async def __aenter__(self) -> OpenAction:
        await self._producer._begin(self._action, self._observe, self._require_before)
        return self._action

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self._succeed()
        else:
            await self._fail(error)

    async def _succeed(self) -> None:
        try:
            message = await self._producer._ended(self._action, self._observe if self._observe_after else None)
        except BaseException as error:
            await self._fail(error)
            raise
        await self._producer._send(message, closing=True)

    async def _fail(self, error: BaseException) -> None:
        try:
            await self._producer._send(self._producer._message(self._action, "failed"), closing=True)
        except DeliveryError as lost:
            if isinstance(error, Exception):
                raise lost from error
            # A cancellation or exit must go on as what it is.
            error.add_note(f"besides, {lost}")
            logger.error("%s", lost)


def _seen(future: asyncio.Future[Fate]) -> None:
    """Somebody else tells of the error: asyncio need not complain that nobody asked."""
    if not future.cancelled():
        future.exception()
