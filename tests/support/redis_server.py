"""A real Redis server, in memory, on a loopback port."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import redis

from tests.support.needs import need_program
from tests.support.ports import free_port
from tests.support.processes import Server, ServerProcess

_READY_WITHIN_S = 120.0


class RedisServer(Server):
    """One server. What it holds is gone after `stop` or `kill`; `start` brings an empty one back on the same port."""

    def __init__(self) -> None:
        self._program = need_program("redis-server", "valkey-server", package="redis-server")
        self._folder = Path(tempfile.mkdtemp(prefix="reconciler-redis-"))
        self._port = free_port()
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Starts the server and returns when it answers."""
        command = [str(self._program), "--bind", "127.0.0.1", "--port", str(self._port)]
        options = ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._process = ServerProcess("redis", [*command, *options], log=self._folder / "server.log")
        self._process.wait_ready(self._answers, deadline_s=_READY_WITHIN_S)

    def stop(self) -> None:
        """Ends the server in an orderly way."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def flush(self) -> None:
        """Takes everything out of the server, so that no test sees what another left."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def close(self) -> None:
        """Ends the server and takes its folder away."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
