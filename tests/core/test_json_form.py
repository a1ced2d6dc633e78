"""The JSON form of records: defaults, both ways in, and errors that name the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.json_form import action_from_json, action_from_text, observation_from_json, to_json
from reconciler.records import Action
from reconciler.values.errors import InputError
from reconciler.values.json_value import MAX_DEPTH, RECORD_DEPTH, parse
from tests.core.histories import wild_actions

ACTION: dict[str, Any] = {
    "stage": "succeeded",
    "run_id": "run-7",
    "step_id": "update",
    "occurred_at": "2026-05-03T10:00:00Z",
    "resource": "crm/contact/42",
    "operation": "update",
    "before": {"/phone": "1"},
    "set": {"/phone": "2"},
}
OBSERVATION: dict[str, Any] = {"resource": "crm/contact/42", "exists": True, "fields": {"/phone": "2"}}
UNHEARD_OF = "is unheard of"


def changed(record: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The record with other fields; Ellipsis takes one away."""
    return {name: value for name, value in {**record, **fields}.items() if value is not ...}


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


BAD_ACTIONS = [
    *(
        (changed(ACTION, **{name: ...}), name)
        for name in ("stage", "run_id", "step_id", "occurred_at", "resource", "operation")
    ),
    *(
        (changed(ACTION, **{name: None}), name)
        for name in ("stage", "occurred_at", "set", "unset", "sequence", "depends_on")
    ),
    (changed(ACTION, run_id=""), "run_id"),
    (changed(ACTION, stage="done"), "stage"),
    (changed(ACTION, operation="upsert"), "operation"),
    (changed(ACTION, occurred_at="2026-05-03T10:00:00"), "occurred_at"),
    (changed(ACTION, occurred_at=0), "occurred_at"),
    (changed(ACTION, resource="crm/contact"), "resource"),
    (changed(ACTION, resource="crm/contact/4 2"), "resource"),
    (changed(ACTION, sett={}), "sett"),
    (changed(ACTION, actor={"id": "ana", "name": "Ana"}), "actor"),
    (changed(ACTION, actor="ana"), "actor"),
    (changed(ACTION, compensation={"arguments": {}}), "compensation"),
    (changed(ACTION, sequence="3"), "sequence"),
    (changed(ACTION, sequence=1.0), "sequence"),
    (changed(ACTION, set={"phone": 1}), "set"),
    (changed(ACTION, set={"/a~2": 1}), "set"),
    (changed(ACTION, set={"": None}), "set"),
    (changed(ACTION, before={"": [1]}), "before"),
    (changed(ACTION, before={"phone": 1}), "before"),
    (changed(ACTION, unset=["phone"]), "unset"),
    (changed(ACTION, unset=["/phone"]), "unset"),
    (changed(ACTION, set={"/a" * (MAX_DEPTH + 1): 1}), "set"),
    (changed(ACTION, set={"/a": nested(MAX_DEPTH)}), "set"),
    (changed(ACTION, set={"/a": nested(2 * MAX_DEPTH)}), "set"),
]


@pytest.mark.parametrize(("action", "field"), BAD_ACTIONS)
@pytest.mark.parametrize("read", [action_from_json, lambda action: action_from_text(json.dumps(action).encode())])
def test_an_action_that_cant_be_used_is_refused_by_the_name_of_its_field(read: Any, action: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        read(action)
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"[]", b"1", b"null", b'"x"', b"{", b"", b"\xff", b"{}{}"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(InputError):
        action_from_text(text)


@given(wild_actions(max_size=3))
def test_an_action_reads_alike_from_text_and_from_json(actions: list[Any]) -> None:
    for action in actions:
        text = json.dumps(to_json(action))
        assert action_from_text(text.encode()) == action_from_json(parse(text)) == action
        assert action_from_text(text.encode()).action_id == action.action_id


@given(
    st.dictionaries(
        st.sampled_from(["/a", "/b", ""]), st.sampled_from([1, 1.0, True, None, {}, [], "1", 2**64 - 1, -0.0])
    ),
    st.sampled_from(["set", "before", "unset", "actor", "rule", "sequence", "occurred_at", UNHEARD_OF]),
    st.sampled_from([..., None, 1, "x", [], {}, ["/a"], {"/a": 1}, {"id": "ana"}, {"id": 1}]),
)
def test_both_ways_in_agree_on_what_they_take(fields: dict[str, Any], name: str, value: Any) -> None:
    action = changed(ACTION, set=fields, **{name: value}) if name != "set" else changed(ACTION, set=value)
    text = json.dumps(action)
    results = []
    readers: tuple[Callable[[], Action], ...] = (
        lambda: action_from_text(text.encode()),
        lambda: action_from_json(parse(text, RECORD_DEPTH)),
    )
    for read in readers:
        try:
            results.append(repr(read()))
        except InputError as error:
            results.append(f"refused: {error}")
    assert results[0] == results[1]


def test_ids_have_defaults() -> None:
    action = action_from_json(ACTION)
    assert action.operation_id == "run-7/update"
    assert action.action_id == action_from_json(changed(ACTION, rule="Another rule")).action_id
    others: dict[str, Any] = {"stage": "reversed", "set": {"/phone": 2}, "before": {}, "unset": ["/fax"]}
    for name, value in others.items():
        assert action.action_id != action_from_json(changed(ACTION, **{name: value})).action_id


def test_a_value_may_be_as_deep_as_its_path_leaves_room_for() -> None:
    for depth in (1, MAX_DEPTH // 2, MAX_DEPTH - 1):
        path = "/a" * (MAX_DEPTH - depth)
        assert action_from_text(json.dumps(changed(ACTION, set={path: nested(depth)})).encode()).set
        with pytest.raises(InputError, match="set: "):
            action_from_text(json.dumps(changed(ACTION, set={path: nested(depth + 1)})).encode())


# -- observations


@pytest.mark.parametrize(
    ("fields", "tree"),
    [
        ({"/a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 1}),
        ({"a": {"x": 1}, "/a/y": 2}, {"a": {"x": 1, "y": 2}}),
        ({"/a/b/c": 1, "/a/b/d": None}, {"a": {"b": {"c": 1, "d": None}}}),
        ({"/": 1, "": 2}, None),
        ({"/a~1b": 1, "c~d": 2}, {"a/b": 1, "c~d": 2}),
        ({"/a": {}, "b": []}, {"a": {}, "b": []}),
        ({"a": {"/b": 1}}, {"a": {"/b": 1}}),
        ({}, {}),
        (None, {}),
    ],
)
def test_fields_are_one_tree_however_they_are_named(fields: Any, tree: Any) -> None:
    if tree is None:  # both name the member with the empty name
        with pytest.raises(InputError, match="given twice"):
            observation_from_json(changed(OBSERVATION, fields=fields))
    else:
        observation = observation_from_json(changed(OBSERVATION, fields=fields))
        assert observation.fields == tree
        assert observation_from_json(to_json(observation)) == observation


@pytest.mark.parametrize(
    ("observation", "field"),
    [
        (changed(OBSERVATION, exists=...), "exists"),
        (changed(OBSERVATION, exists="yes"), "exists"),
        (changed(OBSERVATION, fields=[]), "fields"),
        (changed(OBSERVATION, fields={"a": 1, "/a": 1}), "fields"),
        (changed(OBSERVATION, fields={"a": 1, "/a/b": 1}), "fields"),
        (changed(OBSERVATION, fields={"/a~": 1}), "fields"),
        (changed(OBSERVATION, fields={"a": nested(MAX_DEPTH)}), "fields"),
        (changed(OBSERVATION, observed_at="now"), "observed_at"),
        (changed(OBSERVATION, modified_by={"kind": "user"}), "modified_by"),
        (changed(OBSERVATION, seen=1), "seen"),
    ],
)
def test_an_observation_that_cant_be_used_is_refused_by_the_name_of_its_field(observation: Any, field: str) -> None:
    with pytest.raises(InputError, match=field):
        observation_from_json(observation)


def test_what_could_not_be_observed_has_no_fields() -> None:
    assert observation_from_json(changed(OBSERVATION, exists=None, fields=None)).exists is None
