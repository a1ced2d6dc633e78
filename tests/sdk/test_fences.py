"""Fences on a real Redis, and without one."""

from __future__ import annotations

import logging
import os
import signal
import time

import pytest
import redis

from reconciler.sdk import fences
from reconciler.sdk.fences import AsyncRedisFence, RedisFence
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fences wait for an answer: where Redis is slow, they would say that nothing is fenced."""
    monkeypatch.setattr(fences, "_TIMEOUT_S", 30.0)


@pytest.mark.usefixtures("patient")
def test_a_fence_stands_until_it_is_lifted(redis_server: RedisServer) -> None:
    fence = RedisFence(redis_server.url)
    assert fence.is_fenced("run-7") is None
    fence.fence("run-7", "rolled back by ana")
    fence.fence("run-8", "")
    assert fence.is_fenced("run-7") == "rolled back by ana"
    assert fence.is_fenced("run-8") == ""
    assert fence.is_fenced("run-9") is None
    fence.lift("run-7")
    assert fence.is_fenced("run-7") is None
    fence.close()


@pytest.mark.usefixtures("patient")
async def test_both_kinds_see_the_same_fences(redis_server: RedisServer) -> None:
    fence, other = AsyncRedisFence(redis_server.url), RedisFence(redis_server.url)
    await fence.fence("run-7", "ärgerlich")
    assert other.is_fenced("run-7") == await fence.is_fenced("run-7") == "ärgerlich"
    await fence.lift("run-7")
    assert other.is_fenced("run-7") is await fence.is_fenced("run-7") is None
    await fence.close()
    other.close()


class Watch:
    """A clock that the test winds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_redis_actions_go_on_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()
    fence = RedisFence(f"redis://127.0.0.1:{free_port()}", monotonic=watch)
    with caplog.at_level(logging.WARNING):
        began = time.monotonic()
        for _ in range(1_000):
            assert fence.is_fenced("run-7") is None
            watch.now += 0.1
        assert time.monotonic() - began < 5
    assert caplog.text.count("fences can't be checked") == 1


def test_a_silent_redis_costs_a_fraction_of_a_second_and_is_asked_again(redis_server: RedisServer) -> None:
    watch = Watch()
    fence = RedisFence(redis_server.url, monotonic=watch)
    fence.fence("run-7", "rolled back")
    with redis.Redis.from_url(redis_server.url) as client:
        server_pid: int = client.info()["process_id"]
    os.kill(server_pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert fence.is_fenced("run-7") is None
        assert fence.is_fenced("run-7") is None
        assert time.monotonic() - began < 2
    finally:
        os.kill(server_pid, signal.SIGCONT)
    assert fence.is_fenced("run-7") is None
    watch.now += 6
    assert fence.is_fenced("run-7") == "rolled back"
    fence.close()


async def test_the_async_fence_degrades_alike(caplog: pytest.LogCaptureFixture) -> None:
    fence = AsyncRedisFence(f"redis://127.0.0.1:{free_port()}")
    with caplog.at_level(logging.WARNING):
        assert [await fence.is_fenced("run-7") for _ in range(50)] == [None] * 50
    assert caplog.text.count("fences can't be checked") == 1
    await fence.close()
