"""What stands before a start: slow restarts, one process an identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.values.errors import InputError
from streams.exits import NOTE_NAME
from streams.worker.identity import lock_data_dir
from streams.worker.restarts import forget_exits, restart_delay_s


def note(folder: Path, *instants: float) -> None:
    with (folder / NOTE_NAME).open("a") as notes:
        for at in instants:
            notes.write(json.dumps({"at": at, "code": 70, "why": "…"}) + "\n")


def test_row_15_each_further_error_doubles_the_wait(tmp_path: Path) -> None:
    """Without this, a record that kills the worker kills it as fast as the supervisor restarts it."""
    delays = [restart_delay_s(tmp_path, 600, 60, 1000.0)]
    for number in range(10):
        note(tmp_path, 990.0 + number)
        delays.append(restart_delay_s(tmp_path, 600, 60, 1000.0))
    assert delays == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_old_errors_and_clean_ends_are_forgotten(tmp_path: Path) -> None:
    note(tmp_path, *range(10))
    assert restart_delay_s(tmp_path, 600, 60, 10_000.0) == 0
    note(tmp_path, *[9_990.0] * 5)
    assert restart_delay_s(tmp_path, 600, 60, 10_000.0) == 4
    forget_exits(tmp_path)
    assert restart_delay_s(tmp_path, 600, 60, 10_000.0) == 0
    forget_exits(tmp_path)


def test_a_note_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    note(tmp_path, *[999.0] * 4)
    with (tmp_path / NOTE_NAME).open("a") as notes:
        notes.write('{"at": 99')
    assert restart_delay_s(tmp_path, 600, 60, 1000.0) == 2


def test_one_process_a_data_folder(tmp_path: Path) -> None:
    lock = lock_data_dir(tmp_path / "new")
    with pytest.raises(InputError, match="another worker is running"):
        lock_data_dir(tmp_path / "new")
    lock.close()
    lock_data_dir(tmp_path / "new").close()


def test_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="RECONCILER_DATA_DIR"):
        lock_data_dir(tmp_path / "file")
