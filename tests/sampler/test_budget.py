"""The rate budgets: never more than the rate and one burst, shared through a real Redis, and without it each worker's share."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import combinations

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from streams.embedded.redis import EmbeddedRedis
from streams.sampler.budget import Bucket, Budget, SharedBudgets
from streams.sampler.settings import TargetLimits, load_sampler_settings
from tests.support.redis_server import RedisServer


@asynccontextmanager
async def budgets(
    url: str | None, share: float = 1.0, prefix: str = "", retry_s: float = 0.2, timeout_s: float = 10.0
) -> AsyncIterator[SharedBudgets]:
    settings = load_sampler_settings(redis_timeout_s=timeout_s, redis_retry_s=retry_s)
    shared = SharedBudgets(url, prefix=prefix, settings=settings, share=lambda: share, monotonic=time.monotonic)
    try:
        yield shared
    finally:
        await shared.close()


def is_shared(shared: SharedBudgets) -> bool:
    return shared.is_shared


async def granted_within(budget: Budget, seconds: float, count: int) -> int:
    """How many reads are granted to somebody who asks for `count` at a time and waits as told."""
    granted, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        wait_s = await budget.take(count)
        if wait_s == 0:
            granted += count
        else:
            await asyncio.sleep(min(wait_s, max(0.0, end - time.monotonic())))
    return granted


async def until_shared(shared: SharedBudgets, budget: Budget) -> None:
    deadline = time.monotonic() + 60
    while not is_shared(shared):
        assert time.monotonic() < deadline, "Redis is up again and not used"
        await budget.take(1)
        await asyncio.sleep(0.05)


async def seconds_to_answer(budget: Budget) -> float:
    began = time.monotonic()
    await budget.take(1)
    return time.monotonic() - began


# -- one worker's own bucket


@given(
    asks=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 30)), min_size=1, max_size=60),
    rate=st.sampled_from([0.5, 3.0, 10.0]),
    burst=st.sampled_from([0.5, 5.0, 20.0]),
)
def test_a_bucket_grants_at_most_the_rate_and_one_burst(
    asks: list[tuple[float, int]], rate: float, burst: float
) -> None:
    bucket, now, grants = Bucket(), 0.0, list[tuple[float, int]]()
    largest = max(count for _, count in asks)
    for pause, count in asks:
        now += pause
        if bucket.take(now, count, rate, burst) == 0:
            grants.append((now, count))
    for first, (since, _) in enumerate(grants):
        total = 0
        for at, count in grants[first:]:
            total += count
            assert total <= max(burst, largest) + rate * (at - since) + 1e-6
    assert sum(count for _, count in grants) <= max(0.0, rate * now) + largest + 1e-6


@given(count=st.integers(1, 50), rate=st.sampled_from([0.5, 3.0, 10.0]), burst=st.sampled_from([0.5, 5.0, 20.0]))
def test_who_waits_as_told_is_granted(count: int, rate: float, burst: float) -> None:
    bucket, now = Bucket(), 100.0
    for _ in range(5):
        wait = bucket.take(now, count, rate, burst)
        assert wait <= max(burst, count) / rate + 1e-9
        if wait:
            now += wait + 1e-6
            assert bucket.take(now, count, rate, burst) == 0


# -- the shared one


@pytest.fixture(params=["real", "embedded"])
def any_redis(request: pytest.FixtureRequest) -> Iterator[str]:
    """The script must run in both."""
    if request.param == "real":
        yield request.getfixturevalue("redis_server").url
    else:
        with EmbeddedRedis() as server:
            yield server.url


async def test_a_burst_is_granted_at_once_and_then_the_rate(any_redis: str) -> None:
    async with budgets(any_redis) as shared:
        budget = shared.budget("crm", TargetLimits(reads_per_s=1, burst=20))
        assert [await budget.take(10) for _ in range(2)] == [0, 0]
        assert 7 < await budget.take(10) <= 10
        assert await budget.take(1) <= 1
        assert shared.is_shared
        assert budget.rate() == 1


async def test_targets_and_installations_have_budgets_of_their_own(redis_server: RedisServer) -> None:
    limits = TargetLimits(reads_per_s=0.01, burst=1)
    async with budgets(redis_server.url) as shared, budgets(redis_server.url, prefix="other.") as others:
        assert await shared.budget("crm", limits).take(1) == 0
        assert await shared.budget("erp", limits).take(1) == 0
        assert await others.budget("crm", limits).take(1) == 0
        assert await shared.budget("crm", limits).take(1) > 0


async def test_an_idle_budget_leaves_nothing_in_redis(redis_server: RedisServer) -> None:
    async with budgets(redis_server.url) as shared:
        assert await shared.budget("crm", TargetLimits(reads_per_s=1, burst=10)).take(10) == 0
    with redis.Redis.from_url(redis_server.url) as client:
        [key] = client.keys()
        assert 0 < client.pttl(key) <= 11_100, "a second longer than it owes"


async def test_a_debt_that_no_bucket_could_owe_is_cut(redis_server: RedisServer) -> None:
    """As after the server's clock was set back by a year."""
    async with budgets(redis_server.url) as shared:
        budget = shared.budget("crm", TargetLimits(reads_per_s=0.1, burst=20))
        assert await budget.take(1) == 0
        with redis.Redis.from_url(redis_server.url) as client:
            [key] = client.keys()
            client.set(key, int((time.time() + 365 * 86_400) * 1_000_000))
        assert 0 < await budget.take(1) <= 20


_IN_ANOTHER_PROCESS = """
import asyncio, sys, time
from streams.sampler.settings import TargetLimits
from tests.sampler.test_budget import budgets

async def main():
    async with budgets(sys.argv[1]) as shared:
        budget = shared.budget("crm", TargetLimits(reads_per_s=200, burst=20))
        print("ready", flush=True)
        sys.stdin.readline()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            wait_s = await budget.take(5)
            if wait_s:
                await asyncio.sleep(wait_s)
            else:
                print(time.monotonic())
        assert shared.is_shared

asyncio.run(main())
"""


def test_two_processes_together_get_what_one_may(redis_server: RedisServer) -> None:
    command = [sys.executable, "-c", _IN_ANOTHER_PROCESS, redis_server.url]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    granted = [[float(at) for at in process.communicate(timeout=60)[0].split()] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(granted), "both were granted something"
    instants = sorted(granted[0] + granted[1])  # the monotonic clock is the machine's
    # Of each process's notes in a stretch of time, only the first may be of a grant from before it; and Redis has a clock of
    # its own, which may be set right meanwhile.
    earlier, slewed = 2 * 5, 5
    for first, last in combinations(range(len(instants)), 2):
        reads = 5 * (last - first + 1)
        assert reads <= 20 + 200 * (instants[last] - instants[first]) + earlier + slewed
    assert 5 * len(instants) >= 0.3 * 200 * (instants[-1] - instants[0])


# -- when Redis is lost


async def test_without_redis_each_worker_keeps_to_its_share() -> None:
    async with budgets(None, share=0.25) as quarter, budgets(None, share=0.0) as nothing:
        budget = quarter.budget("crm", TargetLimits(reads_per_s=200, burst=20))
        assert budget.rate() == 50
        granted = await granted_within(budget, 1.0, 2)
        assert 10 <= granted <= 50 + 5
        assert await nothing.budget("crm", TargetLimits()).take(1) > 0


async def test_redis_killed_in_the_middle_costs_speed_and_comes_back() -> None:
    with RedisServer() as server:
        async with budgets(server.url, share=0.5) as shared:
            budget = shared.budget("crm", TargetLimits(reads_per_s=100, burst=10))
            assert await budget.take(10) == 0
            server.kill()
            began = time.monotonic()
            granted = await granted_within(budget, 1.0, 2)
            assert not is_shared(shared)
            assert budget.rate() == 50
            assert 8 <= granted <= 50 * (time.monotonic() - began) + 5 + 2
            server.start()
            await until_shared(shared, budget)
            assert budget.rate() == 100


async def test_a_redis_that_hangs_delays_one_question_and_not_every_one() -> None:
    with RedisServer() as server:
        async with budgets(server.url, retry_s=1.5, timeout_s=0.2) as shared:
            budget = shared.budget("crm", TargetLimits(reads_per_s=1_000, burst=10))
            await budget.take(1)
            await until_shared(shared, budget)
            assert server._process is not None
            server._process.pause()
            try:
                began = time.monotonic()
                await asyncio.gather(*(budget.take(1) for _ in range(50)))
                assert not is_shared(shared)
                assert time.monotonic() - began < 3, "all waited together for at most two time-outs"
                began = time.monotonic()
                for _ in range(5):
                    await budget.take(1)
                assert time.monotonic() - began < 1, "nobody asks again so soon"
                await asyncio.sleep(1.5)
                waited = await asyncio.gather(*(seconds_to_answer(budget) for _ in range(20)))
                assert sum(seconds > 0.19 for seconds in waited) == 1, (
                    "one finds out, and the others don't wait with it"
                )
            finally:
                server._process.resume()


async def test_each_loss_begins_without_a_burst() -> None:
    with RedisServer() as server:
        async with budgets(server.url) as shared:
            budget = shared.budget("crm", TargetLimits(reads_per_s=20, burst=10))
            for _ in range(2):
                assert await budget.take(10) == 0, "the burst of an empty Redis"
                server.kill()
                began = time.monotonic()
                granted = 0
                while time.monotonic() < began + 0.5:
                    granted += (await budget.take(1)) == 0
                    await asyncio.sleep(0.01)
                assert 0 < granted <= 20 * (time.monotonic() - began) + 1
                server.start()
                await asyncio.sleep(1.0)  # time enough for a bucket of our own to fill
                await until_shared(shared, budget)
                with redis.Redis.from_url(server.url) as client:
                    client.flushall()


async def test_another_value_under_the_key_is_no_error(redis_server: RedisServer) -> None:
    async with budgets(redis_server.url) as shared:
        budget = shared.budget("crm", TargetLimits(reads_per_s=100, burst=10))
        with redis.Redis.from_url(redis_server.url) as client:
            client.lpush("reconciler:sampler:budget:crm", "mischief")
        while await budget.take(1) > 0:
            await asyncio.sleep(0.01)
        assert not is_shared(shared)
