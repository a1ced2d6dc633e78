"""Every record comes back from its bytes as it went in, and fastavro reads the bytes as we do."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.records import Change, Command, Observation, Record
from reconciler.values.json_value import ABSENT, canonical
from reconciler.wire.codec import Codec, without_logical_types
from reconciler.wire.conversion import RECORDS, Conversion
from reconciler.wire.schema_folder import packaged_folder
from tests.wire import strategies

CODEC = Codec.packaged()
FOLDER = packaged_folder()
TOPIC = "any"


def exactly(record: Record) -> Any:
    """What tells apart all that equality of Python lets pass: 1 and 1.0 and True, 0.0 and -0.0, None and ABSENT."""
    return type(record), {name: _exactly(getattr(record, name)) for name in record.__struct_fields__}


def _exactly(value: Any) -> Any:
    if value is ABSENT:
        return "ABSENT"
    if isinstance(value, Record):
        return exactly(value)
    if isinstance(value, list):
        return [_exactly(item) for item in value]
    return value if isinstance(value, bytes) else canonical(value)


def test_every_schema_has_a_strategy() -> None:
    assert strategies.BY_SCHEMA.keys() == RECORDS.keys()


@pytest.mark.parametrize("name", RECORDS)
@given(data=st.data())
@settings(deadline=None)
def test_records_come_back(name: str, data: st.DataObject) -> None:
    record = data.draw(strategies.BY_SCHEMA[name])
    payload = CODEC.encode(TOPIC, record)
    assert exactly(CODEC.decode(payload)) == exactly(record)
    assert CODEC.encode(TOPIC, CODEC.decode(payload)) == payload


@pytest.mark.parametrize("name", RECORDS)
@given(data=st.data())
@settings(deadline=None)
def test_fastavro_reads_the_same_and_writes_the_same(name: str, data: st.DataObject) -> None:
    record = data.draw(strategies.BY_SCHEMA[name])
    schema = FOLDER.latest(name).schema
    parsed = fastavro.parse_schema(without_logical_types(schema))
    conversion = Conversion(schema)
    payload = CODEC.encode(TOPIC, record)
    raw = fastavro.schemaless_reader(io.BytesIO(payload[5:]), parsed, None)
    assert isinstance(raw, dict)
    assert exactly(conversion.record(raw)) == exactly(record)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parsed, conversion.raw(record))
    assert body.getvalue() == payload[5:]


def test_absent_null_and_empty_stay_three_things() -> None:
    values: list[Any] = [ABSENT, None, {}, [], "", 0, 0.0, -0.0, False, "null"]
    changes = [Change(path="/a", op="set", value=value, expect=expect) for value in values for expect in values]
    command = Command(command_id="c", resource="crm/contact/42", action="patch", changes=changes)
    decoded = CODEC.decode(CODEC.encode(TOPIC, command))
    assert exactly(decoded) == exactly(command)
    assert len({msgspec.json.encode(_exactly(change), enc_hook=str) for change in changes}) == len(values) ** 2


def test_fields_of_an_observation_are_a_plain_tree_even_where_a_name_looks_like_a_path() -> None:
    observation = Observation(resource="crm/contact/42", exists=True, fields={"/a": 1, "b": {"c": None}})
    assert CODEC.decode(CODEC.encode(TOPIC, observation)) == observation
