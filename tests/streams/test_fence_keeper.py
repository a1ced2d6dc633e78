"""Fences follow the rollbacks: set from their first moment, lifted when they are called off, set again in an emptied Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from reconciler.machines.protocol import HistoryReader
from reconciler.machines.rollback import Head
from reconciler.records import RollbackRequest, RollbackStatus, Selector
from reconciler.sdk import fences
from reconciler.sdk.fences import KEEP_S, RedisFence
from reconciler.values.instant import SECOND
from streams import fence_keeper
from streams.fence_keeper import FenceKeeper
from streams.settings import load_settings
from streams.worker_services import Headers, PartitionNotOwned
from tests.support.redis_server import RedisServer


class Worker:
    """Implements `WorkerContext` over some heads, all in partition 0."""

    def __init__(self, *heads: Head) -> None:
        self.settings = load_settings(data_dir=Path("unused"))
        self.registry = CollectorRegistry()
        self.partitions = frozenset({0})
        self._heads = {head.rollback_id: head for head in heads}

    def heads(self, partition: int) -> Iterator[tuple[str, object]]:
        if partition not in self.partitions:
            raise PartitionNotOwned(str(partition))
        yield from self._heads.items()

    def head(self, partition: int, resource: str) -> object | None:
        return self._heads.get(resource)

    def history(self, partition: int, resource: str) -> HistoryReader:
        raise AssertionError

    def consumed(self, partition: int, topic: str) -> int:
        raise AssertionError

    def partition_of(self, resource: str) -> int:
        return 0

    async def publish(self, topic: str, key: str, value: bytes, headers: Headers = ()) -> None:
        raise AssertionError


def head(rollback_id: str, run_id: str, status: RollbackStatus = "executing", **fields: Any) -> Head:
    request = RollbackRequest(
        rollback_id=rollback_id,
        select=Selector(run_id=run_id),
        mode="execute",
        requested_at=round(time.time() * SECOND),
    )
    given: dict[str, Any] = {"rollback_id": rollback_id, "request": request, "status": status, "mode": "execute"}
    return Head(**given | fields)


@asynccontextmanager
async def keeping(url: str, *heads: Head) -> AsyncIterator[FenceKeeper]:
    keeper = FenceKeeper(url, set_again_every_s=0.1)
    task = asyncio.create_task(keeper.run(Worker(*heads)))
    try:
        yield keeper
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], deadline_s: float = 60) -> None:
    end = time.monotonic() + deadline_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, "it didn't come"
        await asyncio.sleep(0.02)


@pytest.fixture
def fence(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisFence]:
    """One that waits for an answer: where Redis is slow, it would say that nothing is fenced."""
    monkeypatch.setattr(fences, "_TIMEOUT_S", 30.0)
    fence = RedisFence(redis_server.url)
    yield fence
    fence.close()


async def test_fences_are_set_from_what_the_table_holds(redis_server: RedisServer, fence: RedisFence) -> None:
    live, planned = head("rb-1", "run-7"), head("rb-2", "run-8", mode="plan")
    over = head("rb-3", "run-9", "completed")
    async with keeping(redis_server.url, live, planned, over):
        await until(lambda: fence.is_fenced("run-9") is not None)
        assert fence.is_fenced("run-7") == "it is rolled back (rb-1)"
        assert fence.is_fenced("run-8") is None
    assert fence.is_fenced("run-7") is not None, "a worker that stops leaves the fences standing"


async def test_a_rollback_that_is_called_off_lifts_its_fence(redis_server: RedisServer, fence: RedisFence) -> None:
    async with keeping(redis_server.url) as keeper:
        keeper.on_touched(0, {"rb-1": head("rb-1", "run-7", "gathering")})
        await until(lambda: fence.is_fenced("run-7") is not None)
        keeper.on_touched(0, {"rb-1": head("rb-1", "run-7", "cancelled")})
        await until(lambda: fence.is_fenced("run-7") is None)


async def test_a_run_that_another_rollback_still_fences_stays_fenced(
    redis_server: RedisServer, fence: RedisFence
) -> None:
    async with keeping(redis_server.url, head("rb-1", "run-7"), head("rb-2", "run-7")) as keeper:
        await until(lambda: fence.is_fenced("run-7") is not None)
        keeper.on_touched(0, {"rb-1": head("rb-1", "run-7", "rejected"), "rb-3": head("rb-3", "run-8")})
        await until(lambda: fence.is_fenced("run-8") is not None)
        assert fence.is_fenced("run-7") == "it is rolled back (rb-2)"


async def test_an_emptied_redis_has_its_fences_back(redis_server: RedisServer, fence: RedisFence) -> None:
    async with keeping(redis_server.url, head("rb-1", "run-7")):
        await until(lambda: fence.is_fenced("run-7") is not None)
        redis_server.flush()
        await until(lambda: fence.is_fenced("run-7") is not None)


async def test_without_redis_it_goes_on_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async with keeping("redis://127.0.0.1:1/0", head("rb-1", "run-7")) as keeper:
        await until(lambda: "fences can't be kept" in caplog.text)
        keeper.on_touched(0, {"rb-2": head("rb-2", "run-8")})
        await until(lambda: not keeper._touched)
    assert caplog.text.count("fences can't be kept") == 1


async def test_what_was_rolled_back_long_ago_is_not_fenced_for_ever(
    redis_server: RedisServer, fence: RedisFence
) -> None:
    old = head("rb-1", "run-7", "completed")
    assert old.request is not None
    long_ago = round((time.time() - KEEP_S - 60) * SECOND)
    request = RollbackRequest(rollback_id="rb-1", select=old.request.select, mode="execute", requested_at=long_ago)
    aged = Head(rollback_id="rb-1", request=request, status="completed", mode="execute")
    async with keeping(redis_server.url, aged, head("rb-2", "run-8")):
        await until(lambda: fence.is_fenced("run-8") is not None)
        assert fence.is_fenced("run-7") is None


async def test_revoked_partitions_are_left_to_their_next_owner(redis_server: RedisServer, fence: RedisFence) -> None:
    async with keeping(redis_server.url, head("rb-1", "run-7")) as keeper:
        await until(lambda: fence.is_fenced("run-7") is not None)
        keeper.on_revoked(frozenset({0}))
        redis_server.flush()
        keeper.on_touched(1, {"rb-2": head("rb-2", "run-8")})
        await until(lambda: fence.is_fenced("run-8") is not None)
        assert fence.is_fenced("run-7") is None


class Forgetful:
    """A fence whose client loses a cancellation, as Redis' does on Python 3.11 once in a while."""

    def __init__(self, url: str) -> None:
        self.is_asked = asyncio.Event()
        self.clients.append(self)

    clients: list[Forgetful] = []

    async def fence(self, run_id: str, reason: str) -> None:
        self.is_asked.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    async def lift(self, run_id: str) -> None:
        raise AssertionError

    async def close(self) -> None: ...


async def test_it_ends_although_its_client_loses_the_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence_keeper, "AsyncRedisFence", Forgetful)
    monkeypatch.setattr(Forgetful, "clients", [])
    task = asyncio.create_task(FenceKeeper("redis://unused").run(Worker(head("rb-1", "run-7"))))
    await until(lambda: bool(Forgetful.clients) and Forgetful.clients[0].is_asked.is_set())
    task.cancel()
    ended, _ = await asyncio.wait([task], timeout=60)
    assert ended and task.cancelled()
