from __future__ import annotations

import pytest

from reconciler.sdk.tracing import current_traceparent, new_traceparent, traceparent_for
from reconciler.values.errors import InputError
from reconciler.values.traceparent import is_traceparent, usable_traceparent

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "text",
    [
        GIVEN,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later",
    ],
)
def test_what_the_standard_allows_is_passed_on(text: str) -> None:
    assert is_traceparent(text)
    assert traceparent_for(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        GIVEN.upper(),
        GIVEN + "-more",
        GIVEN + "\n",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    ],
)
def test_what_the_standard_forbids_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="traceparent"):
        traceparent_for(text)


def test_without_one_a_trace_begins_each_time_another() -> None:
    traces = {traceparent_for(None) for _ in range(20)}
    assert len(traces) == 20
    assert all(map(is_traceparent, traces))
    assert is_traceparent(new_traceparent())


def test_the_trace_of_the_work_in_progress_goes_on() -> None:
    token = current_traceparent.set(GIVEN)
    try:
        assert traceparent_for(None) == GIVEN
    finally:
        current_traceparent.reset(token)


def test_the_first_that_may_be_passed_on_is_used() -> None:
    other = GIVEN.replace("4bf9", "4bfa")
    assert usable_traceparent(None, "nonsense", GIVEN, other) == GIVEN
    assert usable_traceparent("nonsense", None) is None
    assert usable_traceparent() is None
    assert not is_traceparent("01" + GIVEN[2:] + "-" + "x" * 500)
    assert not is_traceparent("01" + GIVEN[2:] + "-x\r\nX-Evil: 1")
