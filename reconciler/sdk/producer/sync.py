"""The producer for threads."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self, Unpack

from reconciler.records import Action, Observation, Operation, Stage
from reconciler.sdk.delivery import Delivery, open_spool
from reconciler.sdk.errors import DeliveryError, FencedError
from reconciler.sdk.fences import Fence
from reconciler.sdk.producer.failures import Failures
from reconciler.sdk.producer.open_action import ActionDetails, OpenAction
from reconciler.sdk.producer.outgoing import Encoder, ProducerSettings, completed
from reconciler.sdk.producer.pre_state import Observe, TargetLoop, as_observation
from reconciler.sdk.spool import Message
from reconciler.targets.port import Target

logger = logging.getLogger("reconciler.sdk")


class Producer:
    """Publishes what workflow steps do. One for a process; safe for threads. Close it, or use it as a context manager.

    with Producer(ProducerSettings(kafka=KafkaSettings(bootstrap_servers="kafka:9092"))) as producer:
        with producer.action("crm/contact/42", run_id="run-7", step_id="update-contact", observe=crm) as action:
            crm.update("42", phone="2")
            action.set("/phone", "2")
    """

    def __init__(self, settings: ProducerSettings, *, fence: Fence | None = None) -> None:
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
        self._targets = TargetLoop()

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
        observe: Observe | None = None,
        observe_after: bool = False,
        require_before: bool = False,
        **details: Unpack[ActionDetails],
    ) -> ActionScope:
        """A context manager around one action: `initiated` is sent before its block, `succeeded` after it, `failed` if it raises.

        ``observe`` tells the state before (a target is then used on an event loop of this producer's own, and closed with
        it), and with ``observe_after`` the state after, from which the change is found unless
        `set` or `unset` tell it. ``require_before``: the action must not begin where the state before can't be had.

        Entering raises FencedError (the run was rolled back), ObservationError, InputError, or DeliveryError, and then
        nothing has begun. Leaving raises DeliveryError where the event is neither delivered nor spooled, also in place of the
        block's own exception, which is then its cause; ObservationError where ``observe_after`` saw nothing.
        """
        action = OpenAction(
            resource=resource,
            operation=operation,
            run_id=run_id,
            step_id=step_id,
            began_at=self._settings.clock(),
            details=details,
        )
        return ActionScope(self, action, observe, observe_after, require_before)

    def emit(self, action: Action) -> Action:
        """Sends an action as it is, default ids and trace filled in, and returns it so.

        Raises FencedError for an `initiated` one of a fenced run, InputError, DeliveryError.
        """
        self._failures.raise_unseen()
        ready = completed(action)
        if ready.stage == "initiated":
            self._check_fence(ready.run_id)
        self._send(self._encoder.message(ready))
        return ready

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until every event is delivered or spooled; False where the time was too short. Raises DeliveryError for
        what was lost since the last call."""
        done = self._delivery.flush(timeout_s)
        self._failures.raise_unseen()
        return done

    def drain(self, timeout_s: float | None = None) -> bool:
        """As `flush`, and until the spool is empty."""
        done = self._delivery.drain(timeout_s)
        self._failures.raise_unseen()
        return done

    def close(self) -> None:
        """Flushes, and gives everything back; what is spooled is sent by the next producer with that folder. Raises as `flush`."""
        try:
            self._delivery.close()
        finally:
            self._targets.close()
        self._failures.raise_unseen()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, action: OpenAction, observe: Observe | None, require_before: bool) -> None:
        self._failures.raise_unseen()
        self._check_fence(action.run_id)
        if observe is not None:
            action.saw_before(self._observed(observe, action.resource), required=require_before)
        self._send(self._message(action, "initiated"))

    def _ended(self, action: OpenAction, observe: Observe | None) -> Message:
        if observe is not None:
            action.saw_after(self._observed(observe, action.resource))
        return self._message(action, "succeeded")

    def _message(self, action: OpenAction, stage: Stage) -> Message:
        return self._encoder.message(action.event(stage, self._settings.clock()))

    def _observed(self, observe: Observe, resource: str) -> Observation:
        if isinstance(observe, Target):
            return self._targets.observe(observe, resource)
        return as_observation(resource, observe(resource))

    def _check_fence(self, run_id: str) -> None:
        reason = None if self._fence is None else self._fence.is_fenced(run_id)
        if reason is not None:
            raise FencedError(run_id, reason)

    def _send(self, message: Message, *, closing: bool = False) -> None:
        future = self._delivery.send(message, closing=closing)
        if not self._settings.wait:
            self._failures.watch(future)
            return
        try:
            future.result()
        except DeliveryError:
            raise
        except BaseException:
            # Interrupted while it waited: the event goes its way, and if it is lost, the next caller hears of it.
            self._failures.watch(future)
            raise


class ActionScope:
    """The context manager that `Producer.action` makes. Used once."""

    def __init__(
        self,
        producer: Producer,
        action: OpenAction,
        observe: Observe | None,
        observe_after: bool,
        require_before: bool,
    ) -> None:
        self._producer = producer
        self._action = action
        self._observe = observe
        self._observe_after = observe_after
        self._require_before = require_before

    def __enter__(self) -> OpenAction:
        self._producer._begin(self._action, self._observe, self._require_before)
        return self._action

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._succeed()
        else:
            self._fail(error)

    def _succeed(self) -> None:
        try:
            message = self._producer._ended(self._action, self._observe if self._observe_after else None)
        except BaseException as error:
            self._fail(error)
            raise
        self._producer._send(message, closing=True)

    def _fail(self, error: BaseException) -> None:
        try:
            self._producer._send(self._producer._message(self._action, "failed"), closing=True)
        except DeliveryError as lost:
            if isinstance(error, Exception):
                raise lost from error
            # An interrupt or exit must go on as what it is.
            error.add_note(f"besides, {lost}")
            logger.error("%s", lost)
