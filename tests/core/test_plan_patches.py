"""The examples of RFC 7396 (merge patches, appendix A) and RFC 6902 (JSON patches, appendix A) as work that is undone: each gives
back the very document that was there, by changes that name no more than must change."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.contracts.model import ContractSet
from reconciler.json_form import action_from_json, to_json
from reconciler.offline import applied, planned
from reconciler.plan.request import request_from_json
from reconciler.records import Observation
from reconciler.values.json_value import ABSENT, Json, canonical
from tests.core.oracle import at, obeyed, place, replayed

RESOURCE = "rfc/document/1"

# document, writes (set by path; unset paths), paths of the changes that undo them
MERGE_PATCHES: dict[str, tuple[dict[str, Json], dict[str, Json], list[str], list[str]]] = {
    "a member is replaced": ({"a": "b"}, {"/a": "c"}, [], ["/a"]),
    "a member is added": ({"a": "b"}, {"/b": "c"}, [], ["/b"]),
    "a member is taken away, the last": ({"a": "b"}, {}, ["/a"], ["/a"]),
    "a member is taken away, not the last": ({"a": "b", "b": "c"}, {}, ["/a"], ["/a"]),
    "an array becomes a text": ({"a": ["b"]}, {"/a": "c"}, [], ["/a"]),
    "a text becomes an array": ({"a": "c"}, {"/a": ["b"]}, [], ["/a"]),
    "a member inside is replaced, one that isn't there taken away": (
        {"a": {"b": "c"}},
        {"/a/b": "d"},
        ["/a/c"],
        ["/a/b"],
    ),
    "an array of objects becomes one of numbers": ({"a": [{"b": "c"}]}, {"/a": [1]}, [], ["/a"]),
    "an array is replaced by another": ({"a": ["a", "b"]}, {"/a": ["c", "d"]}, [], ["/a"]),
    "an object becomes an array": ({"a": {"b": 1}}, {"/a": ["c"]}, [], ["/a"]),
    "a member becomes null": ({"a": "foo"}, {"/a": None}, [], ["/a"]),
    "beside a null": ({"e": None}, {"/a": 1}, [], ["/a"]),
    "an array becomes an object": ({"a": [1, 2]}, {"/a": {"b": "c"}}, [], ["/a"]),
    "empty objects inside each other are made": ({}, {"/a": {"bb": {}}}, [], ["/a"]),
}
JSON_PATCHES: dict[str, tuple[dict[str, Json], dict[str, Json], list[str], list[str]]] = {
    "adding a member": ({"foo": "bar"}, {"/baz": "qux"}, [], ["/baz"]),
    "adding to an array": ({"foo": ["bar", "baz"]}, {"/foo": ["bar", "qux", "baz"]}, [], ["/foo"]),
    "removing a member": ({"baz": "qux", "foo": "bar"}, {}, ["/baz"], ["/baz"]),
    "replacing a value": ({"baz": "qux", "foo": "bar"}, {"/baz": "boo"}, [], ["/baz"]),
    "moving a value": (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        {"/qux/thud": "fred"},
        ["/foo/waldo"],
        ["/foo/waldo", "/qux/thud"],
    ),
    "moving an array's member": ({"foo": ["all", "grass", "cows", "eat"]}, {"/foo": ["all", "cows", "eat", "grass"]}, [], ["/foo"]),
    "adding a nested object": ({"foo": "bar"}, {"/child": {"grandchild": {}}}, [], ["/child"]),
    "adding an array value": ({"foo": ["bar"]}, {"/foo": ["bar", ["abc", "def"]]}, [], ["/foo"]),
    "names that need escapes": ({"/": 9, "~1": 10}, {"/~1": 8, "/~01": 7}, [], ["/~01", "/~1"]),
    "the empty name": ({"": 1}, {"/": 2}, [], ["/"]),
    "below nothing, three deep": ({"a": 1}, {"/x/y/z": 1}, [], ["/x"]),
    "a scalar made an object by a write below it": ({"a": 1}, {"/a/b": 2}, [], ["/a"]),
    "a document replaced whole": ({"a": 1, "b": {"c": 2}}, {"": {"b": {"c": 3}, "d": 4}}, [], ["/a", "/b/c", "/d"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("document", "set_", "unset", "changed"),
    [*MERGE_PATCHES.values(), *JSON_PATCHES.values()],
    ids=[*MERGE_PATCHES, *JSON_PATCHES],
)
@pytest.mark.parametrize("telling", ["written", "whole"])
def test_the_document_is_as_it_was(
    document: dict[str, Json], set_: dict[str, Json], unset: list[str], changed: list[str], telling: str
) -> None:
    written: dict[str, Any] = {**set_, **dict.fromkeys(unset, ABSENT)}
    after = replayed(document, [("run/a", place(path), written[path]) for path in sorted(written)])
    before = {path: at(document, place(path)) for path in written} if telling == "written" else {"": document}
    if any(path and not isinstance(at(document, place(path)[:-1]), dict) for path in set_):
        before = {"": document}  # a write that makes objects above it tells of what it has replaced there
    action = action_from_json(
        {
            "stage": "succeeded",
            "run_id": "run",
            "step_id": "a",
            "occurred_at": "2026-05-03T10:00:00Z",
            "resource": RESOURCE,
            "operation": "update",
            "before": {path: value for path, value in before.items() if value is not ABSENT},
            "set": set_,
            "unset": unset,
        }
    )
    assert isinstance(after, dict)
    seen = Observation(resource=RESOURCE, exists=True, fields=after)
    request = request_from_json({"rollback_id": "r", "select": {"run_id": "run"}})
    plan = planned([action], [seen], request, ContractSet())
    commands = [command for wave in plan.waves for command in wave]
    assert sorted(change.path for command in commands for change in command.changes) == changed, to_json(plan)
    (command,) = commands
    assert canonical(obeyed(after, command)) == canonical(document)
    assert canonical(applied(plan, {RESOURCE: seen}, [])[RESOURCE].fields) == canonical(document)
