"""RFC 6901 JSON Pointers as text and as tuples of tokens.

A *path* is the text (``/address/city``), *tokens* the tuple (``("address", "city")``). The path ``""`` is the resource
itself. Array positions are never addressed: arrays are atomic.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, TypeAlias

from reconciler.values.errors import InputError, ValueLimitError
from reconciler.values.json_value import ABSENT, MAX_DEPTH, Absent, Json

Tokens: TypeAlias = tuple[str, ...]

_BAD_ESCAPE: Final = re.compile(r"~(?![01])")
_CACHED_PATHS: Final = 65_536  # a few MB; real estates use some thousands of distinct paths


@lru_cache(maxsize=_CACHED_PATHS)
def tokens_of(path: str) -> Tokens:
    """The tokens of a path. Raises InputError for what is no RFC 6901 pointer, ValueLimitError beyond MAX_DEPTH tokens."""
    if path == "":
        return ()
    if not path.startswith("/"):
        raise InputError(f"the path {path!r} must be empty or begin with '/' (a JSON Pointer, RFC 6901)")
    if _BAD_ESCAPE.search(path) is not None:
        raise InputError(f"the path {path!r} has a '~' that is not '~0' or '~1' (RFC 6901)")
    tokens = tuple(token.replace("~1", "/").replace("~0", "~") for token in path[1:].split("/"))
    if len(tokens) > MAX_DEPTH:
        raise ValueLimitError(f"a path of {len(tokens)} tokens is deeper than the limit of {MAX_DEPTH}")
    return tokens


@lru_cache(maxsize=_CACHED_PATHS)
def path_of(tokens: Tokens) -> str:
    """The path of tokens."""
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


@lru_cache(maxsize=_CACHED_PATHS)
def holder_of(tokens: Tokens) -> Tokens:
    """The place right above one that isn't the resource itself."""
    return tokens[:-1]


def value_at(value: Json | Absent, tokens: Tokens) -> Json | Absent:
    """What stands at a place inside a value: ABSENT where nothing does, or where something above is no object."""
    for token in tokens:
        if type(value) is not dict:
            return ABSENT
        value = value.get(token, ABSENT)
    return value
