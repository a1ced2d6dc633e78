"""`reconciler serve` as a process: ready, useful, and gone in order; or one sentence that says what is wrong."""

from __future__ import annotations

import base64
import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.records import Change, Command
from reconciler.sdk import HmacSigner, InputError
from reconciler.targets.memory import MemoryTarget
from streams.cli.main import main
from streams.embedded.broker import EmbeddedBroker
from streams.serve.host import applying_target
from streams.serve.settings import load_serve_settings, read_keys
from tests.sdk.support import Commands, Served, read_outcomes, unique
from tests.support.waiting import wait_until

RESOURCE = "crm/contact/42"


@pytest.fixture
def crm(tmp_path: Path) -> Path:
    """A CRM with one contact, in SQLite, and its targets file."""
    with sqlite3.connect(tmp_path / "crm.db") as connection:
        connection.execute("CREATE TABLE contact (id TEXT PRIMARY KEY, phone TEXT, n INTEGER) STRICT")
        connection.execute("INSERT INTO contact VALUES ('42', '3', 0)")
    connection.close()
    (tmp_path / "targets.yaml").write_text(
        "crm:\n  kind: sqlite\n  path: crm.db\n  resources:\n"
        "    contact: {table: contact, id: id, fields: {/phone: phone, /n: n}}\n"
    )
    return tmp_path


def contact(folder: Path) -> Any:
    connection = sqlite3.connect(folder / "crm.db")
    try:
        return connection.execute("SELECT phone, n FROM contact WHERE id = '42'").fetchone()
    finally:
        connection.close()


def command(number: int, **changed: Any) -> Command:
    given: dict[str, Any] = {
        "command_id": f"c{number}",
        "resource": RESOURCE,
        "action": "patch",
        "changes": [Change(path="/n", op="set", value=number, expect=number - 1)],
    }
    return Command(**(given | changed))


@pytest.fixture
def served(embedded_broker: EmbeddedBroker, crm: Path) -> Iterator[Served]:
    prefix = unique("serve")
    embedded_broker.create_topics([f"{prefix}reversal.crm", f"{prefix}reversal.outcomes"])
    keys = crm / "keys.json"
    keys.write_text(json.dumps({"2026-05": base64.b64encode(b"k" * 32).decode()}))
    with Served(
        "crm",
        crm / "targets.yaml",
        embedded_broker.bootstrap,
        prefix,
        crm,
        RECONCILER_SERVE_SIGNING_KEYS_FILE=str(keys),
        RECONCILER_SERVE_ACTIONS='["patch"]',
    ) as process:
        yield process


def test_a_served_target_is_ready_applies_and_ends_in_order(served: Served, crm: Path) -> None:
    signer = HmacSigner("2026-05", b"k" * 32)
    commands = Commands(served.bootstrap, served.prefix)
    commands.send(command(1), signer=signer)
    commands.send(command(2))
    commands.send(command(3, action="delete"), signer=signer)
    outcomes = {each.command_id: each for each in read_outcomes(served.bootstrap, served.prefix, 3)}
    assert {key: each.status for key, each in outcomes.items()} == {"c1": "applied", "c2": "rejected", "c3": "rejected"}
    assert outcomes["c1"].observed is not None and outcomes["c1"].observed.fields["n"] == 1
    assert "not signed" in (outcomes["c2"].error or "") and "delete" in (outcomes["c3"].error or "")
    assert contact(crm) == ("3", 1)
    assert json.load(urllib.request.urlopen(f"{served.url}/ready")) == {"ready": True, "why": None}
    assert json.load(urllib.request.urlopen(f"{served.url}/live")) == {"live": True}

    def page() -> str:
        text: str = urllib.request.urlopen(f"{served.url}/metrics").read().decode()
        return text

    # An outcome counts once the brokers say that they have it, which is after it can be read.
    wait_until(lambda: "reconciler_command_seconds_count 3.0" in page(), deadline_s=60, what="all three are counted")
    assert 'reconciler_commands_total{status="rejected"} 2.0' in page()
    assert served.terminate() == 0
    assert "stopped serving" in served.log()


def test_before_its_topic_is_there_it_says_that_it_is_not_ready(embedded_broker: EmbeddedBroker, crm: Path) -> None:
    with Served("crm", crm / "targets.yaml", embedded_broker.bootstrap, unique("serve"), crm, wait=False) as served:
        wait_until(lambda: "can't be read" in served.why(), deadline_s=60, what="it complains")
        assert served.terminate() == 0


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["crm"], {}, "no targets file"),
        (["crm", "--targets", "missing.yaml"], {}, "missing.yaml"),
        (["erp", "--targets", "targets.yaml"], {}, "names no system 'erp'; it has crm"),
        (["crm", "--targets", "targets.yaml"], {"RECONCILER_SERVE_CONCURRENCY": "0"}, "RECONCILER_SERVE_CONCURRENCY"),
        (["crm", "--targets", "targets.yaml"], {"RECONCILER_SERVE_ACTIONS": "patch"}, "RECONCILER_SERVE_"),
        (["crm", "--targets", "targets.yaml"], {"RECONCILER_SERVE_SIGNING_KEYS_FILE": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_what_cant_be_served_is_one_sentence(
    crm: Path,
    arguments: list[str],
    environment: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(crm)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments, "--http-port", "0"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("reconciler: ") and sentence in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_a_target_that_is_only_observed_is_not_served() -> None:
    class ReadOnly(MemoryTarget):
        def describe(self) -> Any:
            import msgspec

            return msgspec.structs.replace(super().describe(), can_apply=False)

    with pytest.raises(InputError, match="only be observed"):
        applying_target({"crm": ReadOnly("crm")}, "crm")


def test_the_keys_file_is_checked_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for content in ("not json", "[]", '{"a": 1}', '{"a": "sécret"}', '{"a": "c2VjcmV0="}'):
        file.write_text(content)
        with pytest.raises(InputError) as caught:
            load_serve_settings(signing_keys_file=file).verifier()
        assert "c2VjcmV0" not in str(caught.value)
    file.write_text(json.dumps({"a": base64.b64encode(b"k" * 40).decode()}))
    assert read_keys(file) == {"a": b"k" * 40}
    assert load_serve_settings(signing_keys_file=file).verifier() is not None
    assert load_serve_settings().verifier() is None
