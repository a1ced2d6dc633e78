"""The second process: it tells how it stands, and neither of the two outlives the other."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pytest

from streams.exits import ExitCode
from streams.worker import companion as module
from streams.worker.companion import Companion, Companions
from tests.support.processes import lives
from tests.support.waiting import wait_until


def child(way: str, monotonic: Callable[[], float] = time.monotonic) -> Companion:
    return Companion("rollbacks", ["-m", "tests.support.companion_child", way], monotonic=monotonic)


async def until(condition: Callable[[], bool], deadline_s: float = 60) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it didn't come"
        await asyncio.sleep(0.02)


def process_of(companion: Companion) -> subprocess.Popen[bytes]:
    assert companion._process is not None
    return companion._process


def test_it_tells_why_it_is_not_ready_and_then_its_metrics() -> None:
    async def run() -> None:
        companion = child("slow")
        assert companion.metrics() is None
        await companion.start()
        assert companion.problem() == "rollbacks: is starting"
        await until(lambda: companion.problem() == "rollbacks: is recovering")
        await until(lambda: companion.problem() is None)
        assert companion.metrics() == b"some_total 1.0\n"
        await companion.stop()
        assert await companion.ended() == 0

    asyncio.run(run())


def test_its_silence_is_a_problem_and_its_old_metrics_are_none() -> None:
    async def run() -> None:
        now = [0.0]
        companion = child("plain", lambda: now[0])
        await companion.start()
        await until(lambda: companion.problem() is None)
        process_of(companion).send_signal(signal.SIGSTOP)
        now[0] += 1_000
        await until(lambda: companion.problem() == "rollbacks: the process has said nothing for 1000 s")
        assert companion.metrics() is None
        process_of(companion).send_signal(signal.SIGCONT)
        await companion.stop()

    asyncio.run(run())


def test_one_that_is_never_started_ends_by_itself() -> None:
    companion = child("plain")
    companion.launch()
    process = process_of(companion)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_several_have_one_life() -> None:
    async def run() -> None:
        peer, other = child("plain"), Companion("other", ["-m", "tests.support.companion_child", "plain"])
        companions = Companions([peer], [other])
        companions.launch()
        await companions.start()
        assert peer.problem() != "rollbacks: is starting", "they join the group together"
        await until(lambda: peer.problem() is None)
        await until(lambda: companions.problem() is None)
        process_of(other).kill()
        assert await companions.ended() == (other, ExitCode.COMPANION)
        await companions.stop()
        assert process_of(peer).returncode == 0

    asyncio.run(run())


def test_none_at_all_never_end_and_are_never_a_problem() -> None:
    async def run() -> None:
        companions = Companions()
        await companions.start()
        assert companions.problem() is None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(companions.ended(), 0.01)
        await companions.stop()

    asyncio.run(run())


def test_its_exit_code_is_handed_on() -> None:
    async def run() -> None:
        companion = child("fails")
        await companion.start()
        assert await companion.ended() == ExitCode.RECOVERY

    asyncio.run(run())


def test_a_kill_from_outside_has_a_code_of_its_own() -> None:
    async def run() -> None:
        companion = child("plain")
        await companion.start()
        process_of(companion).kill()
        assert await companion.ended() == ExitCode.COMPANION

    asyncio.run(run())


def test_one_that_does_not_end_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STOP_WITHIN_S", 0.3)

    async def run() -> None:
        companion = child("stubborn")
        await companion.start()
        await until(lambda: companion.problem() is None)
        await companion.stop()
        assert process_of(companion).returncode == -signal.SIGKILL

    asyncio.run(run())


def test_it_ends_in_order_when_the_first_process_is_killed() -> None:
    program = textwrap.dedent("""
        import asyncio
        from streams.worker.companion import Companion

        async def main():
            companion = Companion("rollbacks", ["-m", "tests.support.companion_child", "plain"])
            await companion.start()
            while companion.problem() is not None:
                await asyncio.sleep(0.02)
            print(companion._process.pid, flush=True)
            await companion.ended()

        asyncio.run(main())
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as first:
        assert first.stdout is not None
        second = int(first.stdout.readline())
        first.kill()
    wait_until(lambda: not lives(second), deadline_s=60, what="the second process ends")
