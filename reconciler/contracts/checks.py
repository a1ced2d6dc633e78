"""What must hold inside one contract, and among all of a folder, beyond the form of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from reconciler.contracts.model import Contract, type_of
from reconciler.values.errors import InputError

Finding: TypeAlias = tuple[tuple[str | int, ...], str]
"""The path of keys in the file that is to blame, and a sentence."""


def contradictions(contract: Contract) -> Iterator[Finding]:
    """All for which a contract can't be used."""
    try:
        type_of(contract.name)
    except InputError as error:
        yield ("contract",), error.message
    yield from _overlapping_values(contract)
    yield from _endless_compensations(contract)


def _overlapping_values(contract: Contract) -> Iterator[Finding]:
    values = contract.undo.create.set
    for path in values:
        for above in values:
            if path.startswith(f"{above}/"):
                yield (
                    ("undo", "create", "set", path),
                    f"{path} lies below {above}, which is set as a whole; keep one of them",
                )


def _endless_compensations(contract: Contract) -> Iterator[Finding]:
    rules = contract.undo.compensations
    for name in rules:
        seen = [name]
        while seen[-1] in rules and rules[seen[-1]].by not in seen:
            seen.append(rules[seen[-1]].by)
        if seen[-1] in rules and rules[seen[-1]].by == name:
            chain = " by ".join([*seen, name])
            yield (
                ("undo", "compensations", name),
                f"{chain} never ends; compensate by something that needs no compensation",
            )


def set_contradictions(contracts: Sequence[Contract]) -> Iterator[tuple[Contract, Finding]]:
    """All for which contracts can't be used together, each with the contract to blame."""
    seen: dict[tuple[str, str], Contract] = {}
    for contract in contracts:
        type_ = type_of(contract.name)
        if type_ in seen:
            yield contract, (("contract",), f"another contract is for {contract.name} as well; write all into one file")
        seen.setdefault(type_, contract)
    for contract, path, cycle in reference_cycles(contracts, only_immutable=True):
        yield (
            contract,
            (
                ("references", path),
                f"{' refers to '.join(cycle)}, all by immutable fields, so none of them can be undone first; let one field change",
            ),
        )


def reference_cycles(
    contracts: Sequence[Contract], only_immutable: bool = False
) -> Iterator[tuple[Contract, str, list[str]]]:
    """Resource types that refer to each other in a circle, each circle once: a contract, its field, and the types.

    A type may refer to itself: its resources are ordered one by one.
    """
    edges: dict[str, dict[str, tuple[Contract, str]]] = {}
    for contract in sorted(contracts, key=lambda item: item.name):
        for path, referred in sorted(contract.references.items()):
            if referred != contract.name and (contract.rule(path).immutable or not only_immutable):
                edges.setdefault(contract.name, {}).setdefault(referred, (contract, path))
    for start in sorted(edges):
        cycle = _way_back(start, edges)
        if cycle is not None and start == min(cycle):
            contract, path = edges[start][cycle[1]]
            yield contract, path, cycle


def _way_back(start: str, edges: Mapping[str, Mapping[str, object]]) -> list[str] | None:
    """The shortest way from a type over its references back to itself."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:
        for referred in edges.get(way[-1], {}):
            if referred == start:
                return [*way, start]
            if referred not in seen:
                seen.add(referred)
                ways.append([*way, referred])
    return None
