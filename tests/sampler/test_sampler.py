"""The sampler as it runs in a worker, against a real web server that is well, slow, silent, failing or lying."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from reconciler.contracts.model import Timing
from reconciler.machines.sampling import SamplingNeeds
from reconciler.records import Observation
from reconciler.targets.memory import MemoryTarget
from reconciler.values.instant import SECOND
from streams.sampler.settings import load_sampler_settings
from streams.worker_services import WorkerContext, WorkerService
from tests.sampler.web import Mood, RecordServer, WebTarget
from tests.sampler.worker import (
    FAST,
    HASTY,
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

RARELY = Timing(settle_s=0.2, sample_every_s=1e9)
"""So rarely that within a test only what is urgent is read: of an hour, each resource's moment may come during the test."""


def wall() -> int:
    return time.time_ns() // 1_000


# -- what is read and published


async def test_everything_is_read_once_a_period_and_published_once() -> None:
    async with RecordServer(records(25)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 25), QUIET))
        sampler = sampler_of({"crm": WebTarget("crm", server.url)})
        began = wall()
        async with running(sampler, worker):
            await eventually(lambda: min(Counter(server.ids()).values(), default=0) >= 3 and len(server.ids()) >= 75)
            await eventually(lambda: metric(sampler, "unchanged_total", target="crm") >= 50)
            await eventually(lambda: metric(sampler, "resources", target="crm") == 25)
        assert Counter(observation.resource for observation in worker.published) == Counter(keys("crm", 25))
        assert all(len(ids) <= 10 for _, ids in server.asked)
        assert max(Counter(server.ids()).values()) <= 2 + 2 * (wall() - began) / SECOND
        for observation in worker.published:
            assert observation.fields == server.records[observation.resource.split("/")[2]]
            assert observation.observed_at is not None
            assert began <= observation.observed_at <= wall()
        assert metric(sampler, "published_total", target="crm", why="first") == 25


async def test_what_changed_at_the_target_is_published() -> None:
    async with RecordServer(records(5)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 5), QUIET))
        async with running(sampler_of({"crm": WebTarget("crm", server.url)}), worker):
            await eventually(lambda: len(worker.published) == 5)
            server.records["3"] = {"name": "other"}
            await eventually(lambda: len(worker.published) == 6)
        assert worker.published[-1].resource == "crm/record/3"
        assert worker.published[-1].fields == {"name": "other"}


async def test_a_write_is_looked_at_when_it_has_settled_and_published_though_the_target_ignored_it() -> None:
    async with RecordServer(records(3)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 3), QUIET))
        sampler = sampler_of({"crm": WebTarget("crm", server.url)})
        async with running(sampler, worker):
            await eventually(lambda: len(worker.published) == 3)
            written_at = wall()
            worker.change(sampler, "crm/record/1", SamplingNeeds(last_write_at=written_at))
            await eventually(lambda: len(worker.published) == 4)
            after = worker.published[-1]
            assert after.resource == "crm/record/1"
            assert (after.observed_at or 0) >= written_at + 0.2 * SECOND
            assert metric(sampler, "published_total", target="crm", why="written") == 1
            reads = len(server.ids())
            await eventually(lambda: len(server.ids()) > reads + 6)
        assert len(worker.published) == 4


async def test_open_drift_is_looked_at_again_and_again_and_published_each_time() -> None:
    async with RecordServer(records(50)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 50), QUIET))
        sampler = sampler_of({"crm": WebTarget("crm", server.url)}, timing=RARELY)
        async with running(sampler, worker):
            worker.change(sampler, "crm/record/7", SamplingNeeds(open_drift="d1"))
            await eventually(lambda: len(worker.of("crm/record/7")) >= 3)
            instants = [observation.observed_at or 0 for observation in worker.of("crm/record/7")]
            assert instants == sorted(instants)
            assert len(set(instants)) == len(instants)
            worker.change(sampler, "crm/record/7", QUIET)
            await asyncio.sleep(0.3)
            await eventually(lambda: server.at_once == 0)
            await asyncio.sleep(0.2)
            count = len(worker.published)
            await asyncio.sleep(1)
            assert len(worker.published) == count
        assert set(server.ids()) <= {"7", *(observation.resource.split("/")[2] for observation in worker.published)}


async def test_nothing_that_is_not_watched_or_has_no_target_is_read(caplog: pytest.LogCaptureFixture) -> None:
    async with RecordServer(records(3)) as server:
        states = {"crm/record/1": QUIET, "crm/record/2": SamplingNeeds(watched=False), "erp/record/1": QUIET}
        worker = FakeWorker(states)
        sampler = sampler_of({"crm": WebTarget("crm", server.url)})
        async with running(sampler, worker):
            await eventually(lambda: len(server.ids()) >= 3)
            await eventually(lambda: metric(sampler, "systems_without_target") == 1)
        assert set(server.ids()) == {"1"}
        assert "no target is configured for the system 'erp'" in caplog.text


async def test_a_system_whose_name_is_encoded_finds_its_target() -> None:
    target = MemoryTarget("a b")
    target.put("a%20b/record/1", {"x": 1})
    worker = FakeWorker({"a%20b/record/1": QUIET})
    async with running(sampler_of({"a b": target}), worker):
        await eventually(lambda: kinds(worker.published) == {True})


async def test_what_is_gone_is_absent_and_what_comes_back_is_present() -> None:
    target = MemoryTarget("crm")
    target.put("crm/record/1", {"x": 1})
    worker = FakeWorker({"crm/record/1": QUIET})
    async with running(sampler_of({"crm": target}), worker):
        await eventually(lambda: len(worker.published) == 1)
        target.remove("crm/record/1")
        await eventually(lambda: len(worker.published) == 2)
        target.put("crm/record/1", {"x": 1})
        await eventually(lambda: len(worker.published) == 3)
    assert [observation.exists for observation in worker.published] == [True, False, True]


async def test_the_same_is_said_again_with_the_heartbeat() -> None:
    async with RecordServer(records(2)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 2), QUIET))
        settings = load_sampler_settings(**{**with_limits().model_dump(), "heartbeat_periods": 2})
        sampler = sampler_of({"crm": WebTarget("crm", server.url)}, settings=settings)
        async with running(sampler, worker):
            await eventually(lambda: metric(sampler, "published_total", target="crm", why="heartbeat") >= 2)


# -- what goes wrong at the target


@pytest.mark.parametrize(
    ("mood", "result", "reason"),
    [
        ("silent", "timeout", "The target gave no answer within 0.5 s."),
        ("failing", "failed", "The adapter failed: ClientError: HTTP 503"),
        ("garbage", "failed", "The adapter failed: JSONDecodeError"),
        ("empty", "missing", "The answer of the target says nothing about this resource."),
        ("another", "missing", "The answer of the target says nothing about this resource."),
        ("duplicate", "duplicate", "The target answered more than once about this resource."),
    ],
)
async def test_what_goes_wrong_is_unknown_once_with_its_reason_and_never_absent(
    mood: Mood, result: str, reason: str
) -> None:
    async with RecordServer(records(5)) as server:
        server.mood = mood
        worker = FakeWorker(dict.fromkeys(keys("crm", 5), QUIET))
        settings = with_limits(timeout_s=0.5 if mood == "silent" else 20.0)
        sampler = sampler_of({"crm": WebTarget("crm", server.url)}, settings=settings)
        async with running(sampler, worker):
            await eventually(lambda: len(worker.published) == 5)
            await eventually(lambda: metric(sampler, "observations_total", target="crm", result=result) >= 7)
            assert len(worker.published) == 5, "once, however often it fails"
            assert {(one.exists, *one.fields) for one in worker.published} == {(None,)}
            assert all((one.reason or "").startswith(reason) for one in worker.published)
            server.mood = "well"
            await eventually(lambda: len(worker.published) == 10)
        assert kinds(worker.published[5:]) == {True}
        assert metric(sampler, "stray_answers_total", target="crm") >= (5 if mood == "another" else 0)


async def test_of_a_partial_answer_the_rest_is_unknown() -> None:
    async with RecordServer(records(10)) as server:
        server.mood = "partial"
        # All are due at one instant, so that they are asked about in one bulk.
        worker = FakeWorker(dict.fromkeys(keys("crm", 10), SamplingNeeds(last_write_at=wall() + 2 * SECOND)))
        async with running(sampler_of({"crm": WebTarget("crm", server.url)}, timing=RARELY), worker):
            await eventually(lambda: len({one.resource for one in worker.published}) == 10)
        assert kinds(worker.published) == {True, None}


async def test_one_record_that_makes_every_bulk_fail_doesnt_blind_the_target() -> None:
    async with RecordServer(records(20)) as server:
        server.mood, server.poison = "poisoned", frozenset({"13"})
        worker = FakeWorker(dict.fromkeys(keys("crm", 20), QUIET))
        sampler = sampler_of({"crm": WebTarget("crm", server.url, bulk_size=20)})
        async with running(sampler, worker):
            await eventually(lambda: len({one.resource for one in worker.published if one.exists}) == 19)
            since = len(server.asked)
            await eventually(lambda: len(server.asked) > since + 60)
            assert metric(sampler, "breaker_state", target="crm", state="closed") == 1
        assert kinds(worker.of("crm/record/13")) == {None}
        assert len(worker.of("crm/record/13")) == 1


async def test_the_breaker_leaves_a_dead_target_alone_and_finds_it_again() -> None:
    async with RecordServer(records(40)) as server:
        await server.stop()
        worker = FakeWorker(dict.fromkeys(keys("crm", 40), QUIET))
        sampler = sampler_of({"crm": WebTarget("crm", server.url, bulk_size=1)})
        async with running(sampler, worker):
            await eventually(lambda: metric(sampler, "breaker_state", target="crm", state="open") == 1)
            failed = metric(sampler, "observations_total", target="crm", result="failed")
            began = time.monotonic()
            await asyncio.sleep(1.2)
            probes = metric(sampler, "observations_total", target="crm", result="failed") - failed
            most = 3 + (time.monotonic() - began) / 0.3
            assert 1 <= probes <= most, "one probe a pause, of 0.1 s at first and then up to 0.3 s"
            await eventually(lambda: metric(sampler, "lag_seconds", target="crm") > 0.5)
            await server.start()
            await eventually(lambda: len({one.resource for one in worker.published if one.exists}) == 40)
            await eventually(lambda: metric(sampler, "breaker_state", target="crm", state="closed") == 1)


async def test_many_records_that_always_fail_dont_pass_for_a_dead_target(caplog: pytest.LogCaptureFixture) -> None:
    async with RecordServer(records(14)) as server:
        server.mood, server.poison = "poisoned", frozenset(str(number) for number in range(2, 14))
        worker = FakeWorker(dict.fromkeys(keys("crm", 14), QUIET))
        sampler = sampler_of({"crm": WebTarget("crm", server.url, bulk_size=1)})
        async with running(sampler, worker):
            await eventually(lambda: len(Counter(server.ids())) == 14 and min(Counter(server.ids()).values()) >= 4)
            caplog.clear()
            since = len(server.asked)
            await eventually(lambda: len(server.asked) > since + 60)
        assert "is left alone" not in caplog.text
        assert {one.resource for one in worker.published if one.exists} == {"crm/record/0", "crm/record/1"}


async def test_whether_a_dead_target_answers_again_is_tried_with_one_record() -> None:
    async with RecordServer(records(40)) as server:
        server.mood = "failing"
        # All are due at one instant, so that a bulk would be full.
        worker = FakeWorker(dict.fromkeys(keys("crm", 40), SamplingNeeds(last_write_at=wall() + 2 * SECOND)))
        settings = load_sampler_settings(**{**with_limits(concurrency=1).model_dump(), "breaker_failures": 1})
        async with running(sampler_of({"crm": WebTarget("crm", server.url)}, timing=RARELY, settings=settings), worker):
            await eventually(lambda: len(server.asked) >= 3)
            server.mood = "well"
            await eventually(lambda: len({one.resource for one in worker.published if one.exists}) == 40)
        assert [len(ids) for _, ids in server.asked[:3]] == [10, 1, 1]
        assert max(len(ids) for _, ids in server.asked[4:]) > 1


async def test_an_adapter_that_heeds_no_cancellation_holds_up_nobody() -> None:
    release = asyncio.Event()

    class Stubborn(MemoryTarget):
        async def observe(self, resources: Sequence[str]) -> list[Observation]:
            if list(resources) == ["crm/record/0"]:
                while not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        continue
            return await super().observe(resources)

    target = Stubborn("crm")
    for key in keys("crm", 3):
        target.put(key, {"x": 1})
    worker = FakeWorker(dict.fromkeys(keys("crm", 3), QUIET))
    settings = with_limits(timeout_s=0.1, concurrency=1, burst=1)
    sampler = sampler_of({"crm": target}, settings=settings)
    async with running(sampler, worker):
        await eventually(lambda: len({one.resource for one in worker.published}) == 3)
        await eventually(lambda: metric(sampler, "abandoned_reads", target="crm") >= 2)
        assert kinds(worker.of("crm/record/0")) == {None}
        release.set()
        await eventually(lambda: metric(sampler, "abandoned_reads", target="crm") == 0)
        await eventually(lambda: kinds(worker.of("crm/record/0")) == {None, True})


async def test_an_adapter_that_cancels_itself_is_a_failed_read() -> None:
    class Suicidal(MemoryTarget):
        async def observe(self, resources: Sequence[str]) -> list[Observation]:
            raise asyncio.CancelledError

    worker = FakeWorker({"crm/record/1": QUIET})
    async with running(sampler_of({"crm": Suicidal("crm")}), worker):
        await eventually(lambda: len(worker.published) == 1)
    assert worker.published[0].reason == "The adapter cancelled the read by itself."


# -- isolation and bounds


async def test_dead_and_slow_targets_delay_neither_the_others_nor_the_event_loop() -> None:
    async with (
        RecordServer(records(200)) as dead,
        RecordServer(records(200)) as slow,
        RecordServer(records(200)) as well,
    ):
        dead.mood, slow.mood = "silent", "slow"
        servers = {"dead": dead, "slow": slow, "well": well}
        targets = {system: WebTarget(system, server.url, bulk_size=20) for system, server in servers.items()}
        worker = FakeWorker({key: QUIET for system in targets for key in keys(system, 200)})
        # No breaker: the dead one is asked again and again, and each read takes its time-out.
        settings = load_sampler_settings(**{**with_limits(timeout_s=3).model_dump(), "breaker_failures": 1_000_000})
        sampler = sampler_of(targets, settings=settings)
        longest_turn_s = 0.0
        gc.collect()
        gc.freeze()  # a search for garbage among what all the tests before have left would count as a turn

        async def folding() -> None:
            nonlocal longest_turn_s
            while True:
                before = time.thread_time()  # processor time: what other processes take doesn't count
                await asyncio.sleep(0.005)
                longest_turn_s = max(longest_turn_s, time.thread_time() - before)

        other = asyncio.create_task(folding())
        async with running(sampler, worker):
            began = time.monotonic()
            await eventually(lambda: len(c := Counter(well.ids())) == 200 and min(c.values()) >= 4)
            elapsed = time.monotonic() - began
            await eventually(lambda: len({one.resource for one in worker.published if one.exists}) == 400)
            await eventually(lambda: any(one.resource.startswith("dead/") for one in worker.published))
        other.cancel()
        gc.unfreeze()
        assert elapsed < 40, "one after the other, the forty reads would wait for as many time-outs of three seconds"
        assert {one.exists for one in worker.published if one.resource.startswith("slow/")} == {True}
        assert {one.exists for one in worker.published if one.resource.startswith("dead/")} == {None}
        assert longest_turn_s < 0.1


async def test_reads_at_a_time_are_bounded() -> None:
    async with RecordServer(records(100)) as server:
        server.mood, server.slow_s = "slow", 0.1
        worker = FakeWorker(dict.fromkeys(keys("crm", 100), SamplingNeeds(open_drift="d")))
        settings = with_limits(concurrency=3)
        async with running(sampler_of({"crm": WebTarget("crm", server.url, bulk_size=5)}, settings=settings), worker):
            await eventually(lambda: len(server.asked) >= 20)
        assert server.most_at_once == 3


async def test_the_rate_is_bounded() -> None:
    async with RecordServer(records(300)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 300), SamplingNeeds(open_drift="d")))
        settings = with_limits(reads_per_s=50, burst=10)
        sampler = sampler_of({"crm": WebTarget("crm", server.url, bulk_size=100)}, settings=settings)
        began = time.monotonic()
        async with running(sampler, worker):
            await asyncio.sleep(2)
            elapsed = time.monotonic() - began
            assert 0.3 * 50 * 2 <= server.reads() <= 50 * elapsed + 10
            assert max(len(ids) for _, ids in server.asked) == 10, "no bulk is larger than the burst"
            assert metric(sampler, "budget_wait_seconds_total", target="crm") > 0
            await eventually(lambda: metric(sampler, "lag_seconds", target="crm") > 0.5)


# -- partitions that come and go


async def test_a_revoked_partition_is_not_read_again_and_what_was_being_read_is_not_published() -> None:
    async with RecordServer(records(60)) as server:
        server.mood, server.slow_s = "slow", 0.3
        worker = FakeWorker(dict.fromkeys(keys("crm", 60), SamplingNeeds(open_drift="d")))
        sampler = sampler_of({"crm": WebTarget("crm", server.url)}, settings=with_limits(concurrency=4))
        async with running(sampler, worker):
            await eventually(lambda: server.at_once == 4)
            # Which are being read is the sampler's own choice. What of them is lost leaves others to be read.
            reading = sorted(f"crm/record/{number}" for number in server.being_read())
            gone = frozenset(sorted({worker.partition_of(key) for key in reading})[:2])
            lost = [key for key in reading if worker.partition_of(key) in gone]
            assert lost and gone < worker.owned
            worker.revoke(sampler, gone)
            begun, published = len(server.asked), len(worker.published)
            for key in lost:
                worker.change(sampler, key, SamplingNeeds(open_drift="late"))
                sampler.on_touched(worker.partition_of(key), {key: SamplingNeeds(open_drift="late")})
            await eventually(lambda: len(server.asked) >= begun + 20)
        assert not [one for one in server.ids(begun) if worker.partition_of(f"crm/record/{one}") in gone]
        assert not [one for one in worker.published[published:] if worker.partition_of(one.resource) in gone]
        assert len(worker.published) > published


async def test_a_partition_that_is_assigned_is_read_and_one_that_comes_back_is_not_told_again() -> None:
    async with RecordServer(records(40)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 40), QUIET))
        worker.owned = frozenset({0})
        sampler = sampler_of({"crm": WebTarget("crm", server.url)})
        async with running(sampler, worker):
            await eventually(lambda: len(worker.published) > 0)
            worker.assign(sampler, frozenset({1, 2, 3}))
            await eventually(lambda: len(worker.published) == 40)
            for _ in range(3):
                worker.revoke(sampler, frozenset(range(4)))
                worker.assign(sampler, frozenset(range(4)))
            reads = len(server.ids())
            await eventually(lambda: len(server.ids()) >= reads + 120)
            assert len(worker.published) == 40
            # Somebody else had it meanwhile, and told another story.
            worker.revoke(sampler, frozenset(range(4)))
            worker.states["crm/record/5"] = SamplingNeeds(last_observed_at=wall())
            worker.assign(sampler, frozenset(range(4)))
            await eventually(lambda: len(worker.published) == 41)
        assert worker.published[-1].resource == "crm/record/5"
        assert metric(sampler, "published_total", target="crm", why="overtaken") == 1


async def test_a_partition_that_is_gone_for_good_is_forgotten() -> None:
    async with RecordServer(records(40)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 40), QUIET))
        sampler = sampler_of({"crm": WebTarget("crm", server.url)})
        async with running(sampler, worker):
            await eventually(lambda: len(worker.published) == 40)
            worker.revoke(sampler, frozenset(range(4)))
            worker.assign(sampler, frozenset({0}))
            await eventually(lambda: not sampler._dropped and not sampler._lanes["crm"].schedule._dropped)


async def test_revocation_while_the_heads_are_read_is_no_error() -> None:
    async with RecordServer(records(2_000)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 2_000), QUIET))
        sampler = sampler_of({"crm": WebTarget("crm", server.url, bulk_size=100)})
        async with running(sampler, worker):
            await eventually(lambda: "crm" in sampler._lanes and sampler._lanes["crm"].schedule, poll_s=0)
            assert len(sampler._lanes["crm"].schedule) < 2_000, "in the middle"
            worker.revoke(sampler, frozenset(range(4)))
            assert len(sampler._lanes["crm"].schedule) == 0
            await asyncio.sleep(0.1)
            assert len(sampler._lanes["crm"].schedule) == 0
            worker.assign(sampler, frozenset(range(4)))
            await eventually(lambda: len(sampler._lanes["crm"].schedule) == 2_000)


async def test_a_partition_that_is_not_there_yet_keeps_no_other_from_being_read() -> None:
    async with RecordServer(records(40)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 40), QUIET))
        worker.owned = frozenset({1, 3})
        sampler = sampler_of({"crm": WebTarget("crm", server.url)})
        async with running(sampler, worker):
            sampler.on_assigned(frozenset(range(4)))
            mine = {key for key in keys("crm", 40) if worker.partition_of(key) in worker.owned}
            await eventually(lambda: {one.resource for one in worker.published} == mine)
            await eventually(lambda: sampler._owned == {1, 3})


async def test_what_changes_while_the_heads_are_read_counts_more_than_its_head() -> None:
    async with RecordServer(records(2_000)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 2_000), QUIET), partitions=1)
        sampler = sampler_of({"crm": WebTarget("crm", server.url, bulk_size=100)}, timing=RARELY)
        async with running(sampler, worker):
            await eventually(lambda: "crm" in sampler._lanes and sampler._lanes["crm"].schedule, poll_s=0)
            last = "crm/record/1999"
            assert (0, last) not in sampler._lanes["crm"].schedule
            worker.change(sampler, last, SamplingNeeds(open_drift="d"))
            await eventually(lambda: len(sampler._lanes["crm"].schedule) == 2_000)
            await eventually(lambda: len(worker.of(last)) >= 2)


# -- what goes wrong on our own side


async def test_what_cant_be_published_is_tried_again() -> None:
    async with RecordServer(records(3)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 3), QUIET))
        worker.refuses = True
        sampler = sampler_of({"crm": WebTarget("crm", server.url)})
        async with running(sampler, worker):
            await eventually(lambda: metric(sampler, "publish_failures_total", target="crm") >= 6)
            worker.refuses = False
            await eventually(lambda: len(worker.published) == 3)
        assert metric(sampler, "faults_total", target="crm") == 0


async def test_a_state_that_cant_be_understood_keeps_no_other_from_being_read() -> None:
    def needs_of(state: object) -> SamplingNeeds:
        if state == "broken":
            raise ValueError("broken state")
        return QUIET

    async with RecordServer(records(10)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 10), QUIET))
        worker.states["crm/record/4"] = "broken"  # type: ignore[assignment]
        sampler = sampler_of({"crm": WebTarget("crm", server.url)}, needs_of=needs_of)
        async with running(sampler, worker):
            await eventually(lambda: len(worker.published) == 9)
        assert metric(sampler, "faults_total", target="crm") == 1


async def test_it_can_be_run_again_and_closes_its_targets() -> None:
    async with RecordServer(records(3)) as server:
        worker = FakeWorker(dict.fromkeys(keys("crm", 3), QUIET))
        target = WebTarget("crm", server.url)
        sampler = sampler_of({"crm": target})
        async with running(sampler, worker):
            await eventually(lambda: len(worker.published) == 3)
        assert target.is_closed
        target._session = None
        async with running(sampler, worker):
            await eventually(lambda: len(worker.published) == 6)
    labels = {"target": "crm", "why": "first"}
    assert worker.registry.get_sample_value("reconciler_sampler_published_total", labels) == 6


def test_it_is_a_service_of_the_worker() -> None:
    service: WorkerService = sampler_of({})
    context: WorkerContext = FakeWorker({})
    assert service.name == "sampler"
    assert context.partitions
    assert FAST.limits.concurrency
    assert HASTY.sample_every_s == 0.5
