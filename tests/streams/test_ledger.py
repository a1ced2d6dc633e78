"""The consumer's books."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.transport.ledger import Ledger, OffsetGap

A, B = ("topic", 0), ("topic", 1)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger[tuple[str, int]]:
    ledger: Ledger[tuple[str, int]] = Ledger(clock)
    ledger.sought({A: 10, B: 0})
    return ledger


def test_only_what_is_finished_can_be_committed(ledger: Ledger[tuple[str, int]]) -> None:
    ledger.read(A, 10, 30)
    assert ledger.committable([A, B]) == {}
    ledger.finished(A, 20)
    assert ledger.committable([A, B]) == {A: 20}


def test_a_refused_commit_stays_committable(ledger: Ledger[tuple[str, int]]) -> None:
    ledger.read(A, 10, 30)
    ledger.finished(A, 30)
    assert ledger.committable([A]) == {A: 30}
    assert ledger.committed(A) == 10
    assert ledger.committable([A]) == {A: 30}
    ledger.accepted({A: 30})
    assert ledger.committable([A]) == {}
    assert ledger.committed(A) == 30


def test_partitions_that_are_not_assigned_are_not_committed(ledger: Ledger[tuple[str, int]]) -> None:
    ledger.finished(A, 20)
    assert ledger.committable([B]) == {}


@pytest.mark.parametrize(("start", "end"), [(11, 12), (9, 12), (10, 9)])
def test_a_gap_is_an_error(ledger: Ledger[tuple[str, int]], start: int, end: int) -> None:
    with pytest.raises(OffsetGap):
        ledger.read(A, start, end)


def test_what_was_read_is_followed_by_the_next(ledger: Ledger[tuple[str, int]]) -> None:
    ledger.read(A, 10, 12)
    ledger.read(A, 12, 13)
    with pytest.raises(OffsetGap, match="read on from 13"):
        ledger.read(A, 14, 15)


def test_reading_before_seeking_is_an_error() -> None:
    ledger: Ledger[tuple[str, int]] = Ledger(lambda: 0.0)
    with pytest.raises(OffsetGap, match="before it was sought"):
        ledger.read(A, 0, 1)


def test_finishing_never_goes_back(ledger: Ledger[tuple[str, int]]) -> None:
    ledger.finished(A, 20)
    with pytest.raises(OffsetGap):
        ledger.finished(A, 19)


def test_a_seek_begins_anew(ledger: Ledger[tuple[str, int]]) -> None:
    ledger.read(A, 10, 30)
    ledger.finished(A, 30)
    ledger.sought({A: 10})
    assert ledger.committable([A]) == {}
    ledger.read(A, 10, 11)


def test_the_age_is_that_of_the_oldest_uncommitted(ledger: Ledger[tuple[str, int]], clock: Clock) -> None:
    assert ledger.oldest_uncommitted_s() == 0
    ledger.finished(A, 20)
    clock.now += 5
    ledger.finished(B, 3)
    ledger.finished(A, 21)
    clock.now += 1
    assert ledger.oldest_uncommitted_s() == 6
    ledger.accepted({A: 21})
    assert ledger.oldest_uncommitted_s() == 1
    ledger.forget([B])
    assert ledger.oldest_uncommitted_s() == 0


def test_work_finished_during_a_commit_counts_from_then(ledger: Ledger[tuple[str, int]], clock: Clock) -> None:
    ledger.finished(A, 20)
    offsets = ledger.committable([A])
    ledger.finished(A, 25)
    clock.now += 3
    ledger.accepted(offsets)
    clock.now += 2
    assert ledger.oldest_uncommitted_s() == 2
    assert ledger.committable([A]) == {A: 25}


@given(st.lists(st.tuples(st.sampled_from(["finish", "accept", "refuse"]), st.integers(1, 5))))
def test_never_committed_beyond_finished(steps: list[tuple[str, int]]) -> None:
    ledger: Ledger[tuple[str, int]] = Ledger(lambda: 0.0)
    ledger.sought({A: 0})
    done = committed = 0
    for what, by in steps:
        if what == "finish":
            ledger.read(A, done, done + by)
            done += by
            ledger.finished(A, done)
        elif what == "accept" and (offsets := ledger.committable([A])):
            ledger.accepted(offsets)
            committed = offsets[A]
        assert ledger.committed(A) == committed <= done
        assert ledger.committable([A]) == ({A: done} if done > committed else {})
