"""What a command means, case by case, and as laws over any JSON."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.records import Change, Command, CommandAction
from reconciler.targets.apply import Refusal, apply_to_fields, decide
from reconciler.values.json_value import ABSENT, Absent, Json, same
from tests.targets.shapes import Documents, after, at, text_of, values

DOCUMENTS = Documents()


def command(*changes: Change, action: CommandAction = "patch", **more: Any) -> Command:
    return Command(command_id="c", resource="s/t/1", action=action, changes=list(changes), **more)


def set_(path: str, value: Json, expect: Json | Absent = ABSENT) -> Change:
    return Change(path=path, op="set", value=value, expect=expect)


def unset(path: str, expect: Json | Absent = ABSENT) -> Change:
    return Change(path=path, op="unset", expect=expect)


APPLIED: list[tuple[str, Json | Absent, Command, Json | Absent]] = [
    ("set", {"a": 1, "b": 2}, command(set_("/a", 3, 1)), {"a": 3, "b": 2}),
    ("set what was absent", {"b": 2}, command(set_("/a", None)), {"a": None, "b": 2}),
    ("null is a value", {"a": None}, command(set_("/a", 1, None)), {"a": 1}),
    ("unset", {"a": 1, "b": 2}, command(unset("/a", 1)), {"b": 2}),
    ("unset of null", {"a": None}, command(unset("/a", None)), {}),
    ("unset of a member leaves its object", {"a": {"b": 1}}, command(unset("/a/b", 1)), {"a": {}}),
    ("unset of an object", {"a": {"b": 1}}, command(unset("/a", {"b": 1})), {}),
    ("set replaces an object whole", {"a": {"b": 1}}, command(set_("/a", {"c": 2}, {"b": 1})), {"a": {"c": 2}}),
    ("arrays are whole", {"a": [1, 2]}, command(set_("/a", [2, 1], [1, 2])), {"a": [2, 1]}),
    ("the order of members is nothing", {"a": {"x": 1, "y": 2}}, command(unset("/a", {"y": 2, "x": 1})), {}),
    ("escaped names", {"a/b": {"~": 1}}, command(set_("/a~1b/~0", 2, 1)), {"a/b": {"~": 2}}),
    ("the empty name", {"": {"": 1}}, command(set_("//", 2, 1)), {"": {"": 2}}),
    ("increment", {"a": 1}, command(Change(path="/a", op="increment", value=-3)), {"a": -2}),
    ("increment by a float", {"a": 1}, command(Change(path="/a", op="increment", value=0.5)), {"a": 1.5}),
    ("add at the end", {"a": ["y"]}, command(Change(path="/a", op="add", value="x")), {"a": ["y", "x"]}),
    ("add compares exactly", {"a": [1]}, command(Change(path="/a", op="add", value=1.0)), {"a": [1, 1.0]}),
    (
        "remove keeps the order",
        {"a": [3, 1, 2]},
        command(Change(path="/a", op="remove", value=1)),
        {"a": [3, 2]},
    ),
    (
        "a member there and one to take away",
        {"a": ["x"], "n": 1},
        command(Change(path="/a", op="add", value="x"), Change(path="/n", op="increment", value=1)),
        {"a": ["x"], "n": 2},
    ),
    ("a new object and a member of it", {}, command(set_("/a", {}), set_("/a/b", 1)), {"a": {"b": 1}}),
    ("the whole resource", {"a": 1}, command(set_("", {"b": 2}, {"a": 1})), {"b": 2}),
    ("create", ABSENT, command(set_("", {"a": 1}), action="create"), {"a": 1}),
    ("create of nothing", ABSENT, command(set_("", {}), action="create"), {}),
    ("delete", {"a": 1}, command(unset("", {"a": 1}), action="delete"), ABSENT),
    ("delete of nothing", {}, command(unset("", {}), action="delete"), ABSENT),
]

STANDING: list[tuple[str, Json | Absent, Command]] = [
    ("set", {"a": 2}, command(set_("/a", 2, 1))),
    ("unset", {}, command(unset("/a", 1))),
    ("unset below what is no object", {"a": 1}, command(unset("/a/b", 1))),
    ("both", {"a": 2}, command(set_("/a", 2, 1), unset("/b", 1))),
    ("add of a member", {"a": [{"k": 1}]}, command(Change(path="/a", op="add", value={"k": 1}))),
    ("remove of what isn't there", {"a": [1]}, command(Change(path="/a", op="remove", value=2))),
    ("remove from nothing", {}, command(Change(path="/a", op="remove", value=2))),
    ("no change at all", {"a": 1}, command()),
    ("create of the same", {"a": 1}, command(set_("", {"a": 1}), action="create")),
    ("delete of what is gone", ABSENT, command(unset("", {"a": 1}), action="delete")),
]

REFUSED: list[tuple[str, Json | Absent, Command, str, str]] = [
    ("another value", {"a": 3}, command(set_("/a", 2, 1)), "conflict", "/a"),
    ("absent is not null", {}, command(set_("/a", 2, None)), "conflict", "/a"),
    ("null is not absent", {"a": None}, command(set_("/a", 2)), "conflict", "/a"),
    ("{} is not null", {"a": {}}, command(set_("/a", 2, None)), "conflict", "/a"),
    ("[] is not {}", {"a": []}, command(set_("/a", 2, {})), "conflict", "/a"),
    ("1 is not true", {"a": 1}, command(set_("/a", 2, True)), "conflict", "/a"),
    ("1 is not 1.0", {"a": 1}, command(set_("/a", 2, 1.0)), "conflict", "/a"),
    ("0.0 is not -0.0", {"a": 0.0}, command(set_("/a", 2, -0.0)), "conflict", "/a"),
    ("one of two", {"a": 2, "b": 9}, command(set_("/a", 2, 1), set_("/b", 2, 1)), "conflict", "/a"),
    ("unset of another value", {"a": 2}, command(unset("/a", 1)), "conflict", "/a"),
    ("unset of an object that grew", {"a": {"b": 1, "c": 1}}, command(unset("/a", {"b": 1})), "conflict", "/a"),
    ("set below a scalar", {"a": 1}, command(set_("/a/b", 1)), "conflict", "/a/b"),
    ("set below an array", {"a": [1]}, command(set_("/a/0", 2, 1)), "conflict", "/a/0"),
    ("set below null", {"a": None}, command(set_("/a/b", 1)), "conflict", "/a/b"),
    ("set below nothing", {}, command(set_("/a/b", 1)), "conflict", "/a/b"),
    ("patch of what is gone", ABSENT, command(set_("/a", 1)), "conflict", ""),
    ("increment of text", {"a": "1"}, command(Change(path="/a", op="increment", value=1)), "conflict", "/a"),
    ("increment of true", {"a": True}, command(Change(path="/a", op="increment", value=1)), "conflict", "/a"),
    ("increment of nothing", {}, command(Change(path="/a", op="increment", value=1)), "conflict", "/a"),
    (
        "increment beyond 64 bits",
        {"a": 2**64 - 1},
        command(Change(path="/a", op="increment", value=1)),
        "conflict",
        "/a",
    ),
    (
        "increment to infinity",
        {"a": 1.7e308},
        command(Change(path="/a", op="increment", value=1.7e308)),
        "conflict",
        "/a",
    ),
    ("add to nothing", {}, command(Change(path="/a", op="add", value=1)), "conflict", "/a"),
    ("remove from text", {"a": "x"}, command(Change(path="/a", op="remove", value="x")), "conflict", "/a"),
    ("create of another", {"a": 1}, command(set_("", {"a": 2}), action="create"), "conflict", ""),
    ("delete of another", {"a": 2}, command(unset("", {"a": 1}), action="delete"), "conflict", ""),
    ("delete of what grew", {"a": 1, "b": 1}, command(unset("", {"a": 1}), action="delete"), "conflict", ""),
    ("increment by text", {"a": 1}, command(Change(path="/a", op="increment", value="1")), "rejected", "/a"),
    ("increment by true", {"a": 1}, command(Change(path="/a", op="increment", value=True)), "rejected", "/a"),
    ("set to nothing", {"a": 1}, command(Change(path="/a", op="set", expect=1)), "rejected", "/a"),
    ("unset with a value", {"a": 1}, command(Change(path="/a", op="unset", value=1, expect=1)), "rejected", "/a"),
    ("no pointer", {"a": 1}, command(set_("a", 2, 1)), "rejected", ""),
    ("NaN", {"a": 1}, command(set_("/a", float("nan"), 1)), "rejected", ""),
    ("beyond 64 bits", {"a": 1}, command(set_("/a", [2**70], 1)), "rejected", ""),
    ("a whole that is no object", {"a": 1}, command(set_("", [1], {"a": 1})), "rejected", ""),
    ("unset of the whole by a patch", {"a": 1}, command(unset("", {"a": 1})), "rejected", ""),
    ("create without a value", ABSENT, command(action="create"), "rejected", ""),
    ("create of a field", ABSENT, command(set_("/a", 1), action="create"), "rejected", ""),
    ("create of a list", ABSENT, command(set_("", [1]), action="create"), "rejected", ""),
    ("delete of a field", {"a": 1}, command(unset("/a", 1), action="delete"), "rejected", ""),
    ("delete that expects nothing", {"a": 1}, command(unset(""), action="delete"), "rejected", ""),
    ("compensate", {"a": 1}, command(action="compensate"), "rejected", ""),
]


@pytest.mark.parametrize(
    ("current", "given_command", "wanted"), [case[1:] for case in APPLIED], ids=[c[0] for c in APPLIED]
)
def test_applies(current: Json | Absent, given_command: Command, wanted: Json | Absent) -> None:
    before = copy.deepcopy(current)
    result = apply_to_fields(current, given_command)
    assert not isinstance(result, Refusal), result
    assert result is not current
    assert text_of(result) == text_of(wanted)
    assert text_of(current) == text_of(before), "the given fields were changed"


@pytest.mark.parametrize(("current", "given_command"), [case[1:] for case in STANDING], ids=[c[0] for c in STANDING])
def test_what_stands_already_is_given_back_itself(current: Any, given_command: Command) -> None:
    expecting = command(*given_command.changes, action=given_command.action, expect_version="v2")
    results = [
        apply_to_fields(current, given_command),
        decide(current, "v1", given_command),
        decide(current, "v1", expecting),
    ]
    assert all(result is current for result in results)


@pytest.mark.parametrize(
    ("current", "given_command", "status", "path"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_refuses(current: Json | Absent, given_command: Command, status: str, path: str) -> None:
    before = copy.deepcopy(current)
    result = apply_to_fields(current, given_command)
    assert isinstance(result, Refusal)
    assert (result.status, result.path) == (status, path)
    assert result.reason
    assert text_of(current) == text_of(before)


def test_the_version_is_compared_where_both_have_one() -> None:
    for version, expected, refused in [
        ("v1", "v2", True),
        ("v1", "v1", False),
        (None, "v2", False),
        ("v1", None, False),
    ]:
        result = decide({"a": 1}, version, command(set_("/a", 2, 1), expect_version=expected))
        assert isinstance(result, Refusal) is refused, (version, expected)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_command_does_what_it_says_and_nothing_else(data: st.DataObject) -> None:
    fields = data.draw(DOCUMENTS.fields())
    changes = data.draw(DOCUMENTS.changes(fields))
    before = copy.deepcopy(fields)
    result = apply_to_fields(fields, command(*changes))
    assert not isinstance(result, Refusal), result
    assert text_of(result) == text_of(after(fields, changes))
    assert text_of(fields) == text_of(before)
    assert apply_to_fields(result, command(*changes)) is result, "a second application must change nothing"


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_command_is_refused_on_any_other_state_of_what_it_touches(data: st.DataObject) -> None:
    fields = data.draw(DOCUMENTS.fields())
    changes = data.draw(DOCUMENTS.changes(fields).filter(bool))
    other = data.draw(DOCUMENTS.fields())
    if all(same(at(fields, tokens), at(other, tokens)) for tokens in map(_tokens, changes)):
        other = {}
    result = apply_to_fields(other, command(*changes))
    if not isinstance(result, Refusal):
        stands = all(same(at(other, _tokens(change)), change.value) for change in changes)
        as_expected = all(same(at(other, _tokens(change)), change.expect) for change in changes)
        assert (result is other and stands) or as_expected


@settings(max_examples=100, deadline=None)
@given(values(), values())
def test_a_member_added_is_taken_out_again(member: Json, other: Json) -> None:
    held = {"a": [other]}
    added = apply_to_fields(held, command(Change(path="/a", op="add", value=member)))
    assert isinstance(added, dict)
    assert sum(same(each, member) for each in added["a"]) == 1
    removed = apply_to_fields(added, command(Change(path="/a", op="remove", value=member)))
    assert isinstance(removed, dict)
    assert text_of(removed["a"]) == text_of([] if same(other, member) else [other])


def _tokens(change: Change) -> tuple[str, ...]:
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in change.path.split("/")[1:])
