"""The spool: events that the brokers didn't take, on disk until they do. Same bytes, same order, nothing lost silently.

A folder of segments, ``00000001.spool`` and on, each a magic text and then frames:

    4 bytes  frame mark
    4 bytes  length of the body, big endian
    4 bytes  CRC-32 of length and body
    body     topic, key, value, headers (MessagePack)

A frame counts once it is written and fsynced. The file ``position`` names the segment and offset of the first frame that the
brokers haven't acknowledged; it is replaced, never written in place. A crash in the middle of a write leaves a torn frame
at the end of the last segment: it was never promised to anybody, and is moved to the file ``torn``. Anything else that can't
be read is damage, and opening the spool fails, because somebody has to look. A crash between the brokers' acknowledgement
and the new position sends events again, with the ids that they had.

One process has a spool open at a time (flock).
"""

from __future__ import annotations

import fcntl
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

import msgspec

from reconciler.sdk.errors import SpoolError, SpoolFullError

logger = logging.getLogger("reconciler.sdk")

DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
SEGMENT_BYTES: Final = 8 * 1024 * 1024
CLOSING_SHARE: Final = 0.1
"""Of the bound, kept for the ends of actions that have begun: an effect that happened must be told."""

_MAGIC: Final = b"reconciler spool 1\n"
_MARK: Final = b"\xf5RSP"
_HEAD: Final = Struct(">4sII")


class Message(msgspec.Struct, frozen=True, array_like=True):
    """One Kafka record to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Message).decode


class _Place(msgspec.Struct, frozen=True):
    segment: int
    offset: int


class Spooled(msgspec.Struct, frozen=True):
    """A message in the spool and where the one after it begins."""

    message: Message
    end: _Place


class Spool:
    """An open spool. Not safe for threads: its owner locks. Raises SpoolError where it can't be opened or written."""

    def __init__(self, folder: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        # So that what was sent gives room back long before all of it was.
        self._segment_bytes = min(segment_bytes, max_bytes // 8)
        self._output: FileIO | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
        except OSError as error:
            raise SpoolError(f"the spool folder {folder} can't be used: {error}") from error
        try:
            self._start = self._read_position()
            self._drop_consumed()
            self._count, self._end = self._check_segments()
        except BaseException:
            self._lock.close()
            raise

    @property
    def count(self) -> int:
        """How many messages wait."""
        return self._count

    @property
    def size_bytes(self) -> int:
        """What the segments take on disk."""
        return sum(self._path(number).stat().st_size for number in self._segments())

    def append(self, message: Message, *, closing: bool = False) -> None:
        """Writes a message and returns when it is on the disk. Raises SpoolFullError at the bound, SpoolError where the
        disk fails. ``closing``: the message ends an action that has begun, and may use the last part of the bound."""
        frame = _frame(message)
        limit = self._max_bytes if closing else int(self._max_bytes * (1 - CLOSING_SHARE))
        if self.size_bytes + len(frame) > limit:
            raise SpoolFullError(
                f"the spool {self._folder} is full ({self._count} events, {self._max_bytes} bytes): bring the brokers back "
                "or raise its bound; this event was not kept",
                (message,),
            )
        try:
            self._write(frame)
        except OSError as error:
            raise SpoolError(f"the spool {self._folder} can't be written: {error}", (message,)) from error
        self._count += 1

    def oldest(self, limit: int) -> list[Spooled]:
        """The first messages, at most `limit`, in the order in which they came."""
        return list(islice(self._entries(), limit))

    def advance(self, entries: list[Spooled]) -> None:
        """The first messages, as `oldest` gave them, are done with."""
        if not entries:
            return
        self._start = entries[-1].end
        self._count -= len(entries)
        if self._count == 0:
            self._start = _Place(self._end.segment + 1, 0)
            self._close_output()
            self._end = self._start
        self._write_position()
        self._drop_consumed()

    def set_aside(self, entry: Spooled, reason: str) -> Path:
        """Moves the first message out of the way into the file ``set-aside``, framed as in a segment, and says where that
        is: the brokers will never take it, and those behind it must not wait for ever."""
        path = self._folder / "set-aside"
        with path.open("ab") as output:
            output.write(_frame(entry.message))
            output.flush()
            os.fsync(output.fileno())
        logger.error("an event for %s was refused (%s) and set aside in %s", entry.message.topic, reason, path)
        self.advance([entry])
        return path

    def close(self) -> None:
        """Gives the folder free. What waits stays."""
        self._close_output()
        self._lock.close()

    # Files

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.spool"

    def _segments(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("*.spool") if path.stem.isdigit())

    def _write(self, frame: bytes) -> None:
        if self._output is not None and self._end.offset >= self._segment_bytes:
            self._close_output()
            self._end = _Place(self._end.segment + 1, 0)
        if self._output is None:
            self._open_output()
        output = self._output
        assert output is not None
        try:
            _write_all(output, frame)
            os.fsync(output.fileno())
        except OSError:
            # Whatever arrived of the frame would make the one after it unreadable; and after a failed fsync nobody knows
            # what the disk holds. The next append opens the file anew and begins where the last good frame ends.
            self._output = None
            with suppress(OSError):
                output.close()
            raise
        self._end = _Place(self._end.segment, self._end.offset + len(frame))

    def _open_output(self) -> None:
        path = self._path(self._end.segment)
        is_new = not path.exists()
        # Unbuffered: a buffer would keep the bytes of a failed write and send them again at the next one.
        output = path.open("w+b" if is_new else "r+b", buffering=0)
        if is_new or self._end.offset < len(_MAGIC):
            output.truncate(0)
            output.seek(0)
            _write_all(output, _MAGIC)
            os.fsync(output.fileno())
            _sync_folder(self._folder)
            self._end = _Place(self._end.segment, len(_MAGIC))
        output.truncate(self._end.offset)
        output.seek(self._end.offset)
        self._output = output

    def _close_output(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None

    def _read_position(self) -> _Place:
        try:
            return msgspec.json.decode((self._folder / "position").read_bytes(), type=_Place)
        except FileNotFoundError:
            segments = self._segments()
            return _Place(segments[0] if segments else 1, 0)
        except msgspec.MsgspecError as error:
            raise SpoolError(
                f"the file {self._folder / 'position'} is damaged ({error}): delete it to send every spooled event again; "
                "an event that was sent before is recognised by its id"
            ) from error

    def _write_position(self) -> None:
        temporary = self._folder / "position.new"
        with temporary.open("wb") as output:
            output.write(msgspec.json.encode(self._start))
            output.flush()
            os.fsync(output.fileno())
        temporary.replace(self._folder / "position")
        _sync_folder(self._folder)

    def _drop_consumed(self) -> None:
        for number in self._segments():
            if number < self._start.segment:
                self._path(number).unlink()

    # Reading

    def _check_segments(self) -> tuple[int, _Place]:
        """How many messages wait, and where the next one goes. Cuts a torn frame off the last segment."""
        segments = self._segments()
        end = self._start
        count = 0
        for expected, number in enumerate(segments, start=self._start.segment):
            if number != expected:
                raise SpoolError(_damaged(self._path(expected), "it is missing"))
            data = self._path(number).read_bytes()
            is_last = number == segments[-1]
            start = self._start.offset if number == self._start.segment else 0
            if is_last and data[: len(_MAGIC)] != _MAGIC and _MAGIC.startswith(data.rstrip(b"\0")):
                data = self._cut(number, data, 0)
            if start > len(data):
                raise SpoolError(_damaged(self._path(number), f"it has {len(data)} bytes, of which {start} were sent"))
            good = max(start, min(len(_MAGIC), len(data)))
            for _, after in self._frames(number, data, start):
                count += 1
                good = after
            if good < len(data):
                if not is_last or _holds_frame(data, good + 1):
                    raise SpoolError(_damaged(self._path(number), f"what stands at byte {good} can't be read"))
                self._cut(number, data, good)
            end = _Place(number, good)
        if not segments and self._start.offset:
            raise SpoolError(_damaged(self._path(self._start.segment), "it is missing"))
        return count, end

    def _cut(self, number: int, data: bytes, good: int) -> bytes:
        """Takes a torn write off the end of the last segment."""
        if good < len(data):
            logger.warning("moved a torn event of %d bytes from %s to `torn`", len(data) - good, self._path(number))
            with (self._folder / "torn").open("ab") as torn:
                torn.write(data[good:])
            with self._path(number).open("r+b") as file:
                file.truncate(good)
                os.fsync(file.fileno())
        return data[:good]

    def _entries(self) -> Iterator[Spooled]:
        for number in self._segments():
            data = self._path(number).read_bytes()
            start = self._start.offset if number == self._start.segment else 0
            stop = self._end.offset if number == self._end.segment else len(data)
            for body, end in self._frames(number, data[:stop], start):
                yield Spooled(_decode(body), _Place(number, end))

    def _frames(self, number: int, data: bytes, start: int) -> Iterator[tuple[bytes, int]]:
        if data[: len(_MAGIC)] != _MAGIC[: len(data)]:
            raise SpoolError(f"the file {self._path(number)} is no spool of this version: move it away")
        at = max(start, len(_MAGIC))
        while (body := _frame_at(data, at)) is not None:
            at += _HEAD.size + len(body)
            yield body, at


def _frame_at(data: bytes, at: int) -> bytes | None:
    """The body of the frame that begins at a place; None where no whole one does."""
    if at + _HEAD.size > len(data):
        return None
    mark, length, checksum = _HEAD.unpack_from(data, at)
    begin = at + _HEAD.size
    if mark != _MARK or begin + length > len(data):
        return None
    body = data[begin : begin + length]
    return body if _checksum(body) == checksum else None


def _frame(message: Message) -> bytes:
    body = _encode(message)
    return _HEAD.pack(_MARK, len(body), _checksum(body)) + body


def _checksum(body: bytes) -> int:
    # With the length in it, so that zeros, which a crash may leave behind a mark, are no valid frame.
    return zlib.crc32(body, zlib.crc32(len(body).to_bytes(4, "big")))


def _holds_frame(data: bytes, start: int) -> bool:
    """Whether a whole frame begins anywhere from a place on: what came before it then was one too."""
    at = data.find(_MARK, start)
    while at != -1:
        if _frame_at(data, at) is not None:
            return True
        at = data.find(_MARK, at + 1)
    return False


def _damaged(path: Path, how: str) -> str:
    return f"the spool file {path} is damaged: {how}; restore it, or move the folder away to give up its events"


def _write_all(output: FileIO, data: bytes) -> None:
    """A raw write may take only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[output.write(rest) :]


def _locked(folder: Path) -> BinaryIO:
    lock = (folder / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise SpoolError(
            f"the spool {folder} is open in another process: give each process a folder of its own"
        ) from error
    return lock


def _sync_folder(folder: Path) -> None:
    """Makes a new or renamed file's name last, which fsync on the file alone doesn't."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
