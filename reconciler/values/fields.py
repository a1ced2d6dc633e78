"""The values of a resource's fields by their paths, as an action's `before` and `set` have them."""

from __future__ import annotations

from typing import Any, Final

import orjson

from reconciler.values.errors import InputError
from reconciler.values.json_value import Json, check_depth, check_parsed
from reconciler.values.pointer import tokens_of

_NEEDS_A_LOOK: Final = frozenset((float, list, dict))
"""What may be deep, or a whole number that was too long to be read as one."""


def fields_from_text(text: bytes) -> dict[str, Json]:
    """The values by path of a JSON text, checked as `parse` and `check_fields` check them. Raises InputError, or a ValueError of
    the parser's."""
    fields: Any = orjson.loads(text)
    if type(fields) is not dict:
        raise InputError("must be a JSON object")
    is_plain = True
    for path, value in fields.items():
        tokens_of(path)
        if not path or type(value) in _NEEDS_A_LOOK:
            is_plain = False
    if not is_plain:
        check_parsed(text, fields)
        check_fields("", fields)
    return fields


def check_fields(field: str, fields: dict[str, Json]) -> None:
    """Raises InputError, which names `field`, where a path is no pointer, the resource itself no object, or anything too deep."""
    try:
        for path, value in fields.items():
            tokens = tokens_of(path)
            if isinstance(value, (dict, list)):
                check_depth(value, len(tokens))
            if not path and not isinstance(value, dict):
                raise InputError("the path '' is the resource itself, which must be an object")
    except InputError as error:
        raise InputError(error.message, field=field) from None
