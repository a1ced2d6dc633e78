"""Instants: integers, microseconds since 1970 in UTC (Avro's timestamp-micros), ISO 8601 in every JSON form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final, TypeAlias

import msgspec

from reconciler.values.errors import InputError

Instant: TypeAlias = Annotated[int, msgspec.Meta(extra={"instant": True})]
"""Microseconds since 1970-01-01T00:00:00Z."""

SECOND: Final = 1_000_000
_DAY_S: Final = 86_400
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def parse_instant(text: str) -> Instant:
    """The instant of an ISO 8601 text with a time zone. Raises InputError for anything else."""
    if not isinstance(text, str):  # it may be anything that JSON can hold
        raise InputError(f"{text!r} is no instant; write it as 2026-05-03T10:00:00Z")
    return _instant_of(text)


@lru_cache(maxsize=4_096)  # the actions of one step, and often of a run, have one
def _instant_of(text: str) -> Instant:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise InputError(f"{text!r} is no instant; write it as 2026-05-03T10:00:00Z") from None
    if moment.tzinfo is None:
        raise InputError(f"{text!r} has no time zone; write it as 2026-05-03T10:00:00Z")
    since = moment - _EPOCH
    instant = (since.days * _DAY_S + since.seconds) * SECOND + since.microseconds
    if not _FIRST <= instant <= _LAST:
        raise InputError(f"{text!r} is outside of the years 1 to 9999 in UTC")
    return instant


def format_instant(instant: Instant) -> str:
    """ISO 8601 in UTC, with as many of the six decimals of a second as are needed.

    Raises InputError outside of the years 1 to 9999.
    """
    try:
        text = (_EPOCH + timedelta(microseconds=instant)).isoformat(timespec="microseconds")
    except OverflowError:
        raise InputError(f"the instant {instant} is outside of the years 1 to 9999") from None
    seconds, decimals = text[:19], text[20:26].rstrip("0")
    return f"{seconds}.{decimals}Z" if decimals else f"{seconds}Z"
