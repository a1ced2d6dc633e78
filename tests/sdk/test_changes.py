"""From two trees to an event, and from the event back to the trees: the event must say exactly what happened."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.sdk.producer.changes import changes_between, members, own_copy, tree_of, values_before
from reconciler.values.errors import InputError
from reconciler.values.json_value import Json, same
from reconciler.values.pointer import Tokens, path_of, tokens_of, value_at

names = st.sampled_from(["a", "b", "", "~", "a/b", "é"])
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.just(1.0) | st.sampled_from(["", "1"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
trees = st.dictionaries(names, values, max_size=4)


def written_to(tree: dict[str, Json], set_: dict[str, Json], unset: list[str]) -> dict[str, Json]:
    """The plain meaning of an event's writes, those above before those below."""
    root: dict[str, Any] = {"root": copy.deepcopy(tree)}
    writes = [(("root", *tokens_of(path)), True, value) for path, value in set_.items()]
    writes += [(("root", *tokens_of(path)), False, None) for path in unset]
    for tokens, is_set, value in sorted(writes, key=lambda write: write[0]):
        node: Any = root
        for token in tokens[:-1]:
            if not isinstance(node.get(token), dict):
                node[token] = {}
            node = node[token]
        if is_set:
            node[tokens[-1]] = copy.deepcopy(value)
        else:
            node.pop(tokens[-1], None)
    result: dict[str, Json] = root["root"]
    return result


@given(before=trees, after=trees)
def test_the_changes_lead_from_one_tree_to_the_other(before: dict[str, Json], after: dict[str, Json]) -> None:
    written = changes_between(before, after)
    assert same(written_to(before, written.set, written.unset), after)


@given(before=trees, after=trees)
def test_no_change_can_be_left_out(before: dict[str, Json], after: dict[str, Json]) -> None:
    written = changes_between(before, after)
    for path in written.set:
        fewer = {other: value for other, value in written.set.items() if other != path}
        assert not same(written_to(before, fewer, written.unset), after)
    for path in written.unset:
        assert not same(written_to(before, written.set, [other for other in written.unset if other != path]), after)


@given(before=trees, after=trees)
def test_before_gives_the_old_tree_back(before: dict[str, Json], after: dict[str, Json]) -> None:
    written = changes_between(before, after)
    places = sorted(map(tokens_of, [*written.set, *written.unset]))
    told = values_before(before, places)
    gone = [path_of(place) for place in places if not _is_told(place, told)]
    assert same(written_to(after, told, gone), before)


@given(tree=trees, written=st.lists(st.lists(names, min_size=1, max_size=3).map(tuple), max_size=3))
def test_before_tells_only_what_was_there(tree: dict[str, Json], written: list[Tokens]) -> None:
    for path, value in values_before(tree, written).items():
        assert same(value_at(tree, tokens_of(path)), value)


def _is_told(place: Tokens, told: dict[str, Json]) -> bool:
    return any(path_of(place[:length]) in told for length in range(len(place) + 1))


def test_a_value_above_that_was_no_object_is_told_in_its_place() -> None:
    assert values_before({"address": "unknown"}, [("address", "city")]) == {"/address": "unknown"}
    assert values_before({}, [("address", "city")]) == {}
    assert values_before({"tags": ["a"]}, [("tags", "0")]) == {"/tags": ["a"]}


def test_numbers_of_different_kinds_are_different_values() -> None:
    assert changes_between({"a": 1, "b": True}, {"a": 1.0, "b": 1}).set == {"/a": 1.0, "/b": 1}


def test_null_is_a_value_and_absence_is_none() -> None:
    written = changes_between({"gone": 1, "nulled": 1}, {"nulled": None})
    assert written == ({"/nulled": None}, ["/gone"])


def test_fields_may_be_nested_or_named_by_paths() -> None:
    assert tree_of({"/a/b": 1, "c": {"d": 2}}) == {"a": {"b": 1}, "c": {"d": 2}}
    assert members({"a/b": 1, "": {}}) == {"/a~1b": 1, "/": {}}
    with pytest.raises(InputError):
        tree_of({"a~": 1, "/b~": 2})


def test_a_copy_is_out_of_reach_and_exact() -> None:
    value = {"list": [1]}
    kept = own_copy(value)
    value["list"].append(2)
    assert kept == {"list": [1]}
    for wrong in (float("nan"), {1: 2}, {"a": object()}, 2**70, "\ud800"):
        with pytest.raises(InputError):
            own_copy(wrong)
