"""Several processes as one worker: the first folds resources, and looks after those that fold beside it and one that drives
rollbacks.

A process folds on one core; planning ten thousand operations must not hold up folding; and a process that is stuck must not
go unnoticed: so they are several processes with one life. Each tells the first how it stands through a pipe, once a second;
it ends when its standard input does, which happens however the first one ends. When one of them ends by itself, the first
finishes what is in flight and ends too, with its exit code, and all others with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from streams.exits import ExitCode

logger = logging.getLogger(__name__)

_TELL_EVERY_S: Final = 1.0
_SILENT_AFTER_S: Final = 15.0
_TOGETHER_WITHIN_S: Final = 5.0
_STOP_WITHIN_S: Final = 50.0
"""Less than the first process gives itself to finish."""
_MOST_LINE_BYTES: Final = 16 * 1024 * 1024
_MOST_READ_BYTES: Final = 1024
_GO: Final = b"\n"
_EXIT_CODES: Final = frozenset(int(code) for code in ExitCode)


class Companion:
    """Another process, as the first sees it. `launch` may come early, so that both load at the same time; it waits there
    until `start`, and ends by itself if that never comes. The rest is for the event loop."""

    def __init__(self, name: str, arguments: Sequence[str], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`arguments` are those of Python; the pipe's number is added to them."""
        self.name = name
        self._arguments = list(arguments)
        self._monotonic = monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._reports = -1
        self._thread = ThreadPoolExecutor(1, f"companion-{name}")
        self._exit: asyncio.Future[int] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._why: str | None = "is starting"
        self._metrics = ""
        self._told_at = monotonic()
        self._heard = asyncio.Event()

    def launch(self) -> None:
        """Starts the process, which loads what it needs and then waits."""
        self._reports, writing = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves, with arguments of our own
                [sys.executable, *self._arguments, "--report-to", str(writing)],
                stdin=subprocess.PIPE,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)

    async def start(self) -> None:
        """Lets it begin, and listens to it from now on."""
        if self._process is None:
            self.launch()
        assert self._process is not None
        assert self._process.stdin is not None
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BrokenPipeError):  # it has ended already; `ended` says how
            self._process.stdin.write(_GO)
            self._process.stdin.flush()
        self._exit = loop.run_in_executor(self._thread, self._process.wait)
        stream = asyncio.StreamReader(limit=_MOST_LINE_BYTES)
        pipe = os.fdopen(self._reports, "rb", buffering=0)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
        self._told_at = self._monotonic()
        self._reader = asyncio.create_task(self._read(stream), name=f"companion-{self.name}")
        logger.info("the process %d is %s", self._process.pid, self.name)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            told = json.loads(line)
            self._why, self._metrics = told["why"], told["metrics"]
            self._told_at = self._monotonic()
            self._heard.set()

    async def heard(self) -> None:
        """Waits until it has told something: it tells as soon as it is about to join its group."""
        await self._heard.wait()

    def problem(self) -> str | None:
        """Why it is not ready, in a sentence; None when it is."""
        silent_s = self._monotonic() - self._told_at
        if silent_s > _SILENT_AFTER_S:
            return f"{self.name}: the process has said nothing for {silent_s:.0f} s"
        return None if self._why is None else f"{self.name}: {self._why}"

    def metrics(self) -> bytes | None:
        """Its metrics in Prometheus' text format; None while there are none that are fresh."""
        if not self._metrics or self._monotonic() - self._told_at > _SILENT_AFTER_S:
            return None
        return self._metrics.encode()

    async def ended(self) -> int:
        """Waits until it has ended by itself or was stopped, and says with which exit code this process is to end."""
        assert self._exit is not None
        code = await asyncio.shield(self._exit)
        if code in _EXIT_CODES:
            return code
        logger.error("the process %s was ended from outside (%d)", self.name, code)
        return ExitCode.COMPANION

    def terminate(self) -> None:
        """Asks it to end."""
        if self._process is not None:
            self._process.terminate()

    async def stop(self) -> None:
        """Asks it to end and waits until it has, or ends it when it doesn't in time."""
        if self._process is None or self._exit is None:
            return
        self.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(self._exit), _STOP_WITHIN_S)
        except TimeoutError:
            logger.error("the process %s doesn't end; it is killed", self.name)
            self._process.kill()
            await self._exit
        self._thread.shutdown()
        if self._reader is not None:
            await self._reader


class Companions:
    """All that the first process looks after: those that do the same as it (`peers`), and others."""

    def __init__(self, peers: Sequence[Companion] = (), others: Sequence[Companion] = ()) -> None:
        self.peers = tuple(peers)
        self.others = tuple(others)
        self._all = (*peers, *others)

    def launch(self) -> None:
        """Starts them; they load what they need and then wait."""
        for companion in self._all:
            companion.launch()

    async def start(self) -> None:
        """Lets them begin, and returns when the peers are about to join the group, or take too long.

        A group that several join at a time is shared out once. Each of them for itself would make those that were there before
        give partitions back that they have only just taken over.
        """
        await asyncio.gather(*(companion.start() for companion in self._all))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TOGETHER_WITHIN_S):
                await asyncio.gather(*(peer.heard() for peer in self.peers))

    def problem(self) -> str | None:
        """Why one of them is not ready, in a sentence; None when they all are."""
        return next((why for companion in self._all if (why := companion.problem()) is not None), None)

    async def ended(self) -> tuple[Companion, int]:
        """Waits until one of them has ended, and says which, and with which exit code this process is to end. For ever where
        there are none."""
        if not self._all:
            await asyncio.Event().wait()
        waiting = [asyncio.create_task(companion.ended()) for companion in self._all]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return next((self._all[number], task.result()) for number, task in enumerate(waiting) if task.done())
        finally:
            for task in waiting:
                task.cancel()

    def terminate(self) -> None:
        """Asks them to end."""
        for companion in self._all:
            companion.terminate()

    async def stop(self) -> None:
        """Asks them to end and waits until they have, or ends those that don't in time."""
        await asyncio.gather(*(companion.stop() for companion in self._all))


class Supervisor:
    """The first process, as another one sees it."""

    def __init__(self, report_to: int) -> None:
        self._pipe = os.fdopen(report_to, "w", buffering=1, encoding="utf-8")

    def await_start(self) -> None:
        """Returns when this process is to begin. Ends it where that will never be."""
        if os.read(0, 1) != _GO:
            sys.exit(ExitCode.CLEAN)

    def end_with_it(self) -> None:
        """From now on this process ends in order when the first one has ended, however it did."""
        threading.Thread(target=_await_end_of_input, name="supervisor", daemon=True).start()

    async def telling(self, problem: Callable[[], str | None], metrics: Callable[[], bytes]) -> None:
        """Says how this process stands, until it is cancelled."""
        while True:
            # In a thread: a pipe that isn't emptied must not stop this process.
            await asyncio.to_thread(self._tell, {"why": problem(), "metrics": metrics().decode()})
            await asyncio.sleep(_TELL_EVERY_S)

    def _tell(self, told: dict[str, Any]) -> None:
        try:
            self._pipe.write(json.dumps(told) + "\n")
        except BrokenPipeError:
            logger.warning("the process that looks after this one has ended")


def _await_end_of_input() -> None:
    # Not through sys.stdin: its lock, held here, would be missed at the interpreter's end.
    while os.read(0, _MOST_READ_BYTES):
        pass
    logger.warning("the process that looks after this one has ended; so does this one")
    os.kill(os.getpid(), signal.SIGTERM)
