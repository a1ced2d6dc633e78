"""The demo, as `make demo` runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

COMMAND = [sys.executable, "-m", "streams.cli.main", "demo"]


@pytest.mark.timeout(600)
def test_the_demo_comes_to_its_end() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every field that the workflow owns is right, what was undone stays undone" in " ".join(done.stdout.split())
    assert "The story of the undo of campaign-1" in done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_stays_running_when_it_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "demo"
    # What a shell starts in the background ignores SIGINT, and so does all that is started by it in turn.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (tmp_path / "said").open("wb") as said:
            demo = subprocess.Popen([*COMMAND, "--folder", str(folder)], stdout=said, stderr=said)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        wait_until(lambda: len(_parts_of(folder)) == 4, deadline_s=60, what="all parts of the demo are started")
        demo.send_signal(how)
        assert demo.wait(60) != 0
        wait_until(lambda: not _parts_of(folder), deadline_s=60, what="all parts of the demo have ended")
    finally:
        demo.kill()
        demo.wait()
    if how is not signal.SIGKILL:
        assert b"Traceback" not in (tmp_path / "said").read_bytes()


def _parts_of(folder: Path) -> list[int]:
    """The processes that work in the demo's folder, by the settings that they were given."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:  # it has ended, or isn't ours
            continue
        if os.fsencode(folder) in environment:
            found.append(int(process.name))
    return found
