"""Whether what was written with one schema can be read with another, and if not, because of which field.

The verdict is that of Apache Avro's own checker, which follows the specification's schema resolution. It leaves two things
open, which are added here: it doesn't look at what a value means (a decimal's scale, an instant's unit, what a text holds),
and it can't name the field inside a union, where most of ours stand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import avro.errors
import avro.schema
import msgspec
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from reconciler.wire.errors import SchemaFolderError
from reconciler.wire.strict_reader import AvroSchema

_MEANING: Final = ("logicalType", "precision", "scale", "content")
"""The attributes that say what a value means. Avro resolves schemas without them, and so would change values silently."""


class Break(msgspec.Struct, frozen=True, order=True):
    """One reason why a schema can't read what another wrote. ``field`` is empty where the whole record is meant."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


def breaks(reader: AvroSchema, writer: AvroSchema) -> list[Break]:
    """Why the reader can't read what the writer wrote, in sorted order; empty where it can. Raises SchemaFolderError for what
    is no Avro schema."""
    found = sorted(set(_Walk(reader, writer).found))
    if found or _is_readable(reader, writer):
        return found
    return [Break("", "Avro's schema resolution fails")]


def _is_readable(reader: AvroSchema, writer: AvroSchema) -> bool:
    try:
        parsed_reader, parsed_writer = (avro.schema.parse(json.dumps(schema)) for schema in (reader, writer))
    except avro.errors.AvroException as error:
        raise SchemaFolderError(f"a schema is no Avro schema: {error}") from None
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(parsed_reader, parsed_writer)
    return result.compatibility is SchemaCompatibilityType.compatible


class _Walk:
    """Walks a reader and a writer schema side by side."""

    def __init__(self, reader: AvroSchema, writer: AvroSchema) -> None:
        self._reader_types = _named_types(reader)
        self._writer_types = _named_types(writer)
        self._begun: set[tuple[str, str]] = set()
        self.found: list[Break] = []
        self._walk(reader, writer, "")

    def _walk(self, reader: AvroSchema, writer: AvroSchema, place: str) -> None:
        reader, writer = _resolved(reader, self._reader_types), _resolved(writer, self._writer_types)
        if isinstance(writer, list):
            for branch in writer:
                self._walk_branch(reader, branch, place)
        else:
            self._walk_branch(reader, writer, place)

    def _walk_branch(self, reader: AvroSchema, writer: AvroSchema, place: str) -> None:
        """The writer is no union here; the reader may be one, and then its branch of the same kind counts."""
        writer = _resolved(writer, self._writer_types)
        if isinstance(reader, list):
            branches = [_resolved(branch, self._reader_types) for branch in reader]
            alike = [branch for branch in branches if _kind(branch) == _kind(writer)]
            if alike:
                self._walk_alike(alike[0], writer, place)
            elif not any(_is_readable(_closed(branch), _closed(writer)) for branch in branches):
                self.found.append(Break(place, f"the reader's union lacks {_kind(writer)}"))
        elif _kind(reader) == _kind(writer):
            self._walk_alike(reader, writer, place)
        elif not _is_readable(_closed(reader), _closed(writer)):
            self.found.append(Break(place, f"{_kind(writer)} can't be read as {_kind(reader)}"))

    def _walk_alike(self, reader: AvroSchema, writer: AvroSchema, place: str) -> None:
        if _meaning(reader) != _meaning(writer):
            self.found.append(
                Break(place, f"means {_meaning(reader)} to the reader and {_meaning(writer)} to the writer")
            )
        match _type(reader):
            case "record":
                # A type that stands in several places is walked once; one that contains itself, not for ever.
                if (pair := (reader["name"], writer["name"])) not in self._begun:
                    self._begun.add(pair)
                    self._walk_fields(reader, writer, place)
            case "array":
                self._walk(reader["items"], writer["items"], f"{place}[]")
            case "map":
                self._walk(reader["values"], writer["values"], f"{place}[]")
            case "fixed":
                if reader["size"] != writer["size"]:
                    self.found.append(
                        Break(place, f"has {reader['size']} bytes to the reader, {writer['size']} to the writer")
                    )
            case "enum":
                lacking = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
                if lacking and reader.get("default") not in reader["symbols"]:
                    self.found.append(Break(place, f"the reader lacks the symbols {', '.join(lacking)}, and a default"))

    def _walk_fields(self, reader: AvroSchema, writer: AvroSchema, place: str) -> None:
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            below = f"{place}.{field['name']}" if place else field["name"]
            names = [name for name in (field["name"], *field.get("aliases", ())) if name in written]
            if names:
                self._walk(field["type"], written[names[0]]["type"], below)
            elif "default" not in field:
                self.found.append(Break(below, "the writer lacks it, and the reader has no default for it"))


def _resolved(schema: AvroSchema, types: dict[str, AvroSchema]) -> AvroSchema:
    """A type by itself instead of its name."""
    if isinstance(schema, dict) and not isinstance(schema["type"], str):
        return _resolved(schema["type"], types)
    return types.get(schema.rpartition(".")[2], schema) if isinstance(schema, str) else schema


def _type(schema: AvroSchema) -> str:
    kind: str = schema if isinstance(schema, str) else schema["type"]
    return kind


def _kind(schema: AvroSchema) -> str:
    """What two schemas must have in common to be compared member by member: the type, and the name where it has one."""
    if isinstance(schema, dict) and "name" in schema:
        return f"the {schema['type']} {schema['name'].rpartition('.')[2]}"
    return _type(schema)


def _closed(schema: AvroSchema) -> AvroSchema:
    """A schema that can stand alone for a comparison of kinds that differ: their members don't matter."""
    if _type(schema) == "record":
        return {**schema, "fields": []}
    if _type(schema) in ("array", "map"):
        return {"type": _type(schema), "items": "null", "values": "null"}
    return schema


def _meaning(schema: AvroSchema) -> str:
    if not isinstance(schema, dict):
        return "nothing more"
    return " ".join(f"{name} {schema[name]}" for name in _MEANING if name in schema) or "nothing more"


def _named_types(schema: AvroSchema) -> dict[str, AvroSchema]:
    return {
        node["name"].rpartition(".")[2]: node for node in nodes(schema) if isinstance(node, dict) and "name" in node
    }


def nodes(schema: AvroSchema) -> Iterator[Any]:
    """All types of a schema, outermost first."""
    yield schema
    if isinstance(schema, list):
        for branch in schema:
            yield from nodes(branch)
    elif isinstance(schema, dict):
        match schema["type"]:
            case "record":
                for field in schema["fields"]:
                    yield from nodes(field["type"])
            case "array":
                yield from nodes(schema["items"])
            case "map":
                yield from nodes(schema["values"])
            case str():
                pass
            case inner:
                yield from nodes(inner)
