"""Which contract and which rules hold for a resource, and why."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reconciler.contracts.model import Contract, ContractSet, FieldRule, type_of
from reconciler.values.resource_key import parse_resource_key


class FieldExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """``place`` is the path in the contract whose rule holds, None for the default; ``passed_over`` would hold without it."""

    path: str
    place: str | None
    passed_over: tuple[str, ...]
    why: str
    rule: FieldRule
    resolvers: int
    """How many resolvers of the contract come before the rule's conflict strategy."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The contract of a resource, and what it says about some fields."""

    resource: str
    contract: str
    version: int
    digest: str
    passed_over: tuple[str, ...]
    why: str
    fields: tuple[FieldExplanation, ...]


def explain(contracts: ContractSet, resource: str, paths: Sequence[str] = ()) -> Explanation:
    """What holds for a resource and for fields of it; without any, for each path that the contract names.

    Raises InputError for what is no resource key or no path.
    """
    system, type_, _ = parse_resource_key(resource)
    contract = contracts.for_resource(resource)
    matching = [
        candidate.name
        for name in ((system, type_), (system, "*"), ("*", "*"))
        for candidate in contracts.contracts
        if type_of(candidate.name) == name
    ]
    return Explanation(
        resource=resource,
        contract=contract.name,
        version=contract.version,
        digest=contract.digest,
        passed_over=tuple(matching[1:]),
        why=_why_contract(contract, matching),
        fields=tuple(_field(contract, path) for path in paths or _named(contract)),
    )


def _why_contract(contract: Contract, matching: Sequence[str]) -> str:
    if not matching:
        return "No contract is for this resource type, so the safe default holds: report drift, and one other person approves."
    if len(matching) == 1:
        return f"{contract.name} is the only contract for this resource type."
    return f"{contract.name} is the most specific contract; it takes nothing over from {' or '.join(matching[1:])}."


def _named(contract: Contract) -> list[str]:
    """The paths that the contract names; for a `/*`, some member that stands for all."""
    return [path[:-1] + "…" if path.endswith("/*") else path for path in contract.fields]


def _field(contract: Contract, path: str) -> FieldExplanation:
    place, rule = contract.rule_and_place(path)
    covering = tuple(contract.covering(path))
    return FieldExplanation(
        path=path,
        place=place,
        passed_over=covering[1:],
        why=_why_rule(path, place, covering[1:], contract),
        rule=rule,
        resolvers=len(contract.resolvers),
    )


def _why_rule(path: str, place: str | None, passed_over: Sequence[str], contract: Contract) -> str:
    if place is None:
        return "No rule covers it, so the default holds."
    if place == path:
        why = "The rule is for this very field"
    elif place.endswith("/*"):
        why = f"{place} covers all below {place[:-2] or 'the resource'}"
    else:
        why = f"{place} covers all that is inside it"
        if contract.fields[place].kind is not None:
            why += f", though only {place} itself is a {contract.fields[place].kind}"
    return f"{why}; it is longer than {' and '.join(passed_over)}." if passed_over else f"{why}."
