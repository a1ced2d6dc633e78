"""What authors of contracts write to try them: how their files are read, and how a difference is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.contracts.errors import ContractError
from reconciler.contracts.loader import Source, contract_set, load_contracts, read_scenarios
from reconciler.contracts.model import Contract, ContractSet, FieldRule
from reconciler.offline import planned
from reconciler.scenarios.form import Scenario, scenarios_of
from reconciler.scenarios.trial import Verdict, try_scenario

CONTRACT = "contract: crm/contact\nfields: {/phone: {drift: correct, conflict: expected_wins}}"

HAPPENED = """
- name: a phone
  actions: [{step: a, resource: crm/contact/42, before: {/phone: "1"}, set: {/phone: "2"}}]
  actual: {crm/contact/42: {phone: "3"}}
"""

CONFLICT = '{"actual":"3","after":"1","before":"2","path":"/phone","resolution":"expected","resource":"crm/contact/42"}'
FOLDED = '{"exists":true,"fields":{"/phone":"2"},"owners":{"/phone":["run-1/a"]},"resource":"crm/contact/42"}'


def tried(text: str, contracts: ContractSet | None = None) -> Verdict:
    (scenario,) = scenarios_of(Source("a.test.yaml", text))
    return try_scenario(scenario, contracts or contract_set([Source("a.yaml", CONTRACT)]))


def told(text: str) -> list[str]:
    verdict = tried(text)
    assert not verdict.holds
    return [line for difference in verdict.differences for line in difference.told()]


@pytest.mark.parametrize(
    "expect",
    [
        "expect: {fold: {crm/contact/42: {exists: true, fields: {/phone: '2'}, owners: {/phone: [run-1/a]}}}}",
        "expect: {diff: {crm/contact/42: {verdict: drifted, command: {changes: [{path: /phone, value: '2'}]}}}}",
        "undo: [a]\n  expect: {plan: {changes: [{path: /phone, expect: '3'}], conflicts: [{resolution: expected}]}}",
        "undo: [a]\n  expect: {after: {crm/contact/42: {phone: '1'}}}",
        "undo: [a]\n  expect: {plan: {blocked: {}, kept: [], operations: [a], unchanged: [], waves: [[patch crm/contact/42]]}}",
        "undo: {select: {run_id: run-1}, requested_by: ana}\n  expect: {plan: {changes: {crm/contact/42: [{op: set}]}}}",
        "undo: [a]\n  now: 2026-05-04T00:00:00Z\n  expect: {plan: {story: contact, notes: []}}",
    ],
)
def test_what_is_as_expected_holds(expect: str) -> None:
    verdict = tried(f"{HAPPENED}  {expect}")
    assert verdict.holds, verdict


@pytest.mark.parametrize(
    ("expect", "lines"),
    [
        (
            "undo: [a]\n  expect: {plan: {status: needs_approval}}",
            ["plan.status", '  expected  "needs_approval"', '  but got   "executable"'],
        ),
        (
            "undo: [a]\n  expect: {plan: {conflicts: []}}",
            [
                "plan.conflicts[0]",
                "  expected  nothing",
                f"  but got   {CONFLICT}",
            ],
        ),
        (
            "undo: [a]\n  expect: {plan: {changes: [{value: 1}], blocked: {a: expired}}}",
            [
                "plan.changes[0].value",
                "  expected  1",
                '  but got   "1"',
                "plan.blocked run-1/a",
                '  expected  "expired"',
                "  but got   nothing",
            ],
        ),
        (
            "undo: [a]\n  expect: {after: {}}",
            ["after crm/contact/42", '  expected  {"phone":"3"}', '  but got   {"phone":"1"}'],
        ),
        (
            "undo: [a]\n  expect: {after: {crm/contact/42: {phone: '1', fax: '2'}}}",
            ["after crm/contact/42.fax", '  expected  "2"', "  but got   nothing"],
        ),
        (
            "undo: [a]\n  expect: {plan: {notes: [it is said]}}",
            ["plan.notes", '  expected  "it is said"', "  but got   []"],
        ),
        (
            "expect: {fold: {}}",
            [
                "fold crm/contact/42",
                "  expected  nothing",
                f"  but got   {FOLDED}",
            ],
        ),
    ],
)
def test_each_difference_is_told_with_its_place_and_both_sides(expect: str, lines: list[str]) -> None:
    assert told(f"{HAPPENED}  {expect}") == lines


def test_a_request_that_the_planner_refuses_is_told_as_what_it_is() -> None:
    verdict = tried(f"{HAPPENED}  undo: {{select: {{}}}}\n  expect: {{plan: {{status: executable}}}}")
    assert not verdict.holds
    assert verdict.refused


def test_instants_are_seconds_or_whole_and_follow_each_other_by_a_minute() -> None:
    (scenario,) = scenarios_of(
        Source(
            "a.test.yaml",
            """
- name: times
  actions:
    - {step: a, resource: crm/contact/1, op: effect}
    - {step: b, resource: crm/contact/1, op: effect, at: 2026-05-03T11:00:00Z}
    - {step: c, resource: crm/contact/1, op: effect}
    - {step: d, resource: crm/contact/1, op: effect, at: 7.5}
  actual: {crm/contact/1: null, crm/contact/2: unobserved}
  seen: {crm/contact/1: {at: 9}}
  observations: [{resource: crm/contact/1, at: 8, fields: {a: 1}}]
  expect: {fold: {}}
""",
        )
    )
    start = 1_777_802_400_000_000
    assert [action.occurred_at - start for action in scenario.actions] == [
        60_000_000, 3_600_000_000, 3_660_000_000, 7_500_000,
    ]  # fmt: skip
    assert [(seen.exists, (seen.observed_at or 0) - start) for seen in scenario.observations] == [
        (True, 8_000_000), (False, 9_000_000), (None, 100_000_000_000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a: 1", "1:1: a scenario file must be a list, not a mapping"),
        ("[]", "1:1: a scenario file must have from 1 to"),
        ("- {name: x}", "1:3: a member of a scenario file needs the key expect"),
        ("- {name: x, expect: {}}", "1:21: expect must say something; use fold, diff, plan, after"),
        ("- {name: x, expect: {fold: {}}, acts: []}", "1:33: a member of a scenario file has no key 'acts'; did you mean acti"),
        ("- {name: x, expect: {paln: {}}}", "1:22: expect has no key 'paln'; did you mean plan?"),
        ("- {name: x, expect: {plan: {}}}", "1:22: expect.plan needs undo, which says what is undone"),
        ("- {name: x, undo: [a], expect: {plan: {statuss: x}}}", "1:40: expect.plan has no key 'statuss'; did you mean status?"),
        ("- {name: x, expect: {diff: {crm/a/1: {verdikt: x}}}}", "1:39: expect.diff of crm/a/1 has no key 'verdikt'; did you"),
        ("- {name: x, expect: {fold: {crm/a/1: 1}}}", "1:38: expect.fold of crm/a/1 must be a mapping with exists, fields, owners"),
        ("- {name: x, expect: {fold: []}}", "1:22: expect.fold must be a mapping, not a list"),
        ("- {name: x, expect: {fold: {}}, actions: [{resource: crm/a/1}]}", "1:43: an action needs the key step_id; add it"),
        ("- {name: x, expect: {fold: {}}, actions: [{step: a, resource: crm}]}", "1:53: resource: "),
        ("- {name: x, expect: {fold: {}}, actions: [{step: a, resource: crm/a/1, op: upsert}]}", "1:72: op: must be create, "),
        ("- {name: x, expect: {fold: {}}, actions: [{step: a, resource: crm/a/1, at: noon}]}", "1:76: at must be seconds after 20"),
        ("- {name: x, expect: {fold: {}}, actual: {crm/a/1: 1}}", "1:51: the actual state of crm/a/1 must be its fields, null or"),
        ("- {name: x, expect: {fold: {}}, seen: {crm/a/1: {}}}", "1:40: seen must tell more about a resource of actual, not"),
        ("- {name: x, expect: {fold: {}}, undo: {selct: {}}}", "1:39: a rollback request has no key 'selct'; did you mean select?"),
        ("- {name: x, expect: {fold: {}}}\n- {name: x, expect: {fold: {}}}", "2:4: the name 'x' stands in line 1 as well"),
        ("- {name: x, name: y, expect: {fold: {}}}", "1:13: the key 'name' stands twice here"),
    ],
)  # fmt: skip
def test_each_fault_of_a_file_has_its_place(text: str, message: str) -> None:
    with pytest.raises(ContractError) as caught:
        scenarios_of(Source("a.test.yaml", text))
    assert str(caught.value).startswith(f"a.test.yaml{':' if message[0].isdigit() else ': '}{message}"), str(
        caught.value
    )


def test_scenarios_stand_beside_contracts_and_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONTRACT, encoding="utf-8")
    (tmp_path / "a.test.yaml").write_text("- {name: x, expect: {fold: {}}}", encoding="utf-8")
    assert [contract.name for contract in load_contracts(tmp_path).contracts] == ["crm/contact"]
    assert [Path(source.file).name for source in read_scenarios(tmp_path)] == ["a.test.yaml"]


EVERY_KEY = Path(__file__).parent / "contracts"


def _every_key() -> list[Scenario]:
    return [scenario for source in read_scenarios(EVERY_KEY) for scenario in scenarios_of(source)]


@pytest.mark.parametrize("scenario", _every_key(), ids=lambda scenario: scenario.name)
def test_every_key_does_what_it_says(scenario: Scenario) -> None:
    verdict = try_scenario(scenario, load_contracts(EVERY_KEY))
    assert verdict.holds, verdict.refused or [difference.told() for difference in verdict.differences]


@pytest.mark.parametrize(("on_reversal", "audit"), [("keep", None), ("archive", "archive")])
def test_the_service_is_told_what_becomes_of_its_audit_entries(on_reversal: str, audit: str | None) -> None:
    contracts = contract_set([Source("a.yaml", f"contract: crm/contact\naudit: {{on_reversal: {on_reversal}}}")])
    text = """
- name: an undo and a compensation
  actions:
    - {step: a, resource: crm/contact/42, before: {/phone: "1"}, set: {/phone: "2"}}
    - {step: b, op: effect, resource: crm/contact/43, compensation: {name: call-back}}
  actual: {crm/contact/42: {phone: "2"}}
  undo: [a, b]
  expect: {plan: {status: executable}}
"""
    (scenario,) = scenarios_of(Source("a.test.yaml", text))
    assert scenario.request is not None
    plan = planned(scenario.actions, scenario.observations, scenario.request, contracts)
    commands = [command for wave in plan.waves for command in wave]
    assert {command.action: command.audit for command in commands} == {"patch": audit, "compensate": audit}


def test_what_the_file_with_every_key_shows_as_default_is_the_default() -> None:
    (full,) = load_contracts(EVERY_KEY).contracts
    plain = Contract(name="crm/contact")
    for name in ("conflict_scope", "existence", "audit", "timing", "retry", "fallback"):
        assert getattr(full, name) == getattr(plain, name), name
    for name in ("delete", "dependants", "late_actions"):
        assert getattr(full.undo, name) == getattr(plain.undo, name), name
    assert full.service.ack_within_s == plain.service.ack_within_s
    assert full.fields["/*"] == FieldRule()
    assert plain.undo.create.by == "delete"
