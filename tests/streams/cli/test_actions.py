"""`reconciler actions` on the embedded broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.records import Action
from reconciler.values.errors import InputError
from streams.cli.main import cli
from streams.embedded.broker import EmbeddedBroker
from tests.support.estate import Estate


@pytest.fixture
def estate(embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> Estate:
    estate = Estate.embedded(embedded_broker)
    monkeypatch.setenv("RECONCILER_BOOTSTRAP_SERVERS", estate.bootstrap)
    monkeypatch.setenv("RECONCILER_TOPIC_PREFIX", estate.prefix)
    return estate


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["actions", *arguments], catch_exceptions=False)


def line(resource: str, run_id: str = "run-7", **fields: Any) -> str:
    action = {
        "stage": "succeeded",
        "run_id": run_id,
        "step_id": "update",
        "occurred_at": "2026-05-03T10:00:00Z",
        "resource": resource,
        "operation": "update",
        "set": {"/phone": "2"},
    }
    return json.dumps(action | fields) + "\n"


def test_a_file_is_sent_in_its_order_and_seen_again(estate: Estate, tmp_path: Path) -> None:
    file = tmp_path / "actions.jsonl"
    file.write_text(line("crm/contact/1", step_id="one") + "\n" + line("crm/contact/1", "run-8", step_id="two"))
    sent = [json.loads(text) for text in run("send", str(file), "--json").stdout.splitlines()]
    found = [estate.codec.decode(record.value) for record in estate.read(estate.topics.actions)]
    assert [each["action_id"] for each in sent] == [each.action_id for each in found if isinstance(each, Action)]
    assert [each.step_id for each in found if isinstance(each, Action)] == ["one", "two"]
    shown = run("tail", "--from-start", "--no-follow").stdout.splitlines()
    assert len(shown) == 2
    assert "crm/contact/1  update (/phone)  run-7/one" in shown[0]
    (one,) = run("tail", "--from-start", "--no-follow", "--run", "run-8", "--json").stdout.splitlines()
    assert json.loads(one)["step_id"] == "two"
    assert not run("tail", "--from-start", "--no-follow", "--resource", "crm/contact/2").stdout


def test_a_line_that_can_not_be_used_keeps_the_whole_file_back(estate: Estate, tmp_path: Path) -> None:
    file = tmp_path / "actions.jsonl"
    file.write_text(line("crm/contact/1") + line("no key"))
    with pytest.raises(InputError, match=r"actions\.jsonl:2: resource: "):
        run("send", str(file))
    assert not estate.read(estate.topics.actions)


def test_what_is_no_action_is_told_and_passed_over(estate: Estate) -> None:
    estate.send(estate.topics.actions, b"crm/contact/1", b"nonsense")
    estate.flush()
    shown = run("tail", "--from-start", "--no-follow")
    assert not shown.stdout
    assert "can't be read" in shown.stderr
