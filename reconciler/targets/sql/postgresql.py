"""PostgreSQL, through asyncpg (the extra `postgresql`).

The row is locked by SELECT … FOR UPDATE, and an advisory lock on the resource's key keeps two creates of ours apart where
the table's id has no unique index. With `origin` on, triggers can tell our writes by `current_setting('reconciler.origin', true)`,
which is the command's id.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from pydantic import Field, SecretStr

from reconciler.targets.answers import Clock, system_clock
from reconciler.targets.sql.config import ResourceConfig, SqlConfig
from reconciler.targets.sql.database import Trouble
from reconciler.targets.sql.inbox import Inbox
from reconciler.targets.sql.postgresql_types import SESSION, ColumnType, form_of
from reconciler.targets.sql.table import IdForm, Row, Table, quoted
from reconciler.targets.sql.target import SqlTarget
from reconciler.values.errors import InputError

_TRANSIENT_CLASSES: Final = frozenset({"08", "28", "3D", "40", "53", "55", "57", "58"})
"""What isn't about the command: connection, credentials, database name, rollback (serialisation, deadlock), resources, objects in
use (locks), an operator's intervention, system errors."""
_TRANSIENT_STATES: Final = frozenset({"25006", "0A000"})
"""Read-only (a standby after a failover); "cached plan must not change result type" (after a migration)."""
_TELLING_CLASS: Final = "42"
"""Messages about syntax and rights name tables, columns and types, never values."""

_WHOLE_NUMBER: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INTEGER_BITS: Final = {"int2": 16, "int4": 32, "int8": 64}
_TEXTS: Final = frozenset({"text", "varchar"})


class PostgresqlConfig(SqlConfig):
    """``kind: postgresql``."""

    dsn: SecretStr
    pool_size: int = Field(default=4, ge=1, le=100)
    origin: bool = True
    """Whether a transaction of ours sets `reconciler.origin` to the command's origin mark: its id."""


class PostgresqlTarget(SqlTarget):
    """Resources in PostgreSQL tables."""

    def __init__(self, system: str, config: PostgresqlConfig, *, clock: Clock = system_clock) -> None:
        super().__init__(system, "postgresql", config, PostgresqlDatabase(config), clock=clock)


class PostgresqlDatabase:
    """A pool of connections, opened when it is first needed."""

    errors: tuple[type[Exception], ...] = (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
    )

    def __init__(self, config: PostgresqlConfig) -> None:
        self._config = config
        self._opening = asyncio.Lock()
        self._pool: Any = None
        self._inbox_made = False
        self._tables: dict[str, Table] = {}

    def parameter(self, number: int) -> str:
        return f"${number}"

    def forget_tables(self) -> None:
        self._tables.clear()

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._config.dsn.get_secret_value(),
                    min_size=0,
                    max_size=self._config.pool_size,
                    timeout=self._config.timeout_s,
                    command_timeout=self._config.timeout_s,
                    server_settings=SESSION,
                )
        return self._pool

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        pool = await self._opened()
        async with pool.acquire(timeout=self._config.timeout_s) as connection:
            yield connection

    async def table(self, type_: str) -> Table:
        if type_ not in self._tables:
            config = self._config.resources[type_]
            async with self._connection() as connection:
                types = await _column_types(connection, config)
            self._tables[type_] = _table(config, types)
        return self._tables[type_]

    async def fetch(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        async with self._connection() as connection:
            rows: Sequence[Row] = await connection.fetch(sql, *arguments)
            return rows

    @asynccontextmanager
    async def transaction(
        self, resource: str, origin: str, audit: str | None = None
    ) -> AsyncIterator[PostgresqlTransaction]:
        async with self._connection() as connection:
            await self._make_inbox(connection)
            async with connection.transaction(isolation="read_committed"):
                marks = ", set_config('reconciler.origin', $3, true), set_config('reconciler.audit', $4, true)"
                marking = marks if self._config.origin else ""
                await connection.fetch(
                    "SELECT set_config('lock_timeout', $1, true), "
                    f"pg_advisory_xact_lock(hashtextextended($2, 0)){marking}",
                    f"{max(1, int(self._config.timeout_s * 1000))}ms",
                    resource,
                    *([origin, audit or ""] if self._config.origin else []),
                )
                yield PostgresqlTransaction(connection)

    async def _make_inbox(self, connection: Any) -> None:
        if self._inbox_made or not self._config.inbox.create:
            return
        name = quoted(self._config.inbox.schema_name, self._config.inbox.table)
        if await connection.fetchval("SELECT to_regclass($1)", name) is None:
            async with connection.transaction():
                # IF NOT EXISTS fails for two that make it at the same moment; with the lock the second finds it made.
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)
                await connection.execute(Inbox(self._config.inbox, self.parameter).ddl())
        self._inbox_made = True

    def trouble(self, error: Exception) -> Trouble:
        if isinstance(error, asyncpg.PostgresError):
            return _server_trouble(error)
        if isinstance(error, asyncpg.DataError):
            return Trouble(kind="permanent", sentence="PostgreSQL: a value doesn't fit the type of its column")
        if isinstance(error, TimeoutError):
            return Trouble(kind="transient", sentence=f"PostgreSQL: no answer within {self._config.timeout_s:g} s")
        return Trouble(kind="transient", sentence=f"PostgreSQL: no connection ({type(error).__name__})")

    async def close(self) -> None:
        async with self._opening:
            if self._pool is not None:
                await self._pool.close()
                self._pool = None


class PostgresqlTransaction:
    """An open transaction of one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        rows: Sequence[Row] = await self._connection.fetch(sql, *arguments)
        return rows

    async def execute(self, sql: str, arguments: Sequence[object]) -> int:
        done: str = await self._connection.execute(sql, *arguments)
        return int(done.rpartition(" ")[2])

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        async with self._connection.transaction():
            yield


def _server_trouble(error: Any) -> Trouble:
    """An answer of the server: its state and what it is about, without the details that quote values."""
    state: str = error.sqlstate or ""
    transient = state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_STATES
    about = [
        f"{what} {name!r}"
        for what, name in (
            ("constraint", error.constraint_name),
            ("column", error.column_name),
            ("table", error.table_name),
        )
        if name
    ]
    told = str(error) if state[:2] == _TELLING_CLASS else ", ".join(about)
    sentence = f"PostgreSQL: {type(error).__name__} ({state})"
    return Trouble(kind="transient" if transient else "permanent", sentence=f"{sentence}: {told}" if told else sentence)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _column_types(connection: Any, config: ResourceConfig) -> dict[str, ColumnType]:
    """The types of all columns that the configuration names, domains resolved. Fails as the server does where one isn't there."""
    extra = [config.version.column if config.version else None, config.modified_at, config.modified_by]
    names = list(
        dict.fromkeys(
            [config.id, *(column.column for column in config.fields.values()), *(name for name in extra if name)]
        )
    )
    table = quoted(config.schema_name, config.table)
    statement = await connection.prepare(f"SELECT {', '.join(map(quoted, names))} FROM {table} LIMIT 0")
    oids = {name: attribute.type.oid for name, attribute in zip(names, statement.get_attributes(), strict=True)}
    rows = await connection.fetch(
        "SELECT type.oid, type.typname, format_type(type.oid, -1), element.typname FROM pg_type AS type "
        "LEFT JOIN pg_type AS element ON element.oid = type.typelem AND type.typcategory = 'A' "
        "WHERE type.oid = ANY($1::oid[])",
        sorted(set(oids.values())),
    )
    types = {oid: ColumnType(name=name, sql=sql, element=element) for oid, name, sql, element in rows}
    return {name: types[oid] for name, oid in oids.items()}


def _table(config: ResourceConfig, types: dict[str, ColumnType]) -> Table:
    modified_at = None
    if config.modified_at is not None:
        if types[config.modified_at].name not in ("timestamptz", "text", "varchar"):
            raise InputError(
                f"the column {config.modified_at!r} of {config.table!r} must be timestamptz (or ISO text) to say when "
                "a row was modified"
            )
        modified_at = form_of(config.modified_at, types[config.modified_at], "auto")
    return Table(
        config,
        [form_of(column.column, types[column.column], column.kind) for column in config.fields.values()],
        _id_form(config.id, types[config.id]),
        as_text=lambda expression: f"{expression}::text",
        parameter=lambda number: f"${number}",
        modified_at=modified_at,
        row_lock=" FOR UPDATE",
    )


def _id_form(column: str, type_: ColumnType) -> IdForm:
    """Whole numbers, UUIDs and texts are found by their index; ids of other types by their text."""
    name = quoted(column)
    native = type_.name in _INTEGER_BITS or type_.name == "uuid"
    as_text = name if type_.name in _TEXTS else f"{name}::text"
    compared, one, many = (
        (name, f"$1::text::{type_.sql}", f"$1::text[]::{type_.sql}[]")
        if native
        else (as_text, "$1::text", "$1::text[]")
    )
    return IdForm(
        text=f"{name}::text",
        problem=lambda id_: _id_problem(id_, type_.name),
        where_one=f"{compared} = {one}",
        one=lambda id_: [id_],
        where_many=lambda count: f"{compared} = ANY({many})",
        many=lambda ids: [list(ids)],
        place=lambda number: f"${number}::text::{type_.sql}",
        after=f"{name} > $1::text::{type_.sql}",
        order=name,
    )


def _id_problem(id_: str, type_name: str) -> str | None:
    bits = _INTEGER_BITS.get(type_name)
    if bits is not None:
        whole = _WHOLE_NUMBER.fullmatch(id_) is not None and -(2 ** (bits - 1)) <= int(id_) < 2 ** (bits - 1)
        return None if whole else f"the id isn't a whole number of {bits} bits, as the ids of this table are"
    if type_name == "uuid":
        return None if _UUID.fullmatch(id_) else "the id isn't a UUID in lower case, as the ids of this table are"
    return "an id can't hold a NUL character" if "\x00" in id_ else None
