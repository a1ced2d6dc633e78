"""A server as a child process: started with its log in a file, ready by a deadline, stopped by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_POLL_INTERVAL_S = 0.05
_LOG_TAIL_CHARACTERS = 4_000


class ServerFailed(RuntimeError):
    """A server that should run doesn't; the message ends with the tail of its log."""


class ServerProcess:
    """One run of one server. `command` must stay in the foreground."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*_dying_with_us(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=None if environment is None else {**os.environ, **environment},
                # Ctrl-C in the terminal is for pytest, which then stops the servers in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """With which code the server ended, negative for a signal; None while it runs."""
        return self._process.poll()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, is_ready: Callable[[], bool], *, deadline_s: float) -> None:
        """Returns once `is_ready()`; raises ServerFailed when the server ends or the deadline passes first."""
        end = time.monotonic() + deadline_s
        while not is_ready():
            if not self.is_running():
                raise ServerFailed(f"{self.name} ended with code {self._process.returncode}:\n{self.log_tail()}")
            if time.monotonic() >= end:
                self.kill()
                raise ServerFailed(f"{self.name} wasn't ready within {deadline_s:g} s:\n{self.log_tail()}")
            time.sleep(_POLL_INTERVAL_S)

    def stop(self, *, signal_number: int = signal.SIGTERM, deadline_s: float = 30.0) -> None:
        """Asks the server to end and waits for it; kills it when the deadline passes."""
        if self.is_running():
            self._process.send_signal(signal_number)
        try:
            self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: the server keeps its sockets and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._process.send_signal(signal.SIGCONT)

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:]


class Server(ABC):
    """What every service here is: started, ended and taken away; as a context manager, started and taken away."""

    @abstractmethod
    def start(self) -> None:
        """Starts the server and returns when it answers. Raises ServerFailed when it doesn't."""

    @abstractmethod
    def close(self) -> None:
        """Ends the server, whatever state it is in, and takes its folder away."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that haven't been waited for."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    """Whether a process, which need not be ours, still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _dying_with_us() -> list[str]:
    """A prefix under which the kernel ends the server when we die without stopping it, where the machine can do that."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
