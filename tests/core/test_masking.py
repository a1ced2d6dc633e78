"""Sensitive values are masked wherever people look, and nowhere else."""

from __future__ import annotations

import pytest

from reconciler.contracts.masking import MASK, is_masked, masked, shown_error
from reconciler.contracts.model import Contract, ContractSet, FieldRule
from reconciler.json_form import to_json
from reconciler.plan.model import Plan
from reconciler.plan.showing import plan_for_people, plan_to_json
from reconciler.records import Change, Command, Compensation
from reconciler.values.json_value import ABSENT, Json, canonical
from tests.core.histories import make_action
from tests.core.machine_bench import Bench, alerts, commands, drifts

CONTRACT = Contract(
    name="crm/contact",
    fields={"/ssn": FieldRule(sensitive=True, drift="correct"), "/bank/iban": FieldRule(sensitive=True)},
)


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("/ssn", "111", MASK),
        ("/ssn", None, MASK),
        ("/ssn", ABSENT, ABSENT),
        ("/ssn", {"a": [1]}, MASK),
        ("/ssn/part", "1", MASK),  # the rule covers all below it
        ("/phone", "1", "1"),
        ("/bank", {"iban": "DE", "name": "x"}, {"iban": MASK, "name": "x"}),
        ("/bank", "none", "none"),
        ("", {"ssn": "111", "bank": {"iban": "DE"}, "n": 1}, {"ssn": MASK, "bank": {"iban": MASK}, "n": 1}),
    ],
)
def test_a_value_is_masked_where_it_is_sensitive(path: str, value: Json, shown: Json) -> None:
    assert masked(CONTRACT, path, value) == shown
    assert is_masked(CONTRACT, path, value) is (shown != value)


def test_without_sensitive_fields_a_value_is_itself() -> None:
    value = {"a": {"b": 1}}
    assert masked(Contract(name="x"), "", value) is value


def test_drift_events_and_alerts_are_masked_and_the_command_isnt() -> None:
    bench = Bench(CONTRACT)
    bench.at(0, make_action(1, before={}, set={"/ssn": "222", "/phone": "5"}))
    (opened,) = drifts(bench.observe(100, {"ssn": "333", "phone": "6"}))
    assert [(item.path, item.expected, item.actual) for item in opened.changes] == [
        ("/phone", "5", "6"),
        ("/ssn", MASK, MASK),
    ]
    (command,) = commands(bench.observe(200, {"ssn": "333", "phone": "6"}))
    assert command.changes == [Change(path="/ssn", op="set", value="222", expect="333")]
    effects = bench.outcome(201, "permanent", error="duplicate key (ssn)=(222)")
    assert alerts(effects)
    told = canonical([to_json(item) for item in [*alerts(effects), *drifts(effects)]]).decode()
    assert "222" not in told and "333" not in told
    assert bench.head.hold is not None and "222" not in bench.head.hold.reason


def test_errors_are_told_of_records_without_sensitive_fields() -> None:
    assert shown_error(Contract(name="x"), "no such column") == "no such column"
    assert shown_error(CONTRACT, None) == ""
    assert "secret" not in shown_error(CONTRACT, "secret")


def test_a_published_plan_shows_no_sensitive_value_and_a_printed_one_can_be_carried_out() -> None:
    patch = Command(
        command_id="1",
        resource="crm/contact/42",
        action="patch",
        changes=[
            Change(path="/ssn", op="set", value="111", expect="222"),
            Change(path="/n", op="set", value=1, expect=2),
        ],
    )
    effect = Command(
        command_id="2",
        resource="crm/contact/42",
        action="compensate",
        compensation=Compensation(name="apology", arguments={"/ssn": "222", "to": "ana"}),
    )
    plan = Plan(
        rollback_id="r",
        status="executable",
        waves=[[patch, effect]],
        conflicts=[],
        kept=[],
        blocked=[],
        unchanged=[],
        approvals_needed=[],
        operations=[],
        notes=[],
        contracts={},
    )
    contracts = ContractSet((CONTRACT,))
    published = canonical(plan_for_people(plan, contracts)).decode()
    assert "111" not in published and "222" not in published and '"to":"ana"' in published
    assert plan_to_json(plan, contracts)["waves"] == to_json(plan)["waves"]
