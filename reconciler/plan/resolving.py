"""People's decisions on conflicts, as a request carries them: keep what is there, force the undo, or a value.

A decision counts where the contract leaves the conflict to people, and only while the target still holds what the person
saw: on another value it is no decision, and the conflict stands again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from reconciler.contracts.masking import masked
from reconciler.contracts.model import ContractSet
from reconciler.merge.three_way import Conflict, Resolved
from reconciler.plan.model import PlannedConflict
from reconciler.records import Resolution
from reconciler.values.errors import InputError
from reconciler.values.json_value import ABSENT, same
from reconciler.values.pointer import path_of, tokens_of
from reconciler.values.resource_key import parse_resource_key


def check_resolutions(resolutions: Sequence[Resolution]) -> None:
    """Raises InputError for what can't be a decision."""
    seen: set[tuple[str, str]] = set()
    for index, item in enumerate(resolutions):
        field = f"resolutions[{index}]"
        _checked(parse_resource_key, item.resource, f"{field}.resource")
        _checked(tokens_of, item.path, f"{field}.path")
        if (item.resource, item.path) in seen:
            raise InputError(f"decides {item.path!r} of {item.resource} a second time; decide it once", field=field)
        seen.add((item.resource, item.path))
        if item.take == "value" and item.path == "":
            raise InputError("the whole record can't be given a value; take keep or force", field=field)
        if item.take != "value" and item.value is not ABSENT:
            raise InputError(f"a decision to {item.take} takes no value; leave it out", field=f"{field}.value")


def _checked(read: Callable[[str], object], text: str, field: str) -> None:
    try:
        read(text)
    except InputError as error:
        raise InputError(error.message, field=field) from None


def of_resource(resolutions: Iterable[Resolution], resource: str) -> dict[str, Resolution]:
    """The decisions on one resource, by path."""
    return {item.path: item for item in resolutions if item.resource == resource}


def resolved(conflict: Conflict, decisions: dict[str, Resolution]) -> Resolved | None:
    """What a person decided on a conflict; None where nobody did, or did so on another value than is there."""
    decision = decisions.get(path_of(conflict.tokens))
    if decision is None or not same(decision.seen, conflict.actual):
        return None
    match decision.take:
        case "keep":
            return Resolved("actual")
        case "force":
            return Resolved("expected")
        case "value":
            return Resolved("merged", decision.value) if conflict.tokens else None


def unmasked(
    resolutions: Sequence[Resolution], conflicts: Sequence[PlannedConflict], contracts: ContractSet
) -> list[Resolution]:
    """The decisions of a person who saw these conflicts: where a sensitive value was masked, `seen` says the mask, and means
    the value that the conflict was about."""
    actual = {(item.resource, item.path): item.actual for item in conflicts}
    result = []
    for item in resolutions:
        value = actual.get((item.resource, item.path), ABSENT)
        shown = masked(contracts.for_resource(item.resource), item.path, value)
        meant = value is not ABSENT and same(item.seen, shown) and not same(shown, value)
        result.append(msgspec.structs.replace(item, seen=value) if meant else item)
    return result


def may_be_masked(resolutions: Iterable[Resolution], contracts: ContractSet) -> bool:
    """Whether a decision speaks of a value of which people saw a mask only."""
    return any(rule.sensitive for item in resolutions for rule in contracts.for_resource(item.resource).fields.values())
