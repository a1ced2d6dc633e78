"""The feed by itself: what it covers, what it gives, and what it forgets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from streams.gatherer.feed import WAIT_S, LedgerFeed
from streams.transport.chunk import Chunk


def chunk(start: int, end: int, partition: int = 0, size: int = 1) -> Chunk:
    records: list[Any] = [SimpleNamespace(offset=offset, value=b"x" * size) for offset in range(start, end)]
    return Chunk("actions", partition, start, end, records, 0)


def put(feed: LedgerFeed, *stretches: tuple[int, int], partition: int = 0, size: int = 1) -> None:
    for start, end in stretches:
        feed.put(chunk(start, end, partition, size), [True] * (end - start))


def taken(feed: LedgerFeed, position: int, partition: int = 0) -> list[tuple[int, int]]:
    return [(folded.chunk.start, folded.chunk.end) for folded in feed.take(partition, position)]


def test_what_follows_is_given_in_order_and_once() -> None:
    feed = LedgerFeed()
    assert not feed.covers(0, 0)
    put(feed, (10, 12), (12, 15))
    put(feed, (0, 3), partition=1)
    assert (feed.covers(0, 9), feed.covers(0, 10), feed.covers(0, 13), feed.covers(0, 99)) == (False, True, True, True)
    assert taken(feed, 9) == []
    assert taken(feed, 10) == [(10, 12), (12, 15)]
    assert taken(feed, 15) == []
    put(feed, (15, 16))
    assert taken(feed, 15) == [(15, 16)]
    assert taken(feed, 0, partition=1) == [(0, 3)]


def test_what_is_indexed_already_is_left_out() -> None:
    feed = LedgerFeed()
    put(feed, (10, 12), (12, 15), (15, 18))
    assert taken(feed, 13) == [(12, 15), (15, 18)]
    put(feed, (18, 20))
    assert taken(feed, 30) == []
    assert feed.covers(0, 30)


def test_after_a_gap_only_what_follows_it_is_here() -> None:
    feed = LedgerFeed()
    put(feed, (10, 12), (14, 15))
    assert (feed.covers(0, 12), feed.covers(0, 14)) == (False, True)
    assert taken(feed, 12) == []
    put(feed, (15, 17))
    assert taken(feed, 14) == [(14, 15), (15, 17)]


def test_what_is_read_again_is_here_again() -> None:
    feed = LedgerFeed()
    put(feed, (10, 12), (12, 15), (11, 13))
    assert feed.covers(0, 12)
    assert taken(feed, 12) == [(11, 13)]
    assert not feed.covers(0, 12)


def test_a_stretch_without_records_counts() -> None:
    feed = LedgerFeed()
    feed.put(Chunk("actions", 0, 5, 8, [], 0), [])
    assert taken(feed, 5) == [(5, 8)]
    assert feed.covers(0, 8)


def test_the_oldest_make_room() -> None:
    feed = LedgerFeed(most_records=6)
    put(feed, (0, 3), (3, 5))
    put(feed, (0, 2), partition=1)
    assert (feed.covers(0, 0), feed.covers(0, 3), feed.covers(1, 0)) == (False, True, True)
    assert taken(feed, 3) == [(3, 5)]
    put(feed, (5, 12))
    assert taken(feed, 5) == []
    assert feed.covers(0, 12)


def test_bytes_are_bounded_too() -> None:
    feed = LedgerFeed(most_bytes=1_000)
    put(feed, (0, 1), (1, 2), size=600)
    assert taken(feed, 1) == [(1, 2)]


def test_what_is_forgotten_is_no_longer_covered() -> None:
    feed = LedgerFeed()
    put(feed, (0, 3))
    feed.forget([0, 7])
    assert not feed.covers(0, 0)
    assert taken(feed, 0) == []


def test_it_is_due_when_there_is_enough_or_it_waited() -> None:
    now = 100.0
    feed = LedgerFeed(enough=3, monotonic=lambda: now)
    assert not feed.is_due(0)
    put(feed, (0, 2))
    assert not feed.is_due(0)
    put(feed, (2, 3))
    assert feed.is_due(0)
    taken(feed, 0)
    assert not feed.is_due(0)
    put(feed, (3, 4))
    now += WAIT_S
    assert feed.is_due(0)


def test_nothing_is_held_while_the_gatherer_is_further_behind_than_there_is_room_for() -> None:
    feed = LedgerFeed(most_records=6)
    put(feed, (0, 4))
    assert not taken(feed, -10)  # it reads from the ledger
    put(feed, (4, 8))
    assert (feed.covers(0, 0), feed.covers(0, 7), feed.covers(0, 8)) == (False, False, True)
    assert feed.covers(0, 8)
    put(feed, (8, 10))
    assert taken(feed, 8) == [(8, 10)]
    # From where it is near enough, what comes is held again.
    assert not feed.covers(0, 3)
    put(feed, (10, 12))
    assert not feed.covers(0, 9)
    put(feed, (12, 14))
    assert taken(feed, 12) == [(12, 14)]
