"""The watchdog's judgement, with a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from streams.exits import ExitCode
from streams.log_ends import Place
from streams.settings import Settings, load_settings
from streams.worker.watchdog import Watchdog

A: Place = ("topic", 0)


class World:
    """What the watchdog sees."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.not_ready = 0.0
        self.uncommitted = 0.0
        self.offsets: dict[Place, int] = {A: 5}
        self.log_ends: dict[Place, int] = {A: 5}

    def clock(self) -> float:
        return self.now

    def not_ready_s(self) -> float:
        return self.not_ready

    def uncommitted_s(self) -> float:
        return self.uncommitted

    def done(self) -> Mapping[Place, int]:
        return dict(self.offsets)

    def ends(self, places: Iterable[Place]) -> Mapping[Place, int]:
        return {place: self.log_ends[place] for place in places}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def settings() -> Settings:
    return load_settings(loop_max_age_s=10, rebalance_max_age_s=30, commit_max_age_s=20, progress_max_age_s=40)


@pytest.fixture
def watchdog(world: World, settings: Settings) -> Watchdog:
    return Watchdog(settings, world, world.ends, lambda code, sentence: None, world.clock)


def test_nothing_to_say_when_all_is_well(world: World, watchdog: Watchdog) -> None:
    for _ in range(500):
        world.now += 1
        world.offsets[A] += 1
        world.log_ends[A] += 1
        watchdog.beat()
        assert watchdog.look() is None


def test_an_idle_worker_is_left_alone(world: World, watchdog: Watchdog) -> None:
    for _ in range(500):
        world.now += 1
        watchdog.beat()
        assert watchdog.look() is None


def test_a_loop_that_stands_still(world: World, watchdog: Watchdog) -> None:
    world.now += 10
    assert watchdog.look() is None
    world.now += 1
    verdict = watchdog.look()
    assert verdict is not None
    assert verdict.code is ExitCode.STALLED
    assert "event loop" in verdict.sentence


def test_row_05_finished_work_that_is_not_committed(world: World, watchdog: Watchdog) -> None:
    """Without this, a worker whose commits are blocked by a race works on for ever, and all of it is repeated one day."""
    world.uncommitted = 21
    verdict = watchdog.look()
    assert verdict is not None
    assert verdict.code is ExitCode.COMMIT
    world.not_ready = 1
    assert watchdog.look() is None


def test_row_06_waiting_records_and_no_progress(world: World, watchdog: Watchdog) -> None:
    """Without this, a consumer that died silently keeps its partitions, and nobody reads them."""
    world.log_ends[A] = 9
    verdicts = []
    for _ in range(50):
        world.now += 1
        watchdog.beat()
        verdicts.append(watchdog.look())
    first = next(verdict for verdict in verdicts if verdict is not None)
    assert first.code is ExitCode.STALLED
    assert "4 records waiting" in first.sentence
    assert verdicts.index(first) >= 40
    assert watchdog.lags() == {A: 4}


def test_slow_progress_is_progress(world: World, watchdog: Watchdog) -> None:
    world.log_ends[A] = 1_000_000
    for second in range(300):
        world.now += 1
        world.offsets[A] += second % 30 == 0
        watchdog.beat()
        assert watchdog.look() is None


def test_waiting_during_a_rebalance_counts_from_its_end(world: World, watchdog: Watchdog) -> None:
    world.log_ends[A] = 9
    for second in range(100):
        world.now += 1
        world.not_ready = 1.0 if 30 <= second < 70 else 0.0
        watchdog.beat()
        assert watchdog.look() is None


def test_a_rebalance_that_does_not_end(world: World, watchdog: Watchdog) -> None:
    world.not_ready = 31
    verdict = watchdog.look()
    assert verdict is not None
    assert verdict.code is ExitCode.STALLED
    assert "rebalance" in verdict.sentence


def test_a_partition_that_went_away_is_forgotten(world: World, watchdog: Watchdog) -> None:
    world.log_ends[A] = 9
    watchdog.look()
    world.offsets.clear()
    for _ in range(100):
        world.now += 1
        watchdog.beat()
        assert watchdog.look() is None
    assert watchdog.lags() == {}
