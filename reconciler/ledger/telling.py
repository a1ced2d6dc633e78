"""The ledger as people read it: each record with who did it, by which rule, what it changed, and what undid that.

Values of sensitive fields are masked. Nothing else is left out: what didn't happen (a step that failed) is part of the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from reconciler.contracts.masking import masked
from reconciler.contracts.model import Contract, ContractSet
from reconciler.history.entry import Entry, reversal, undone_of
from reconciler.ledger.checking import Stored
from reconciler.records import Action, Actor, Operation, Stage, operation_of
from reconciler.values.instant import Instant
from reconciler.values.json_value import ABSENT, Absent, Json


class ToldChange(msgspec.Struct, frozen=True, kw_only=True):
    """One field that a record wrote. ``is_before_known``: whether the record says what was there."""

    path: str
    before: Json | Absent = ABSENT
    after: Json | Absent = ABSENT
    is_before_known: bool = True


class ToldRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record. ``undone_by`` names what undid it and hasn't been undone itself; ``undoes`` what it undid, and
    ``is_undone_itself`` whether that was taken back."""

    place: str
    occurred_at: Instant
    stage: Stage
    operation: Operation
    resource: str
    operation_id: str
    run_id: str
    step_id: str
    workflow_id: str
    workflow_version: str
    actor: Actor | None
    rule: str
    changes: list[ToldChange]
    compensation: str | None
    undoes: str | None
    undone_by: list[str]
    origin: str | None
    is_repeated: bool


def told(records: Iterable[Stored], contracts: ContractSet) -> list[ToldRecord]:
    """Every record of some resources, all of whose records are given in the order of each, in the order of time."""
    by_resource: dict[str, list[Stored]] = {}
    for stored in records:
        by_resource.setdefault(stored.action.resource, []).append(stored)
    rows = [
        row
        for resource, stored in by_resource.items()
        for row in _told_resource(stored, contracts.for_resource(resource))
    ]
    return sorted(rows, key=lambda row: row.occurred_at)  # records of one instant stay in the order of the ledger


def _told_resource(records: Sequence[Stored], contract: Contract) -> Iterator[ToldRecord]:
    entries: list[Entry] = []
    numbers: dict[str, int] = {}
    repeated: set[int] = set()
    for index, stored in enumerate(records):
        action = stored.action
        if action.stage not in ("succeeded", "reversed"):
            continue
        if action.action_id in numbers:
            repeated.add(index)
            continue
        number = len(entries) + 1
        numbers[action.action_id] = number
        is_reversal = action.stage == "reversed"
        entries.append(reversal(number, action, entries) if is_reversal else Entry(number=number, action=action))
    undone = undone_of(entries)
    for index, stored in enumerate(records):
        number = numbers.get(stored.action.action_id, 0)
        by = [entry.operation_id for entry in entries if entry.number not in undone and number in entry.undoes]
        yield _row(stored, contract, by, is_repeated=index in repeated)


def _row(stored: Stored, contract: Contract, undone_by: list[str], *, is_repeated: bool) -> ToldRecord:
    action = stored.action
    return ToldRecord(
        place=str(stored),
        occurred_at=action.occurred_at,
        stage=action.stage,
        operation=action.operation,
        resource=action.resource,
        operation_id=operation_of(action),
        run_id=action.run_id,
        step_id=action.step_id,
        workflow_id=action.workflow_id,
        workflow_version=action.workflow_version,
        actor=action.actor,
        rule=action.rule,
        changes=list(_changes(action, contract)),
        compensation=None if action.compensation is None else action.compensation.name,
        undoes=action.operation_id if action.stage == "reversed" else None,
        undone_by=undone_by,
        origin=action.origin,
        is_repeated=is_repeated,
    )


def _changes(action: Action, contract: Contract) -> Iterator[ToldChange]:
    """What an action says that it wrote; of a reversal, what the undone action had written is told there."""
    if action.stage == "reversed" or action.operation == "effect":
        return
    before = action.before or {}
    is_known = action.before is not None or action.operation == "create"
    after = {path: action.set.get(path, ABSENT) for path in [*action.set, *action.unset]}
    if action.operation == "delete":
        after = dict.fromkeys(before, ABSENT)
    for path, value in after.items():
        yield ToldChange(
            path=path,
            before=masked(contract, path, before.get(path, ABSENT)),
            after=masked(contract, path, value),
            is_before_known=is_known,
        )
