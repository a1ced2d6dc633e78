"""The bodies of writes, which change what a command says and keep all else. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from reconciler.targets.apply import Fields
from reconciler.targets.http.exchange import Method
from reconciler.targets.numbers import keeps_numbers
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json, canonical, same
from reconciler.values.pointer import Tokens, path_of, tokens_of

CONTENT_TYPES: dict[Literal["put", "merge_patch", "json_patch"], tuple[Method, str]] = {
    "put": ("PUT", "application/json"),
    "merge_patch": ("PATCH", "application/merge-patch+json"),
    "json_patch": ("PATCH", "application/json-patch+json"),
}


def body_of(
    write: Literal["put", "merge_patch", "json_patch"], place: str, raw: bytes, body: Json, old: Fields, new: Fields
) -> bytes:
    """The body that makes the fields at a place of an item's body new. Raises InputError where the way of writing can't say it."""
    tokens = tokens_of(place)
    match write:
        case "put":
            if not keeps_numbers(raw.decode()):
                raise InputError(
                    "the resource holds a number with more digits than we can give back; configure `write: merge_patch` "
                    "or `json_patch` if the interface has it"
                )
            return canonical(wrapped(tokens, new, body))
        case "merge_patch":
            return canonical(wrapped(tokens, _merge_patch(old, new, ()), {}))
        case "json_patch":
            return canonical(list(_operations(old, new, tokens)))


def wrapped(tokens: Tokens, value: Json, around: Json) -> Json:
    """A value put at a place inside another, which is copied along the way."""
    if not tokens:
        return value
    inner = around.get(tokens[0], {}) if isinstance(around, dict) else {}
    return {**(around if isinstance(around, dict) else {}), tokens[0]: wrapped(tokens[1:], value, inner)}


def _merge_patch(old: Fields, new: Fields, above: Tokens) -> Fields:
    """RFC 7396: null takes a member away, so null itself can't be said."""
    patch: Fields = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if name in old and same(before, value):
            continue
        tokens = (*above, name)
        if isinstance(value, dict):
            patch[name] = _merge_patch(before if isinstance(before, dict) else {}, value, tokens)
        elif value is None:
            raise InputError(
                "a merge patch can't set null; configure `write: put` or `json_patch`", field=path_of(tokens)
            )
        else:
            patch[name] = value
    return patch


def _operations(old: Fields, new: Fields, above: Tokens) -> Iterator[Json]:
    """RFC 6902, each change with a test of what stands there."""
    for name in sorted(old.keys() | new.keys()):
        tokens = (*above, name)
        path = path_of(tokens)
        if name not in old:
            yield {"op": "add", "path": path, "value": new[name]}
        elif name not in new:
            yield {"op": "test", "path": path, "value": old[name]}
            yield {"op": "remove", "path": path}
        elif isinstance(old[name], dict) and isinstance(new[name], dict):
            yield from _operations(old[name], new[name], tokens)
        elif not same(old[name], new[name]):
            yield {"op": "test", "path": path, "value": old[name]}
            yield {"op": "replace", "path": path, "value": new[name]}
