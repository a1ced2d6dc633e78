"""The JSON Schema for editors accepts exactly what the loader does.

What a schema can't say is left out of the mutations: what CEL expressions mean, values that lie below each other,
compensations in a circle.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from reconciler.contracts.errors import Fault
from reconciler.contracts.form import json_schema
from reconciler.contracts.loader import Source, parse
from reconciler.contracts.yaml_tree import plain, read_tree
from tests.core.test_contracts_loader import FULL

_SCHEMA = jsonschema.Draft202012Validator(json_schema())
_FULL: dict[str, Any] = plain(read_tree(FULL, "full.yaml", []))

_WORDS = [
    "x",
    "true",
    "1",
    "0.01",
    "-1",
    "/",
    "/a",
    "/*",
    "/a/*",
    "/*/a",
    "/a*",
    "/~0",
    "/~2",
    "crm/contact",
    "crm/*",
    "*",
    "*/a",
    "crm/%41",
    "crm/%4",
    "crm/a/b",
    "correct",
    "adopt",
    "merge",
    "source_priority",
    "keyed",
    "set",
    "counter",
    "archive",
    "keep",
    "recreate",
    "compensate",
    "digits",
    "number",
    "sorted",
    "second",
    "compare_and_set",
    "field",
    "",
    "crm/a b",
]
_WORDS.append("n" * 501)
_KEYS = [
    "",
    "x",
    "/",
    "/a",
    "/*",
    "/a/*",
    "/*/a",
    "/~2",
    "resource",
    "kind",
    "key",
    "sources",
    "drift",
    "generated",
    "by",
    "set",
]
_KEYS += [
    "contract",
    "fields",
    "undo",
    "fallback",
    "number",
    "instant",
    "tolerance",
    "precision",
    "roles",
    "count",
    "n" * 1_001,
]
_SCALARS = st.sampled_from([None, True, False, 0, 1, 2, 3.0, -1, 0.5, 1e10, 2**31, *_WORDS])
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=2),
    max_leaves=4,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, member in members for place in _places(member, (*path, key)))]


def _is_expression(path: tuple[Any, ...]) -> bool:
    return "when" in path


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    """The full contract, or a part of it, with a few things changed."""
    keys = draw(st.none() | st.sets(st.sampled_from(sorted(_FULL))))
    document: Any = {
        key: copy.deepcopy(value) for key, value in _FULL.items() if keys is None or key in keys | {"contract"}
    }
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(_places(document)))
        how = draw(st.sampled_from(["replace", "remove", "add", "rename"]))
        value = draw(_VALUES)
        if _is_expression(path) and isinstance(value, str):
            value = "true"
        if not path:
            continue
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        key, name = path[-1], draw(st.sampled_from(_KEYS))
        target = parent[key]
        if how == "replace":
            parent[key] = value
        elif how == "remove":
            del parent[key]
        elif how == "add" and isinstance(target, dict):
            target[name] = value
        elif how == "add" and isinstance(target, list):
            target.append(value)
        elif how == "rename" and isinstance(parent, dict):
            parent[name] = parent.pop(key)
    return document


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_full_contract_is_accepted_by_both() -> None:
    assert not list(_SCHEMA.iter_errors(_FULL))
    assert not _faults(_FULL)


@given(mutations())
def test_schema_and_loader_accept_and_refuse_the_same(document: Any) -> None:
    errors = [f"{error.json_path}: {error.message}" for error in _SCHEMA.iter_errors(document)]
    faults = _faults(document)
    assert bool(errors) == bool(faults), (errors, faults)


def _faults(document: Any) -> list[str]:
    faults: list[Fault] = []
    parse(Source("c.yaml", json.dumps(document)), faults)
    return [str(fault) for fault in faults]


def test_every_key_is_described_and_defaults_are_shown() -> None:
    pending: list[Any] = [json_schema()]
    while pending:
        schema = pending.pop()
        if isinstance(schema, dict):
            pending.extend(schema.values())
            for name, property_ in schema.get("properties", {}).items() if schema.get("type") == "object" else ():
                assert name in ("number", "instant") or property_.get("description"), name
        elif isinstance(schema, list):
            pending.extend(schema)
    properties = json_schema()["properties"]
    assert properties["timing"]["properties"]["settle_s"]["default"] == 30
    assert properties["fields"]["additionalProperties"]["properties"]["drift"]["default"] == "report"
    assert "default" not in properties["contract"]
