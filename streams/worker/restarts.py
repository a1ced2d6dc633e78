"""Slowing the next start after errors, so that a record that kills the worker doesn't do it a hundred times a second.

Faust restarts agents up to a hundred times a second (row 15). Here an error ends the process and leaves a note
(`streams.exits`); each further note within the window doubles the wait before the next start. A clean end takes the notes
away.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from streams.exits import NOTE_NAME

_FREE_EXITS = 2
_MOST_NOTES = 100


def restart_delay_s(data_dir: Path, window_s: float, max_delay_s: float, now: float | None = None) -> float:
    """How long to wait before this start: nothing after the first two errors, then 1, 2, 4 s and so on."""
    now = time.time() if now is None else now
    recent = [at for at in _notes(data_dir / NOTE_NAME) if 0 <= now - at <= window_s]
    excess = len(recent) - _FREE_EXITS
    return 0.0 if excess <= 0 else min(max_delay_s, 2.0 ** (excess - 1))


def forget_exits(data_dir: Path) -> None:
    """The worker ended cleanly."""
    (data_dir / NOTE_NAME).unlink(missing_ok=True)


def _notes(path: Path) -> list[float]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    instants = []
    for line in lines[-_MOST_NOTES:]:
        try:
            instants.append(float(json.loads(line)["at"]))
        except (ValueError, KeyError, TypeError):
            continue  # a note that was cut short by the end that it describes
    return instants
