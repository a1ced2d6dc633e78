"""Normalisers: what a contract lets two values of a field differ in and still be equal.

Each is a pure, total function over JSON values and ABSENT; a value that it doesn't understand passes unchanged. They are
applied in the order in which they are listed. `equivalent` is the equality that they make: use it, and not a comparison
of `normalised` values, because a tolerance gives no canonical value.

A normaliser applies to a value and to the members of objects inside it, whose paths its rule covers as well. All but
``sorted`` also apply to what a list holds; what becomes absent inside a list stays as it was, since a list has no gaps.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from typing import Final, Literal, TypeAlias, assert_never

import msgspec

from reconciler.values.errors import InputError
from reconciler.values.instant import SECOND, format_instant, parse_instant
from reconciler.values.json_value import ABSENT, MAX_INTEGER, MIN_INTEGER, Absent, Json, canonical, same

NormaliserName: TypeAlias = Literal[
    "trim",  # white space around a string
    "casefold",  # upper and lower case of a string
    "digits",  # all but the digits of a string that has any
    "number",  # how a number is written: 1 = 1.0 = "1.00"
    "instant",  # the time zone of an instant in ISO 8601
    "null_is_absent",
    "empty_is_absent",  # an empty string, list or object
    "sorted",  # the order of a list
]
Precision: TypeAlias = Literal["day", "hour", "minute", "second", "millisecond", "microsecond"]


class NumberWithin(msgspec.Struct, frozen=True):
    """``number``, where two numbers at most ``tolerance`` apart are equal."""

    tolerance: Decimal


class InstantTo(msgspec.Struct, frozen=True):
    """``instant``, where what is finer than ``precision`` (in UTC) is cut off."""

    precision: Precision


Normaliser: TypeAlias = NormaliserName | NumberWithin | InstantTo

MAX_NUMERAL_LENGTH: Final = 1_000
MAX_EXPONENT: Final = 400
"""Numerals beyond these are text to us. Doubles end at 1e308, and a bound keeps exact arithmetic cheap."""

_NUMERAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)"
)
_EXACT: Final = Context(prec=4 * (MAX_NUMERAL_LENGTH + MAX_EXPONENT), Emax=100_000, Emin=-100_000, traps=[])
_MICROSECONDS: Final[dict[Precision, int]] = {
    "day": 86_400 * SECOND,
    "hour": 3_600 * SECOND,
    "minute": 60 * SECOND,
    "second": SECOND,
    "millisecond": 1_000,
    "microsecond": 1,
}


def normalised(value: Json | Absent, normalisers: Sequence[Normaliser]) -> Json | Absent:
    """What is left of a value after the normalisers. A tolerance leaves a number as ``number`` alone does."""
    for normaliser in normalisers:
        value = _apply(normaliser, value)
    return value


def equivalent(left: Json | Absent, right: Json | Absent, normalisers: Sequence[Normaliser]) -> bool:
    """Whether two values are equal after the normalisers; without any, exactly."""
    if same(left, right):
        return True
    if not normalisers:
        return False
    left, right = normalised(left, normalisers), normalised(right, normalisers)
    tolerance = max((item.tolerance for item in normalisers if isinstance(item, NumberWithin)), default=None)
    return same(left, right) if tolerance is None else _same_within(left, right, tolerance)


def _apply(normaliser: Normaliser, value: Json | Absent) -> Json | Absent:
    match normaliser:
        case "trim":
            return _each(value, _trim)
        case "casefold":
            return _each(value, _casefold)
        case "digits":
            return _each(value, _digits)
        case "number" | NumberWithin():
            return _each(value, _number)
        case "instant":
            return _each(value, _instant)
        case InstantTo(precision):
            step = _MICROSECONDS[precision]
            return _each(value, lambda scalar: _instant(scalar, step))
        case "null_is_absent":
            return _without(value, lambda member: member is None)
        case "empty_is_absent":
            return _without(value, lambda member: type(member) in (str, list, dict) and not member)
        case "sorted":
            return _sorted(value)
        case _:
            assert_never(normaliser)


def _each(value: Json | Absent, change: Callable[[Json], Json]) -> Json | Absent:
    """Every scalar of a value changed."""
    if type(value) is dict:
        return {name: _each(member, change) for name, member in value.items()}
    if type(value) is list:
        return [_each(member, change) for member in value]
    return value if value is ABSENT else change(value)


def _without(value: Json | Absent, is_absent: Callable[[Json], bool]) -> Json | Absent:
    """A value without the members that count as absent, itself ABSENT if it then counts as absent."""
    value = _without_below(value, is_absent)
    return ABSENT if value is not ABSENT and is_absent(value) else value


def _without_below(value: Json | Absent, is_absent: Callable[[Json], bool]) -> Json | Absent:
    if type(value) is dict:
        members = ((name, _without(member, is_absent)) for name, member in value.items())
        return {name: member for name, member in members if member is not ABSENT}
    if type(value) is list:
        return [_without_below(member, is_absent) for member in value]
    return value


def _trim(scalar: Json) -> Json:
    return scalar.strip() if type(scalar) is str else scalar


def _casefold(scalar: Json) -> Json:
    return scalar.casefold() if type(scalar) is str else scalar


def _digits(scalar: Json) -> Json:
    """The digits of any script, as 0 to 9. A string without any says something else than an empty number: it stays."""
    if type(scalar) is not str:
        return scalar
    return "".join(str(unicodedata.decimal(sign)) for sign in scalar if sign.isdecimal()) or scalar


def _number(scalar: Json) -> Json:
    """The number as JSON writes it, or as text where no 64-bit integer or double is exactly that number."""
    number = _decimal(scalar)
    if number is None:
        return scalar
    if number == number.to_integral_value(context=_EXACT) and MIN_INTEGER <= number <= MAX_INTEGER:
        return int(number)
    double = float(number)
    if math.isfinite(double) and Decimal(repr(double)) == number:
        return double
    return str(number.normalize(_EXACT))


def _decimal(scalar: Json) -> Decimal | None:
    """The exact number that a JSON number or a numeral in a string denotes; None where it is none, or beyond the limits."""
    kind = type(scalar)
    if kind is int:
        return Decimal(scalar)
    text = repr(scalar) if kind is float else scalar
    if (kind is not float and kind is not str) or len(text) > MAX_NUMERAL_LENGTH or _NUMERAL.fullmatch(text) is None:
        return None
    number = Decimal(text)
    return number if number == 0 or abs(number.adjusted()) <= MAX_EXPONENT else None


def _instant(scalar: Json, step: int = 1) -> Json:
    """The instant in UTC, to the microsecond or coarser. Without a time zone a text is no instant."""
    if type(scalar) is not str or _INSTANT.fullmatch(scalar) is None:
        return scalar
    try:
        instant = parse_instant(scalar.upper())
        return format_instant(instant - instant % step)
    except InputError:
        return scalar  # such as the 30th of February


def _sorted(value: Json | Absent) -> Json | Absent:
    if type(value) is dict:
        return {name: _sorted(member) for name, member in value.items()}
    return sorted(value, key=_order) if type(value) is list else value


def _order(member: Json) -> tuple[int, float | int, bytes]:
    """Numbers by size, so that a tolerance finds their partners; anything else by its canonical text."""
    if type(member) in (int, float):
        return 0, member, canonical(member)
    return 1, 0, canonical(member)


def _same_within(left: Json | Absent, right: Json | Absent, tolerance: Decimal) -> bool:
    if type(left) is dict and type(right) is dict:
        return left.keys() == right.keys() and all(_same_within(left[name], right[name], tolerance) for name in left)
    if type(left) is list and type(right) is list:
        return len(left) == len(right) and all(map(lambda one, other: _same_within(one, other, tolerance), left, right))
    if same(left, right):
        return True
    one, other = _decimal(left), _decimal(right)
    return one is not None and other is not None and abs(_EXACT.subtract(one, other)) <= tolerance
