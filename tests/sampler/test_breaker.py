"""The circuit breaker: its table of transitions, and what holds in any sequence of calls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.values.instant import SECOND
from streams.sampler.breaker import Breaker, BreakerLimits, Permit

LIMITS = BreakerLimits(failures=3, pause_first=10 * SECOND, pause_cap=60 * SECOND)


def admitted(breaker: Breaker, now: int) -> Permit:
    permit = breaker.admit(now)
    assert permit is not None
    return permit


def state(breaker: Breaker) -> str:
    return breaker.state


def opened(now: int = 0) -> Breaker:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        breaker.failed(admitted(breaker, now), now)
    return breaker


def test_it_opens_after_so_many_failures_running() -> None:
    breaker = Breaker(LIMITS)
    for is_failure in (True, True, False, True, True):
        permit = admitted(breaker, 0)
        if is_failure:
            breaker.failed(permit, 0)
        else:
            breaker.succeeded(permit)
    assert state(breaker) == "closed"
    breaker.failed(admitted(breaker, 0), 0)
    assert state(breaker) == "open"
    assert breaker.admit(10 * SECOND - 1) is None
    assert breaker.ready_in(4 * SECOND) == 6 * SECOND


def test_half_open_admits_one_probe_and_its_success_closes() -> None:
    breaker = opened()
    probe = admitted(breaker, 10 * SECOND)
    assert probe.is_probe
    assert state(breaker) == "half_open"
    assert breaker.ready_in(99 * SECOND) is None
    assert breaker.admit(99 * SECOND) is None
    breaker.succeeded(probe)
    assert state(breaker) == "closed"
    assert breaker.ready_in(99 * SECOND) == 0


def test_a_failed_probe_doubles_the_pause_up_to_the_cap_and_success_resets_it() -> None:
    breaker, now, pauses = opened(), 0, []
    for _ in range(5):
        pause = breaker.ready_in(now)
        assert pause is not None
        pauses.append(pause // SECOND)
        now += pause
        breaker.failed(admitted(breaker, now), now)
    assert pauses == [10, 20, 40, 60, 60]
    now += 60 * SECOND
    breaker.succeeded(admitted(breaker, now))
    for _ in range(3):
        breaker.failed(admitted(breaker, now), now)
    assert breaker.ready_in(now) == 10 * SECOND


def test_a_probe_that_says_nothing_lets_another_one_through() -> None:
    breaker = opened()
    breaker.abandoned(admitted(breaker, 10 * SECOND))
    assert state(breaker) == "half_open"
    assert admitted(breaker, 10 * SECOND).is_probe


def test_calls_from_before_a_change_of_state_are_ignored() -> None:
    breaker = Breaker(LIMITS)
    early = admitted(breaker, 0)
    for _ in range(3):
        breaker.failed(admitted(breaker, 0), 0)
    breaker.succeeded(early)
    assert state(breaker) == "open"
    probe = admitted(breaker, 10 * SECOND)
    breaker.abandoned(early)
    assert breaker.admit(10 * SECOND) is None, "the probe is still under way"
    breaker.failed(early, 10 * SECOND)
    assert state(breaker) == "half_open"
    breaker.succeeded(probe)
    assert state(breaker) == "closed"
    for _ in range(2):
        breaker.failed(admitted(breaker, 0), 0)
    breaker.succeeded(early)
    breaker.failed(admitted(breaker, 0), 0)
    assert state(breaker) == "open"


@given(leap=st.integers(0, 10**15))
def test_a_clock_that_is_set_back_doesnt_keep_it_open_for_longer(leap: int) -> None:
    ready_in = opened(now=10**15).ready_in(10**15 - leap)
    assert ready_in is not None
    assert ready_in <= 10 * SECOND


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["admit", "succeeded", "failed", "abandoned"]), st.integers(0, 30), st.integers(0, 5))
    )
)
def test_it_never_locks_up(steps: list[tuple[str, int, int]]) -> None:
    """Once every admitted call has ended, a call is admitted again after the longest pause at the latest."""
    breaker, now, open_calls = Breaker(LIMITS), 0, list[Permit]()
    for what, seconds, which in steps:
        now += seconds * SECOND
        if what == "admit":
            permit = breaker.admit(now)
            assert (permit is not None) or breaker.ready_in(now) != 0
            open_calls += [permit] if permit else []
        elif open_calls:
            permit = open_calls.pop(which % len(open_calls))
            if what == "failed":
                breaker.failed(permit, now)
            elif what == "succeeded":
                breaker.succeeded(permit)
            else:
                breaker.abandoned(permit)
        assert sum(call.is_probe and call.age == breaker._age for call in open_calls) <= 1
    for permit in open_calls:
        breaker.abandoned(permit)
    assert breaker.admit(now + LIMITS.pause_cap) is not None
