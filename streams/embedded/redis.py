"""A Redis inside the process: fakeredis behind a TCP port. It serves `reconciler dev`, the demo and fast tests."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from fakeredis import TcpFakeServer


class EmbeddedRedis:
    """A Redis look-alike on a free loopback port, from `start` to `stop`; as a context manager it does both."""

    def __init__(self) -> None:
        self._server: TcpFakeServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address for a Redis client. Raises RuntimeError when the server isn't started."""
        if self._server is None:
            raise RuntimeError("the embedded Redis isn't started")
        return f"redis://127.0.0.1:{self._server.server_address[1]}/0"

    def start(self) -> None:
        """Starts the server on a port that the system chooses."""
        self._server = TcpFakeServer(("127.0.0.1", 0))
        # A client that is still connected must keep neither `stop` nor the end of the process waiting.
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the server with all that it holds."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
