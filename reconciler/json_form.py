"""The JSON form of records: ISO instants, defaults filled in, and errors that name the field.

`from_json` and `to_json` go between a parsed JSON object and a record of `reconciler.records`. They are exact inverses,
but that the JSON form of an observation may also name its fields by paths: all that begins with '/' is a path.
"""

from __future__ import annotations

import hashlib
import types
import typing
from functools import cache
from operator import attrgetter
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from reconciler.records import Action, Observation, Outcome, Record, operation_of
from reconciler.values.errors import InputError, ValueLimitError
from reconciler.values.fields import check_fields
from reconciler.values.instant import format_instant, parse_instant
from reconciler.values.json_value import RECORD_DEPTH, Json, canonical, check_depth, is_plain_text, parse
from reconciler.values.pointer import path_of, tokens_of
from reconciler.values.resource_key import parse_resource_key

R = TypeVar("R", bound=Record)


_PERSON: Final = 'an object such as {"id": "ana", "kind": "user"}'
_WANTED: Final = {
    "before": 'an object of paths and values, such as {"/phone": "1"}',
    "set": 'an object of paths and values, such as {"/phone": "2"}',
    "unset": 'an array of paths, such as ["/phone"]',
    "fields": 'an object of fields and values, such as {"phone": "2"}',
    "actor": _PERSON,
    "by": _PERSON,
    "modified_by": _PERSON,
    "requested_by": _PERSON,
}
"""What belongs into a field, where that is more than its type says."""


@cache
def _plan(kind: type[Record]) -> tuple[tuple[str, ...], dict[str, type[Record]]]:
    """The fields of a record (by their names in JSON) that are instants, and those that hold records with instants."""
    instants: list[str] = []
    nested: dict[str, type[Record]] = {}
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        pending = [hints[field.name]]
        while pending:
            hint = pending.pop()
            origin = get_origin(hint)
            if origin in (Union, types.UnionType, list):
                pending.extend(get_args(hint))
            elif origin is typing.Annotated and any(
                isinstance(mark, msgspec.Meta) and (mark.extra or {}).get("instant") for mark in get_args(hint)[1:]
            ):
                instants.append(field.encode_name)
            elif isinstance(hint, type) and issubclass(hint, Record) and any(_plan(hint)):
                nested[field.encode_name] = hint
    return tuple(instants), nested


def _instants(kind: type[Record], data: Json, convert: Any, place: str) -> Json:
    """A copy of a record's JSON with every instant converted."""
    if isinstance(data, list):
        return [_instants(kind, item, convert, f"{place}[{index}]") for index, item in enumerate(data)]
    if not isinstance(data, dict):
        return data
    instants, nested = _plan(kind)
    result = dict(data)
    for name in instants:
        if result.get(name) is not None:
            try:
                result[name] = convert(result[name])
            except InputError as error:
                raise InputError(error.message, field=f"{place}.{name}".lstrip(".")) from None
    for name, below in nested.items():
        if name in result:
            result[name] = _instants(below, result[name], convert, f"{place}.{name}".lstrip("."))
    return result


def from_json(kind: type[R], data: Json) -> R:
    """The record that a parsed JSON object describes. Raises InputError naming the field.

    The fields of an observation, also of one inside an outcome, are one nested tree then, however they were named.
    """
    if not isinstance(data, dict):
        from reconciler.values.misfit import name_of  # noqa: PLC0415  only what is refused needs words

        raise InputError(f"must be a JSON object that describes {name_of(kind)}")
    try:
        record = msgspec.convert(_instants(kind, data, parse_instant, ""), kind)
    except msgspec.ValidationError as error:
        from reconciler.values.misfit import misfit  # noqa: PLC0415  as above

        raise misfit(kind, data, str(error), _WANTED) from None
    resource = getattr(record, "resource", None)
    if isinstance(resource, str):
        try:
            parse_resource_key(resource)
        except InputError as error:
            raise InputError(error.message, field="resource") from None
    return _with_nested_fields(record)


def parse_record(kind: type[Record], text: bytes) -> Json:
    """The JSON of a record's text, for `from_json`. Raises InputError naming the field."""
    try:
        return parse(text, RECORD_DEPTH)
    except ValueLimitError as error:
        from reconciler.values.misfit import too_long  # noqa: PLC0415  only what is refused needs words

        raise too_long(kind, error) from None


def _with_nested_fields(record: R) -> R:
    if isinstance(record, Observation):
        return msgspec.structs.replace(record, fields=nested_fields(record.fields))
    if isinstance(record, Outcome) and record.observed is not None:
        return msgspec.structs.replace(record, observed=_with_nested_fields(record.observed))
    return record


_ACTION_FIELDS: Final = msgspec.structs.fields(Action)


def to_json(record: Record) -> dict[str, Json]:
    """The JSON object of a record, all of its fields written out but those that are ABSENT."""
    builtins = msgspec.to_builtins(record)
    if isinstance(record, Action):
        builtins = _all_of_action() | builtins
    result: dict[str, Json] = _instants(type(record), builtins, format_instant, "")
    if isinstance(record, Observation):
        result["fields"] = _told_apart(record.fields)
    elif isinstance(record, Outcome) and record.observed is not None:
        result["observed"]["fields"] = _told_apart(record.observed.fields)
    return result


def _all_of_action() -> dict[str, Json]:
    """What an action's own text leaves out, where it is as usual, in the order of its fields."""
    return {
        field.encode_name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        for field in _ACTION_FIELDS
    }


def _told_apart(fields: dict[str, Json]) -> dict[str, Json]:
    """The fields of a resource, those that have the name of a path named by their path."""
    return {path_of((name,)) if name.startswith("/") else name: value for name, value in fields.items()}


def action_from_json(data: Json) -> Action:
    """An action with its defaults filled in and its paths and values checked. Raises InputError naming the field."""
    action = from_json(Action, data)
    for name in ("run_id", "step_id"):
        if not getattr(action, name):
            raise InputError("must not be empty", field=name)
    return complete_action(action)


def action_from_text(text: bytes) -> Action:
    """`action_from_json` of the JSON text of an action, in half the time: most texts are read right into their fields."""
    if is_plain_text(text):
        try:
            action = _as_action(_WRITTEN_ACTION.decode(text))
            parse_resource_key(action.resource)
        except (ValueError, RecursionError):  # whatever is wrong, the plain way says it better
            return action_from_json(parse_record(Action, text))
        if action.run_id and action.step_id:
            return complete_action(action)
    return action_from_json(parse_record(Action, text))


def _as_action(written: Any) -> Action:
    """The action that was written. Nearly all say nothing beyond these fields, and half of the names cost half of the time."""
    action = Action(
        stage=written.stage,
        run_id=written.run_id,
        step_id=written.step_id,
        occurred_at=parse_instant(written.occurred_at),
        resource=written.resource,
        operation=written.operation,
        operation_id=written.operation_id,
        action_id=written.action_id,
        before=written.before,
        set=written.set,
        unset=written.unset,
        workflow_id=written.workflow_id,
        workflow_version=written.workflow_version,
        sequence=written.sequence,
        actor=written.actor,
        rule=written.rule,
    )
    rest = _rest_of(written)
    if rest != _NO_REST:
        return msgspec.structs.replace(action, **dict(zip(_REST, rest, strict=True)))
    return action


def _written_action() -> msgspec.json.Decoder[Any]:
    """A decoder of actions as they are written: their instants are text."""
    instants, _ = _plan(Action)
    fields: list[Any] = []
    for field in msgspec.structs.fields(Action):
        kind = str if field.encode_name in instants else field.type
        if field.required:
            fields.append((field.name, kind))
        elif field.default_factory is not msgspec.NODEFAULT:
            fields.append((field.name, kind, msgspec.field(default_factory=field.default_factory)))
        else:
            fields.append((field.name, kind, field.default))
    return msgspec.json.Decoder(msgspec.defstruct("WrittenAction", fields, kw_only=True, forbid_unknown_fields=True))


_WRITTEN_ACTION: Final = _written_action()
_USUAL: Final = (
    "stage", "run_id", "step_id", "occurred_at", "resource", "operation", "operation_id", "action_id", "before", "set", "unset",
    "workflow_id", "workflow_version", "sequence", "actor", "rule",
)  # fmt: skip
_REST: Final = tuple(name for name in Action.__struct_fields__ if name not in _USUAL)
"""What `_as_action` doesn't name, also of fields that actions are given later."""
_rest_of: Final = attrgetter(*_REST)
_NO_REST: Final[tuple[Any, ...]] = _rest_of(
    Action(stage="succeeded", run_id="", step_id="", occurred_at=0, resource="", operation="update")
)


def complete_action(action: Action) -> Action:
    """The action with its default ids filled in, its paths and values checked: what every way in ends with."""
    if action.before:
        check_fields("before", action.before)
    check_fields("set", action.set)
    try:
        for path in action.unset:
            tokens_of(path)
    except InputError as error:
        raise InputError(error.message, field="unset") from None
    both = action.unset and action.set.keys() & set(action.unset)
    if both:
        raise InputError(f"{min(both)!r} is in both `set` and `unset`; a path can be only in one", field="unset")
    if not action.operation_id:
        action = msgspec.structs.replace(action, operation_id=f"{action.run_id}/{action.step_id}")
    if not action.action_id:
        action = msgspec.structs.replace(action, action_id=action_digest(action))
    return action


def action_digest(action: Action) -> str:
    """The default action_id: a digest (BLAKE2b, 16 bytes, hex) of operation, stage and content."""
    content: list[Json] = [
        action.operation_id,
        action.stage,
        action.resource,
        action.operation,
        action.before,
        action.set,
        sorted(action.unset),
        None if action.compensation is None else msgspec.to_builtins(action.compensation),
    ]
    if action.stage == "reversed":  # an operation can be undone again, after its undo was undone
        content += [operation_of(action), action.reverses]
    return hashlib.blake2b(canonical(content), digest_size=16).hexdigest()


def observation_from_json(data: Json) -> Observation:
    """An observation whose fields, given as paths or as plain nested JSON, are one nested tree. Raises InputError."""
    if isinstance(data, dict) and data.get("fields", {}) is None:
        data = {**data, "fields": {}}
    return from_json(Observation, data)


def nested_fields(fields: dict[str, Json]) -> dict[str, Json]:
    """Fields named by paths, which begin with '/', and by plain names, as one nested tree. Raises InputError where two say
    different things."""
    if not any(name.startswith("/") for name in fields):
        for value in fields.values():
            _check_field_depth(value, 1)
        return fields
    tree: dict[str, Json] = {}
    for name in sorted(fields, key=lambda name: (name.startswith("/"), name.count("/"), name)):
        try:
            tokens = tokens_of(name) if name.startswith("/") else (name,)
        except InputError as error:
            raise InputError(error.message, field="fields") from None
        value = fields[name]
        _check_field_depth(value, len(tokens))
        node = tree
        for token in tokens[:-1]:
            below = node.get(token, {})
            if not isinstance(below, dict):
                raise InputError(f"{name!r} is below a value that is no object", field="fields")
            node[token] = node = dict(below)
        if tokens[-1] in node:
            raise InputError(f"{name!r} is given twice", field="fields")
        node[tokens[-1]] = value
    return tree


def _check_field_depth(value: Json, depth: int) -> None:
    try:
        check_depth(value, depth)
    except InputError as error:
        raise InputError(error.message, field="fields") from None
