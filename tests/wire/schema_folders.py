"""Schema folders of other releases: copies of ours with a further version."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconciler.wire.schema_folder import SchemaFolder, fingerprint, packaged_folder

Edit = Callable[[dict[str, Any]], None]


def copied(path: Path) -> Path:
    """A copy of our folder, to be changed."""
    return Path(shutil.copytree(packaged_folder().path, path / "schemas"))


def with_further_version(path: Path, name: str, edit: Edit) -> SchemaFolder:
    """A folder as a later release might bring it: one more committed version of one schema, made from ours."""
    folder = copied(path)
    versions = [version.schema for version in packaged_folder().versions[name]]
    _commit(folder, name, [*versions, _edited(versions[-1], edit)])
    return SchemaFolder(folder)


def with_earlier_version(path: Path, name: str, edit: Edit) -> SchemaFolder:
    """A folder as if there had been a version before ours."""
    folder = copied(path)
    versions = [version.schema for version in packaged_folder().versions[name]]
    _commit(folder, name, [_edited(versions[0], edit), *versions])
    return SchemaFolder(folder)


def _edited(schema: dict[str, Any], edit: Edit) -> dict[str, Any]:
    other = copy.deepcopy(schema)
    edit(other)
    return other


def _commit(folder: Path, name: str, schemas: list[dict[str, Any]]) -> None:
    lock = json.loads((folder / "lock.json").read_text())
    next_id = max(packaged_folder().by_id) + 1
    lock["schemas"][name] = [
        {"version": version, "id": next_id + version, "fingerprint": fingerprint(schema)}
        for version, schema in enumerate(schemas, 1)
    ]
    for version, schema in enumerate(schemas, 1):
        (folder / "versions" / name / f"{version}.avsc").write_text(json.dumps(schema, indent=2))
    (folder / f"{name}.avsc").write_text(json.dumps(schemas[-1], indent=2))
    (folder / "lock.json").write_text(json.dumps(lock))
