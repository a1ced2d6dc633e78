"""From a merge to the one command that a resource needs."""

from __future__ import annotations

from reconciler.command import corrective
from reconciler.history.members import counter_step
from reconciler.history.tree import BASE, Editor, known_value, node_at, node_of
from reconciler.merge.three_way import Wanted
from reconciler.plan.undo import ResourceUndo
from reconciler.records import Change, Command, CommandAction
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, same
from reconciler.values.pointer import path_of, tokens_of, value_at


def undo_command(undo: ResourceUndo, rollback_id: str, reason: str) -> Command | None:
    """The command that an undo comes to, or None where nothing is to be done or a conflict holds the resource."""
    merged, contract = undo.merged, undo.history.contract
    if merged is None or not merged.wanted or undo.is_held or undo.is_kept:
        return None
    action: CommandAction = "patch"
    changes = [change_of(wanted, undo) for wanted in merged.wanted]
    version = None
    if merged.removal:
        if contract.undo.create.by == "archive":
            changes = _archiving(undo)
        else:
            action = "delete"
            version = None if undo.observed is None else undo.observed.version
    elif merged.creation:
        action = "create"
    if not changes:
        return None
    return corrective(
        undo.history.resource,
        action,
        changes,
        reason=reason,
        contract=f"{contract.name}@{contract.version}",
        rollback_id=rollback_id,
        expect_version=version,
        audit=contract.audit.on_reversal,
    )


def change_of(wanted: Wanted, undo: ResourceUndo) -> Change:
    """One change. Counters and sets are changed by what is to be added or taken out, where that is one thing."""
    path = path_of(wanted.tokens)
    rule = undo.history.contract.rule(path)
    if wanted.value is ABSENT:
        return Change(path=path, op="unset", expect=wanted.actual)
    if rule.conflict == "merge" and wanted.actual is not ABSENT:
        if rule.kind == "counter":
            step = counter_step(wanted.actual, wanted.value)
            if step is not None and wanted.actual is not None and same(wanted.actual + step, wanted.value):
                return Change(path=path, op="increment", value=step, expect=wanted.actual)
        elif rule.kind == "set":
            change = _one_member(path, wanted.actual, wanted.value)
            if change is not None:
                return change
    return Change(path=path, op="set", value=wanted.value, expect=wanted.actual)


def _one_member(path: str, actual: Json, value: Json) -> Change | None:
    """The change of a set by exactly one member, if that is what it is. A list that holds a member twice is no set."""
    if type(actual) is not list or type(value) is not list or not (_is_set(actual) and _is_set(value)):
        return None
    if len(value) == len(actual) + 1 and same(value[:-1], actual):
        return Change(path=path, op="add", value=value[-1], expect=actual)
    if len(value) == len(actual) - 1:
        gone = next((place for place, member in enumerate(value) if not same(member, actual[place])), len(value))
        if same([*actual[:gone], *actual[gone + 1 :]], value):
            return Change(path=path, op="remove", value=actual[gone], expect=actual)
    return None


def _archiving(undo: ResourceUndo) -> list[Change]:
    """The changes that archive a resource instead of deleting it; objects that they need above them are made."""
    actual: Json | Absent = ABSENT if undo.observed is None else undo.observed.fields
    editor = Editor(node_of(actual, BASE))
    places = set()
    for tokens, value in sorted(
        (tokens_of(path), value) for path, value in undo.history.contract.undo.create.set.items()
    ):
        editor.write(tokens, node_of(value, BASE), BASE)
        depth = next(
            (depth for depth in range(1, len(tokens)) if type(value_at(actual, tokens[:depth])) is not dict), None
        )
        places.add(tokens if depth is None else tokens[:depth])
    changes = []
    for tokens in sorted(places):
        there, value = value_at(actual, tokens), known_value(node_at(editor.root, tokens))
        if not same(value, there):
            changes.append(Change(path=path_of(tokens), op="set", value=value, expect=there))
    return changes


def _is_set(items: list[Json]) -> bool:
    return len(set(map(canonical, items))) == len(items)
