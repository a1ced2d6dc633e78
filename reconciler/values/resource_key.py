"""Resource keys: ``system/type/id``, each part percent-encoded (RFC 3986), which is also the Kafka message key."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from reconciler.values.errors import InputError

_PART: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+"
_KEY: Final = re.compile(rf"{_PART}(?:/{_PART}){{2}}")
MAX_KEY_BYTES: Final = 1024  # far above real ids, and far below Kafka's limits for a record


class ResourceKey(NamedTuple):
    """The decoded parts of a resource key."""

    system: str
    type: str
    id: str


def resource_key(system: str, type: str, id: str) -> str:
    """The key of a resource, from its plain parts."""
    return "/".join(quote(part, safe="@:") for part in (system, type, id))


@lru_cache(maxsize=65_536)
def parse_resource_key(key: str) -> ResourceKey:
    """The parts of a key. Raises InputError where the text is no ``system/type/id``."""
    if len(key) > MAX_KEY_BYTES or _KEY.fullmatch(key) is None:
        raise InputError(f"the resource {key[:80]!r} must be system/type/id with each part percent-encoded")
    system, type_, id_ = key.split("/")
    return ResourceKey(unquote(system), unquote(type_), unquote(id_))
