"""Old readers and new writers, new readers and old writers: all known versions are read, whichever wrote."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from reconciler.records import Action, Record
from reconciler.wire.codec import Codec, schema_header, without_logical_types
from reconciler.wire.conversion import Conversion
from reconciler.wire.errors import DecodeError, RegistryDownError, UnknownSchemaError
from reconciler.wire.schema_folder import SchemaFolder, SchemaVersion, packaged_folder
from reconciler.wire.strict_reader import AvroSchema
from tests.wire import strategies
from tests.wire.schema_folders import with_earlier_version, with_further_version
from tests.wire.test_round_trip import exactly

ACTION = strategies.full_action()


class Ids:
    """A registry's ids, by hand."""

    def __init__(self, schemas: dict[int, AvroSchema], *, is_down: bool = False) -> None:
        self.schemas = schemas
        self.is_down = is_down
        self.asked = 0

    def id_of(self, subject: str, version: SchemaVersion) -> int | None:
        return None

    def schema_of(self, schema_id: int) -> AvroSchema | None:
        self.asked += 1
        if self.is_down:
            raise RegistryDownError("down")
        return self.schemas.get(schema_id)


def reordered(schema: dict[str, Any]) -> None:
    """What a later release may do under FULL_TRANSITIVE: fields moved, added, and one with a default taken away."""
    fields = {field["name"]: field for field in schema["fields"]}
    del fields["rule"]
    note = {"name": "note", "type": ["null", "string"], "default": None, "doc": "A note."}
    schema["fields"] = [note, *reversed(fields.values())]


def with_symbol(schema: dict[str, Any]) -> None:
    schema["fields"][2]["type"]["symbols"].append("paused")


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> SchemaFolder:
    return with_further_version(tmp_path_factory.mktemp("later"), "action", reordered)


CONVERSION = Conversion(packaged_folder().latest("action").schema)


def writing(schema: AvroSchema, record: Record, schema_id: int) -> bytes:
    """What a writer with another schema sends: only its own fields, in its own order."""
    body = io.BytesIO()
    body.write(schema_header(schema_id))
    fastavro.schemaless_writer(body, fastavro.parse_schema(without_logical_types(schema)), CONVERSION.raw(record))
    return body.getvalue()


@cache
def _codec(text: str) -> Codec:
    return Codec(packaged_folder(), Ids({7: json.loads(text)}))


def reading(schema: AvroSchema) -> Codec:
    """A codec whose registry has the schema under the id 7."""
    return _codec(json.dumps(schema))


@given(record=strategies.actions())
@settings(deadline=None, suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture])
def test_a_later_version_is_read_by_what_the_registry_says_of_it(later: SchemaFolder, record: Action) -> None:
    schema = later.latest("action").schema
    read = reading(schema).decode(writing(schema, record, 7))
    assert isinstance(read, Action)
    assert exactly(read) == exactly(msgspec.structs.replace(record, rule=""))


def test_all_packaged_versions_are_read(tmp_path: Path) -> None:
    folder = with_earlier_version(tmp_path, "action", reordered)
    old, new = folder.versions["action"]
    codec = Codec(folder)
    assert codec.decode(writing(old.schema, ACTION, old.id)) == msgspec.structs.replace(ACTION, rule="")
    assert codec.decode(writing(new.schema, ACTION, new.id)) == ACTION
    assert codec.encode("any", ACTION)[:5] == schema_header(new.id)


def test_the_schema_of_an_id_is_asked_for_once(later: SchemaFolder) -> None:
    schema = later.latest("action").schema
    ids = Ids({7: schema})
    codec = Codec(packaged_folder(), ids)
    payload = writing(schema, ACTION, 7)
    for _ in range(5):
        codec.decode(payload)
    assert ids.asked == 1


def test_a_symbol_from_the_future_is_bad_input(tmp_path: Path) -> None:
    schema = with_further_version(tmp_path, "action", with_symbol).latest("action").schema
    codec = Codec(packaged_folder(), Ids({7: schema}))
    good = writing(schema, ACTION, 7)
    assert codec.decode(good) == ACTION
    stage_at = good.index(b"5f") + 2  # behind the action id
    paused = good[:stage_at] + bytes((2 * 5,)) + good[stage_at + 1 :]
    with pytest.raises(DecodeError, match="stage: holds a symbol that this version doesn't know"):
        codec.decode(paused)


def test_broken_bytes_of_another_version_are_refused_as_strictly(later: SchemaFolder) -> None:
    schema = later.latest("action").schema
    codec = Codec(packaged_folder(), Ids({7: schema}))
    good = writing(schema, ACTION, 7)
    for broken in (good + b"\0", good[:-1], good[:5] + b"\x01" + good[6:], good[:5] + b"\x80" * 20):
        with pytest.raises(DecodeError):
            codec.decode(broken)


def test_a_default_fills_what_a_writer_lacks(later: SchemaFolder) -> None:
    schema = later.latest("action").schema
    read = Codec(packaged_folder(), Ids({7: schema})).decode(writing(schema, ACTION, 7))
    assert isinstance(read, Action)
    assert (read.rule, read.run_id) == ("", "run-7")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("string", "is no record of ours"),
        (
            {"type": "record", "name": "Order", "namespace": "shop", "fields": []},
            "shop.Order, which is no record of ours",
        ),
        (
            {
                "type": "record",
                "name": "Action",
                "namespace": "reconciler.records",
                "fields": [{"name": "bomb", "type": {"type": "array", "items": "null"}}],
            },
            "can't be used: an array has items of no bytes",
        ),
        (
            {
                "type": "record",
                "name": "Action",
                "namespace": "reconciler.records",
                "fields": [{"name": "next", "type": ["null", "Action"]}],
            },
            "can't be used: the type reconciler.records.Action contains itself",
        ),
        ({"type": "record", "name": "Action", "namespace": "reconciler.records"}, "can't be used"),
        ({"type": "record", "name": "Action", "namespace": "reconciler.records", "fields": "x"}, "can't be used"),
    ],
)
def test_schemas_that_are_not_ours_or_not_bounded_are_refused(schema: AvroSchema, message: str) -> None:
    with pytest.raises(UnknownSchemaError, match=message):
        Codec(packaged_folder(), Ids({7: schema})).decode(schema_header(7) + b"\0\0\0")


def test_a_schema_that_does_not_resolve_to_ours_is_bad_input() -> None:
    schema = {
        "type": "record",
        "name": "Timer",
        "namespace": "reconciler.records",
        "fields": [{"name": "resource", "type": "long"}, {"name": "due_at", "type": "long"}],
    }
    with pytest.raises(DecodeError, match="can't be read as ours"):
        Codec(packaged_folder(), Ids({7: schema})).decode(schema_header(7) + b"\0\0")


def test_a_registry_that_is_down_says_so_by_an_error_of_its_own() -> None:
    codec = Codec(packaged_folder(), Ids({}, is_down=True))
    with pytest.raises(RegistryDownError):
        codec.decode(schema_header(7) + b"\0")
    assert codec.decode(Codec.packaged().encode("any", ACTION)) == ACTION


def test_packaged_ids_are_never_asked_of_the_registry() -> None:
    ids = Ids({})
    with pytest.raises(UnknownSchemaError):
        Codec(packaged_folder(), ids).decode(schema_header(0x5243FFFF) + b"\0")
    assert ids.asked == 0
