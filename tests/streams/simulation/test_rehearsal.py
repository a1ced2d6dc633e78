"""Rehearsals of a rollback on a person's own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.values.errors import InputError
from streams.cli.main import cli


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def action(step: str, resource: str, **fields: Any) -> dict[str, Any]:
    given = {"stage": "succeeded", "run_id": "run-7", "step_id": step, "occurred_at": "2026-05-03T10:00:00Z"}
    return given | {"resource": resource, "operation": "update"} | fields


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A run over two systems, of which one record isn't in the file of actual states."""
    actions = write(
        tmp_path / "actions.jsonl",
        action("contact", "crm/contact/42", before={"/phone": "1"}, set={"/phone": "2"}),
        action("invoice", "billing/invoice/9", before={"/status": "open"}, set={"/status": "paid"}),
    )
    seen = {"resource": "crm/contact/42", "exists": True, "fields": {"phone": "2", "name": "Ana"}}
    actual = write(tmp_path / "actual.jsonl", seen | {"observed_at": "2026-05-03T10:05:00Z"})
    asked = {"rollback_id": "rb-7", "select": {"run_id": "run-7"}, "requested_by": "ana@example.com"}
    request = write(tmp_path / "request.json", asked)
    return ["--actions", str(actions), "--actual", str(actual), "--request", str(request)]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *arguments], catch_exceptions=False)


def test_a_rehearsal_without_faults_completes_and_says_what_it_assumed(files: list[str]) -> None:
    done = run(*files, "--runs", "2", "--faults", "none", "--json", "--at-least", "1")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["statuses"] == {"completed": 2}
    assert report["rate_of_success"] == 1.0
    assert report["assumed"] == ["billing/invoice/9"]
    assert report["duration_s"]["median"] > 0
    assert not (report["conflicts"] or report["blocked"] or report["reasons"] or report["broken"])


def test_the_report_for_people_names_what_stands_in_the_way(files: list[str]) -> None:
    done = run(*files, "--runs", "25", "--faults", "many")
    assert done.exit_code == 0
    assert "25 rehearsals of rb-7, with faults: many." in done.stdout
    assert "Why it stopped or stayed incomplete:" in done.stdout
    assert "FAULTS OF THE RECONCILER" not in done.stdout


def test_a_run_can_be_looked_into(files: list[str]) -> None:
    done = run(*files, "--seed", "1", "--faults", "none", "--trace")
    assert done.exit_code == 0
    assert "rb-7 is completed" in done.stdout
    assert run(*files, "--seed", "1", "--faults", "none", "--trace").stdout == done.stdout


def test_too_little_success_and_a_rejection_have_exit_codes(files: list[str], tmp_path: Path) -> None:
    blocked = action("mail", "mail/message/1", operation="effect")
    with Path(files[1]).open("a") as actions:
        actions.write(json.dumps(blocked) + "\n")
    done = run(*files, "--runs", "1", "--faults", "none", "--at-least", "0.5")
    assert done.exit_code == 4
    assert "Blocked, because it can't be undone:" in done.stdout
    contracts = tmp_path / "contracts"
    contracts.mkdir()
    rule = "contract: crm/contact\nundo:\n  forbid: [{when: 'true', because: Nothing is undone here.}]\n"
    (contracts / "contact.yaml").write_text(rule)
    done = run(*files, "--runs", "1", "--faults", "none", "--contracts", str(contracts))
    assert done.exit_code == 3
    assert "Nothing is undone here." in done.stdout


@pytest.mark.parametrize("left_out", [0, 4])
def test_both_files_are_needed(files: list[str], left_out: int) -> None:
    with pytest.raises(InputError, match="needs both"):
        run(*files[:left_out], *files[left_out + 2 :])


def test_what_is_for_rehearsals_alone_is_refused_without_one() -> None:
    with pytest.raises(InputError, match="rehearsal"):
        run("--runs", "5")


def test_an_error_names_file_and_line(files: list[str]) -> None:
    Path(files[1]).write_text('{"stage": "done"}\n')
    with pytest.raises(InputError, match=r"actions\.jsonl:1: "):
        run(*files, "--runs", "1")
