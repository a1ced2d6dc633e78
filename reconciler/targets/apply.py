"""What a command means, as one pure function over the fields of a resource.

Every adapter decides with `decide`, in memory or inside its own transaction or compare-and-set, and so does
`reconciler apply` offline: so a command has one meaning whatever the store.
"""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

from reconciler.records import Change, Command, Record
from reconciler.values.errors import InputError
from reconciler.values.json_value import (
    ABSENT,
    MAX_INTEGER,
    MIN_INTEGER,
    Absent,
    Json,
    check_depth,
    check_value,
    same,
)
from reconciler.values.pointer import Tokens, tokens_of, value_at

Fields: TypeAlias = dict[str, Json]

_EXPECTING: Final = frozenset({"set", "unset"})


class Refusal(Record, frozen=True, kw_only=True):
    """Why a command changes nothing: the first reason found, in the order of its changes.

    ``conflict`` means that the resource isn't as the command expects, ``rejected`` that the command can't be carried out
    on any state. The reason names paths, never values: those may be sensitive.
    """

    status: Literal["conflict", "rejected"]
    path: str
    reason: str


def apply_to_fields(current: Fields | Absent, command: Command) -> Fields | Absent | Refusal:
    """The fields after the command (ABSENT: the resource is gone), or why it is refused.

    ``current`` is ABSENT where the resource isn't there; it is never changed. Where all that the command wants already
    stands, the answer is ``current`` itself. Expected values are compared with ``current``, as it was before the first change.
    """
    try:
        match command.action:
            case "patch":
                return _patched(current, command.changes)
            case "create":
                return _created(current, command.changes)
            case "delete":
                return _deleted(current, command.changes)
            case "compensate":
                return _rejected("", "a compensation changes no field")
    except InputError as error:
        return _rejected("", f"the command can't be used: {error}")


def decide(current: Fields | Absent, version: str | None, command: Command) -> Fields | Absent | Refusal:
    """`apply_to_fields`, with the version that the command was made for.

    The version is compared where both the command and the target give one, and only if there is anything to change.
    """
    result = apply_to_fields(current, command)
    if isinstance(result, Refusal) or result is current:
        return result
    expected = command.expect_version
    if expected is not None and version is not None and expected != version:
        return _conflict("", "the resource has another version than the command was made for")
    return result


def _patched(current: Fields | Absent, changes: list[Change]) -> Fields | Refusal:
    if isinstance(current, Absent):
        return _conflict("", "the resource is not there")
    result: Json = current
    for change in changes:
        result = _changed(result, change, tokens_of(change.path))
        if isinstance(result, Refusal):
            return result
    if all(_same_at(current, result, tokens_of(change.path)) for change in changes):
        return current
    for change in changes:
        is_expecting = change.op in _EXPECTING or not isinstance(change.expect, Absent)
        if is_expecting and not same(value_at(current, tokens_of(change.path)), change.expect):
            return _conflict(change.path, "the field holds something else than the command expects")
    fields: Fields = result
    return fields


def _same_at(left: Json, right: Json, tokens: Tokens) -> bool:
    return same(value_at(left, tokens), value_at(right, tokens))


def _created(current: Fields | Absent, changes: list[Change]) -> Fields | Refusal:
    if len(changes) != 1 or changes[0].path != "" or changes[0].op != "set":
        return _rejected("", "a create is one change: set the path '' to the whole resource")
    value = _whole(changes[0])
    if isinstance(value, Refusal) or isinstance(current, Absent):
        return value
    return current if same(current, value) else _conflict("", "the resource is already there, and it isn't the same")


def _deleted(current: Fields | Absent, changes: list[Change]) -> Absent | Refusal:
    if len(changes) != 1 or changes[0].path != "" or changes[0].op != "unset":
        return _rejected("", "a delete is one change: unset the path '', expecting the whole resource")
    if not isinstance(changes[0].expect, dict):
        return _rejected("", "a delete must say in `expect` the whole resource that it takes away")
    if isinstance(current, Absent) or same(current, changes[0].expect):
        return ABSENT
    return _conflict("", "the resource holds something else than the command expects")


def _whole(change: Change) -> Fields | Refusal:
    if not isinstance(change.value, dict):
        return _rejected("", "the value of the whole resource must be an object")
    check_value(change.value)
    fields: Fields = change.value
    return fields


def _changed(fields: Fields, change: Change, tokens: Tokens) -> Fields | Refusal:
    """The fields after one change, without looking at what it expects."""
    if not tokens:
        if change.op == "set":
            return _whole(change)
        return _rejected("", f"a patch can't {change.op} the whole resource")
    if (change.op == "unset") is not isinstance(change.value, Absent):
        return _rejected(change.path, f"`{change.op}` {'takes no' if change.op == 'unset' else 'needs a'} value")
    if not isinstance(change.value, Absent):
        check_value(change.value)
        check_depth(change.value, len(tokens))
    current = value_at(fields, tokens)
    value = _outcome_of(current, change)
    if isinstance(value, Refusal):
        return value
    if value is current:
        return fields
    if type(value_at(fields, tokens[:-1])) is not dict:
        return _conflict(change.path, "what stands above the field is no object")
    return _replaced(fields, tokens, value)


def _outcome_of(current: Json | Absent, change: Change) -> Json | Absent | Refusal:
    """What one change leaves at its path."""
    match change.op:
        case "set":
            return change.value
        case "unset":
            return ABSENT
        case "increment":
            return _incremented(current, change)
        case "add":
            return _with_member(current, change)
        case "remove":
            return _without_member(current, change)


def _incremented(current: Json | Absent, change: Change) -> Json | Refusal:
    delta: Json = change.value
    if not _is_number(delta):
        return _rejected(change.path, "`increment` needs a number")
    if isinstance(current, Absent) or not _is_number(current):
        return _conflict(change.path, "the field holds no number to add to")
    total: int | float = current + delta
    if isinstance(total, int) and not MIN_INTEGER <= total <= MAX_INTEGER:
        return _conflict(change.path, "the sum is beyond 64 bits")
    if isinstance(total, float) and not math.isfinite(total):
        return _conflict(change.path, "the sum is beyond what a number can hold")
    return total


def _with_member(current: Json | Absent, change: Change) -> Json | Refusal:
    if not isinstance(current, list):
        return _conflict(change.path, "the field holds no list to add to")
    return current if any(same(member, change.value) for member in current) else [*current, change.value]


def _without_member(current: Json | Absent, change: Change) -> Json | Absent | Refusal:
    if isinstance(current, Absent):
        return current
    if not isinstance(current, list):
        return _conflict(change.path, "the field holds no list to take from")
    kept = [member for member in current if not same(member, change.value)]
    return current if len(kept) == len(current) else kept


def _is_number(value: Json | Absent) -> bool:
    return type(value) in (int, float)


def _replaced(fields: Fields, tokens: Tokens, value: Json | Absent) -> Fields:
    """A copy with another value at one place (ABSENT: none); whatever stands elsewhere is shared. All above it are objects."""
    copy = dict(fields)
    node = copy
    for token in tokens[:-1]:
        node[token] = node = dict(node[token])
    if isinstance(value, Absent):
        node.pop(tokens[-1], None)
    else:
        node[tokens[-1]] = value
    return copy


def _conflict(path: str, reason: str) -> Refusal:
    return Refusal(status="conflict", path=path, reason=reason)


def _rejected(path: str, reason: str) -> Refusal:
    return Refusal(status="rejected", path=path, reason=reason)
