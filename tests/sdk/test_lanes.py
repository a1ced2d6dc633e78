from __future__ import annotations

import asyncio

from reconciler.sdk.consumer.lanes import Lanes, Places


async def test_one_key_keeps_its_order_and_others_dont_wait() -> None:
    done: list[tuple[str, int]] = []
    gate = asyncio.Event()

    async def work(job: tuple[str, int]) -> None:
        if job == ("slow", 0):
            await gate.wait()
        done.append(job)

    lanes = Lanes(work)
    for number in range(3):
        lanes.add("slow", ("slow", number))
        lanes.add("quick", ("quick", number))
    while len(done) < 3:
        await asyncio.sleep(0)
    assert done == [("quick", 0), ("quick", 1), ("quick", 2)]
    gate.set()
    while len(done) < 6:
        await asyncio.sleep(0)
    assert done[3:] == [("slow", 0), ("slow", 1), ("slow", 2)]
    assert not lanes._queues


async def test_places_are_given_in_turn() -> None:
    places = Places(2)
    assert await places.take() and await places.take()
    waiting = asyncio.create_task(places.take())
    await asyncio.sleep(0.01)
    assert not waiting.done() and places.taken == 2
    await places.give_back(was_stuck=False)
    assert await waiting


async def test_nobody_waits_for_places_that_may_never_come_free() -> None:
    places = Places(2)
    assert await places.take() and await places.take()
    waiting = asyncio.create_task(places.take())
    await places.stick()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await places.stick()
    assert await waiting is False
    assert await places.take() is False
    await places.give_back(was_stuck=True)
    assert await places.take()
