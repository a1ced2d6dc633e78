"""The check that a release's schemas must pass: each thing that it looks for is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.wire.codec import Codec
from reconciler.wire.errors import SchemaFolderError
from reconciler.wire.schema_check import check_schemas, freeze_schemas
from reconciler.wire.schema_folder import LAST_PACKAGED_ID, SchemaFolder, packaged_folder
from tests.wire.schema_folders import copied, with_further_version
from tests.wire.strategies import full_action

Edit = Callable[[dict[str, Any]], None]


def edited(path: Path, name: str, edit: Edit) -> SchemaFolder:
    """A copy of our folder with one working schema changed."""
    folder = copied(path)
    schema = json.loads((folder / f"{name}.avsc").read_text())
    edit(schema)
    (folder / f"{name}.avsc").write_text(json.dumps(schema, indent=2))
    return SchemaFolder(folder)


def field_of(schema: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [field for field in schema["fields"] if field["name"] == name]
    return dict(found)


def set_field(schema: dict[str, Any], name: str, **values: Any) -> None:
    for field in schema["fields"]:
        if field["name"] == name:
            field.update(values)


def drop_field(schema: dict[str, Any], name: str) -> None:
    schema["fields"] = [field for field in schema["fields"] if field["name"] != name]


def test_ours_pass() -> None:
    assert check_schemas(packaged_folder()) == []


def test_our_instants_and_decimals_have_logical_types() -> None:
    folder = packaged_folder()
    for name in folder.working_names():
        text = (folder.path / f"{name}.avsc").read_text()
        for field in json.loads(text)["fields"]:
            if field["name"].endswith("_at"):
                assert "timestamp-micros" in json.dumps(field), (name, field["name"])
            if field["name"].endswith("_s"):
                assert "decimal" in json.dumps(field), (name, field["name"])


@pytest.mark.parametrize(
    ("name", "edit", "finding"),
    [
        (
            "alert",
            lambda schema: set_field(schema, "kind", type="int"),
            "alert.avsc can't read what version 1 wrote: kind: string can't be read as int",
        ),
        (
            "alert",
            lambda schema: set_field(schema, "kind", type="int"),
            "alert.avsc writes what version 1 can't read: kind: int can't be read as string",
        ),
        (
            "timer",
            lambda schema: set_field(schema, "due_at", type={"type": "long", "logicalType": "timestamp-millis"}),
            "timer.avsc can't read what version 1 wrote: due_at: means logicalType timestamp-millis to the reader",
        ),
        (
            "command",
            lambda schema: schema["fields"][2]["type"]["symbols"].remove("delete"),
            "command.avsc: it is not committed as a version; `reconciler schemas freeze` does it",
        ),
        ("alert", lambda schema: set_field(schema, "kind", doc=""), "alert.avsc: the field Alert.kind has no doc"),
        ("alert", lambda schema: schema.pop("doc"), "alert.avsc: the record Alert has no doc"),
        (
            "action",
            lambda schema: schema["fields"][12]["type"][1]["fields"][0].pop("doc"),
            "action.avsc: the field Actor.id has no doc",
        ),
        (
            "alert",
            lambda schema: schema["fields"][5]["type"].pop("default"),
            "alert.avsc: the enum Severity must have the default unrecognised",
        ),
        ("alert", lambda schema: drop_field(schema, "kind"), "alert.avsc: it doesn't fit the record Alert"),
        (
            "observation",
            lambda schema: schema["fields"][6]["type"][1]["fields"][0].update(doc="Who."),
            "outcome.avsc: the type Actor differs from that in action.avsc",
        ),
    ],
)
def test_each_fault_is_found(tmp_path: Path, name: str, edit: Edit, finding: str) -> None:
    findings = check_schemas(edited(tmp_path, name, edit))
    if "differs" in finding:
        assert any("the type Actor differs from that in" in each for each in findings)
    else:
        assert any(finding in each for each in findings), findings


def test_an_addition_that_keeps_all_readers_is_not_a_break(tmp_path: Path) -> None:
    def with_note(schema: dict[str, Any]) -> None:
        schema["fields"].append({"name": "note", "type": "string", "default": "", "doc": "A note."})

    findings = check_schemas(with_further_version(tmp_path, "alert", with_note))
    assert findings == ["alert.avsc: it doesn't fit the record Alert: 'note'"]  # the record must follow, and no more


def test_a_field_without_a_default_can_neither_come_nor_go(tmp_path: Path) -> None:
    def with_note(schema: dict[str, Any]) -> None:
        schema["fields"].append({"name": "note", "type": "string", "doc": "A note."})

    findings = check_schemas(with_further_version(tmp_path, "alert", with_note))
    assert (
        "alert.avsc can't read what version 1 wrote: note: the writer lacks it, and the reader has no default for it"
        in (findings)
    )
    findings = check_schemas(edited(tmp_path / "other", "alert", lambda schema: drop_field(schema, "subject")))
    assert any("writes what version 1 can't read: subject: the writer lacks it" in each for each in findings)


def test_compatibility_is_with_every_version_not_only_the_last(tmp_path: Path) -> None:
    folder = with_further_version(tmp_path, "alert", lambda schema: set_field(schema, "subject", default="nobody"))
    working = folder.path / "alert.avsc"
    schema = json.loads(working.read_text())
    drop_field(schema, "subject")  # version 2 has a default for it, version 1 has none
    working.write_text(json.dumps(schema))
    findings = [each for each in check_schemas(folder) if "can't read: subject" in each]
    assert findings == [
        "alert.avsc writes what version 1 can't read: subject: the writer lacks it, and the reader has no default for it"
    ]


def lock_of(folder: Path) -> dict[str, Any]:
    lock: dict[str, Any] = json.loads((folder / "lock.json").read_text())
    return lock


def test_the_lock_is_held_to_its_word(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    lock = lock_of(folder)
    lock["schemas"]["alert"][0]["id"] = lock["schemas"]["timer"][0]["id"]
    lock["schemas"]["action"][0]["version"] = 3
    (folder / "lock.json").write_text(json.dumps(lock))
    (folder / "versions" / "alert" / "9.avsc").write_text("{}")
    findings = check_schemas(SchemaFolder(folder))
    assert "lock.json: the versions of action must be 1, 2, 3 and so on, in this order" in findings
    assert any("lock.json: timer version 1 has the id" in each and "of alert version 1" in each for each in findings)
    assert any(each.startswith("versions/alert/9.avsc: the lock doesn't know it") for each in findings)


def test_a_committed_version_that_was_changed_is_refused_at_once(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    file = folder / "versions" / "alert" / "1.avsc"
    file.write_text(file.read_text().replace('"string"', '"bytes"', 1))
    with pytest.raises(SchemaFolderError, match=r"1\.avsc was changed after it was committed; restore it"):
        Codec.packaged(folder=folder)
    assert any("was changed after it was committed" in each for each in check_schemas(SchemaFolder(folder)))


def test_white_space_and_the_order_of_keys_are_no_change(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    for file in folder.glob("**/*.avsc"):
        file.write_text(json.dumps(json.loads(file.read_text()), sort_keys=True))
    assert check_schemas(SchemaFolder(folder)) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "lock.json").write_text("{"), "can't be used"),
        (lambda folder: (folder / "lock.json").unlink(), "can't be read"),
        (lambda folder: (folder / "versions" / "timer" / "1.avsc").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "versions" / "timer" / "1.avsc").unlink(), "can't be read"),
        (
            lambda folder: (folder / "lock.json").write_text(
                json.dumps({"schemas": {**lock_of(folder)["schemas"], "timer": []}})
            ),
            "has no committed version of the schema timer",
        ),
        (
            lambda folder: (folder / "lock.json").write_text(
                (folder / "lock.json").read_text().replace(str(packaged_folder().latest("timer").id), "7")
            ),
            "gives timer the id 7, outside of the packaged range",
        ),
    ],
)
def test_a_broken_folder_says_what_is_broken(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    folder = copied(tmp_path)
    spoil(folder)
    with pytest.raises(SchemaFolderError, match=message):
        Codec.packaged(folder=folder)
    assert check_schemas(SchemaFolder(folder)) != []


def test_freezing_commits_what_changed_and_nothing_else(tmp_path: Path) -> None:
    folder = edited(tmp_path, "alert", lambda schema: set_field(schema, "kind", doc="The kind, reworded."))
    assert freeze_schemas(folder) == ["alert version 2"]
    after = SchemaFolder(folder.path)
    assert check_schemas(after) == []
    assert [version.version for version in after.versions["alert"]] == [1, 2]
    assert after.latest("alert").id == max(packaged_folder().by_id) + 1 <= LAST_PACKAGED_ID
    assert after.versions["alert"][0].id == packaged_folder().latest("alert").id
    assert freeze_schemas(after) == []
    codec = Codec.packaged(folder=folder.path)
    assert codec.decode(codec.encode("any", full_action())) == full_action()


def test_freezing_refuses_a_break_and_writes_nothing(tmp_path: Path) -> None:
    folder = edited(tmp_path, "timer", lambda schema: set_field(schema, "due_at", type="int"))
    before = {file: file.read_bytes() for file in folder.path.glob("**/*") if file.is_file()}
    with pytest.raises(SchemaFolderError, match=r"timer\.avsc can't read what version 1 wrote: due_at"):
        freeze_schemas(folder)
    assert {file: file.read_bytes() for file in folder.path.glob("**/*") if file.is_file()} == before
