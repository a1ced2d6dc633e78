"""An SQLite connection on a thread of its own, so that its waits don't hold up the event loop.

Not aiosqlite, because that leaves its thread behind when a database can't be opened or a connection isn't closed, and goes
there and back three times a query; here a query and its rows are one trip.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class SqliteConnection:
    """Autocommit: transactions are begun and ended by statements. For one task at a time."""

    def __init__(self, path: Path, busy_timeout_s: float, mode: str = "rw") -> None:
        self._uri = f"{path.absolute().as_uri()}?mode={mode}"
        self._busy_timeout_s = busy_timeout_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                self._uri, uri=True, timeout=self._busy_timeout_s, isolation_level=None, cached_statements=256
            )
            # Invalid UTF-8 becomes lone surrogates, which no JSON can hold: so that row alone is unknown, not the query.
            self._connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        return self._connection

    def _run(self, sql: str, arguments: Sequence[object]) -> tuple[list[tuple[object, ...]], int]:
        cursor = self._opened().execute(sql, arguments)
        try:
            return cursor.fetchall(), cursor.rowcount
        finally:
            cursor.close()

    async def fetch(self, sql: str, arguments: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """The rows of a query. Raises sqlite3.Error."""
        rows, _ = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, sql, arguments)
        return rows

    async def execute(self, sql: str, arguments: Sequence[object] = ()) -> int:
        """How many rows a statement touched. Raises sqlite3.Error."""
        _, touched = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, sql, arguments)
        return touched

    async def roll_back(self) -> None:
        """Ends a transaction if one is open, even if the task that waits for it is cancelled, and before whatever comes next."""
        await asyncio.shield(asyncio.wrap_future(self._thread.submit(self._roll_back)))

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    async def close(self) -> None:
        """Ends the connection, after what is under way, and the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
