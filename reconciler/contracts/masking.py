"""What people may see of a value: sensitive fields (`sensitive: true` in the contract) are masked wherever people look.

Comparisons, commands and digests never see a mask; whatever is shown, printed, logged or put into a message does.
"""

from __future__ import annotations

from typing import Final

import msgspec

from reconciler.contracts.model import Contract
from reconciler.records import FieldDrift
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import path_of, tokens_of

MASK: Final = "•••"
"""Stands for a value that is there and isn't shown. That nothing is there isn't hidden."""


def masked(contract: Contract, path: str, value: Json | Absent) -> Json | Absent:
    """The value at a path as people may see it: MASK where it is sensitive, and in the place of each sensitive member."""
    if value is ABSENT:
        return ABSENT
    if contract.rule(path).sensitive:
        return MASK
    if type(value) is not dict or not _has_sensitive(contract):
        return value
    tokens = tokens_of(path)
    return {name: masked(contract, path_of((*tokens, name)), member) for name, member in value.items()}


def is_masked(contract: Contract, path: str, value: Json | Absent) -> bool:
    """Whether people see less of a value than there is."""
    if value is ABSENT:
        return False
    if contract.rule(path).sensitive:
        return True
    if type(value) is not dict:
        return False
    tokens = tokens_of(path)
    return any(is_masked(contract, path_of((*tokens, name)), member) for name, member in value.items())


def _has_sensitive(contract: Contract) -> bool:
    return any(rule.sensitive for rule in contract.fields.values())


def masked_drift(contract: Contract, change: FieldDrift) -> FieldDrift:
    """A field that drifted, as people may see it."""
    return msgspec.structs.replace(
        change,
        expected=masked(contract, change.path, change.expected),
        actual=masked(contract, change.path, change.actual),
    )


def shown_error(contract: Contract, error: str | None) -> str:
    """What a system said about a failure, as people may see it: it may quote values, so it isn't told of records that hold
    sensitive fields."""
    if error and _has_sensitive(contract):
        return "the reason may quote sensitive values, so it isn't shown; it is in the outcome of the command"
    return error or ""
