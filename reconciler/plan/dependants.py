"""Operations outside of a selection that stand on what it would undo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from urllib.parse import quote

import msgspec

from reconciler.history.resource import ResourceHistory
from reconciler.history.tree import known_value, node_at
from reconciler.plan.estate import Estate
from reconciler.plan.undo import ResourceUndo, fragments, removers, unmade
from reconciler.plan.wording import Wording
from reconciler.records import Observation
from reconciler.values.json_value import ABSENT, Absent, Json
from reconciler.values.pointer import Tokens, path_of, tokens_of, value_at
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
    """All that stands on the operations to be undone and isn't undone itself, in a stable order, but for those that name
    them in `depends_on` (`named`)."""
    found = [
        *_later_on_created(undos, Wording(estate.contracts)),
        *_fragments(undos, Wording(estate.contracts)),
        *_references(estate, undone, undos, observed),
    ]
    return sorted(
        (item for item in found if item.by is None or item.by not in undone),
        key=lambda item: (item.operation_id, item.by or "", item.sentence),
    )


def dependents_of(estate: Estate) -> dict[str, list[str]]:
    """By operation, those that name it in `depends_on`, in the order of their names."""
    found: dict[str, list[str]] = {}
    for name in sorted(estate.operations):
        for needed in {item for action in estate.operations[name].actions for item in action.depends_on}:
            found.setdefault(needed, []).append(name)
    return found


def named(
    estate: Estate,
    dependents: Mapping[str, Sequence[str]],
    operation_id: str,
    undone: Mapping[str, AbstractSet[int]],
) -> Iterator[Dependant]:
    """All that name an operation in `depends_on` and stand then: they aren't undone, or come back because their undo is.
    ``undone``: as `Estate.stands` has it."""
    words = Wording(estate.contracts)
    for name in dependents.get(operation_id, ()):
        if estate.stands(name, undone):
            yield Dependant(operation_id, name, f"{words.step(name)} depends on it")


def _later_on_created(undos: Mapping[str, ResourceUndo], words: Wording) -> Iterator[Dependant]:
    for undo in undos.values():
        history = undo.history
        if history.contract.undo.create.by == "keep":
            continue
        for number in sorted(undo.numbers):
            for created in unmade(undo, number):
                for entry in history.after(created.number):
                    if entry.is_reversal or entry.is_adoption or entry.number in undo.undone:
                        continue
                    sentence = f"{words.step(entry.operation_id)} later changed {words.record(history.resource)}, which it made"
                    yield Dependant(history.owner_of(number), entry.operation_id, sentence)


def _fragments(undos: Mapping[str, ResourceUndo], words: Wording) -> Iterator[Dependant]:
    for undo in undos.values():
        for number, later, place in fragments(undo):
            if place == () and unmade(undo, number):
                continue  # said as a later operation on a created resource
            first, second = undo.history.owner_of(number), undo.history.owner_of(later)
            inside = words.place(undo.history.resource, path_of(place))
            sentence = f"{words.step(second)} later wrote inside {inside}, which it made"
            yield Dependant(first, second, sentence)


def _references(
    estate: Estate, undone: AbstractSet[str], undos: Mapping[str, ResourceUndo], observed: Mapping[str, Observation]
) -> Iterator[Dependant]:
    """Live references to resources that would go."""
    removals = {
        resource: undo.history.contract.undo.create.by
        for resource, undo in undos.items()
        if undo.merged is not None and undo.merged.removal and not undo.is_held
    }
    words = Wording(estate.contracts)
    going = {resource: undos[resource] for resource, by in removals.items() if by == "delete"}
    if not going:
        return
    for resource in sorted(estate.histories.keys() | observed.keys()):
        if removals.get(resource) in ("delete", "archive"):
            continue
        for path, value in references_of(estate, resource, undos, observed):
            if value not in going:
                continue
            by = _writer(estate, undone, resource, path)
            sentence = f"{words.record(resource)} refers to {words.record(value)} ({words.field(resource, path)})"
            for number in removers(going[value]):
                yield Dependant(going[value].history.owner_of(number), by, sentence)


def _writer(estate: Estate, undone: AbstractSet[str], resource: str, path: str) -> str | None:
    """The operation to be undone as well, so that a reference goes. None where there is none: nobody knows who wrote it, or
    it stays although its writer is undone."""
    history = estate.histories.get(resource)
    owner = 0 if history is None else getattr(node_at(history.tree, tokens_of(path)), "owner", 0)
    if history is None or owner <= 0 or history.owner_of(owner) in undone:
        return None
    return history.owner_of(owner)


def references_of(
    estate: Estate,
    resource: str,
    undos: Mapping[str, ResourceUndo],
    observed: Mapping[str, Observation],
) -> list[tuple[str, str]]:
    """The references that a resource holds once a plan is done: paths and the keys of the resources they name. A resource
    that was observed and that no workflow touched holds references as well."""
    found = []
    for path, referred in sorted(estate.contracts.for_resource(resource).references.items()):
        value = _value_then(
            estate.histories.get(resource), undos.get(resource), observed.get(resource), tokens_of(path)
        )
        key = referred_key(referred, value)
        if key is not None:
            found.append((path, key))
    return found


def _value_then(
    history: ResourceHistory | None, undo: ResourceUndo | None, actual: Observation | None, tokens: Tokens
) -> Json | Absent:
    """The value of a field once a plan is done, as far as anybody knows."""
    if actual is None or actual.exists is None:
        return ABSENT if history is None else known_value(node_at(history.tree, tokens))
    value = value_at(actual.fields, tokens) if actual.exists else ABSENT
    if undo is not None and undo.merged is not None and not (undo.is_held or undo.is_kept):
        for wanted in undo.merged.wanted:
            if tokens[: len(wanted.tokens)] == wanted.tokens:
                value = value_at(wanted.value, tokens[len(wanted.tokens) :])
    return value


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
