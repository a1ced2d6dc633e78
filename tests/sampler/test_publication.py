"""What is published: what is news, what somebody waits for, and from time to time the same again."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.machines.sampling import SamplingNeeds
from reconciler.records import Observation
from reconciler.values.instant import SECOND
from streams.sampler.answers import Answer
from streams.sampler.publication import Published, why_publish
from streams.sampler.timing import SampleTiming, ready_at, sample_timing

TIMING = SampleTiming(period=300 * SECOND, settle=30 * SECOND, heartbeat=1_800 * SECOND)
NOW = 1_777_777_777 * SECOND
LAST = Published(b"same", NOW - 300 * SECOND, NOW - 299 * SECOND)
LAST_UNKNOWN = Published(None, NOW - 300 * SECOND, NOW - 299 * SECOND)


def answer(digest: bytes | None) -> Answer:
    observation = Observation(
        resource="crm/contact/1", exists=None if digest is None else True, observed_at=NOW - SECOND
    )
    return Answer(observation, "unknown" if digest is None else "present", digest)


def why(last: Published | None, digest: bytes | None, now: int = NOW, **needs: Any) -> str | None:
    return why_publish(last, answer(digest), SamplingNeeds(**needs), TIMING, now)


def test_the_first_is_published_and_the_same_again_is_not() -> None:
    assert why(None, b"same") == "first"
    assert why(LAST, b"same") is None


def test_another_one_is_published() -> None:
    assert why(LAST, b"other") == "changed"


def test_that_it_cant_be_observed_is_said_when_it_begins_and_not_with_each_failure() -> None:
    assert why(None, None) == "first"
    assert why(LAST, None) == "changed"
    assert why(LAST_UNKNOWN, None) is None
    assert why(LAST_UNKNOWN, None, open_drift="d", last_write_at=NOW - 60 * SECOND) is None
    assert why(LAST_UNKNOWN, None, now=LAST_UNKNOWN.published_at + TIMING.heartbeat) == "heartbeat"
    assert why(LAST_UNKNOWN, b"same") == "changed"


@pytest.mark.parametrize("needs", [{"open_drift": "d"}, {"pending_command": "c"}])
def test_what_somebody_waits_for_is_published_though_nothing_changed(needs: dict[str, Any]) -> None:
    assert why(LAST, b"same", **needs) == "wanted"


def test_after_a_write_the_first_that_can_be_judged_is_published() -> None:
    settled_between = LAST.observed_at - 10 * SECOND
    assert why(LAST, b"same", last_write_at=settled_between) == "written"
    assert why(LAST, b"same", last_write_at=NOW - 32 * SECOND) == "written"
    assert why(LAST, b"same", last_write_at=NOW - 32 * SECOND, last_observed_at=LAST.observed_at) == "written"
    assert why(LAST, b"same", last_write_at=NOW - 5 * SECOND) is None, "it can't be judged yet"
    assert why(LAST, b"same", last_write_at=LAST.observed_at - 30 * SECOND) is None, "the last one could be"
    assert why(LAST, b"same", last_write_at=NOW + 10**15) is None
    assert why(LAST, b"same", in_flight_until=NOW - 2 * SECOND) == "written"
    assert why(LAST, b"same", in_flight_until=NOW) is None


def test_what_the_state_takes_to_be_too_early_is_published_again() -> None:
    """As where the brokers' clock stamps the records, and is behind ours."""
    written_at = LAST.observed_at - 30 * SECOND
    assert why(LAST, b"same", last_write_at=written_at, last_observed_at=LAST.observed_at) is None
    assert why(LAST, b"same", last_write_at=written_at, last_observed_at=LAST.observed_at - 1) == "written"


def test_what_is_older_than_what_the_state_has_is_not_published() -> None:
    """As when a command was applied while the resource was being read."""
    for digest in (b"same", b"other", None):
        assert why(None, digest, last_observed_at=NOW - SECOND) is None
        assert why(LAST, digest, last_observed_at=NOW, open_drift="d") is None


def test_where_the_state_learnt_something_else_meanwhile_ours_is_news() -> None:
    assert why(LAST, b"same", last_observed_at=LAST.observed_at) is None
    assert why(LAST, b"same", last_observed_at=LAST.observed_at + 1) == "overtaken"


def test_from_time_to_time_the_same_is_said_again() -> None:
    assert why(LAST, b"same", now=LAST.published_at + TIMING.heartbeat - 1) is None
    assert why(LAST, b"same", now=LAST.published_at + TIMING.heartbeat) == "heartbeat"
    assert why(LAST, b"same", now=LAST.published_at - 1) == "heartbeat", "the clock was set back"


class Times:
    sample_every_s = 300.0
    settle_s = 0.5
    pre_state_max_age_s = 3_600.0


def test_the_times_of_a_contract() -> None:
    assert sample_timing(Times, 4) == SampleTiming(period=300 * SECOND, settle=SECOND // 2, heartbeat=1_200 * SECOND)
    assert sample_timing(Times, 12).heartbeat == 1_800 * SECOND, "twice within the age of a pre-state"


@pytest.mark.parametrize(
    ("needs", "ready"),
    [
        ({}, None),
        ({"last_write_at": NOW}, NOW + TIMING.settle + 1_000),
        ({"in_flight_until": NOW}, NOW + 1_000),
        ({"last_write_at": NOW, "in_flight_until": NOW + 1}, NOW + TIMING.settle + 1_000),
        ({"last_write_at": NOW, "in_flight_until": NOW + 10**9}, NOW + 10**9 + 1_000),
    ],
)
def test_from_when_an_observation_can_be_judged(needs: dict[str, Any], ready: int | None) -> None:
    assert ready_at(SamplingNeeds(**needs), TIMING) == ready
