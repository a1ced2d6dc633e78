"""The JSON form of records: defaults, both ways in, and errors that name the field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.json_form import action_from_json, action_from_text, from_json, observation_from_json, to_json
from reconciler.records import Action, GatherQuery, Outcome, Record, RollbackEvent, RollbackRequest, UndoStep
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
OUTCOME: dict[str, Any] = {
    "command_id": "c",
    "resource": "crm/contact/42",
    "status": "applied",
    "occurred_at": "2026-05-03T10:00:00Z",
}
QUERY: dict[str, Any] = {"rollback_id": "r", "round": 1, "partition": 0, "occurred_at": "2026-05-03T10:00:00Z"}
STEP: dict[str, Any] = {
    "step_id": "s",
    "rollback_id": "r",
    "resource": "crm/contact/42",
    "occurred_at": "2026-05-03T10:00:00Z",
}
EVENT: dict[str, Any] = {
    "event_id": "e",
    "rollback_id": "r",
    "status": "completed",
    "occurred_at": "2026-05-03T10:00:00Z",
}
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


PATHS = "an object of paths and values, such as"
MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"stage": "done"}, "stage: must be initiated, succeeded, failed or reversed, not 'done'"),
    ({"stage": "suceeded"}, "stage: must be … or reversed, not 'suceeded'; did you mean succeeded?"),
    ({"stage": 5}, "stage: must be initiated, succeeded, failed or reversed, not 5"),
    ({"stage": None}, "stage: must be initiated, succeeded, failed or reversed, not null"),
    ({"operation": "upsert"}, "operation: must be create, update, delete or effect, not 'upsert'"),
    ({"run_id": 7}, "run_id: must be text, not 7; put it in quotes"),
    ({"run_id": True}, "run_id: must be text, not true; put it in quotes"),
    ({"run_id": {}}, "run_id: must be text, not an object"),
    ({"origin": 7}, "origin: must be null or text, not 7; put it in quotes"),
    ({"sequence": "3"}, "sequence: must be a whole number such as 7, not '3'"),
    ({"sequence": "3" * 50}, f"sequence: must be a whole number such as 7, not '{'3' * 40}…'"),
    ({"occurred_at": None}, "occurred_at: must be an instant; write it as 2026-05-03T10:00:00Z"),
    ({"set": ["/p"]}, f'set: must be {PATHS} {{"/phone": "2"}}, not an array'),
    ({"before": 3}, f'before: must be null or {PATHS} {{"/phone": "1"}}, not 3'),
    ({"unset": "/p"}, """unset: must be an array of paths, such as ["/phone"], not '/p'"""),
    ({"unset": [1]}, "unset[0]: must be text, not 1; put it in quotes"),
    ({"depends_on": {}}, 'depends_on: must be an array of texts, such as ["a", "b"], not an object'),
    ({"actor": "ana"}, """actor: must be null or an object such as {"id": "ana", "kind": "user"}, not 'ana'"""),
    ({"actor": {"id": "ana", "kid": "x"}}, "actor: has no key 'kid'; did you mean kind?"),
    ({"actor": {"kind": "user"}}, "actor: needs the key id; add it"),
    ({"compensation": 1}, "compensation: must be null or an object with name or arguments, not 1"),
    ({"step_id": ..., "stepid": "s"}, "an action has no key 'stepid'; did you mean step_id?"),
    ({"foo": 1}, "an action has no key 'foo'; use stage, run_id, … or reverses"),
    ({"a` - at `$.set": 1}, "an action has no key 'a` - at `$.set'; use stage, run_id, … or reverses"),
    ({"run_id": ...}, "an action needs the key run_id; add it"),
    ({"run_id": ..., "step_id": ...}, "an action needs the keys run_id and step_id; add them"),
    ({"sequence": 10**30}, f"sequence: the integer 1{'0' * 23}… is beyond 64 bits; write a smaller one"),
    ({"run_id": 10**20}, f"run_id: the integer 1{'0' * 20} is beyond 64 bits; put it in quotes"),
    ({"actor": {"id": 10**20}}, f"actor: the integer 1{'0' * 20} is beyond 64 bits; put it in quotes"),
    ({"occurred_at": 10**20}, "occurred_at: must be an instant; write it as 2026-05-03T10:00:00Z"),
    ({"set": {"/a": 10**20}}, f"set: the integer 1{'0' * 20} is beyond 64 bits; send it as a string and use the `number` …"),
    ({"compensation": {"name": "x", "arguments": {"a": 10**20}}}, "compensation: the integer … send it as a string …"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "says"), MISFITS)
def test_a_misfit_is_told_with_what_belongs_there(fields: dict[str, Any], says: str) -> None:
    """Where `says` has an ellipsis after a blank, anything may stand there."""
    with pytest.raises(InputError) as caught:
        action_from_text(json.dumps(changed(ACTION, **fields)).encode())
    assert re.fullmatch(re.escape(says).replace("\\ …", "\\ .+"), str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        (Action, [], "must be a JSON object that describes an action"),
        (RollbackRequest, [], "must be a JSON object that describes a rollback request"),
        (RollbackRequest, {}, "a rollback request needs the key rollback_id; add it"),
        (
            RollbackRequest,
            {"rollback_id": "r", "select": {"frm": "x"}},
            "select: has no key 'frm'; did you mean from?",
        ),
        (
            RollbackRequest,
            {"rollback_id": "r", "resolutions": {}},
            "resolutions: must be an array of objects, not an object",
        ),
        (Outcome, OUTCOME | {"retry_after_s": "x"}, "retry_after_s: must be null or a number such as 0.5, not 'x'"),
        (Outcome, OUTCOME | {"observed": OBSERVATION | {"exists": 1}}, "observed.exists: must be null or true or false, not 1"),
        (GatherQuery, QUERY | {"standing": 1}, "standing: must be true or false, not 1"),
        (UndoStep, STEP | {"numbers": 1}, "numbers: must be an array of whole numbers, not 1"),
        (UndoStep, STEP | {"planned": [{"path": "/a", "op": "put"}]}, "planned[0].op: must be set, unset, increment, "),
        (RollbackEvent, EVENT | {"counts": {"a": 1, "b": "2"}}, "counts.b: must be a whole number such as 7, not '2'"),
        (RollbackEvent, EVENT | {"counts": 1}, "counts: must be an object, not 1"),
    ],
)  # fmt: skip
def test_every_kind_of_record_has_its_words(kind: type[Record], data: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        from_json(kind, data)
    assert str(caught.value).startswith(says)


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
