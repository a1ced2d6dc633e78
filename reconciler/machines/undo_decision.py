"""What an order to undo comes to, on what the history says and what was just observed: a pure decision.

The planner's own functions decide (`reconciler.plan.undo`), so what was planned is what is done, as long as the target
holds what it held; where it doesn't, no more is done than was planned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from reconciler.history.resource import ResourceHistory
from reconciler.history.tree import BASE, Editor, Gone, Object, Unknown, known_value, node_at, node_of
from reconciler.machines.head import Adopted
from reconciler.merge.three_way import Resolution
from reconciler.plan.commands import undo_command
from reconciler.plan.undo import ResourceUndo, blind_entries, immutable_entries, undo_resource
from reconciler.records import Change, Command, Observation, StepConflict, UndoStep
from reconciler.values.json_value import ABSENT, Absent, Json, canonical, same
from reconciler.values.pointer import Tokens, path_of, tokens_of, value_at


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is done. `is_sure`: also if the observation may not show the last writes yet."""

    status: Literal["outdated", "conflict"]
    error: str
    conflicts: list[StepConflict] = []
    is_sure: bool = True


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """The entries `numbers` are undone, which needs the command, if there is one. `adopt` are values of others' that stay in
    spite of it, once the command is carried out, `kept` the conflicts that left something as it is; `touched` the places that the
    undo is about."""

    numbers: list[int]
    command: Command | None
    adopt: list[Adopted]
    kept: list[StepConflict]
    touched: list[Tokens]
    is_sure: bool


Decided: TypeAlias = Refusal | Acceptance


def decide_undo(history: ResourceHistory, order: UndoStep, observed: Observation) -> Decided:
    """Decides an order. The observation says whether the resource exists."""
    numbers = frozenset(order.numbers)
    gone = numbers - history.numbers_of(*order.operations)
    if gone:
        error = f"What is to be undone of {history.resource} was undone meanwhile, or is no longer kept; plan again."
        return Refusal(status="outdated", error=error)
    expired = [number for number in sorted(numbers) if history.reach_of(number) <= history.collapsed]
    if expired:
        error = f"{history.owner_of(expired[0])} undid steps of {history.resource} that are no longer kept; plan again."
        return Refusal(status="outdated", error=error)
    undo = undo_resource(history, numbers, observed, order.resolutions)
    if blind_entries(undo) or immutable_entries(undo):
        error = f"What {history.resource} holds now can't be undone as it was planned; plan again."
        return Refusal(status="outdated", error=error)
    conflicts = _conflicts(undo, "manual")
    is_sure = undo.merged is None or not (undo.merged.conflicts or undo.merged.unchanged)
    command = undo_command(undo, order.rollback_id, order.reason)
    if undo.is_held or (conflicts and command is None):
        error = f"Somebody changed {', '.join(item.path or 'the record' for item in conflicts)} of {history.resource}."
        return Refusal(status="conflict", error=error, conflicts=conflicts, is_sure=is_sure)
    beyond = [] if command is None else _beyond(command, order)
    if beyond:
        error = f"{history.resource} would need more than was planned, at {', '.join(beyond)}; plan again."
        return Refusal(status="outdated", error=error, is_sure=is_sure)
    return Acceptance(
        numbers=sorted(numbers),
        command=command,
        adopt=_adopted(undo, command),
        kept=_conflicts(undo, "manual", "actual", *(("merged",) if _stays(undo, command) else ())),
        touched=_touched(undo),
        is_sure=is_sure,
    )


def _conflicts(undo: ResourceUndo, *resolutions: Resolution) -> list[StepConflict]:
    """Those that were decided so: `manual` ones are left to people, of `actual` ones what is there stays."""
    return [
        StepConflict(
            path=path_of(conflict.tokens), before=conflict.before, after=conflict.after, actual=conflict.actual
        )
        for conflict, resolution in (() if undo.merged is None else undo.merged.conflicts)
        if resolution in resolutions
    ]


def _stays(undo: ResourceUndo, command: Command | None) -> bool:
    """Whether a record stays that the undo would have taken away: with what others have in it, all of it is left."""
    return undo.merged is not None and isinstance(undo.after, Gone) and _then(undo, command) is not ABSENT


def _beyond(command: Command, order: UndoStep) -> list[str]:
    """The paths at which a command would do what wasn't planned."""
    if command.action != order.planned_action:
        return ["the record itself"]
    planned = set(map(_does, order.planned))
    return [change.path or "the record itself" for change in command.changes if _does(change) not in planned]


def _does(change: Change) -> bytes:
    """What a change does, whatever it expects to find."""
    return canonical([change.path, change.op, [] if change.value is ABSENT else [change.value]])


def _touched(undo: ResourceUndo) -> list[Tokens]:
    merged = undo.merged
    if merged is None:
        return []
    return [
        *(wanted.tokens for wanted in merged.wanted),
        *(conflict.tokens for conflict, _ in merged.conflicts),
        *merged.unchanged,
    ]


# -- what stays in spite of the undo


def _adopted(undo: ResourceUndo, command: Command | None) -> list[Adopted]:
    """What will be there, once the command is carried out, where it isn't what the history says then: values of others' that
    a policy or a person keeps, or into which the undo was merged, and resources that are kept or archived."""
    if undo.merged is None:
        return []
    then = _then(undo, command)
    after = undo.after
    if (isinstance(after, Gone) and then is not ABSENT) or (isinstance(after, Object) and then is ABSENT):
        return [Adopted(path="", value=then)]
    adopted: dict[Tokens, Json | Absent] = {}
    for conflict, _ in undo.merged.conflicts:
        place = _end_of_object(undo, conflict.tokens)
        node = node_at(after, place)
        if not isinstance(node, Unknown) and not same(known_value(node), value_at(then, place)):
            adopted[place] = value_at(then, place)
    return [Adopted(path=path_of(place), value=adopted[place]) for place in _uppermost(adopted)]


def _end_of_object(undo: ResourceUndo, tokens: Tokens) -> Tokens:
    """The place itself, or the first one above it at which nothing that could hold it is expected after the undo."""
    for length in range(len(tokens)):
        if not isinstance(node_at(undo.after, tokens[:length]), Object):
            return tokens[:length]
    return tokens


def _uppermost(places: dict[Tokens, Json | Absent]) -> Iterator[Tokens]:
    above: Tokens | None = None
    for place in sorted(places):
        if above is None or place[: len(above)] != above:
            above = place
            yield place


def _then(undo: ResourceUndo, command: Command | None) -> Json | Absent:
    """What the target holds once the command is carried out."""
    assert undo.merged is not None and undo.observed is not None
    actual: Json | Absent = undo.observed.fields if undo.observed.exists else ABSENT
    if command is None:
        return actual
    editor = Editor(node_of(actual, BASE))
    if undo.merged.removal and command.action == "patch":  # archived
        writes = [(tokens_of(change.path), change.value) for change in command.changes]
    else:
        writes = [(wanted.tokens, wanted.value) for wanted in undo.merged.wanted]
    for tokens, value in sorted(writes, key=lambda write: write[0]):
        editor.write(tokens, node_of(value, BASE), BASE)
    return known_value(editor.root)
