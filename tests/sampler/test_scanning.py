"""Scans: a whole target read page by page, which adds to what is known and takes nothing away."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from reconciler.contracts.model import Timing
from reconciler.machines.sampling import SamplingNeeds
from reconciler.records import Observation
from reconciler.targets.port import ScanPage
from reconciler.values.instant import SECOND
from streams.sampler.schedule import Pace, Schedule
from streams.sampler.settings import load_sampler_settings
from streams.sampler.timing import SampleTiming
from tests.sampler.web import ListingTarget, Mood, RecordServer, WebTarget
from tests.sampler.worker import (
    QUIET,
    FakeWorker,
    eventually,
    keys,
    kinds,
    metric,
    records,
    running,
    sampler_of,
    with_limits,
)

CALM = Timing(settle_s=0.2, sample_every_s=4)
NEVER = Timing(sample_every_s=1e9)
"""Within a test, that is: of an hour, some resource's moment may come during it."""
SCANNING = with_limits(scan_every_s=1)


async def test_what_a_scan_names_is_published_and_not_asked_about() -> None:
    async with RecordServer(records(200)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 100), QUIET))  # the other hundred are not ours
        sampler = sampler_of({"crm": ListingTarget("crm", server.url)}, timing=CALM, settings=SCANNING)
        async with running(sampler, worker):
            await eventually(lambda: metric(sampler, "scans_total", target="crm", end="complete") >= 1)
            asked = len(server.ids())
            await eventually(lambda: metric(sampler, "scans_total", target="crm", end="complete") >= 6)
            assert len(server.ids()) <= asked + 2, "a scan a second suffices for what is to be read every four seconds"
            assert metric(sampler, "lag_seconds", target="crm") < 0.5
        assert Counter(one.resource for one in worker.published) == Counter(keys("crm", 100))
        assert kinds(worker.published) == {True}
        # Those that were given up on a slow machine, and the one that goes on, name some too.
        most = 100 * (7 + sum(metric(sampler, "scans_total", target="crm", end=end) for end in ("failed", "late")))
        # What was asked about one by one at that moment doesn't count as the scan's.
        assert 6 * 100 - 100 <= metric(sampler, "scanned_total", target="crm", ours="yes") <= most
        assert metric(sampler, "scanned_total", target="crm", ours="no") >= 6 * 100


async def test_what_scans_dont_name_is_asked_about() -> None:
    async with RecordServer(records(50)) as server:
        server.page_size = 10  # even, so that every other record of a page is every other one of all
        server.mood = "partial"  # the list hides every other record, and an answer half of what was asked
        worker = FakeWorker(dict.fromkeys([*keys("crm", 50), "crm/record/none"], QUIET))
        # No breaker: reads that come before the first scan bring nothing, and would have the target left alone.
        settings = load_sampler_settings(**{**SCANNING.model_dump(), "breaker_failures": 1_000_000})
        sampler = sampler_of(
            {"crm": ListingTarget("crm", server.url, bulk_size=1)},
            timing=Timing(settle_s=0.2, sample_every_s=1),
            settings=settings,
        )
        async with running(sampler, worker):
            await eventually(lambda: len({one.resource for one in worker.published}) == 51)
            await eventually(lambda: metric(sampler, "scans_total", target="crm", end="complete") >= 2)
        hidden = {f"crm/record/{one}" for one in sorted(server.records)[1::2]}
        assert False not in kinds(worker.published), "what isn't in a list isn't absent"
        assert {one.resource for one in worker.published if one.exists is None} >= {*hidden, "crm/record/none"}


@pytest.mark.parametrize(("mood", "end"), [("failing", "failed"), ("silent", "failed")])
async def test_a_scan_that_fails_is_a_failed_read(mood: Mood, end: str) -> None:
    async with RecordServer(records(50)) as server:
        server.mood = mood
        worker = FakeWorker(dict.fromkeys(keys("crm", 50), QUIET))
        settings = with_limits(scan_every_s=0.4, timeout_s=0.3)
        sampler = sampler_of({"crm": ListingTarget("crm", server.url)}, timing=NEVER, settings=settings)
        async with running(sampler, worker):
            await eventually(lambda: metric(sampler, "scans_total", target="crm", end=end) >= 3)
            await eventually(lambda: metric(sampler, "breaker_state", target="crm", state="open") == 1)
            await eventually(lambda: metric(sampler, "scans_total", target="crm", end="breaker") >= 1)
            assert True not in kinds(worker.published)


async def test_two_answers_in_a_page_are_none() -> None:
    async with RecordServer(records(20)) as server:
        server.mood = "duplicate"
        worker = FakeWorker(dict.fromkeys(keys("crm", 20), QUIET))
        sampler = sampler_of({"crm": ListingTarget("crm", server.url)}, timing=NEVER, settings=SCANNING)
        async with running(sampler, worker):
            await eventually(lambda: metric(sampler, "scans_total", target="crm", end="complete") >= 2)
        assert True not in kinds(worker.published)


async def test_a_target_whose_pages_never_end_keeps_scans_within_their_period() -> None:
    class Endless(ListingTarget):
        async def scan(self, cursor: str | None) -> ScanPage:
            await asyncio.sleep(0.01)
            return ScanPage(observations=[], cursor="more")

    worker = FakeWorker(dict.fromkeys(keys("crm", 5), QUIET))
    sampler = sampler_of({"crm": Endless("crm", "http://127.0.0.1:9")}, timing=NEVER, settings=SCANNING)
    async with running(sampler, worker):
        await eventually(lambda: metric(sampler, "scans_total", target="crm", end="late") >= 2)


async def test_scans_keep_to_the_rate() -> None:
    async with RecordServer(records(300)) as server:
        server.page_size = 30
        worker = FakeWorker(dict.fromkeys(keys("crm", 300), QUIET))
        settings = with_limits(scan_every_s=0.5, reads_per_s=100, burst=10)
        sampler = sampler_of({"crm": ListingTarget("crm", server.url)}, timing=NEVER, settings=settings)
        async with running(sampler, worker):
            await eventually(lambda: server.pages >= 1)
            began, pages = time.monotonic(), server.pages
            await asyncio.sleep(2)
            elapsed = time.monotonic() - began
        assert 1 <= server.pages - pages <= (100 * elapsed + 10) / 30 + 2


async def test_a_target_that_cant_be_scanned_is_read_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async with RecordServer(records(5)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 5), QUIET))
        async with running(sampler_of({"crm": WebTarget("crm", server.url)}, settings=SCANNING), worker):
            await eventually(lambda: len(worker.published) == 5)
        assert "can't be scanned" in caplog.text


async def test_an_older_answer_never_follows_a_newer_one() -> None:
    """A page that was asked for before a read, and comes after it."""
    begun, release = asyncio.Event(), asyncio.Event()

    class Late(ListingTarget):
        async def scan(self, cursor: str | None) -> ScanPage:
            begun.set()
            await release.wait()
            old = Observation(resource="crm/record/1", exists=True, fields={"value": "old"})
            return ScanPage(observations=[old])

        async def observe(self, resources: Sequence[str]) -> list[Observation]:
            return [Observation(resource=one, exists=True, fields={"value": "new"}) for one in resources]

    worker = FakeWorker({"crm/record/1": QUIET})
    sampler = sampler_of({"crm": Late("crm", "http://127.0.0.1:9")}, timing=CALM, settings=SCANNING)
    async with running(sampler, worker):
        await begun.wait()
        worker.change(sampler, "crm/record/1", SamplingNeeds(open_drift="d"))
        await eventually(lambda: len(worker.published) >= 2)
        worker.change(sampler, "crm/record/1", QUIET)
        count = len(worker.published)
        release.set()
        await eventually(lambda: metric(sampler, "scans_total", target="crm", end="complete") == 1)
        told = worker.published[count:]
        assert [one for one in told if one.fields == {"value": "old"}] == []


def test_a_scanned_resource_gives_up_its_slot_for_as_long_as_scans_come() -> None:
    now, period = 1_777_777_777 * SECOND, 300 * SECOND
    timing = SampleTiming(period=period, settle=0, heartbeat=period)
    for every, latest in ((period, now + 3 * period // 2), (2 * period, now + period)):
        schedule = Schedule(Pace())
        schedule.put(0, "crm/record/1", QUIET, timing, now)
        seat = schedule.find("crm/record/1")
        assert seat is not None
        schedule.occupy(seat)
        assert schedule.find("crm/record/1") is None
        assert schedule.next_due() is None
        schedule.scanned(seat, now, now, every)
        due = schedule.next_due()
        assert due is not None
        assert due <= latest
        assert (due == latest) == (every == period)
