"""Slots: so many reads at a time, in all processes that share them."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from reconciler.machines.sampling import SamplingNeeds
from streams.sampler.slots import SharedSlots
from tests.sampler.web import RecordServer, WebTarget
from tests.sampler.worker import FakeWorker, eventually, keys, records, running, sampler_of, with_limits

HOLDER = """
import asyncio, pathlib, sys
from streams.sampler.slots import SharedSlots

async def main():
    slots = SharedSlots(pathlib.Path(sys.argv[1]), "crm", 1)
    await slots.acquire()
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def is_waiting(task: asyncio.Task[None]) -> bool:
    """Whether it still waits after it has had its turn."""
    await asyncio.sleep(0.1)
    return not task.done()


async def test_so_many_at_a_time_whoever_holds_them(tmp_path: Path) -> None:
    here, there = SharedSlots(tmp_path, "crm", 2), SharedSlots(tmp_path, "crm", 2)
    await here.acquire()
    await there.acquire()
    third = asyncio.create_task(here.acquire())
    assert await is_waiting(third)
    there.release()
    await asyncio.wait_for(third, 10)
    here.release()
    here.release()


async def test_one_target_keeps_no_other_waiting(tmp_path: Path) -> None:
    one, other = SharedSlots(tmp_path, "crm/a", 1), SharedSlots(tmp_path, "crm%2Fa", 1)
    await one.acquire()
    await asyncio.wait_for(other.acquire(), 10)


async def test_who_gives_a_slot_back_and_wants_it_again_waits_behind_the_others(tmp_path: Path) -> None:
    here, there = SharedSlots(tmp_path, "crm", 1), SharedSlots(tmp_path, "crm", 1)
    await here.acquire()
    other = asyncio.create_task(there.acquire())
    assert await is_waiting(other)
    here.release()
    again = asyncio.create_task(here.acquire())
    await asyncio.wait_for(other, 10)
    assert await is_waiting(again)
    there.release()
    await asyncio.wait_for(again, 10)


async def test_who_stops_waiting_keeps_nobody_from_it(tmp_path: Path) -> None:
    here, there = SharedSlots(tmp_path, "crm", 1), SharedSlots(tmp_path, "crm", 1)
    await here.acquire()
    waiting = asyncio.create_task(there.acquire())
    assert await is_waiting(waiting)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    here.release()
    await asyncio.wait_for(here.acquire(), 10)


async def test_a_process_that_is_killed_gives_its_slot_back(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    assert holder.stdout is not None
    assert await asyncio.wait_for(holder.stdout.readline(), 30) == b"held\n"
    waiting = asyncio.create_task(SharedSlots(tmp_path, "crm", 1).acquire())
    assert await is_waiting(waiting)
    holder.kill()
    await asyncio.wait_for(waiting, 10)
    await holder.wait()


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_two_samplers_together_read_no_more_at_a_time_than_one(tmp_path: Path, concurrency: int) -> None:
    async with RecordServer(records(80)) as server:
        server.mood, server.slow_s = "slow", 0.03
        target = WebTarget("crm", server.url, bulk_size=4)
        samplers = [
            sampler_of({"crm": target}, settings=with_limits(concurrency=concurrency), slots_of=slots)
            for slots in (partial(SharedSlots, tmp_path), partial(SharedSlots, tmp_path))
        ]
        wants = dict.fromkeys(keys("crm", 80), SamplingNeeds(open_drift="d"))
        workers = [FakeWorker(wants) for _ in samplers]
        workers[0].owned, workers[1].owned = frozenset({0, 1}), frozenset({2, 3})
        async with running(samplers[0], workers[0]), running(samplers[1], workers[1]):
            await eventually(lambda: len({found.resource for each in workers for found in each.published}) == 80)
        assert server.most_at_once == concurrency


async def test_one_that_has_nothing_to_read_keeps_no_slot_from_the_other(tmp_path: Path) -> None:
    async with RecordServer(records(20)) as server:
        target = WebTarget("crm", server.url)
        idle, busy = (
            sampler_of({"crm": target}, settings=with_limits(concurrency=1), slots_of=partial(SharedSlots, tmp_path))
            for _ in range(2)
        )
        worker = FakeWorker(dict.fromkeys(keys("crm", 20), SamplingNeeds(open_drift="d")))
        async with running(idle, FakeWorker({})):
            await asyncio.sleep(0.1)
            async with running(busy, worker):
                await eventually(lambda: len({found.resource for found in worker.published}) == 20)
