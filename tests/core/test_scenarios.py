"""Scenarios as data: every case of scenarios/*.yaml, run through what the commands `fold`, `diff`, `plan` and `apply` compute.

The form of a case (what is left out isn't compared; lists and mappings under `expect` are compared whole, their members by
the keys that the case gives):

    name, why       what happens, and the rule that decides it
    contracts       contracts as in their files
    actions         in the order of the log: `step`; `run` (run-1), `at` (seconds; a minute after the last one), `op` (update),
                    `resource` (crm/contact/42), `stage` (succeeded), and whatever else an action has
    actual          {resource: its fields | null: it isn't there | unobserved}; with `seen`, {resource: more of the observation,
                    its instants in seconds}
    observations    further observations, in the same form as members of `seen`, with `resource` and `fields`
    undo            operations as run/step or step, or a whole request (its plan_hash `seen`: that of the plan without its
                    resolutions); `now` in seconds
    expect          fold: {resource: {exists, fields, owners}}; diff: {resource: {verdict, changes, command}};
                    plan: {status, waves: lists of "action resource", changes, conflicts, kept, blocked, unchanged, …};
                    after: {resource: its fields after `apply` | null}, all others being as they were
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from reconciler.contracts.loader import Source, contract_set
from reconciler.contracts.model import ContractSet
from reconciler.json_form import action_from_json, observation_from_json
from reconciler.offline import applied, diffed, folded, latest_observations, planned
from reconciler.plan.request import request_from_json
from reconciler.plan.showing import plan_to_json
from reconciler.records import Action, Observation
from reconciler.values.instant import SECOND, Instant, format_instant, parse_instant
from reconciler.values.json_value import canonical

RESOURCE = "crm/contact/42"
START = parse_instant("2026-05-03T10:00:00Z")
LONG_AFTER_S = 100_000

_yaml = YAML(typ="safe", pure=True)


def _cases() -> list[Any]:
    cases = []
    for file in sorted((Path(__file__).parent / "scenarios").glob("*.yaml")):
        cases += [pytest.param(case, id=f"{file.stem}: {case['name']}") for case in _yaml.load(file)]
    return cases


@pytest.mark.parametrize("case", _cases())
def test_scenario(case: dict[str, Any]) -> None:
    assert case.keys() <= {
        "name", "why", "contracts", "actions", "actual", "seen", "observations", "undo", "now", "expect",
    }  # fmt: skip
    contracts, actions, observations = _contracts(case), _actions(case), _observations(case)
    expected = case["expect"]
    assert expected and expected.keys() <= {"fold", "diff", "plan", "after"}
    if "fold" in expected:
        _check_lines(list(folded(actions, contracts)), expected["fold"])
    if "diff" in expected:
        _check_lines(list(diffed(actions, observations, contracts)), expected["diff"])
    if "plan" in expected or "after" in expected:
        now = None if "now" not in case else _instant(case["now"])
        request = request_from_json(_request(case))
        if request.plan_hash == "seen":
            undecided = msgspec.structs.replace(request, plan_hash=None, resolutions=[])
            plan_hash = planned(actions, observations, undecided, contracts, now).plan_hash
            request = msgspec.structs.replace(request, plan_hash=plan_hash)
        plan = planned(actions, observations, request, contracts, now)
        shown = plan_to_json(plan, contracts)
        _check_plan(shown, expected.get("plan", {}))
        before, refusals = latest_observations(observations), list[str]()
        after = applied(plan, before, refusals)
        assert refusals == []
        for resource, fields in expected.get("after", {}).items():
            _assert_json(after[resource].fields if after[resource].exists else None, fields, f"after {resource}")
        for resource in before.keys() - expected.get("after", {}).keys():
            assert after[resource] == before[resource], f"{resource} was touched"


# -- reading a case


def _instant(second: float) -> Instant:
    return START + round(second * SECOND)


def _contracts(case: dict[str, Any]) -> ContractSet:
    texts = [canonical(contract).decode() for contract in case.get("contracts", [])]  # JSON is YAML
    return contract_set([Source(f"contract {number}", text) for number, text in enumerate(texts, 1)])


def _actions(case: dict[str, Any]) -> list[Action]:
    actions = []
    second = 0
    for given in case["actions"]:
        second = given.get("at", second + 60)
        data = {
            "stage": "succeeded",
            "run_id": given.get("run", "run-1"),
            "step_id": given["step"],
            "occurred_at": format_instant(_instant(second)),
            "resource": RESOURCE,
            "operation": given.get("op", "update"),
        }
        rest = {name: value for name, value in given.items() if name not in ("step", "run", "at", "op")}
        actions.append(action_from_json(data | rest))
    return actions


def _observations(case: dict[str, Any]) -> list[Observation]:
    result = []
    for resource, fields in case.get("actual", {}).items():
        data: dict[str, Any] = {"resource": resource, "exists": fields is not None, "at": LONG_AFTER_S}
        if fields == "unobserved":
            data |= {"exists": None, "reason": "timed out"}
        elif fields is not None:
            data["fields"] = fields
        result.append(_observation(data | case.get("seen", {}).get(resource, {})))
    return [*(_observation({"exists": True, **data}) for data in case.get("observations", [])), *result]


def _observation(data: dict[str, Any]) -> Observation:
    data = dict(data)
    data["observed_at"] = format_instant(_instant(data.pop("at")))
    if "modified_at" in data:
        data["modified_at"] = format_instant(_instant(data["modified_at"]))
    return observation_from_json(data)


def _request(case: dict[str, Any]) -> Any:
    undo = case["undo"]
    if isinstance(undo, list):
        undo = {"select": {"operations": [_operation(name) for name in undo]}}
    return {"rollback_id": "rollback-1", **undo}


def _operation(name: str) -> str:
    return name if "/" in name else f"run-1/{name}"


# -- comparing


def _assert_json(actual: Any, expected: Any, what: str) -> None:
    assert canonical(actual).decode() == canonical(expected).decode(), what


def _check_lines(lines: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert [line["resource"] for line in lines] == sorted(expected)
    for line in lines:
        _check_member(line, expected[line["resource"]], line["resource"])


def _check_member(actual: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    """An object, by the keys that are given. Where an expected object names `value` or the like as `absent`, it must be."""
    for name, value in expected.items():
        if value == "absent":
            assert name not in actual, f"{what}: {name}"
        elif name in ("changes", "conflicts", "kept"):
            _check_list(actual[name], value, f"{what}: {name}")
        elif name == "command" and value is not None:
            assert actual[name] is not None, f"{what}: no command"
            _check_member(actual[name], value, f"{what}: {name}")
        else:
            _assert_json(actual.get(name), value, f"{what}: {name} of {actual}")


def _check_list(actual: list[Any], expected: list[Any], what: str) -> None:
    assert len(actual) == len(expected), f"{what}: {actual}"
    for one, other in zip(actual, expected, strict=True):
        _check_member(one, other, what)


def _check_plan(plan: dict[str, Any], expected: dict[str, Any]) -> None:
    expected = dict(expected)
    commands = [command for wave in plan["waves"] for command in wave]
    if "waves" in expected:
        told = [[f"{command['action']} {command['resource']}" for command in wave] for wave in plan["waves"]]
        _assert_json(told, expected.pop("waves"), "waves")
    changes = expected.pop("changes", None)
    if changes == []:
        assert commands == []
    elif isinstance(changes, list):
        assert len(commands) == 1, commands
        _check_list(commands[0]["changes"], changes, "changes")
    elif changes is not None:
        by_resource = {command["resource"]: command["changes"] for command in commands}
        assert by_resource.keys() == changes.keys()
        for resource, listed in changes.items():
            _check_list(by_resource[resource], listed, resource)
    if "blocked" in expected:
        blocked = {item["operation_id"]: item["rule"] for item in plan["blocked"]}
        assert blocked == {_operation(name): rule for name, rule in expected.pop("blocked").items()}
        assert all(item["reason"].endswith(".") for item in plan["blocked"])
    if "unchanged" in expected:
        assert [item["path"] for item in plan["unchanged"]] == expected.pop("unchanged")
    for text in expected.pop("notes", []):
        assert any(text in note for note in plan["notes"]), plan["notes"]
    for text in expected.pop("story", []):
        assert text in plan["story"], plan["story"]
    if "compensations" in expected:
        compensations = {
            command["compensation"]["name"]: command["compensation"]["arguments"]
            for command in commands
            if command["compensation"]
        }
        _assert_json(compensations, expected.pop("compensations"), "compensations")
    assert expected.keys() <= {"status", "conflicts", "kept", "operations", "approvals_needed"}, expected
    if "operations" in expected:
        assert plan["operations"] == [_operation(name) for name in expected.pop("operations")]
    _check_member(plan, expected, "plan")
