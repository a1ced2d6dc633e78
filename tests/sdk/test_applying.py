"""Whatever a handler or a target does, it is an outcome; and a repeated command does nothing again."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.records import Change, Command, Observation, Outcome
from reconciler.sdk import (
    ConflictError,
    HandlerError,
    HandlerResult,
    InputError,
    MemoryDedup,
    PermanentError,
    TransientError,
)
from reconciler.sdk.consumer.applying import Applier, make_applier, where_raised
from reconciler.sdk.tracing import current_origin, current_traceparent
from reconciler.targets.memory import MemoryTarget

RESOURCE = "crm/contact/42"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SEEN = Observation(resource=RESOURCE, exists=True, fields={"phone": "2"})


def command(**changed: Any) -> Command:
    given: dict[str, Any] = {
        "command_id": "c1",
        "resource": RESOURCE,
        "action": "patch",
        "changes": [Change(path="/phone", op="set", value="2", expect="1")],
        "traceparent": TRACE,
    }
    return Command(**(given | changed))


def clock() -> int:
    return 1_000


def handled(handler: Any, dedup: Any = None, *, is_async: bool = False) -> Applier:
    return make_applier(handler, dedup=dedup or MemoryDedup(), clock=clock, wants_coroutines=is_async)


def raising(error: BaseException) -> Any:
    def handler(_: Command) -> HandlerResult:
        raise error

    return handler


async def test_a_result_becomes_an_outcome() -> None:
    result = HandlerResult(status="transient", observed=SEEN, error="busy", retry_after_s=3.0)
    assert await handled(lambda _: result).apply(command()) == Outcome(
        command_id="c1",
        resource=RESOURCE,
        status="transient",
        occurred_at=1_000,
        observed=SEEN,
        error="busy",
        retry_after_s=3.0,
        traceparent=TRACE,
    )


async def test_an_outcome_goes_through_with_the_trace() -> None:
    given = Outcome(command_id="c1", resource=RESOURCE, status="applied", occurred_at=5)
    outcome = await handled(lambda _: given).apply(command())
    assert (outcome.occurred_at, outcome.status, outcome.traceparent) == (5, "applied", TRACE)


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (TransientError("busy", retry_after_s=7), "transient", "busy"),
        (PermanentError("no such field", observed=SEEN), "permanent", "no such field"),
        (ConflictError("changed meanwhile", observed=SEEN), "conflict", "changed meanwhile"),
        (HandlerError("something"), "transient", "something"),
        (ConnectionResetError("by peer"), "transient", "ConnectionResetError: by peer"),
        (KeyError("phone"), "transient", "KeyError: 'phone'"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_exceptions_become_outcomes(error: Exception, status: str, sentence: str, is_async: bool) -> None:
    handler = raising(error)

    async def async_handler(given: Command) -> HandlerResult:
        result: HandlerResult = handler(given)
        return result

    outcome = await handled(async_handler if is_async else handler, is_async=is_async).apply(command())
    assert (outcome.status, outcome.error) == (status, sentence)
    assert outcome.retry_after_s == getattr(error, "retry_after_s", None)
    assert outcome.observed == getattr(error, "observed", None)


async def test_an_interrupt_is_no_outcome() -> None:
    with pytest.raises(SystemExit):
        await handled(raising(SystemExit(3))).apply(command())


@pytest.mark.parametrize("answer", [None, "applied", True, {}])
async def test_an_answer_that_is_none_is_permanent(answer: Any) -> None:
    outcome = await handled(lambda _: answer).apply(command())
    assert outcome.status == "permanent" and "must return" in (outcome.error or "")


async def test_the_outcome_of_another_command_is_permanent() -> None:
    other = Outcome(command_id="c2", resource=RESOURCE, status="applied", occurred_at=5)
    outcome = await handled(lambda _: other).apply(command())
    assert (outcome.command_id, outcome.status) == ("c1", "permanent")


async def test_a_repeated_command_is_not_applied_again() -> None:
    calls: list[str] = []

    def handler(given: Command) -> HandlerResult:
        calls.append(given.command_id)
        return HandlerResult()

    applier = handled(handler)
    statuses = [(await applier.apply(command())).status for _ in range(3)]
    assert (statuses, calls) == (["applied", "already_applied", "already_applied"], ["c1"])
    assert (await applier.expired(command(expires_at=1))).status == "already_applied"


async def test_a_refusal_stays_until_it_is_tried_on_purpose() -> None:
    answers = iter([HandlerResult(status="conflict", error="changed"), HandlerResult()])
    applier = handled(lambda _: next(answers))
    assert (await applier.apply(command())).status == "conflict"
    again = await applier.apply(command())
    assert (again.status, again.error) == ("conflict", "changed")
    assert (await applier.apply(command(attempt=2))).status == "applied"


async def test_a_transient_failure_is_no_decision() -> None:
    answers = iter([HandlerResult(status="transient"), HandlerResult()])
    applier = handled(lambda _: next(answers))
    assert [(await applier.apply(command())).status for _ in range(3)] == ["transient", "applied", "already_applied"]


class BrokenStore(MemoryDedup):
    """Fails at one of the two."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails = fails

    async def first(self, command_id: str) -> Any:
        if self.fails == "first":
            raise ConnectionError("store is down")
        return await super().first(command_id)

    async def remember(self, command_id: str, first: Any) -> None:
        if self.fails == "remember":
            raise ConnectionError("store is down")
        await super().remember(command_id, first)


async def test_a_command_whose_past_is_unknown_waits() -> None:
    applier = handled(raising(AssertionError("must not be called")), BrokenStore("first"))
    outcome = await applier.apply(command())
    assert outcome.status == "transient" and "applied before" in (outcome.error or "")


async def test_an_applied_command_is_told_though_it_cant_be_remembered() -> None:
    outcome = await handled(lambda _: HandlerResult(), BrokenStore("remember")).apply(command())
    assert outcome.status == "applied"


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_handler_knows_the_trace(is_async: bool) -> None:
    seen: list[str | None] = []

    def handler(_: Command) -> HandlerResult:
        seen.append(current_traceparent.get())
        return HandlerResult()

    async def async_handler(given: Command) -> HandlerResult:
        return handler(given)

    await handled(async_handler if is_async else handler, is_async=is_async).apply(command())
    assert seen == [TRACE]
    assert current_traceparent.get() is None


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("origin", "mark"), [(None, "c1"), ("rollback-7", "rollback-7")])
async def test_a_handler_knows_the_mark_to_pass_on(is_async: bool, origin: str | None, mark: str) -> None:
    seen: list[Any] = []

    def handler(given: Command) -> HandlerResult:
        seen.append((given.origin, current_origin.get()))
        return HandlerResult()

    async def async_handler(given: Command) -> HandlerResult:
        return handler(given)

    await handled(async_handler if is_async else handler, is_async=is_async).apply(command(origin=origin))
    assert seen == [(mark, mark)]
    assert current_origin.get() is None


async def test_a_malformed_trace_is_not_passed_on() -> None:
    seen: list[str | None] = []

    def handler(given: Command) -> HandlerResult:
        seen.append(current_traceparent.get())
        return HandlerResult()

    outcome = await handled(handler).apply(command(traceparent="nonsense"))
    assert (seen, outcome.traceparent) == ([None], None)


async def test_a_command_that_came_too_late_is_rejected_with_what_is_there() -> None:
    target = MemoryTarget("crm")
    target.put(RESOURCE, {"phone": "1"})
    applier = make_applier(target, dedup=None, clock=clock, wants_coroutines=True)
    late = await applier.expired(command(expires_at=500))
    assert late.status == "rejected" and late.observed is not None and late.observed.fields == {"phone": "1"}
    assert "1970-01-01T00:00:00.0005Z" in (late.error or "")
    # The outcome of the first delivery was lost; what it did stands.
    target.put(RESOURCE, {"phone": "2"})
    assert (await applier.expired(command(expires_at=500))).status == "already_applied"
    target.remove(RESOURCE)
    assert (await applier.expired(command(expires_at=500))).status == "rejected"


async def test_a_target_that_breaks_its_promise_is_an_outcome_too() -> None:
    class Broken(MemoryTarget):
        async def apply(self, command: Command) -> Outcome:
            raise RuntimeError("boom")

    outcome = await make_applier(Broken("crm"), dedup=None, clock=clock, wants_coroutines=True).apply(command())
    assert (outcome.status, outcome.error) == ("transient", "RuntimeError: boom")


async def test_a_target_that_does_not_deduplicate_needs_a_store() -> None:
    class Forgetful(MemoryTarget):
        def describe(self) -> Any:
            import msgspec

            return msgspec.structs.replace(super().describe(), deduplicates=False)

    target = Forgetful("crm")
    target.put(RESOURCE, {"phone": "1"})
    with pytest.raises(InputError, match="dedup"):
        make_applier(target, dedup=None, clock=clock, wants_coroutines=False)
    applier = make_applier(target, dedup=MemoryDedup(), clock=clock, wants_coroutines=False)
    assert [(await applier.apply(command())).status for _ in range(2)] == ["applied", "already_applied"]


def test_what_does_not_fit_is_refused_at_once() -> None:
    class ReadOnly(MemoryTarget):
        def describe(self) -> Any:
            import msgspec

            return msgspec.structs.replace(super().describe(), can_apply=False)

    async def coroutine(_: Command) -> HandlerResult:
        return HandlerResult()

    class Callable:
        async def __call__(self, _: Command) -> HandlerResult:
            return HandlerResult()

    with pytest.raises(InputError, match="only be observed"):
        make_applier(ReadOnly("crm"), dedup=None, clock=clock, wants_coroutines=True)
    for handler in (coroutine, Callable()):
        with pytest.raises(InputError, match="AsyncReversalConsumer"):
            make_applier(handler, dedup=MemoryDedup(), clock=clock, wants_coroutines=False)
        make_applier(handler, dedup=MemoryDedup(), clock=clock, wants_coroutines=True)
    with pytest.raises(InputError, match="to a ReversalConsumer"):
        make_applier(lambda _: HandlerResult(), dedup=MemoryDedup(), clock=clock, wants_coroutines=True)


def test_the_log_says_where_an_exception_came_from_and_not_what_it_says() -> None:
    """What it says may quote the value of a sensitive field."""

    def write(value: str) -> None:
        raise ValueError(f"{value} is taken")

    number = 781_120
    with pytest.raises(ValueError, match="is taken") as raised:
        write(str(number))
    told = where_raised(raised.value)
    assert told.startswith("ValueError\n") and "in write" in told
    assert str(number) not in told
