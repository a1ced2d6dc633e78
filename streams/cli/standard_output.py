"""Standard output that says so, in one place for all commands, where it can't be written.

Python gives no stream at all where standard output is closed, and an error without a name where the disk is full. Here the
one is a stream on which every write fails, so that a command that prints nothing still works, and the other has a name. A
reader that went away stays a BrokenPipeError, which click ends quietly.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any


class OutputError(OSError):
    """Standard output can't be written; one sentence says why, and the remedy."""

    def __str__(self) -> str:
        return f"standard output can't be written: {self.strerror}; send it to a file or a program that can take it"


class _StandardOutput(io.RawIOBase):
    """The bytes of standard output; without a descriptor where it is closed. After an error it swallows what is left, so
    that the end of the process doesn't fail on it again."""

    def __init__(self, raw: io.FileIO | None) -> None:
        self._raw = raw
        self._is_lost = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return super().fileno() if self._raw is None else self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw is not None and self._raw.isatty()

    def write(self, data: Any) -> int | None:
        size = memoryview(data).nbytes
        if self._is_lost or size == 0:  # click tries out with nothing whether a stream takes text
            return size
        try:
            if self._raw is None:
                raise OSError(errno.EBADF, "it is closed")
            return self._raw.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._is_lost = True
            raise OutputError(error.errno, error.strerror or os.strerror(error.errno or errno.EIO)) from None


def guard_standard_output() -> None:
    """Makes every write to standard output raise OutputError where it fails. What a test put in its place stays there."""
    given: Any = sys.stdout
    if given is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_StandardOutput(None)), encoding="utf-8")
    elif given is sys.__stdout__ and isinstance(given, io.TextIOWrapper):
        sys.stdout = _guarded(given)


def _guarded(given: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, buffered or not as it was, over bytes that are guarded."""
    buffer: Any = given.buffer
    is_buffered = isinstance(buffer, io.BufferedWriter)
    raw = _StandardOutput(buffer.raw if is_buffered else buffer)
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if is_buffered else raw,  # type: ignore[arg-type]
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=given.line_buffering,
        write_through=given.write_through,
    )
