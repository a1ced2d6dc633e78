"""Child processes: started with a log file each, watched, and stopped by their own ids."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from reconciler.values.errors import ReconcilerError

_POLL_S = 0.05
_STOP_WITHIN_S = 15.0
_TAIL_LINES = 15


class ProcessError(ReconcilerError):
    """A part of the system ended or did not come up."""


def free_port() -> int:
    """A TCP port on the loopback address that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class ServedProcess:
    """One of our own commands as a process with a readiness page."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], port: int, logs: Path) -> None:
        self.name = name
        self.port = port
        self.log = logs / f"{name}.log"
        self._arguments = arguments
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; `wait_ready` waits until it works."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streams.dev.child", *self._arguments],
                env={**os.environ, **self._environment},
                # Held open by us: if we die, however, its end tells the child so.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A Ctrl-C at the terminal is for us alone: we stop them in order.
                start_new_session=True,
            )

    def wait_ready(self, deadline: float) -> None:
        """Waits until its readiness page says so. Raises ProcessError if it ends, or at the deadline (monotonic seconds)."""
        while not self.is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} did not become ready in time; its log is {self.log}\n{self._tail()}")
            time.sleep(_POLL_S)

    def is_ready(self) -> bool:
        """Whether its readiness page says so now."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def check(self) -> None:
        """Raises ProcessError if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise ProcessError(
                f"{self.name} ended with code {self._process.returncode}; its log is {self.log}\n{self._tail()}"
            )

    def stop(self) -> None:
        """Asks it to end, and ends it if it doesn't."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])
