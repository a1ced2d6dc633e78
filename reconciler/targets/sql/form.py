"""How the values of one column travel to and from the database. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from reconciler.targets.sql.mapping import MappedColumn
from reconciler.values.errors import InputError
from reconciler.values.json_value import Absent, Json, canonical, parse, same


@dataclass(frozen=True, kw_only=True)
class Form:
    """The form of one column.

    ``read`` takes what the driver gives (never None) and ``write`` a JSON value (never null, unless ``is_json``); both
    raise InputError with words that follow "the column x". ``place`` writes the n-th parameter in SQL. ``kept`` is the SQL
    that asks whether the column's value is the n-th parameter, for types with more than one text for a value.
    """

    select: str
    place: Callable[[int], str]
    read: Callable[[object], Json]
    write: Callable[[Json], object]
    is_json: bool = False
    kept: Callable[[int], str] | None = None

    def value_of(self, column: MappedColumn, stored: object) -> Json | Absent:
        """The JSON value of what the driver gave. Raises InputError naming the column."""
        if stored is None:
            return column.null
        try:
            return self.read(stored)
        except InputError as error:
            raise InputError(f"the column {column.column!r} {error.message}") from None

    def parameter_of(self, column: MappedColumn, value: Json | Absent) -> object:
        """What the driver takes for a JSON value. Raises InputError naming the path where the column can't hold it."""
        if isinstance(value, Absent):
            if column.null_is_absent:
                return None
            raise InputError(
                f"the column {column.column!r} can't be absent; configure `null_means: absent` for it if NULL means that",
                field=column.path,
            )
        if value is None and not column.null_is_absent:
            return None
        if value is None and not self.is_json:
            raise InputError(f"the column {column.column!r} can't hold null: its NULL means absent", field=column.path)
        try:
            return self.write(value)
        except InputError as error:
            raise InputError(f"the column {column.column!r} {error.message}", field=column.path) from None

    def kept_value(self, wanted: Json | Absent, stored: Json | Absent) -> bool:
        """Whether what is read back is what was written: exactly, but a column of numbers keeps a number by its value."""
        if self.is_json or type(wanted) is type(stored) or {type(wanted), type(stored)} != {int, float}:
            return same(wanted, stored)
        return bool(wanted == stored)


def read_json(stored: object) -> Json:
    """JSON text."""
    if not isinstance(stored, str):
        raise InputError("holds no JSON text")
    try:
        return parse(stored)
    except UnicodeEncodeError:
        raise InputError("holds text that isn't UTF-8") from None


def write_json(value: Json) -> str:
    """Canonical JSON text."""
    return canonical(value).decode()


def read_bytes(stored: object) -> str:
    """Bytes as base64."""
    if not isinstance(stored, bytes):
        raise InputError("holds something else than bytes")
    return base64.b64encode(stored).decode()


def write_bytes(value: Json) -> bytes:
    """The bytes of base64, in its one canonical text."""
    if isinstance(value, str):
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            data = None
        if data is not None and base64.b64encode(data).decode() == value:
            return data
    raise InputError("holds bytes: give them as base64 text")


MAX_ROW_INTEGER: Final = 2**63 - 1


def write_integer(value: Json) -> int:
    """A number without decimals, of at most 64 bits with its sign."""
    if type(value) is float and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if type(value) is not int or not -MAX_ROW_INTEGER - 1 <= value <= MAX_ROW_INTEGER:
        raise InputError("holds whole numbers of 64 bits, and nothing else")
    return value
