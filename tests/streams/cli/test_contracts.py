"""`reconciler contracts`, as people call it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner, Result

from reconciler.values.errors import InputError
from streams.cli.main import cli

EXAMPLES = Path(__file__).parents[3] / "examples" / "contracts"
DOCS = Path(__file__).parents[3] / "docs"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["contracts", *arguments], catch_exceptions=False)


def test_schema_prints_the_committed_schema() -> None:
    printed = json.loads(run("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(printed)
    committed = json.loads((DOCS / "contract.schema.json").read_text(encoding="utf-8"))
    assert printed == committed, "run `reconciler contracts schema >docs/contract.schema.json`"


def test_every_key_of_the_schema_is_documented() -> None:
    text = (DOCS / "contracts.md").read_text(encoding="utf-8")
    pending = [json.loads(run("schema").stdout)]
    while pending:
        schema = pending.pop()
        pending.extend(schema.get("properties", {}).values())
        pending.extend(
            part for part in (schema.get("items"), schema.get("additionalProperties")) if isinstance(part, dict)
        )
        for key, shape in schema.get("properties", {}).items():
            assert f"`{key}`" in text, key
            for word in shape.get("enum", ()):
                assert f"`{word}`" in text, (key, word)


def test_lint_passes_on_the_examples() -> None:
    checked = run("lint", str(EXAMPLES), "--strict")
    assert (checked.exit_code, checked.stdout) == (0, "")
    assert "0 errors, 0 warnings." in checked.stderr


def test_lint_names_each_fault(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("contract: crm/a\nversion: x\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("contract: crm/b\nretry: {first_s: 9, cap_s: 1}\n", encoding="utf-8")
    checked = run("lint", str(tmp_path))
    assert checked.exit_code == 1
    assert checked.stdout.splitlines() == [
        f"{tmp_path}/a.yaml:2:10: error: version must be a whole number, not 'x'",
        f"{tmp_path}/b.yaml:2:21: warning: cap_s is below first_s, so every wait is cap_s",
    ]
    assert checked.stderr == "2 contracts: 1 error, 1 warning.\n"
    rows = [json.loads(line) for line in run("lint", str(tmp_path), "--json").stdout.splitlines()]
    assert [(row["line"], row["column"], row["severity"]) for row in rows] == [(2, 10, "error"), (2, 21, "warning")]


def test_lint_takes_one_file_and_warnings_fail_only_when_strict(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text("contract: crm/b\nretry: {first_s: 9, cap_s: 1}\n", encoding="utf-8")
    assert run("lint", str(file)).exit_code == 0
    assert run("lint", str(file), "--strict").exit_code == 1


def test_lint_of_nothing_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        run("lint", str(tmp_path / "missing"))


def test_explain_tells_contract_rule_and_why() -> None:
    told = run("explain", "crm/contact/42", "/phone", "/address/city", "--contracts", str(EXAMPLES))
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert lines[0].startswith("crm/contact/42: contract crm/contact, version ")
    assert "/phone: the rule under /phone" in lines
    assert "/address/city: the rule under /address" in lines


def test_explain_in_json_has_the_whole_rule() -> None:
    (line,) = run("explain", "crm/contact/42", "/phone", "--contracts", str(EXAMPLES), "--json").stdout.splitlines()
    explained = json.loads(line)
    assert explained["contract"] == "crm/contact"
    assert explained["fields"][0]["rule"]["normalise"] == ["digits"]


def test_the_folder_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_CONTRACTS_DIR", str(EXAMPLES))
    assert run("explain", "crm/contact/42").exit_code == 0
    assert run("lint").exit_code == 0


@pytest.mark.parametrize("folder", [EXAMPLES, EXAMPLES.parents[1] / "deploy" / "contracts"])
def test_the_scenarios_of_our_own_contracts_hold(folder: Path) -> None:
    tried = run("test", str(folder))
    assert tried.exit_code == 0, tried.stdout
    assert tried.stdout.count("ok ") >= 5
    assert ", 0 not." in tried.stderr


def test_a_scenario_that_fails_is_shown_and_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("contract: crm/a\n", encoding="utf-8")
    file = tmp_path / "a.test.yaml"
    action = "{step: s, resource: crm/a/1, before: {/n: 1}, set: {/n: 2}}"
    file.write_text(
        f"- name: it goes back\n  actions: [{action}]\n  actual: {{crm/a/1: {{n: 3}}}}\n  undo: [s]\n"
        "  expect: {plan: {conflicts: [{resolution: expected}]}}\n",
        encoding="utf-8",
    )
    tried = run("test", str(file))
    assert tried.exit_code == 1
    assert tried.stdout.splitlines() == [
        f"FAILED  {file}:1: it goes back",
        "  plan.conflicts[0].resolution",
        '    expected  "expected"',
        '    but got   "manual"',
    ]
    assert tried.stderr == "1 scenario: 0 as expected, 1 not.\n"
    (row,) = [json.loads(line) for line in run("test", str(tmp_path), "--json").stdout.splitlines()]
    assert row["differences"] == [{"place": "plan.conflicts[0].resolution", "expected": "expected", "actual": "manual"}]


def test_a_folder_without_scenarios_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("contract: crm/a\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"holds no scenarios; write some into a file such as crm-contact\.test\.yaml"):
        run("test", str(tmp_path))
