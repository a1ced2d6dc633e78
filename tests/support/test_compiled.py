"""What is compiled must be what the source says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.wire import action_reader
from tests.support.compiled import SUFFIX, from_source, outdated


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source that was compiled after its last change."""
    path = tmp_path / "reconciler" / "wire" / "reader.py"
    path.parent.mkdir(parents=True)
    for number, suffix in enumerate((".py", ".pxd", SUFFIX), 1):
        path.with_suffix(suffix).touch()
        os.utime(path.with_suffix(suffix), (number, number))
    return path


def test_what_was_compiled_later_is_up_to_date(source: Path, tmp_path: Path) -> None:
    assert outdated(tmp_path) == []


@pytest.mark.parametrize("suffix", [".py", ".pxd"])
def test_a_change_makes_it_outdated(source: Path, tmp_path: Path, suffix: str) -> None:
    os.utime(source.with_suffix(suffix), (10, 10))
    assert outdated(tmp_path) == [source]


def test_what_is_not_compiled_is_never_outdated(source: Path, tmp_path: Path) -> None:
    source.with_suffix(SUFFIX).unlink()
    assert outdated(tmp_path) == []


def test_a_module_of_its_source_is_python() -> None:
    made = from_source(action_reader)
    assert made is not action_reader
    assert type(made.read_action).__name__ == "function"
    assert made.__file__ is not None and made.__file__.endswith("action_reader.py")
