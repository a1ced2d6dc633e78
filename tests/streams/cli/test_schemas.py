"""`reconciler schemas`, with a real registry where it needs one."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.schema_registry import SchemaRegistryClient

from reconciler.records import Action
from reconciler.values.errors import InputError
from reconciler.wire.codec import Codec
from reconciler.wire.schema_folder import packaged_folder
from reconciler.wire.topics import TopicNames
from streams.cli.main import cli
from tests.support.registry import SchemaRegistry
from tests.wire.schema_folders import copied
from tests.wire.strategies import full_action


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["schemas", *arguments], catch_exceptions=False)


def test_list_tells_every_version_and_its_id() -> None:
    lines = run("list", "--json").stdout.splitlines()
    assert {"schema": "action", "version": 1, "id": packaged_folder().versions["action"][0].id} in map(
        json.loads, lines
    )
    assert run("list").stdout.splitlines()[0].split() == ["schema", "version", "id"]


def test_check_passes_on_ours() -> None:
    checked = run("check")
    assert (checked.exit_code, checked.stdout) == (0, "")
    assert "are complete and compatible" in checked.stderr


def test_check_names_the_field_of_a_break_and_exits_with_1(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    file = folder / "outcome.avsc"
    schema = json.loads(file.read_text())
    (status,) = [field for field in schema["fields"] if field["name"] == "status"]
    status["type"] = "string"
    file.write_text(json.dumps(schema))
    checked = run("check", "--folder", str(folder))
    assert checked.exit_code == 1
    assert (
        "outcome.avsc can't read what version 1 wrote: status: the enum OutcomeStatus can't be read as string"
        in checked.stdout.splitlines()
    )
    findings = [
        json.loads(line)["finding"] for line in run("check", "--folder", str(folder), "--json").stdout.splitlines()
    ]
    assert findings == checked.stdout.splitlines()


def test_freeze_commits_what_changed(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    file = folder / "timer.avsc"
    file.write_text(file.read_text().replace("When it came due.", "The instant at which it came due."))
    assert run("check", "--folder", str(folder)).exit_code == 1
    assert run("freeze", "--folder", str(folder)).stdout == "timer version 2\n"
    assert run("check", "--folder", str(folder)).exit_code == 0
    assert run("freeze", "--folder", str(folder)).stdout == ""


def test_register_makes_every_topic_writable_with_the_registrys_ids(registry: SchemaRegistry) -> None:
    names = TopicNames(f"{uuid.uuid4().hex[:8]}.")
    options = ["--registry-url", registry.url, "--prefix", names.prefix, "--system", "crm", "--json"]
    rows = [json.loads(line) for line in run("register", *options).stdout.splitlines()]
    subjects = {f"{spec.name}-value" for spec in names.specs(("crm",)) if spec.record is not None}
    assert {row["subject"] for row in rows} == subjects
    assert all(row["registered"] for row in rows)
    client = SchemaRegistryClient({"url": registry.url})
    assert {client.get_compatibility(subject) for subject in subjects} == {"FULL_TRANSITIVE"}
    codec = Codec.with_registry(registry.url)
    codec.prepare([(spec.name, spec.record) for spec in names.specs(("crm",)) if spec.record is not None])
    assert isinstance(codec.decode(codec.encode(names.actions, full_action())), Action)
    again = [json.loads(line) for line in run("register", *options).stdout.splitlines()]
    assert again == [{**row, "registered": False} for row in rows]


def test_register_needs_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECONCILER_REGISTRY_URL", raising=False)
    with pytest.raises(
        InputError, match=r"no registry is configured; give --registry-url or set RECONCILER_REGISTRY_URL"
    ):
        run("register")
