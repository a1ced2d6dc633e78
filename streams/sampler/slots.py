"""How many reads of a target may be under way, in one process or in all processes of one worker together.

Between processes a slot is a lock on a file. The kernel gives it back however its holder ends, so nothing has to be counted
or cleared up. Who waits for a slot holds a second lock, the head of the queue: else a process that gives its slot back and
wants it again at once would always be faster than those that look for one now and then.
"""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path
from typing import IO, Final, Protocol
from urllib.parse import quote

_TRY_AGAIN_S: Final = 0.02


class Slots(Protocol):
    """So many at a time. `asyncio.Semaphore` is one, for a process that is alone."""

    async def acquire(self) -> object:
        """Waits for a slot and takes it."""
        ...

    def release(self) -> None:
        """Gives one back that was taken."""
        ...


def own_slots(_name: str, count: int) -> Slots:
    """Slots of this process alone."""
    return asyncio.Semaphore(count)


class SharedSlots:
    """The slots of all processes that name the same folder and the same number of slots."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        """`name` is the target's, in any characters."""
        self._folder = folder / quote(name, safe="")
        self._files = [self._folder / str(number) for number in range(count)]
        self._held: list[IO[bytes]] = []

    async def acquire(self) -> None:
        """Waits for a slot and takes it. Raises OSError where the folder can't be used."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with await _first_of([self._folder / "queue"]):
            self._held.append(await _first_of(self._files))

    def release(self) -> None:
        """Gives one back that was taken: they are all alike."""
        self._held.pop().close()


async def _first_of(files: list[Path]) -> IO[bytes]:
    """The first of these files that nobody holds, held until it is closed."""
    while True:
        for file in files:
            opened = file.open("ab")
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                opened.close()
            except BaseException:
                opened.close()
                raise
            else:
                return opened
        await asyncio.sleep(_TRY_AGAIN_S)
