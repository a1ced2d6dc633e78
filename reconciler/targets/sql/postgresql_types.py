"""How PostgreSQL's types become JSON and go back without loss. Pure.

All values travel as PostgreSQL's own text: it is exact for every type there is, and one row with a value that a driver
can't hold (an instant before the year 1, `infinity`) doesn't spoil the rows beside it. The session's settings in
`SESSION` make the texts canonical.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from typing import Final

from reconciler.records import Record
from reconciler.targets.sql.config import ColumnKind
from reconciler.targets.sql.form import Form, read_json, write_bytes, write_integer, write_json
from reconciler.targets.sql.table import quoted
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json, canonical, parse

SESSION: Final = {
    "application_name": "reconciler",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}

_JSON_TYPES: Final = frozenset({"json", "jsonb"})
_INTEGERS: Final = frozenset({"int2", "int4", "int8", "oid"})
_FLOATS: Final = frozenset({"float4", "float8"})
_BY_VALUE: Final = frozenset({"numeric", "float4", "float8"})
_JSON_SAYS: Final = _JSON_TYPES | _INTEGERS | _FLOATS | {"bool", "text", "varchar", "name"}
"""Types of which a JSON value is the whole truth: whether one was kept can be seen in what is read back."""

_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_INSTANT: Final = re.compile(r"([0-9]{4,}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?)(\+00)?")


class ColumnType(Record, frozen=True, kw_only=True):
    """A type as pg_type has it: its plain name, its name as SQL (with schema and quotes), and for an array its elements' name."""

    name: str
    sql: str
    element: str | None = None


def form_of(column: str, type_: ColumnType, kind: ColumnKind) -> Form:
    """The form of a column. Raises InputError where the configured kind contradicts the type."""
    name = quoted(column)
    if kind == "json" and type_.name not in _JSON_TYPES:
        return Form(
            select=f"{name}::text",
            place=lambda number: f"${number}::text::{type_.sql}",
            read=read_json,
            write=write_json,
            is_json=True,
        )
    if (kind == "boolean" and type_.name != "bool") or (kind == "bytes" and type_.name != "bytea"):
        raise InputError(
            f"the column {column!r} is of type {type_.sql}, so it can't be of `kind: {kind}`; leave it out"
        )
    return _scalar(name, type_) if type_.element is None else _array(name, type_, type_.element)


def _scalar(name: str, type_: ColumnType) -> Form:
    read, write = _readers(type_.name)

    def place(number: int) -> str:
        return f"${number}::text::{type_.sql}"

    return Form(
        select=f"{name}::text",
        place=place,
        read=lambda stored: read(_text(stored)),
        write=write,
        is_json=type_.name in _JSON_TYPES,
        kept=None if type_.name in _JSON_SAYS else _kept(name, type_.name, place),
    )


def _array(name: str, type_: ColumnType, element: str) -> Form:
    read, write = _readers(element)

    def read_all(stored: object) -> Json:
        members = parse(_text(stored))
        if not isinstance(members, list) or any(isinstance(member, list) for member in members):
            raise InputError("holds an array of more than one dimension")
        return [None if member is None else read(member) for member in members]

    def write_all(value: Json) -> str:
        if not isinstance(value, list):
            raise InputError("holds an array, and nothing else")
        return canonical([None if member is None else write(member) for member in value]).decode()

    def place(number: int) -> str:
        members = f"ARRAY(SELECT jsonb_array_elements_text(${number}::text::jsonb))::{type_.sql}"
        return f"CASE WHEN ${number}::text IS NULL THEN NULL ELSE {members} END"

    return Form(
        select=f"array_to_json({name}::text[])::text",
        place=place,
        read=read_all,
        write=write_all,
        kept=None if element in _JSON_TYPES else _kept(name, element, place),
    )


def _kept(name: str, base: str, place: Callable[[int], str]) -> Callable[[int], str]:
    """Equality by value where one value has more texts (1.5 and 1.50), else by PostgreSQL's own text, which every type has."""
    if base in _BY_VALUE:
        return lambda number: f"({name} IS NOT DISTINCT FROM ({place(number)}))"
    return lambda number: f"({name}::text IS NOT DISTINCT FROM ({place(number)})::text)"


def _text(stored: object) -> str:
    assert isinstance(stored, str), "every column is asked for as text"
    return stored


def _readers(base: str) -> tuple[Callable[[str], Json], Callable[[Json], str]]:
    """From PostgreSQL's text to JSON, and back."""
    if base in _JSON_TYPES:
        return read_json, write_json
    if base in _INTEGERS:
        return int, lambda value: str(write_integer(value))
    if base in _FLOATS:
        return _read_float, _write_number
    match base:
        case "bool":
            return lambda text: text == "true", _write_boolean
        case "numeric":
            return _read_decimal, _write_decimal
        case "bytea":
            return lambda text: base64.b64encode(bytes.fromhex(text[2:])).decode(), _write_bytea
        case "timestamptz" | "timestamp":
            return _read_instant, _write_text
    return str, _write_text


def _read_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InputError(f"holds {text}, which is no JSON number")
    return number


def _read_decimal(text: str) -> str:
    if _DECIMAL.fullmatch(text) is None:
        raise InputError(f"holds {text}, which is no JSON number")
    return text


def _read_instant(text: str) -> str:
    """ISO 8601; what it can't say (`infinity`, years before 1) stays as PostgreSQL writes it, which it also reads."""
    match = _INSTANT.fullmatch(text)
    return text if match is None else f"{match[1]}T{match[2]}{'Z' if match[3] else ''}"


def _write_number(value: Json) -> str:
    if type(value) not in (int, float):
        raise InputError("holds numbers, and nothing else")
    return repr(value)


def _write_decimal(value: Json) -> str:
    if type(value) in (int, float):
        return repr(value)
    if not isinstance(value, str) or _DECIMAL.fullmatch(value) is None:
        raise InputError("holds decimal numbers: give them as text such as '1.50'")
    return value


def _write_boolean(value: Json) -> str:
    if not isinstance(value, bool):
        raise InputError("holds true or false, and nothing else")
    return "true" if value else "false"


def _write_bytea(value: Json) -> str:
    return "\\x" + write_bytes(value).hex()


def _write_text(value: Json) -> str:
    if not isinstance(value, str):
        raise InputError("holds text, and nothing else")
    return value
