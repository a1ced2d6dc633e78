"""How a worker ends when something is wrong: at once, with one logged sentence and a code that says which kind it was.

An error inside a batch leaves nothing that could be trusted: not the producer's transaction, not what Faust believes was
acknowledged. So nobody tidies up; the process ends, the supervisor starts another, and the batch protocol makes the
repetition harmless. The note that is left behind lets the next start wait a little (see `streams.worker.restarts`).
"""

from __future__ import annotations

import enum
import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

logger = logging.getLogger(__name__)

NOTE_NAME = "last-exits.jsonl"


class ExitCode(enum.IntEnum):
    """Exit codes of `reconciler worker`."""

    CLEAN = 0
    INPUT = 2
    """A setting or a missing topic: restarting doesn't help, a person must act."""
    BATCH = 70
    """An error inside a batch, also a dead letter that couldn't be delivered."""
    FENCED = 71
    """Another worker has taken over one of our partitions."""
    COMMIT = 72
    """The brokers refused a commit, or none could be made for too long."""
    STALLED = 73
    """No progress: a partition, the event loop, or a rebalance."""
    RECOVERY = 74
    """The table could not be recovered."""
    TRANSPORT = 75
    """Records were skipped between two fetches, or the consumer ended by itself."""
    COMPANION = 76
    """One of the processes that the first one looks after was ended from outside."""


_note_path: Path | None = None


def leave_notes_in(data_dir: Path) -> None:
    """Where `end_process` writes its note; to be called once, early."""
    global _note_path  # noqa: PLW0603 - one process, one note
    _note_path = data_dir / NOTE_NAME


def end_process(code: ExitCode, sentence: str, error: BaseException | None = None) -> NoReturn:
    """Ends the process now: no acknowledgement, no clean-up, no finally."""
    try:
        detail = "" if error is None else "".join(traceback.format_exception(error))
        logger.critical("worker exits with code %d (%s): %s\n%s", code, code.name.lower(), sentence, detail)
        if _note_path is not None:
            note = {"at": time.time(), "code": int(code), "why": sentence}
            with _note_path.open("a", encoding="utf-8") as notes:
                notes.write(json.dumps(note) + "\n")
        logging.shutdown()
        sys.stderr.flush()
    finally:
        os._exit(int(code))
