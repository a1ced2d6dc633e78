"""The tables that the SQL adapters are tried on, and what their columns can hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reconciler.records import Command
from reconciler.targets.sql.config import ResourceConfig
from reconciler.targets.sql.target import SqlTarget
from reconciler.values.json_value import ABSENT
from reconciler.values.resource_key import parse_resource_key
from tests.targets.shapes import Columns, Fields, texts, values
from tests.targets.suite import TYPE

DOCUMENTS = {
    TYPE: ResourceConfig.model_validate(
        {"table": "docs", "id": "id", "fields": {"": {"column": 'the "doc"', "kind": "json"}}}
    )
}
"""Whole resources in one JSON column whose name needs quoting; no version."""

COLUMNS = {
    TYPE: ResourceConfig.model_validate(
        {
            "table": "things",
            "id": "id",
            "fields": {
                "/name": "name",
                "/phone": {"column": "phone", "null_means": "absent"},
                "/count": "count",
                "/active": {"column": "active", "kind": "boolean"},
                "/data": {"column": "data", "kind": "bytes"},
                "/tags": {"column": "tags", "kind": "json"},
                "/prefs": {"column": "prefs", "kind": "json", "null_means": "absent"},
                "/address/city": "city",
                "/address/geo/zip": {"column": "zip", "null_means": "absent"},
            },
            "version": "version",
            "modified_at": "updated_at",
            "modified_by": "updated_by",
            "written_by": "reconciler",
        }
    )
}


def columns(*, floats: bool = True) -> Columns:
    """What the columns can hold: null or absent, never both, but in `prefs`."""
    null, absent = st.none(), st.just(ABSENT)
    return Columns(
        {
            ("name",): st.one_of(null, texts()),
            ("phone",): st.one_of(absent, texts(), st.sampled_from(["", "null"])),
            ("count",): st.one_of(null, st.integers(-(2**63), 2**63 - 1)),
            ("active",): st.one_of(null, st.booleans()),
            ("data",): st.one_of(null, st.sampled_from(["", "AA==", "AAEC"])),
            ("tags",): st.one_of(null, values(floats=floats)),
            ("prefs",): st.one_of(absent, null, values(floats=floats)),
            ("address", "city"): st.one_of(null, texts()),
            ("address", "geo", "zip"): st.one_of(absent, texts()),
        }
    )


def whole(fields: Fields) -> Fields:
    """A row with these fields in it."""
    empty: Fields = {"name": None, "count": None, "active": None, "data": None, "tags": None}
    return {**empty, "address": {"city": None, "geo": {}}, **fields}


class _Stopped(BaseException):
    """What ends a process between its last write and its commit."""


async def stop_before_commit(target: SqlTarget, command: Command) -> None:
    """Carries a command out and is stopped before the commit."""
    database: Any = target._database
    key = parse_resource_key(command.resource)
    table = await database.table(key.type)
    try:
        async with database.transaction(command.resource, command.command_id) as transaction:
            assert (await target._once(transaction, table, key, command)).status == "applied"
            raise _Stopped
    except _Stopped:
        pass
