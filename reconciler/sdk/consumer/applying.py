"""Applying a command by a handler or a target, so that whatever happens is an outcome."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias, TypeVar

import msgspec

from reconciler.records import Command, Observation, Outcome, OutcomeStatus, Record
from reconciler.sdk.consumer.dedup import DedupStore
from reconciler.sdk.errors import ConflictError, HandlerError, PermanentError, TransientError
from reconciler.sdk.tracing import current_origin, current_traceparent
from reconciler.targets.answers import Clock, origin_of, outcome
from reconciler.targets.apply import Refusal, decide
from reconciler.targets.first_outcome import REMEMBERED, FirstOutcome, repeated
from reconciler.targets.port import ApplyingTarget
from reconciler.values.errors import InputError
from reconciler.values.instant import format_instant
from reconciler.values.json_value import ABSENT
from reconciler.values.traceparent import usable_traceparent

logger = logging.getLogger("reconciler.sdk")


class HandlerResult(Record, frozen=True, kw_only=True):
    """What a handler says became of a command, without the outcome's formalities. ``observed``: what the resource holds now."""

    status: OutcomeStatus = "applied"
    observed: Observation | None = None
    error: str | None = None
    retry_after_s: float | None = None


Answer: TypeAlias = Outcome | HandlerResult
Handler: TypeAlias = Callable[[Command], Answer]
"""Applies a command with compare-and-set, whole or not at all. What it raises: `ConflictError`, `TransientError`,
`PermanentError` become outcomes of these names; anything else is `transient` with the error's sentence."""
AsyncHandler: TypeAlias = Callable[[Command], Awaitable[Answer]]

Value = TypeVar("Value")

_STATUS_OF: Final[tuple[tuple[type[HandlerError], OutcomeStatus], ...]] = (
    (ConflictError, "conflict"),
    (PermanentError, "permanent"),
    (TransientError, "transient"),
)


class Applier(Protocol):
    """Applies one command. Raises nothing but what ends the process."""

    can_cancel: bool
    """Whether cancelling the call ends the work too; a thread's doesn't."""

    async def apply(self, command: Command) -> Outcome: ...

    async def expired(self, command: Command) -> Outcome:
        """The outcome of a command that came too late to be applied."""
        ...


class TargetApplier:
    """By a target that deduplicates itself."""

    can_cancel = True

    def __init__(self, target: ApplyingTarget, clock: Clock) -> None:
        self._target = target
        self._clock = clock

    async def apply(self, command: Command) -> Outcome:
        try:
            return await self._target.apply(command)
        except Exception as error:  # noqa: BLE001 — an adapter's fault is an outcome, not the end of the partition
            return _failed(command, error, self._clock)

    async def expired(self, command: Command) -> Outcome:
        """Rejected, with what the target holds; but where all that the command wants already stands, it was applied: the outcome
        was lost on the way."""
        try:
            (seen,) = await self._target.observe([command.resource])
        except Exception as error:  # noqa: BLE001 — see above
            return _failed(command, error, self._clock)
        if _stands(command, seen):
            return outcome(command, "already_applied", self._clock(), observed=seen)
        return _too_late(command, self._clock, seen)


class _Deduplicated:
    """By a handler, with a store that remembers for it."""

    def __init__(self, dedup: DedupStore, clock: Clock) -> None:
        self._dedup = dedup
        self._clock = clock

    async def call(self, command: Command) -> Answer:
        raise NotImplementedError

    async def apply(self, command: Command) -> Outcome:
        again = await self._again(command)
        if again is not None:
            return again
        try:
            marked = msgspec.structs.replace(command, origin=origin_of(command))
            trace = current_traceparent.set(usable_traceparent(command.traceparent))
            origin = current_origin.set(marked.origin)
            try:
                result = _outcome_of(command, await self.call(marked), self._clock)
            finally:
                current_origin.reset(origin)
                current_traceparent.reset(trace)
        except Exception as error:  # noqa: BLE001 — a handler's exception is an outcome, not the end of the partition
            result = _failed(command, error, self._clock)
        await self._remember(command, result)
        return result

    async def expired(self, command: Command) -> Outcome:
        return await self._again(command) or _too_late(command, self._clock, None)

    async def _again(self, command: Command) -> Outcome | None:
        """The outcome of a command that was decided before, or whose past can't be known."""
        try:
            first = await self._dedup.first(command.command_id)
        except Exception as error:  # noqa: BLE001 — any client's errors; not to be sure is a reason to wait
            sentence = f"whether the command was applied before can't be found out just now: {error}"
            return outcome(command, "transient", self._clock(), error=sentence)
        status = repeated(first, command)
        if first is None or status is None:
            return None
        return outcome(command, status, self._clock(), error=first.error)

    async def _remember(self, command: Command, result: Outcome) -> None:
        if result.status not in REMEMBERED:
            return
        first = FirstOutcome(status=result.status, attempt=command.attempt, error=result.error)
        try:
            await self._dedup.remember(command.command_id, first)
        except Exception:
            # The outcome is true and must be told. What is lost is the recognition of a repetition after a crash.
            logger.exception("the decision on the command %s could not be remembered", command.command_id)


class AsyncHandlerApplier(_Deduplicated):
    """By a coroutine function."""

    can_cancel = True

    def __init__(self, handler: AsyncHandler, dedup: DedupStore, clock: Clock) -> None:
        super().__init__(dedup, clock)
        self._handler = handler

    async def call(self, command: Command) -> Answer:
        return await self._handler(command)


class HandlerApplier(_Deduplicated):
    """By a function, each call in a thread of its own: a pool's threads would keep the process from ending while one hangs."""

    can_cancel = False

    def __init__(self, handler: Handler, dedup: DedupStore, clock: Clock) -> None:
        super().__init__(dedup, clock)
        self._handler = handler

    async def call(self, command: Command) -> Answer:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                result = context.run(self._handler, command)
            except BaseException as error:  # noqa: BLE001 — whoever awaits it decides
                _tell(loop, answer.set_exception, error)
            else:
                _tell(loop, answer.set_result, result)

        threading.Thread(target=work, name=f"reconciler-handler-{command.command_id[:12]}", daemon=True).start()
        return await answer


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[[Value], None], value: Value) -> None:
    try:
        loop.call_soon_threadsafe(tell, value)
    except RuntimeError:
        logger.warning("a handler ended after its consumer had: its command will be delivered again")


def make_applier(
    served: ApplyingTarget | Handler | AsyncHandler,
    *,
    dedup: DedupStore | None,
    clock: Clock,
    wants_coroutines: bool,
) -> Applier:
    """The applier for what a consumer was given. Raises InputError for what can't be served."""
    if isinstance(served, ApplyingTarget):
        description = served.describe()
        if not description.can_apply:
            raise InputError(f"the target {description.system!r} can only be observed; it applies no commands")
        if description.deduplicates:
            return TargetApplier(served, clock)
        served = served.apply
        wants_coroutines = True
    if dedup is None:
        raise InputError(
            "commands may be delivered twice, and nothing here remembers them: give dedup=RedisDedup(…) or SqlDedup(…), or "
            "MemoryDedup() for effects that bear repetition"
        )
    is_coroutine = inspect.iscoroutinefunction(served) or inspect.iscoroutinefunction(type(served).__call__)
    if is_coroutine is not wants_coroutines:
        raise InputError(
            "the handler is a coroutine function: give it to an AsyncReversalConsumer"
            if is_coroutine
            else "the handler is a plain function: give it to a ReversalConsumer"
        )
    if is_coroutine:
        return AsyncHandlerApplier(served, dedup, clock)  # type: ignore[arg-type]  # asked above
    return HandlerApplier(served, dedup, clock)  # type: ignore[arg-type]  # asked above


def timed_out(command: Command, clock: Clock, timeout_s: float) -> Outcome:
    """The outcome of a command that nobody knows the end of."""
    sentence = f"applying did not end within {timeout_s:g} s; whether it was applied is not known"
    return outcome(command, "transient", clock(), error=sentence)


def _outcome_of(command: Command, answer: object, clock: Clock) -> Outcome:
    """The outcome that a handler's answer means. A wrong answer is permanent: asking again would only get it again."""
    if isinstance(answer, HandlerResult):
        return outcome(
            command,
            answer.status,
            clock(),
            observed=answer.observed,
            error=answer.error,
            retry_after_s=answer.retry_after_s,
        )
    if not isinstance(answer, Outcome):
        sentence = f"the handler returned {type(answer).__name__}; it must return an Outcome or a HandlerResult"
        return outcome(command, "permanent", clock(), error=sentence)
    if (answer.command_id, answer.resource) != (command.command_id, command.resource):
        sentence = f"the handler returned the outcome of another command, {answer.command_id!r}"
        return outcome(command, "permanent", clock(), error=sentence)
    return msgspec.structs.replace(answer, traceparent=usable_traceparent(answer.traceparent, command.traceparent))


def _failed(command: Command, error: Exception, clock: Clock) -> Outcome:
    if isinstance(error, HandlerError):
        status: OutcomeStatus = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), "transient")
        retry_after_s = error.retry_after_s if isinstance(error, TransientError) else None
        return outcome(command, status, clock(), observed=error.observed, error=str(error), retry_after_s=retry_after_s)
    logger.warning("applying the command %s raised %s", command.command_id, where_raised(error))
    return outcome(command, "transient", clock(), error=f"{type(error).__name__}: {error}")


def where_raised(error: BaseException) -> str:
    """An exception for the log: what it is and where it came from. Not what it says, which may quote the value of a sensitive
    field; the outcome carries that, and it is masked wherever people read it."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}".rstrip()


def _too_late(command: Command, clock: Clock, seen: Observation | None) -> Outcome:
    assert command.expires_at is not None
    sentence = f"the command expired at {format_instant(command.expires_at)}, before it was applied"
    return outcome(command, "rejected", clock(), observed=seen, error=sentence)


def _stands(command: Command, seen: Observation) -> bool:
    """Whether all that a command wants is already there."""
    if seen.exists is None:
        return False
    current = seen.fields if seen.exists else ABSENT
    result = decide(current, seen.version, command)
    return not isinstance(result, Refusal) and result is current
