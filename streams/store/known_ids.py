"""Which entries a resource's history may have, in half a kilobyte: a filter of their ids.

It is exact where it says no: that saves most looks into the store, as nearly every action asks for an entry that isn't there.
"""

from __future__ import annotations

from typing import Final

_BYTES: Final = 512
"""Of a thousand ids a fifth of those that aren't among them seem to be."""

_LAST_BIT: Final = 8 * _BYTES - 1


def no_ids() -> bytearray:
    """The filter of a history that has no entry yet."""
    return bytearray(_BYTES)


def add_id(ids: bytearray, entry_id: str) -> None:
    """From now on it may have this entry."""
    place = hash(entry_id) & _LAST_BIT
    ids[place >> 3] |= 1 << (place & 7)


def may_have(ids: bytearray, entry_id: str) -> bool:
    """False where it certainly has no such entry."""
    place = hash(entry_id) & _LAST_BIT
    return ids[place >> 3] >> (place & 7) & 1 == 1
