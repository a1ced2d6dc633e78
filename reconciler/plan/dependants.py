"""Operations outside of a selection that stand on what it would undo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from urllib.parse import quote

import msgspec

from reconciler.history.tree import known_value, node_at
from reconciler.plan.estate import Estate
from reconciler.plan.undo import ResourceUndo, fragments
from reconciler.records import Observation
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import path_of, tokens_of, value_at
from reconciler.values.resource_key import parse_resource_key


class Dependant(msgspec.Struct, frozen=True):
    """`operation_id` of the selection is stood on by `by`: an operation, or None where it is nobody's."""

    operation_id: str
    by: str | None
    sentence: str


def dependants(
    estate: Estate,
    undone: AbstractSet[str],
    undos: Mapping[str, ResourceUndo],
    observed: Mapping[str, Observation],
) -> list[Dependant]:
    """All that stands on the operations to be undone and isn't undone itself, in a stable order."""
    found = [
        *_named(estate, undone),
        *_later_on_created(undos),
        *_fragments(undos),
        *_references(estate, undos, observed),
    ]
    return sorted(
        (item for item in found if item.by is None or item.by not in undone),
        key=lambda item: (item.operation_id, item.by or "", item.sentence),
    )


def _named(estate: Estate, undone: AbstractSet[str]) -> Iterator[Dependant]:
    for name, operation in estate.operations.items():
        if name in undone:
            continue
        for needed in sorted({item for action in operation.actions for item in action.depends_on} & undone):
            if estate.entries_of(name) or estate.is_outcome_unknown(name):
                yield Dependant(needed, name, f"the step {name} depends on it")


def _later_on_created(undos: Mapping[str, ResourceUndo]) -> Iterator[Dependant]:
    for undo in undos.values():
        history = undo.history
        if history.contract.undo.create.by == "keep":
            continue
        for number in sorted(undo.numbers):
            created = history.entries[number - 1]
            if created.action.operation != "create":
                continue
            for entry in history.entries[number:]:
                if entry.number not in undo.numbers and entry.number not in history.undone:
                    sentence = f"the later step {entry.operation_id} changed {history.resource}, which it created"
                    yield Dependant(created.operation_id, entry.operation_id, sentence)


def _fragments(undos: Mapping[str, ResourceUndo]) -> Iterator[Dependant]:
    for undo in undos.values():
        for number, later, place in fragments(undo):
            if place == ():
                continue  # said as a later operation on a created resource
            first, second = undo.history.owner_of(number), undo.history.owner_of(later)
            sentence = (
                f"the later step {second} wrote inside {path_of(place)} of {undo.history.resource}, which it made"
            )
            yield Dependant(first, second, sentence)


def _references(
    estate: Estate, undos: Mapping[str, ResourceUndo], observed: Mapping[str, Observation]
) -> Iterator[Dependant]:
    """Live references to resources that would go."""
    going = {
        resource: undo
        for resource, undo in undos.items()
        if undo.merged is not None and undo.merged.removal and undo.history.contract.undo.create.by == "delete"
    }
    if not going:
        return
    for resource, history in sorted(estate.histories.items()):
        if resource in going or not history.contract.references:
            continue
        for path, value in references_of(estate, resource, undos, observed):
            if value not in going:
                continue
            node = node_at(history.tree, tokens_of(path))
            owner = getattr(node, "owner", 0)
            by = history.owner_of(owner) if owner > 0 else None
            sentence = f"{resource} refers to {value} in {path}"
            for number in sorted(going[value].numbers):
                entry = going[value].history.entries[number - 1]
                if entry.action.operation == "create":
                    yield Dependant(entry.operation_id, by, sentence)


def references_of(
    estate: Estate,
    resource: str,
    undos: Mapping[str, ResourceUndo],
    observed: Mapping[str, Observation],
) -> list[tuple[str, str]]:
    """The references that a resource holds once a plan is done: paths and the keys of the resources they name."""
    history, undo = estate.histories[resource], undos.get(resource)
    actual = observed.get(resource)
    found = []
    for path, referred in sorted(history.contract.references.items()):
        tokens = tokens_of(path)
        value: Json | Absent
        if undo is not None and undo.is_needed:
            value = known_value(node_at(undo.after, tokens))
        elif actual is not None and actual.exists is not None:
            value = value_at(actual.fields, tokens) if actual.exists else ABSENT
        else:
            value = known_value(node_at(history.tree, tokens))
        key = referred_key(referred, value)
        if key is not None:
            found.append((path, key))
    return found


def referred_key(referred: str, value: Json | Absent) -> str | None:
    """The key of the resource that a reference field names: by its id, or by its whole key."""
    if value is ABSENT or value is None or isinstance(value, dict | list | bool):
        return None
    text = str(value)
    if text.startswith(referred + "/") and text.count("/") == 2:
        return text
    key = f"{referred}/{quote(text, safe='@:')}"
    try:
        parse_resource_key(key)
    except ValueError:
        return None
    return key
