"""Standard output that can't be written, as a shell gives it to a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.streams.cli.test_offline import ACTION, lines

COMMANDS = {"fold": "fold --actions a.jsonl", "help": "fold --help", "list": "topics list"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_bytes(lines(ACTION))
    return tmp_path


def ended(folder: Path, command: str, redirection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    root = str(Path(__file__).parents[3])
    return subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m streams.cli.main {command} {redirection}', sys.executable],
        cwd=folder,
        env=own | {"PYTHONPATH": root} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("redirection", "why"),
    [("> /dev/full", "No space left on device"), (">&-", "it is closed")],
    ids=["full", "closed"],
)
@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_output_that_cant_be_written_is_one_sentence(
    folder: Path, command: str, redirection: str, why: str, environment: dict[str, str]
) -> None:
    result = ended(folder, command, redirection, **environment)
    assert result.returncode == 1
    assert result.stderr == (
        f"reconciler: standard output can't be written: {why}; send it to a file or a program that can take it\n"
    )


def test_more_than_a_buffer_on_a_full_disk_is_one_sentence(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(lines(ACTION | {"set": {"/a": "x" * 1_000_000}}))
    result = ended(folder, COMMANDS["fold"], "> /dev/full")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1


def test_what_prints_nothing_needs_no_output(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(b"")
    for redirection in ("> /dev/full", ">&-"):
        result = ended(folder, COMMANDS["fold"], redirection)
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_output_that_can_be_written_is_as_ever(folder: Path, environment: dict[str, str]) -> None:
    result = ended(folder, COMMANDS["fold"], "", **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["fields"] == {"/a": "2"}


def test_a_reader_that_went_away_is_nothing_to_speak_of(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(
        lines(*(ACTION | {"resource": f"crm/contact/{number}", "action_id": ""} for number in range(2000)))
    )
    result = ended(folder, COMMANDS["fold"], "| head -1")
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
