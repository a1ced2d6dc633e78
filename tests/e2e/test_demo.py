"""The demo, as `make demo` runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.timeout(240)
def test_the_demo_comes_to_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "demo"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every field that the workflow owns is right" in done.stdout
