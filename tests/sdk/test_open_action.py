"""The events of an action, and that folding them gives the state that was there."""

from __future__ import annotations

from typing import Any, cast

import pytest

from reconciler.json_form import complete_action
from reconciler.records import Action, Actor, Compensation, Observation
from reconciler.sdk.errors import ObservationError
from reconciler.sdk.producer.open_action import ActionDetails, OpenAction
from reconciler.sdk.tracing import current_origin
from reconciler.values.errors import InputError
from reconciler.values.traceparent import is_traceparent

RESOURCE = "crm/contact/42"
SEEN = Observation(
    resource=RESOURCE, exists=True, fields={"phone": "1", "fax": "9", "address": {"city": "Ulm"}}, version="v6"
)
UNKNOWN = Observation(resource=RESOURCE, exists=None, reason="time-out")
MISSING = Observation(resource=RESOURCE, exists=False)


def opened(operation: Any = "update", began_at: int = 1_000_000, **details: Any) -> OpenAction:
    return OpenAction(
        resource=RESOURCE,
        operation=operation,
        run_id="run-7",
        step_id="update",
        began_at=began_at,
        details=cast("ActionDetails", details),
    )


def ended(action: OpenAction) -> Action:
    return action.event("succeeded", 2_000_000)


def test_an_update_tells_what_was_written_and_what_stood_there() -> None:
    action = opened()
    action.saw_before(SEEN, required=True)
    action.set("/phone", "2")
    action.set("/address/zip", "89073")
    action.unset("/fax")
    action.version_after("v7")
    event = ended(action)
    assert event.before == {"/phone": "1", "/fax": "9"}
    assert event.set == {"/phone": "2", "/address/zip": "89073"}
    assert event.unset == ["/fax"]
    assert (event.version_before, event.version_after) == ("v6", "v7")
    assert (event.stage, event.occurred_at, event.operation_id) == ("succeeded", 2_000_000, "run-7/update")
    assert complete_action(event) == event


def test_the_state_afterwards_tells_the_same() -> None:
    action = opened()
    action.saw_before(SEEN, required=True)
    action.saw_after(
        Observation(
            resource=RESOURCE, exists=True, fields={"phone": "2", "address": {"city": "Ulm", "zip": 1}}, version="v7"
        )
    )
    event = ended(action)
    assert (event.set, event.unset) == ({"/address/zip": 1, "/phone": "2"}, ["/fax"])
    assert event.before == {"/phone": "1", "/fax": "9"}
    assert event.version_after == "v7"


def test_what_is_said_goes_before_what_is_seen() -> None:
    action = opened()
    action.saw_before(SEEN, required=True)
    action.set("/phone", "2")
    action.saw_after(
        Observation(resource=RESOURCE, exists=True, fields={"phone": "2", "edited_at": "now"}, version="v7")
    )
    event = ended(action)
    assert (event.set, event.unset, event.version_after) == ({"/phone": "2"}, [], "v7")


def test_the_last_word_about_a_path_counts() -> None:
    action = opened()
    action.set("/phone", "2")
    action.unset("/phone")
    action.unset("/fax")
    action.set("/fax", None)
    event = ended(action)
    assert (event.set, event.unset) == ({"/fax": None}, ["/phone"])


def test_later_changes_of_a_value_dont_reach_the_event() -> None:
    tags = ["a"]
    action = opened()
    action.set("/tags", tags)
    tags.append("b")
    assert ended(action).set == {"/tags": ["a"]}


def test_a_pre_state_that_isnt_known_is_said_to_be_unknown() -> None:
    action = opened()
    action.saw_before(UNKNOWN, required=False)
    action.set("/phone", "2")
    assert ended(action).before is None


def test_an_action_can_insist_on_its_pre_state() -> None:
    with pytest.raises(ObservationError, match="time-out"):
        opened().saw_before(UNKNOWN, required=True)


def test_a_resource_that_isnt_there_has_no_field_before() -> None:
    action = opened()
    action.saw_before(MISSING, required=True)
    action.set("/phone", "2")
    assert ended(action).before == {}


def test_a_create_has_nothing_before_it() -> None:
    action = opened("create")
    action.saw_before(MISSING, required=True)
    action.after({"phone": "1", "address": {"city": "Ulm"}})
    event = ended(action)
    assert event.before is None
    assert event.set == {"/phone": "1", "/address": {"city": "Ulm"}}
    with pytest.raises(InputError, match="update"):
        opened("create").saw_before(SEEN, required=False)
    with pytest.raises(InputError, match="create"):
        opened("create").before({})


def test_a_delete_tells_the_whole_resource() -> None:
    action = opened("delete")
    action.saw_before(SEEN, required=True)
    event = ended(action)
    assert event.before == {"/phone": "1", "/fax": "9", "/address": {"city": "Ulm"}}
    assert (event.set, event.unset) == ({}, [])
    empty = opened("delete")
    empty.before({})
    assert ended(empty).before == {}
    missing = opened("delete")
    missing.saw_before(MISSING, required=True)
    assert ended(missing).before is None


def test_an_effect_carries_its_compensation() -> None:
    compensation = Compensation(name="credit-note", arguments={"amount": 3})
    event = ended(opened("effect", compensation=compensation))
    assert (event.compensation, event.before, event.set) == (compensation, None, {})


@pytest.mark.parametrize("operation", ["delete", "effect"])
def test_what_writes_no_fields_takes_none(operation: str) -> None:
    action = opened(operation)
    with pytest.raises(InputError, match="writes no fields"):
        action.set("/a", 1)
    with pytest.raises(InputError, match="writes no fields"):
        action.unset("/a")
    with pytest.raises(InputError, match="writes no fields"):
        action.after({})


def test_before_may_be_given_by_hand_and_counts_as_whole() -> None:
    action = opened()
    action.before({"/address/city": "Ulm", "phone": "1"}, version="v6")
    action.set("/address", {"city": "Bonn"})
    action.set("/fax", "9")
    event = ended(action)
    assert event.before == {"/address": {"city": "Ulm"}}
    assert event.version_before == "v6"


def test_a_difference_needs_both_sides() -> None:
    with pytest.raises(InputError, match="set\\(\\) and unset\\(\\)"):
        opened().after({"phone": "2"})
    unseen = opened()
    unseen.saw_before(SEEN, required=True)
    with pytest.raises(ObservationError, match="what the action wrote is not known"):
        unseen.saw_after(UNKNOWN)


def test_stages_but_the_last_tell_no_content() -> None:
    action = opened(actor=Actor(id="ana@example.com", kind="user"), depends_on=["run-7/create"], rule="Hot leads")
    action.saw_before(SEEN, required=True)
    action.set("/phone", "2")
    for stage in ("initiated", "failed"):
        event = action.event(stage, 1)
        assert (event.before, event.set, event.version_before) == (None, {}, None)
        assert (event.rule, event.depends_on) == ("Hot leads", ["run-7/create"])


def test_ids_tell_stages_and_attempts_apart_and_nothing_else() -> None:
    def ids(began_at: int, occurred_at: int) -> list[str]:
        action = opened(began_at=began_at)
        action.set("/phone", "2")
        return [action.event(stage, occurred_at).action_id for stage in ("initiated", "succeeded", "failed")]

    assert ids(1, 5) == ids(1, 9)
    assert len({*ids(1, 5), *ids(2, 5)}) == 6


def test_one_trace_runs_through_an_action() -> None:
    action = opened()
    assert is_traceparent(action.traceparent)
    assert {action.event(stage, 1).traceparent for stage in ("initiated", "succeeded")} == {action.traceparent}


def test_what_a_correction_of_ours_set_off_says_so() -> None:
    assert ended(opened()).origin is None
    assert {opened(origin="c1").event(stage, 1).origin for stage in ("initiated", "succeeded", "failed")} == {"c1"}
    token = current_origin.set("c2")  # as while a handler runs
    try:
        assert ended(opened()).origin == "c2"
        assert ended(opened(origin="c1")).origin == "c1"
    finally:
        current_origin.reset(token)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"resource": "crm/42"}, "system/type/id"),
        ({"run_id": ""}, "run_id"),
        ({"step_id": ""}, "step_id"),
        ({"operation": "upsert"}, "upsert"),
        ({"details": {"sequence": "3"}}, "int"),
        ({"details": {"traceparent": "x"}}, "traceparent"),
    ],
)
def test_wrong_arguments_are_refused_at_once(wrong: dict[str, Any], what: str) -> None:
    right: dict[str, Any] = {
        "resource": RESOURCE,
        "operation": "update",
        "run_id": "r",
        "step_id": "s",
        "began_at": 1,
        "details": {},
    }
    with pytest.raises(InputError, match=what):
        OpenAction(**(right | wrong))


@pytest.mark.parametrize("path", ["phone", "/a~2", "/" + "x/" * 200])
def test_wrong_paths_and_values_are_refused_at_once(path: str) -> None:
    with pytest.raises(InputError):
        opened().set(path, 1)
    with pytest.raises(InputError):
        opened().unset(path)
    with pytest.raises(InputError):
        opened().set("/a", float("inf"))
