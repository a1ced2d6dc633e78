"""SQLite. A write transaction is SQLite's one writer, so a row needs no lock of its own.

SQLite's types belong to values, not to columns. So the configuration says where text is JSON, where 0 and 1 are booleans
and where there are bytes; what it doesn't say is number or text, as stored.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from pydantic import ValidationInfo, field_validator, model_validator

from reconciler.targets.answers import Clock, system_clock
from reconciler.targets.sql.config import ColumnKind, ResourceConfig, SqlConfig
from reconciler.targets.sql.database import Trouble
from reconciler.targets.sql.form import (
    Form,
    read_bytes,
    read_json,
    write_bytes,
    write_integer,
    write_json,
)
from reconciler.targets.sql.inbox import Inbox
from reconciler.targets.sql.sqlite_connection import SqliteConnection
from reconciler.targets.sql.table import IdForm, Row, Table, quoted
from reconciler.targets.sql.target import SqlTarget
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json

_WHOLE_NUMBER: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
_LAST_INTEGER: Final = 2**63 - 1

_TRANSIENT: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_PROTOCOL,
    }
)


class SqliteConfig(SqlConfig):
    """``kind: sqlite``."""

    path: Path
    """The database file, relative to the targets file's folder. It must be there: a mistyped path makes no new database."""

    @field_validator("path")
    @classmethod
    def _from_folder(cls, path: Path, info: ValidationInfo) -> Path:
        folder: Path = (info.context or {}).get("folder", Path())
        return folder / path

    @model_validator(mode="after")
    def _one_schema(self) -> SqliteConfig:
        if self.inbox.schema_name or any(resource.schema_name for resource in self.resources.values()):
            raise ValueError("SQLite knows no `schema`; leave it out")
        return self


class SqliteTarget(SqlTarget):
    """Resources in an SQLite file."""

    def __init__(self, system: str, config: SqliteConfig, *, clock: Clock = system_clock) -> None:
        super().__init__(system, "sqlite", config, SqliteDatabase(config), clock=clock)


class SqliteDatabase:
    """One connection, used by one task at a time."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, config: SqliteConfig) -> None:
        self._config = config
        self._connection: SqliteConnection | None = None
        self._lock = asyncio.Lock()
        self._inbox_made = False
        self._tables: dict[str, Table] = {}

    async def table(self, type_: str) -> Table:
        if type_ not in self._tables:
            config = self._config.resources[type_]
            rows = await self.fetch("SELECT name, type FROM pragma_table_info(?1)", [config.table])
            declared = {str(name): str(declared_type) for name, declared_type in rows}
            self._tables[type_] = _table(config, declared.get(config.id, ""))
        return self._tables[type_]

    def forget_tables(self) -> None:
        self._tables.clear()

    def parameter(self, number: int) -> str:
        return _parameter(number)

    def _opened(self) -> SqliteConnection:
        """The connection, made when it is first needed. Under the lock."""
        if self._connection is None:
            self._connection = SqliteConnection(self._config.path, self._config.timeout_s)
        return self._connection

    async def fetch(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        async with self._lock:
            return await self._opened().fetch(sql, arguments)

    @asynccontextmanager
    async def transaction(
        self, resource: str, origin: str, audit: str | None = None
    ) -> AsyncIterator[SqliteTransaction]:
        async with self._lock:
            connection = self._opened()
            if self._config.inbox.create and not self._inbox_made:
                await connection.execute(Inbox(self._config.inbox, _parameter).ddl())
                self._inbox_made = True
            try:
                await connection.execute("BEGIN IMMEDIATE")
                yield SqliteTransaction(connection)
                await connection.execute("COMMIT")
            except BaseException:
                await connection.roll_back()
                raise

    def trouble(self, error: Exception) -> Trouble:
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        kind: Final = "transient" if code in _TRANSIENT else "permanent"
        # The texts of constraint and schema errors name tables and columns; others may quote values.
        told = code in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY)
        return Trouble(kind=kind, sentence=f"SQLite: {name}: {error}" if told else f"SQLite: {name}")

    async def close(self) -> None:
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None


class SqliteTransaction:
    """An open transaction of the connection."""

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        return await self._connection.fetch(sql, arguments)

    async def execute(self, sql: str, arguments: Sequence[object]) -> int:
        return await self._connection.execute(sql, arguments)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        await self._connection.execute("SAVEPOINT command")
        try:
            yield
        except BaseException:
            await self._connection.execute("ROLLBACK TO command")
            raise
        finally:
            await self._connection.execute("RELEASE command")


def _parameter(number: int) -> str:
    return f"?{number}"


def _as_text(expression: str) -> str:
    return f"CAST({expression} AS TEXT)"


# ── ids ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _id_form(name: str, declared_type: str) -> IdForm:
    """An id is stored as text or as a number, as the column's affinity has it: both are asked for, and the text compared."""
    # Without an affinity SQLite compares text with numbers as they are, so the order must be made alike first.
    ordered = name if _has_affinity(declared_type) else _as_text(name)
    return IdForm(
        text=_as_text(name),
        problem=lambda id_: _id_problem(id_, declared_type),
        where_one=f"{name} IN (?1, ?2)",
        one=_both,
        where_many=lambda count: f"{name} IN ({', '.join(_parameter(number) for number in range(1, 2 * count + 1))})",
        many=lambda ids: [form for id_ in ids for form in _both(id_)],
        place=_parameter,
        after=f"{ordered} > ?1",
        order=ordered,
    )


def _has_affinity(declared_type: str) -> bool:
    """Whether values compared with the column are converted to its type (https://www.sqlite.org/datatype3.html, 3.1 and 4.2)."""
    return declared_type != "" and ("INT" in declared_type.upper() or "BLOB" not in declared_type.upper())


def _makes_numbers(declared_type: str) -> bool:
    """Whether a text that reads as a number becomes one in the column (the same page, 3.1)."""
    declared = declared_type.upper()
    texts = ("CHAR", "CLOB", "TEXT")
    return "INT" in declared or (_has_affinity(declared) and not any(text in declared for text in texts))


def _id_problem(id_: str, declared_type: str) -> str | None:
    if "\x00" in id_:
        return "an id can't hold a NUL character"
    if not _makes_numbers(declared_type) or _WHOLE_NUMBER.fullmatch(id_) is not None:
        return None
    try:
        float(id_)
    except ValueError:
        return None
    return "the id reads as a number, but isn't written as the table's ids are"


def _both(id_: str) -> list[object]:
    if _WHOLE_NUMBER.fullmatch(id_) is not None and -_LAST_INTEGER - 1 <= int(id_) <= _LAST_INTEGER:
        return [id_, int(id_)]
    return [id_, id_]


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(config: ResourceConfig, id_type: str) -> Table:
    def named(column: str) -> str:
        # With the table's name before it: SQLite takes an unknown name in double quotes alone for a text.
        return quoted(config.table, column)

    modified_at = None if config.modified_at is None else _form(named(config.modified_at), "auto")
    return Table(
        config,
        [_form(named(column.column), column.kind) for column in config.fields.values()],
        _id_form(named(config.id), id_type),
        as_text=_as_text,
        parameter=_parameter,
        modified_at=modified_at,
    )


def _form(name: str, kind: ColumnKind) -> Form:
    read, write = _READERS[kind]
    return Form(select=name, place=_parameter, read=read, write=write, is_json=kind == "json")


def _read_auto(stored: object) -> Json:
    if isinstance(stored, bytes):
        raise InputError("holds bytes; configure `kind: bytes` for it")
    return stored


def _write_auto(value: Json) -> object:
    if type(value) is int:
        return write_integer(value)
    if type(value) in (str, float):
        return value
    kind = "boolean" if isinstance(value, bool) else "json"
    raise InputError(f"holds numbers and text; configure `kind: {kind}` for it")


def _read_boolean(stored: object) -> bool:
    if type(stored) is not int or stored not in (0, 1):
        raise InputError("holds something else than 0 and 1")
    return stored == 1


def _write_boolean(value: Json) -> int:
    if not isinstance(value, bool):
        raise InputError("holds true or false, and nothing else")
    return int(value)


_READERS: Final[Mapping[ColumnKind, tuple[Callable[[object], Json], Callable[[Json], object]]]] = {
    "auto": (_read_auto, _write_auto),
    "json": (read_json, write_json),
    "boolean": (_read_boolean, _write_boolean),
    "bytes": (read_bytes, write_bytes),
}
