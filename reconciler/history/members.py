"""Values whose parts stand on their own: counters, sets and keyed lists, merged three ways.

A write to such a value is a step, which is carried over to another value. It is done twice: an undo replays what others did
on top of what it would have been (`carried`), and a conflict is merged with reality (`merged`). They differ where both sides
did something to one part: a later write determines it, and reality isn't to be overwritten.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final, TypeAlias

from reconciler.contracts.model import FieldRule
from reconciler.values.json_value import ABSENT, MAX_INTEGER, MIN_INTEGER, Absent, Json, canonical, same
from reconciler.values.pointer import tokens_of, value_at

STEPPED: Final = frozenset({"set", "keyed", "counter"})
"""The kinds of values that are written as a step: what was added and taken out."""

Merged: TypeAlias = tuple[Json | Absent]
"""A value, in a tuple, so that None can say that there is none to be had."""


def carried(rule: FieldRule, before: Json | Absent, after: Json | Absent, onto: Json | Absent) -> Json | Absent:
    """What a write of `after`, where `before` stood, makes of `onto`. A write that takes the value away or makes it null is no
    step, and neither is one that the kind can't carry over: it stands as it is."""
    if after is ABSENT or after is None:
        return after
    result = _stepped(rule, before, after, onto, is_write=True)
    return after if result is None else result[0]


def merged(rule: FieldRule, before: Json | Absent, after: Json | Absent, actual: Json | Absent) -> Merged | None:
    """Reality with the step of an undo, from `before` to `after`; None where people must decide. A counter that was taken away,
    by us or by others, has no number to add to; a list that isn't there holds no members, and isn't made to hold none."""
    if same(before, after):
        return (actual,)
    if rule.kind == "counter" and any(value is ABSENT or value is None for value in (before, actual)):
        return None
    result = _stepped(rule, before, after, actual, is_write=False)
    if result is not None and result[0] == [] and (actual is ABSENT or actual is None):
        return (actual,)
    return result


def _stepped(
    rule: FieldRule, before: Json | Absent, after: Json | Absent, onto: Json | Absent, *, is_write: bool
) -> Merged | None:
    """`onto` with the step from `before` to `after`, or None where the kind can't do that with these values. Where both did
    something to one part, a write determines it."""
    if same(before, onto) or equal_members(rule, before, onto):
        return (after,)
    if same(before, after):
        return (onto,)
    if rule.kind == "counter":
        return _merged_counter(before, after, onto)
    lists = _lists(before, after, onto)
    if lists is None:
        return None
    if rule.kind == "set":
        return (_emptied(after, _merged_set(*lists)),)
    if rule.kind == "keyed" and rule.key is not None:
        keyed = [_by_key(items, rule.key) for items in lists]
        whole = [items for items in keyed if items is not None]
        result = _merged_keyed(*whole, is_write=is_write) if len(whole) == len(keyed) else None
        return None if result is None else (_emptied(after, result),)
    return None


def equal_members(rule: FieldRule, left: Json | Absent, right: Json | Absent) -> bool:
    """Whether two lists of kind `set` hold the same members, in whatever order."""
    if rule.kind != "set" or type(left) is not list or type(right) is not list:
        return False
    return sorted(map(canonical, left)) == sorted(map(canonical, right))


def _number(value: Json | Absent) -> int | float | None:
    if value is ABSENT or value is None:
        return 0
    return value if type(value) in (int, float) else None


def _merged_counter(before: Json | Absent, after: Json | Absent, onto: Json | Absent) -> Merged | None:
    step = counter_step(before, after)
    total = None if step is None else counter_plus(onto, step)
    return None if total is None else (total,)


def counter_step(before: Json | Absent, after: Json | Absent) -> int | float | None:
    """What was added to a counter; a counter that is absent or null stands at 0. None where these are no numbers."""
    return _sum(_number(after), _number(before), -1)


def counter_plus(value: Json | Absent, step: int | float) -> int | float | None:
    """A counter after a step, computed exactly and rounded once. None beyond what JSON readers keep."""
    return _sum(_number(value), step, 1)


def _sum(left: int | float | None, right: int | float | None, sign: int) -> int | float | None:
    if left is None or right is None:
        return None
    total = Fraction(left) + sign * Fraction(right)
    if type(left) is int and type(right) is int:
        return int(total) if MIN_INTEGER <= total <= MAX_INTEGER else None
    return float(total)


def _lists(*values: Json | Absent) -> list[list[Json]] | None:
    lists = [[] if value is ABSENT or value is None else value for value in values]
    return lists if all(type(value) is list for value in lists) else None


def _emptied(after: Json | Absent, items: list[Json]) -> Json | Absent:
    """An emptied list where the step takes the list away is taken away."""
    return after if not items and (after is ABSENT or after is None) else items


def _merged_set(before: list[Json], after: list[Json], onto: list[Json]) -> list[Json]:
    """Members that the step took out are taken out, those it put in are put in, others are left, in their order."""
    old, new = set(map(canonical, before)), set(map(canonical, after))
    result = [member for member in onto if canonical(member) not in old - new]
    there = set(map(canonical, result))
    for member in after:
        text = canonical(member)
        if text in new - old and text not in there:
            result.append(member)
            there.add(text)
    return result


def _by_key(items: list[Json], key: str) -> dict[bytes, Any] | None:
    """The members of a keyed list by their keys, or None where a member has none or shares one."""
    result: dict[bytes, Any] = {}
    tokens = tokens_of(key)
    for item in items:
        value = value_at(item, tokens)
        if value is ABSENT or canonical(value) in result:
            return None
        result[canonical(value)] = item
    return result


def _merged_keyed(
    before: dict[bytes, Any], after: dict[bytes, Any], onto: dict[bytes, Any], *, is_write: bool
) -> list[Json] | None:
    result: dict[bytes, Any] = {}
    for key, item in onto.items():
        value = _merged_value(before.get(key, ABSENT), after.get(key, ABSENT), item, is_write=is_write)
        if value is None:
            return None
        if value[0] is not ABSENT:
            result[key] = value[0]
    for key, item in after.items():
        if key not in onto:
            if key not in before:
                result[key] = item
            elif not same(before[key], item):  # the step changes a member that is no longer there
                if not is_write:
                    return None
                result[key] = item
    return list(result.values())


def _merged_value(before: Json | Absent, after: Json | Absent, onto: Json | Absent, *, is_write: bool) -> Merged | None:
    """Field by field within a member. Where both sides changed one field differently a write determines it; else None."""
    if same(before, after) or same(after, onto):
        return (onto,)
    if same(before, onto):
        return (after,)
    if type(after) is not dict or type(onto) is not dict or (before is not ABSENT and type(before) is not dict):
        return (after,) if is_write else None
    result = {}
    was = {} if before is ABSENT else before
    for name in {**onto, **after, **was}:
        member = _merged_value(
            was.get(name, ABSENT), after.get(name, ABSENT), onto.get(name, ABSENT), is_write=is_write
        )
        if member is None:
            return None
        if member[0] is not ABSENT:
            result[name] = member[0]
    return (result,)
