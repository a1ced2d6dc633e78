"""Two samplers in two processes ask one target no more than it can bear, with Redis, without it, and as it goes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.wire.partition import partition_of
from tests.sampler.web import RecordServer
from tests.sampler.worker import eventually, records
from tests.support.redis_server import RedisServer

RATE, BURST, BULK, CONCURRENCY = 60, 10, 5, 2
UNDER_WAY = 2 * CONCURRENCY * BULK
"""What both may have asked for already and not been seen to."""

_WORKER = """
import asyncio, sys
from reconciler.machines.sampling import SamplingNeeds
from tests.sampler.test_two_workers import BULK, BURST, CONCURRENCY, RATE
from tests.sampler.web import WebTarget
from tests.sampler.worker import FakeWorker, keys, running, sampler_of, with_limits

async def main(url, redis_url, partitions):
    worker = FakeWorker(dict.fromkeys(keys("crm", 400), SamplingNeeds(open_drift="d")), redis_url=redis_url)
    worker.owned = frozenset(map(int, partitions.split(",")))
    settings = with_limits(reads_per_s=RATE, burst=BURST, concurrency=CONCURRENCY)
    async with running(sampler_of({"crm": WebTarget("crm", url, bulk_size=BULK)}, settings=settings), worker):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def worker_process(url: str, redis_url: str, partitions: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, url, redis_url, partitions, stdin=asyncio.subprocess.PIPE
    )
    try:
        yield
        assert process.returncode is None
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 30)


async def reads_during(server: RecordServer, seconds: float) -> tuple[int, float]:
    """How many records were read from now on, and in how many seconds."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return server.reads(since=began), time.monotonic() - began


async def test_the_rate_is_one_for_both_and_losing_redis_costs_speed_alone() -> None:
    async with RecordServer(records(400)) as server:
        with RedisServer() as redis_server:
            url, redis_url = server.url, redis_server.url
            async with worker_process(url, redis_url, "0,1"), worker_process(url, redis_url, "2,3"):
                await eventually(lambda: set(map(owner, server.ids())) == {0, 1})
                reads, elapsed = await reads_during(server, 2.5)
                assert reads <= RATE * elapsed + BURST + UNDER_WAY
                assert reads >= 0.4 * RATE * elapsed, "what may be read is read"

                redis_server.kill()
                await asyncio.sleep(0.5)
                reads, elapsed = await reads_during(server, 2.5)
                assert reads <= RATE * elapsed + BURST + UNDER_WAY
                assert reads >= 0.4 * RATE * elapsed, "each keeps to its share, and the shares add up"
                assert set(map(owner, server.ids()[-reads:])) == {0, 1}

                redis_server.start()
                await asyncio.sleep(0.5)
                reads, elapsed = await reads_during(server, 2.0)
                assert reads <= RATE * elapsed + 2 * BURST + UNDER_WAY, "the new Redis knows of no debt"
                assert reads >= 0.4 * RATE * elapsed


def owner(number: str) -> int:
    """Which of the two workers owns a record."""
    return partition_of(f"crm/record/{number}".encode(), 4) // 2
