"""JSON values: parsing without loss, canonical text, exact equality, and ABSENT.

Two values are equal exactly when their canonical texts are the same bytes, so ``1``, ``1.0``, ``"1"`` and ``true`` are
four values, and ``-0.0`` is not ``0.0``. ``ABSENT`` (no value at all), ``None`` (JSON null) and ``{}`` are three.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, TypeAlias

import msgspec
import orjson

from reconciler.values.errors import InputError, ValueLimitError

Json: TypeAlias = Any  # None | bool | int | float | str | list[Json] | dict[str, Json]
Absent: TypeAlias = msgspec.UnsetType
ABSENT: Final = msgspec.UNSET
"""No value. It is msgspec's UNSET, so that a record's JSON form leaves the key out."""

MAX_DEPTH: Final = 100
"""Levels of nesting, pointer tokens included. The limit that MongoDB documents have, and below orjson's own 254."""

RECORD_DEPTH: Final = MAX_DEPTH + 8
"""Levels of nesting of a record's whole text. Its values may be MAX_DEPTH deep; those in a plan's commands lie seven down."""

MAX_INTEGER: Final = 2**64 - 1
MIN_INTEGER: Final = -(2**63)
"""What orjson and Avro readers keep exactly; larger numbers travel as strings."""

_LONG_DIGITS: Final = 19
_SHOWN_DIGITS: Final = 24
_LONG_NUMBER: Final = b"0" * _LONG_DIGITS
_DIGITS_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_BEFORE_INTEGERS: Final = frozenset(b"-:,[ \t\r\n")
"""What stands before an integer, if anything does."""

# Without the PASSTHROUGH options orjson would write datetimes, UUIDs and dataclasses as if they were JSON.
_CANONICAL: Final = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)


def canonical(value: Json) -> bytes:
    """The canonical JSON text of a value: UTF-8, keys sorted by code point, no white space, shortest floats.

    Raises InputError for what JSON can't say exactly (lone surrogates, integers beyond 64 bits, foreign types). NaN and
    infinities must have been refused before (`check_value`): they are no JSON and orjson would write null.
    """
    try:
        return orjson.dumps(value, option=_CANONICAL)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"is no JSON value: {error}") from None


def parse(text: bytes | str, levels: int = MAX_DEPTH) -> Json:
    """The value of a JSON text. Raises InputError where it isn't JSON, ValueLimitError where it holds a number that would be
    changed by reading, or is nested more than `levels` deep; the error's field is then the member of the text's object."""
    raw = text.encode() if isinstance(text, str) else text
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _unreadable(raw, error) from None
    check_parsed(raw, value, levels)
    return value


def _unreadable(raw: bytes, error: orjson.JSONDecodeError) -> InputError:
    """What is wrong with a text that orjson doesn't read."""
    if "depth limit" in error.msg:
        return ValueLimitError(f"is nested more than {MAX_DEPTH} levels deep")
    try:
        raw.decode()
    except UnicodeDecodeError as fault:
        return InputError(f"is not UTF-8: byte {fault.start + 1} is 0x{raw[fault.start]:02X}; save it as UTF-8")
    if b"\0" in raw:  # each of them is UTF-8, and none is JSON
        return InputError(f"is not UTF-8: byte {raw.index(0) + 1} is 0x00, as in UTF-16; save it as UTF-8")
    line = f"line {error.lineno}, " if error.lineno > 1 else ""
    return InputError(
        f"is not JSON: {error.msg} ({line}column {error.colno}); check the quotes, commas and brackets there"
    )


def check_parsed(raw: bytes, value: Json, levels: int = MAX_DEPTH) -> None:
    """What `parse` checks of a text once orjson has made a value of it. Raises ValueLimitError."""
    if _may_hold_long_numbers(raw):
        _check_long_numbers(raw)
    if _may_be_deep(raw):
        _check_text_depth(value, levels)


def _check_text_depth(value: Json, levels: int) -> None:
    above = MAX_DEPTH - levels
    if not isinstance(value, dict):
        check_depth(value, above)
        return
    for name, member in value.items():
        try:
            check_depth(member, above + 1)
        except ValueLimitError as error:
            raise ValueLimitError(error.message, field=name) from None


def is_plain_text(raw: bytes) -> bool:
    """Whether a JSON text needs no check but its reader's: no number and no depth in it can be beyond a limit."""
    return not _may_hold_long_numbers(raw) and not _may_be_deep(raw)


def _may_hold_long_numbers(raw: bytes) -> bool:
    # Ten times as fast as re. Ids are long numbers too, but have a quote or a letter before them.
    if len(raw) < _LONG_DIGITS:
        return False
    zeros = raw.translate(_DIGITS_AS_ZEROS)
    at = zeros.find(_LONG_NUMBER)
    while at >= 0:
        if at == 0 or raw[at - 1] in _BEFORE_INTEGERS:
            return True
        rest = zeros[at:].lstrip(b"0")
        at = zeros.find(_LONG_NUMBER, len(zeros) - len(rest))
    return False


def _may_be_deep(raw: bytes) -> bool:
    return len(raw) > MAX_DEPTH and raw.count(b"[") + raw.count(b"{") > MAX_DEPTH


class _Beyond(int):
    """Stands for an integer beyond 64 bits, so that its place can be named."""


def _check_long_numbers(raw: bytes) -> None:
    """orjson reads an integer beyond 64 bits as a float; a changed number is worse than a refused one."""
    beyond: list[str] = []

    def whole(digits: str) -> int:
        number = int(digits) if len(digits) <= 20 else MAX_INTEGER + 1
        if MIN_INTEGER <= number <= MAX_INTEGER:
            return number
        beyond.append(digits)
        return _Beyond()

    try:
        value = json.loads(raw, parse_int=whole)
    except RecursionError:
        raise ValueLimitError(f"is nested more than {MAX_DEPTH} levels deep") from None
    if beyond:
        members = value.items() if isinstance(value, dict) else ()
        raise ValueLimitError(
            f"the integer {_shortened(beyond[0])} is beyond 64 bits; send it as a string and use the `number` normaliser",
            field=next((name for name, member in members if _holds_beyond(member)), ""),
        )


def _shortened(digits: str) -> str:
    return digits if len(digits) <= _SHOWN_DIGITS else f"{digits[:_SHOWN_DIGITS]}…"


def _holds_beyond(value: Json) -> bool:
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, _Beyond):
            return True
        if isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False


def check_depth(value: Json, depth: int = 0) -> None:
    """Raises ValueLimitError where a value is nested more than MAX_DEPTH levels deep, `depth` of them above it."""
    stack = [(value, depth)]
    while stack:
        node, level = stack.pop()
        if isinstance(node, dict):
            members: Any = node.values()
        elif isinstance(node, list):
            members = node
        else:
            continue
        if level >= MAX_DEPTH:
            raise ValueLimitError(f"is nested more than {MAX_DEPTH} levels deep")
        stack.extend((member, level + 1) for member in members)


def check_value(value: Json) -> None:
    """For values made by code and not by `parse`: raises InputError where a value isn't exact JSON."""
    check_depth(value)
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, float):
            if not math.isfinite(node):
                raise InputError(f"{node} is no JSON number")
        elif isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    canonical(value)


def same(left: Any, right: Any) -> bool:
    """Exact equality of two values or ABSENT, as by canonical text, without writing the text."""
    kind = type(left)
    if kind is not type(right):
        return False
    if kind is str:  # most values
        return bool(left == right)
    if kind is dict:
        return left.keys() == right.keys() and all(same(member, right[name]) for name, member in left.items())
    if kind is list:
        return len(left) == len(right) and all(map(same, left, right))
    if kind is float:
        return bool(left == right) and math.copysign(1.0, left) == math.copysign(1.0, right)
    return bool(left == right)
