"""Deduplication for handlers: a command is applied once, however often it is delivered.

A store remembers the decision on a command (`reconciler.targets.first_outcome` says what that means for one that comes
again). It is asked before a handler runs and told after it. Between the handler's effect and the store's word lies a crash
window: only a store in the same transaction as the effect closes it (`SqlDedup.remember_in`). Elsewhere what remains is the
command's own protection, the values that it expects to find.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec
import redis.asyncio
from redis.backoff import NoBackoff

from reconciler.records import Command, OutcomeStatus
from reconciler.targets.first_outcome import KEPT_S, FirstOutcome
from reconciler.values.errors import InputError

KEY_PREFIX: Final = "reconciler:applied:"
MAX_REMEMBERED: Final = 100_000
_TIMEOUT_S: Final = 1.0

ParameterStyle: TypeAlias = Literal["qmark", "format"]
"""How a DB-API driver marks parameters (PEP 249): ``?`` (sqlite3) or ``%s`` (psycopg)."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(FirstOutcome).decode


class DedupStore(Protocol):
    """Remembers decisions on commands. May raise what its client raises: a command whose past is unknown isn't applied."""

    async def first(self, command_id: str) -> FirstOutcome | None:
        """The decision on a command; None where there is none."""
        ...

    async def remember(self, command_id: str, first: FirstOutcome) -> None:
        """Keeps a decision, in place of an earlier one."""
        ...


class MemoryDedup:
    """Remembers in memory, the latest `max_remembered`: for tests, and for handlers whose effects bear repetition, because it
    forgets with the process."""

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._max_remembered = max_remembered
        self._first: OrderedDict[str, FirstOutcome] = OrderedDict()

    async def first(self, command_id: str) -> FirstOutcome | None:
        return self._first.get(command_id)

    async def remember(self, command_id: str, first: FirstOutcome) -> None:
        self._first[command_id] = first
        self._first.move_to_end(command_id)
        while len(self._first) > self._max_remembered:
            self._first.popitem(last=False)


class RedisDedup:
    """Remembers in Redis, for ``keep_s`` seconds: shared by all instances of a service."""

    def __init__(self, url: str, *, keep_s: int = KEPT_S) -> None:
        self._keep_s = keep_s
        self._redis = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        )

    async def first(self, command_id: str) -> FirstOutcome | None:
        value = await self._redis.get(KEY_PREFIX + command_id)
        return None if value is None else _decode(value)

    async def remember(self, command_id: str, first: FirstOutcome) -> None:
        await self._redis.set(KEY_PREFIX + command_id, _encode(first), ex=self._keep_s)

    async def close(self) -> None:
        """Gives back connections."""
        await self._redis.aclose()


class SqlDedup:
    """Remembers in a table of a SQL database (SQLite, PostgreSQL and what else knows ``ON CONFLICT``).

    ``connect`` opens a DB-API 2 connection; each call uses one of its own, in a thread. A handler that writes to the same
    database calls `remember_in` inside its own transaction: then effect and memory are one.
    """

    def __init__(
        self, connect: Callable[[], Any], *, parameters: ParameterStyle = "qmark", table: str = "reconciler_inbox"
    ) -> None:
        """Raises InputError for a table name that isn't a plain one."""
        if not table.replace("_", "").replace(".", "").isalnum() or not table.isascii():
            raise InputError(f"{table!r} is no plain name for a table", field="table")
        self._connect = connect
        mark = "?" if parameters == "qmark" else "%s"
        # The table's name is checked above; everything else goes as a parameter.
        self._create = f"CREATE TABLE IF NOT EXISTS {table} (command_id VARCHAR(200) PRIMARY KEY, decision VARCHAR(10000) NOT NULL)"
        self._select = f"SELECT decision FROM {table} WHERE command_id = {mark}"  # noqa: S608
        self._insert = f"INSERT INTO {table} (command_id, decision) VALUES ({mark}, {mark})"  # noqa: S608
        self._upsert = f"{self._insert} ON CONFLICT (command_id) DO UPDATE SET decision = excluded.decision"

    def create_table(self) -> None:
        """Makes the table where it isn't there yet."""
        self._write(self._create, ())

    def remember_in(self, connection: Any, command: Command, status: OutcomeStatus = "applied") -> None:
        """Keeps a decision inside the caller's transaction. Raises the driver's error for a repeated key where somebody else
        has applied the command meanwhile: let it go through, so that the transaction is rolled back."""
        first = FirstOutcome(status=status, attempt=command.attempt)
        connection.cursor().execute(self._insert, (command.command_id, _encode(first).decode()))

    async def first(self, command_id: str) -> FirstOutcome | None:
        return await asyncio.to_thread(self._read, command_id)

    async def remember(self, command_id: str, first: FirstOutcome) -> None:
        await asyncio.to_thread(self._write, self._upsert, (command_id, _encode(first).decode()))

    def _read(self, command_id: str) -> FirstOutcome | None:
        connection = self._connect()
        try:
            cursor = connection.cursor()
            cursor.execute(self._select, (command_id,))
            row = cursor.fetchone()
        finally:
            connection.close()
        return None if row is None else _decode(row[0].encode())

    def _write(self, statement: str, parameters: tuple[str, ...]) -> None:
        connection = self._connect()
        try:
            connection.cursor().execute(statement, parameters)
            connection.commit()
        finally:
            connection.close()
