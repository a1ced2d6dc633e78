"""Whether a folder of schemas is fit to be released: complete, documented, and compatible with all that was ever written.

The findings are sentences in a stable order: the same fault gives the same text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from reconciler.wire.compatibility import breaks, nodes
from reconciler.wire.conversion import RECORDS, UNRECOGNISED, Conversion
from reconciler.wire.errors import SchemaFolderError
from reconciler.wire.schema_folder import (
    FIRST_PACKAGED_ID,
    LOCK_FILE,
    VERSIONS_FOLDER,
    LockEntry,
    SchemaFolder,
    fingerprint,
)
from reconciler.wire.strict_reader import AvroSchema, UnreadableSchemaError, compile_reader


def check_schemas(folder: SchemaFolder) -> list[str]:
    """What is wrong with a folder; empty where nothing is."""
    findings = [*_lock_findings(folder)]
    working: dict[str, AvroSchema] = {}
    for name in sorted({*RECORDS, *folder.working_names()}):
        if name not in RECORDS:
            findings.append(f"{name}.avsc: there is no record for it")
            continue
        try:
            _, working[name] = folder.working(name)
            findings += _schema_findings(name, working[name])
            findings += _version_findings(folder, name, working[name])
        except SchemaFolderError as error:
            findings.append(str(error))
    findings += _shared_findings(working)
    return findings


def freeze_schemas(folder: SchemaFolder) -> list[str]:
    """Commits every working schema that differs from its newest version as a further version, with an id of its own.

    Answers with the names and versions committed. Raises SchemaFolderError, having written nothing, where one would break
    what was written before.
    """
    lock = {name: list(entries) for name, entries in folder.lock.schemas.items()}
    next_id = max([FIRST_PACKAGED_ID - 1, *(entry.id for entries in lock.values() for entry in entries)]) + 1
    texts: dict[tuple[str, int], str] = {}
    for name in folder.working_names():
        text, schema = folder.working(name)
        entries = lock.setdefault(name, [])
        if entries and entries[-1].fingerprint == fingerprint(schema):
            continue
        findings = [*_schema_findings(name, schema), *_compatibility_findings(folder, name, schema)]
        if findings:
            raise SchemaFolderError(findings[0])
        version = entries[-1].version + 1 if entries else 1
        entries.append(LockEntry(version, next_id, fingerprint(schema)))
        next_id += 1
        texts[name, version] = text
    for (name, version), text in texts.items():
        file = folder.version_file(name, version)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    content = {name: [_plain(entry) for entry in entries] for name, entries in lock.items()}
    (folder.path / LOCK_FILE).write_text(json.dumps({"schemas": content}, indent=2) + "\n", encoding="utf-8")
    return [f"{name} version {version}" for name, version in texts]


def _plain(entry: LockEntry) -> dict[str, Any]:
    return {"version": entry.version, "id": entry.id, "fingerprint": entry.fingerprint}


def _lock_findings(folder: SchemaFolder) -> Iterator[str]:
    try:
        lock = folder.lock
    except SchemaFolderError as error:
        yield str(error)
        return
    seen: dict[int, str] = {}
    for name, entries in lock.schemas.items():
        if [entry.version for entry in entries] != list(range(1, len(entries) + 1)):
            yield f"{LOCK_FILE}: the versions of {name} must be 1, 2, 3 and so on, in this order"
        for entry in entries:
            label = f"{name} version {entry.version}"
            if entry.id in seen:
                yield f"{LOCK_FILE}: {label} has the id {entry.id} of {seen[entry.id]}"
            seen[entry.id] = label
    locked = {folder.version_file(name, entry.version) for name, entries in lock.schemas.items() for entry in entries}
    for file in sorted({*(folder.path / VERSIONS_FOLDER).glob("*/*.avsc")} - locked):
        yield f"{file.relative_to(folder.path)}: the lock doesn't know it; `reconciler schemas freeze` commits versions"


def _schema_findings(name: str, schema: AvroSchema) -> Iterator[str]:
    """What a schema lacks by itself."""
    try:
        compile_reader(schema)
        Conversion(schema)
    except (UnreadableSchemaError, TypeError, KeyError) as error:
        yield f"{name}.avsc: it doesn't fit the record {RECORDS[name].__name__}: {error}"
        return
    for node in nodes(schema):
        if not isinstance(node, dict) or "name" not in node:
            continue
        if not node.get("doc"):
            yield f"{name}.avsc: the {node['type']} {node['name']} has no doc"
        if node["type"] == "enum" and node.get("default") != UNRECOGNISED:
            yield f"{name}.avsc: the enum {node['name']} must have the default {UNRECOGNISED}"
        for field in node.get("fields", ()):
            if not field.get("doc"):
                yield f"{name}.avsc: the field {node['name']}.{field['name']} has no doc"


def _version_findings(folder: SchemaFolder, name: str, schema: AvroSchema) -> Iterator[str]:
    versions = folder.lock.schemas.get(name, [])
    if not versions or versions[-1].fingerprint != fingerprint(schema):
        yield f"{name}.avsc: it is not committed as a version; `reconciler schemas freeze` does it"
    yield from _compatibility_findings(folder, name, schema)


def _compatibility_findings(folder: SchemaFolder, name: str, schema: AvroSchema) -> Iterator[str]:
    """FULL_TRANSITIVE: each version ever committed reads what this one writes, and the other way round."""
    for version in folder.versions.get(name, ()):
        for found in breaks(schema, version.schema):
            yield f"{name}.avsc can't read what version {version.version} wrote: {found}"
        for found in breaks(version.schema, schema):
            yield f"{name}.avsc writes what version {version.version} can't read: {found}"


def _shared_findings(working: dict[str, AvroSchema]) -> Iterator[str]:
    """A type that stands in several schemas must be the same in all: in a language with generated classes it is one class."""
    first: dict[str, tuple[str, str]] = {}
    for name, schema in working.items():
        for node in nodes(schema):
            if not isinstance(node, dict) or "name" not in node:
                continue
            text = fingerprint(_without_inner(node))
            seen_in, seen = first.setdefault(node["name"], (name, text))
            if seen != text:
                yield f"{name}.avsc: the type {node['name']} differs from that in {seen_in}.avsc"


def _without_inner(node: AvroSchema) -> AvroSchema:
    """A type with the types inside it by name: each is defined where it stands first, which differs between files."""
    if isinstance(node, list):
        return [_without_inner(branch) for branch in node]
    if not isinstance(node, dict):
        return node
    result = {key: value for key, value in node.items() if key != "namespace"}
    if "fields" in node:
        result["fields"] = [{**field, "type": _names_only(field["type"])} for field in node["fields"]]
    return result


def _names_only(schema: AvroSchema) -> AvroSchema:
    if isinstance(schema, list):
        return [_names_only(branch) for branch in schema]
    if isinstance(schema, dict):
        if "name" in schema:
            return schema["name"]
        return {
            key: _names_only(value) if key in ("items", "values", "type") else value for key, value in schema.items()
        }
    return schema
