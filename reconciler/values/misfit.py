"""What to say of JSON that isn't what a struct asks for: what was found, what belongs there, and what was nearly hit.

msgspec stops at the first misfit and says where; the sentence is made here from the struct's types and the value that is
there. Only what was refused ever comes here, so it is imported late and may take its time.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from reconciler.values.errors import InputError, ValueLimitError
from reconciler.values.json_value import Json
from reconciler.values.words import either, near, nearest, together

AN_INSTANT: Final = "an instant; write it as 2026-05-03T10:00:00Z"
_LONGEST_SHOWN: Final = 40
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_SCALARS: Final[dict[Any, str]] = {
    str: "text",
    int: "a whole number such as 7",
    float: "a number such as 0.5",
    bool: "true or false",
}


class _Found(NamedTuple):
    """A place in the JSON: the type that belongs there, what is there, and its path."""

    hint: Any
    value: Json
    place: str


def misfit(kind: type[msgspec.Struct], data: Json, refusal: str, wanted: Mapping[str, str]) -> InputError:
    """The error for JSON that msgspec refused to make a struct of. ``wanted`` says in words what belongs into a field, by its
    name, where that is more than its type."""
    _, _, place = refusal.rpartition(" - at `$")
    found = _found(kind, data, place.rstrip("`"))
    return InputError(_sentence(found, wanted), field=found.place)


def too_long(kind: type[msgspec.Struct], error: ValueLimitError) -> ValueLimitError:
    """The error for an integer beyond 64 bits, with the remedy that fits where no value of a resource's field is meant."""
    fact, _, _ = error.message.partition("; ")
    hint = _hints(kind).get(error.field)
    if "beyond 64 bits" not in fact or hint is None or _holds_values(hint):
        return error
    if _is_instant(hint):
        return ValueLimitError(f"must be {AN_INSTANT}", field=error.field)
    remedy = "write a smaller one" if _bare(hint)[0] is int else "put it in quotes"
    return ValueLimitError(f"{fact}; {remedy}", field=error.field)


def name_of(kind: type[msgspec.Struct]) -> str:
    """What a struct is called in a sentence, with its article: ``a rollback request``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


# -- where


def _found(kind: Any, data: Json, place: str) -> _Found:
    """The misfit at a place that msgspec names. The whole, where it names none that is there: a key can look like one."""
    hint, value, path = kind, data, ""
    try:
        for name, index in _STEP.findall(place):
            bare, _ = _bare(hint)
            if name:
                hint, value, path = _hints(bare)[name], value[name], f"{path}.{name}".lstrip(".")
            elif index == "...":
                hint = get_args(bare)[1]
                key = next(key for key, member in value.items() if not _fits(member, hint))
                value, path = value[key], f"{path}.{key}"
            else:
                hint, value, path = get_args(bare)[0], value[int(index)], f"{path}[{index}]"
    except (KeyError, IndexError, TypeError, StopIteration):
        return _Found(kind, data, "")
    return _Found(kind, data, "") if path and _fits(value, hint) else _Found(hint, value, path)


def _fits(value: Json, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The types of a struct's fields, by their names in JSON."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}


def _bare(hint: Any) -> tuple[Any, bool]:
    """A type without marks and without null, and whether null is allowed."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[0], False
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None) and member is not msgspec.UnsetType]
        if len(members) == 1:
            return _bare(members[0])[0], type(None) in get_args(hint)
    return hint, False


def _is_instant(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return any(isinstance(mark, msgspec.Meta) and (mark.extra or {}).get("instant") for mark in get_args(hint)[1:])
    return (
        any(_is_instant(member) for member in get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else False
    )


def _holds_values(hint: Any) -> bool:
    """Whether values of a resource's fields can stand somewhere in a type."""
    members = _hints(hint).values() if _is_struct(hint) else get_args(hint)
    return hint is Any or any(_holds_values(member) for member in members)


# -- what


def _sentence(found: _Found, wanted: Mapping[str, str]) -> str:
    hint, is_nullable = _bare(found.hint)
    if _is_struct(hint) and isinstance(found.value, dict):
        return _wrong_keys(hint, found.value, found.place)
    if _is_instant(found.hint):
        return f"must be {AN_INSTANT}"
    words = wanted.get(found.place.rpartition(".")[2]) or _words(hint)
    told = f"must be {'null or ' if is_nullable else ''}{words}, not {_shown(found.value)}"
    remedy = _remedy(hint, found.value)
    return f"{told}; {remedy}" if remedy else told


def _wrong_keys(kind: type[msgspec.Struct], value: dict[str, Json], place: str) -> str:
    """What is wrong with the keys of an object: first those that it has, then those that it hasn't."""
    who = "" if place else f"{name_of(kind)} "
    fields = msgspec.structs.fields(kind)
    known = [field.encode_name for field in fields]
    for key in value:
        if key not in known:
            return f"{who}has no key {_shown(key)}; {nearest(key, known)}"
    missing = [field.encode_name for field in fields if field.required and field.encode_name not in value]
    keys, them = ("key", "it") if len(missing) == 1 else ("keys", "them")
    return f"{who}needs the {keys} {together(missing)}; add {them}"


def _words(hint: Any) -> str:
    """What belongs to a type, in words."""
    if get_origin(hint) is Literal:
        return either(get_args(hint))
    if _is_struct(hint):
        return f"an object with {either([field.encode_name for field in msgspec.structs.fields(hint)])}"
    if get_origin(hint) is list:
        member = _bare(get_args(hint)[0])[0]
        return 'an array of texts, such as ["a", "b"]' if member is str else f"an array of {_plural(member)}"
    return _SCALARS.get(hint, "an object")


def _plural(hint: Any) -> str:
    return "whole numbers" if hint is int else "arrays" if get_origin(hint) is list else "objects"


def _remedy(hint: Any, value: Json) -> str:
    if get_origin(hint) is Literal and isinstance(value, str):
        return near(value, get_args(hint))
    return "put it in quotes" if hint is str and isinstance(value, int | float) else ""


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _shown(value: Json) -> str:
    """What is there, as a sentence shows it."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "…")
    return "null" if value is None else str(value).lower()
