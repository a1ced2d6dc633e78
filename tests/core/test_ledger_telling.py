"""The ledger as people read it: what undid what, and what is masked."""

from __future__ import annotations

from reconciler.contracts.loader import Source, contract_set
from reconciler.contracts.masking import MASK
from reconciler.ledger.checking import Stored
from reconciler.ledger.telling import ToldChange, told
from reconciler.records import Action, Compensation
from reconciler.values.json_value import ABSENT
from tests.core.histories import RESOURCE
from tests.core.test_ledger_checking import action

CONTRACTS = contract_set([Source("c.yaml", "contract: crm/contact\nfields: {/ssn: {sensitive: true}}")])


def undo(number: int, operation_id: str, rollback: str) -> Action:
    return action(number, "reversed", run_id=rollback, step_id="undo", operation_id=operation_id)


def rows(*actions: Action) -> list[tuple[str, list[str]]]:
    return [
        (row.operation_id, row.undone_by)
        for row in told([Stored(0, offset, item) for offset, item in enumerate(actions)], CONTRACTS)
    ]


def test_what_undid_a_record_is_named_until_that_is_undone_itself() -> None:
    first, second = action(1), action(2)
    undone = undo(3, "run/s1", "undo-1")
    assert rows(first, second, undone) == [("run/s1", ["undo-1/undo"]), ("run/s2", []), ("undo-1/undo", [])]
    back = undo(4, "undo-1/undo", "undo-2")
    assert rows(first, second, undone, back) == [
        ("run/s1", []),
        ("run/s2", []),
        ("undo-1/undo", ["undo-2/undo"]),
        ("undo-2/undo", []),
    ]


def test_records_stand_in_the_order_of_time_and_those_that_came_again_say_so() -> None:
    first, second = action(1), action(2)
    other = action(1, "initiated", resource="crm/contact/43")
    told_rows = told([Stored(0, 5, second), Stored(0, 6, first), Stored(0, 7, first), Stored(1, 0, other)], CONTRACTS)
    assert [row.place for row in told_rows] == ["0/6", "0/7", "1/0", "0/5"]
    assert [row.is_repeated for row in told_rows] == [False, True, False, False]


def test_changes_are_told_with_both_sides_and_sensitive_ones_masked() -> None:
    update = action(1, before={"/a": 1, "/ssn": "078"}, set={"/a": 2, "/b": None, "/ssn": "219"}, unset=["/c"])
    (row,) = told([Stored(0, 0, update)], CONTRACTS)
    assert row.changes == [
        ToldChange(path="/a", before=1, after=2),
        ToldChange(path="/b", before=ABSENT, after=None),
        ToldChange(path="/ssn", before=MASK, after=MASK),
        ToldChange(path="/c", before=ABSENT, after=ABSENT),
    ]
    blind = action(2, before=None, set={"/a": 3})
    deleted = action(3, operation="delete", set={}, before={"/a": 3, "/person": {"ssn": 1}})
    effect = action(4, operation="effect", set={}, before=None, compensation=Compensation(name="credit-note"))
    first, second, third = told([Stored(0, n, item) for n, item in enumerate((blind, deleted, effect))], CONTRACTS)
    assert first.changes == [ToldChange(path="/a", after=3, is_before_known=False)]
    assert [(change.path, change.after) for change in second.changes] == [("/a", ABSENT), ("/person", ABSENT)]
    assert (third.changes, third.compensation) == ([], "credit-note")
    assert all(row.resource == RESOURCE for row in (first, second, third))
