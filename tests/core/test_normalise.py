"""What two values may differ in and still be equal."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.values.json_value import ABSENT, canonical, same
from reconciler.values.normalise import (
    InstantTo,
    Normaliser,
    NormaliserName,
    NumberWithin,
    Precision,
    equivalent,
    normalised,
)

WITHIN_A_CENT = NumberWithin(Decimal("0.01"))

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(
        ["1", "1.00", "-0", "1e3", " a ", "ß", "٣", "2026-05-03T10:00:00Z", "2026-05-03T12:00:00.5+02:00"]
    ),
    lambda members: st.lists(members, max_size=4) | st.dictionaries(st.text(max_size=4), members, max_size=4),
    max_leaves=12,
)
values = json_values | st.just(ABSENT)
normalisers: st.SearchStrategy[Normaliser] = (
    st.sampled_from(get_args(NormaliserName))
    | st.decimals(0, 10, places=2).map(NumberWithin)
    | st.sampled_from(get_args(Precision)).map(InstantTo)
)
pipelines = st.lists(normalisers, max_size=4)


@pytest.mark.parametrize(
    ("normaliser", "value", "wanted"),
    [
        ("trim", "  a b\t", "a b"),
        ("trim", 5, 5),
        ("trim", {"name": " a "}, {"name": "a"}),
        ("casefold", "STRASSE", "strasse"),
        ("casefold", "Straße", "strasse"),
        ("digits", "+1 (555) 010-99", "155501099"),
        ("digits", "٣-٤", "34"),
        ("digits", "n/a", "n/a"),
        ("digits", 155501099, 155501099),
        ("number", "1.00", 1),
        ("number", 1.0, 1),
        ("number", "+01.50", 1.5),
        ("number", ".5", 0.5),
        ("number", "-0", 0),
        ("number", -0.0, 0),
        ("number", "1e3", 1000),
        ("number", "0.1000000000000000000001", "0.1000000000000000000001"),
        ("number", "12345678901234567890.50", "12345678901234567890.5"),
        ("number", str(2**64), str(2**64)),
        ("number", "1,000", "1,000"),
        ("number", "٣", "٣"),
        ("number", " 1", " 1"),
        ("number", "1_000", "1_000"),
        ("number", "NaN", "NaN"),
        ("number", "Infinity", "Infinity"),
        ("number", "1e999", "1e999"),
        ("number", "9" * 1_001, "9" * 1_001),
        ("number", True, True),
        ("instant", "2026-05-03T12:00:00+02:00", "2026-05-03T10:00:00Z"),
        ("instant", "2026-05-03 10:00:00+00", "2026-05-03T10:00:00Z"),
        ("instant", "2026-05-03T10:00Z", "2026-05-03T10:00:00Z"),
        ("instant", "2026-05-03T10:00:00.120000z", "2026-05-03T10:00:00.12Z"),
        ("instant", "2026-05-03T10:00:00", "2026-05-03T10:00:00"),
        ("instant", "2026-05-03", "2026-05-03"),
        ("instant", "2026-02-30T10:00:00Z", "2026-02-30T10:00:00Z"),
        ("instant", "0001-01-01T00:00:00+10:00", "0001-01-01T00:00:00+10:00"),
        ("instant", "9999-12-31T23:59:59-10:00", "9999-12-31T23:59:59-10:00"),
        ("instant", 1_777_777_777, 1_777_777_777),
        (InstantTo("second"), "2026-05-03T10:00:00.999Z", "2026-05-03T10:00:00Z"),
        (InstantTo("second"), "1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59Z"),
        (InstantTo("day"), "2026-05-03T01:00:00+02:00", "2026-05-02T00:00:00Z"),
        ("null_is_absent", None, ABSENT),
        ("null_is_absent", {"a": None, "b": 1}, {"b": 1}),
        ("null_is_absent", [None, {"a": None}], [None, {}]),
        ("null_is_absent", "", ""),
        ("empty_is_absent", "", ABSENT),
        ("empty_is_absent", [], ABSENT),
        ("empty_is_absent", {}, ABSENT),
        ("empty_is_absent", {"a": {"b": ""}}, ABSENT),
        ("empty_is_absent", ["", {"a": []}], ["", {}]),
        ("empty_is_absent", None, None),
        ("empty_is_absent", 0, 0),
        ("empty_is_absent", False, False),
        ("sorted", ["b", "a", 10, 9, None], [9, 10, "a", "b", None]),
        ("sorted", {"tags": ["b", "a"]}, {"tags": ["a", "b"]}),
        ("sorted", [[2, 1]], [[2, 1]]),
    ],
)
def test_each_normaliser(normaliser: Normaliser, value: Any, wanted: Any) -> None:
    result = normalised(value, [normaliser])
    assert result is wanted if wanted is ABSENT else same(result, wanted)


def test_they_are_applied_in_order() -> None:
    assert normalised(" A ", ["trim", "casefold"]) == "a"
    assert normalised("  ", ["trim", "empty_is_absent"]) is ABSENT
    assert normalised("  ", ["empty_is_absent", "trim"]) == ""
    assert equivalent([" B", "a"], ["A ", "b"], ["trim", "casefold", "sorted"])


def test_without_normalisers_equality_is_exact() -> None:
    for left, right in [(1, 1.0), (1, "1"), (1, True), (0.0, -0.0), (ABSENT, None), (None, {}), ({}, [])]:
        assert not equivalent(left, right, [])
        assert equivalent(left, left, [])


@pytest.mark.parametrize(
    ("left", "right", "is_equal"),
    [
        (1, "1.01", True),
        (1, 1.0100001, False),
        (0.1, 0.11, True),  # in decimals, though not in doubles: 0.11 - 0.1 is 0.009999999999999995 there
        (2.675, "2.685", True),
        ({"net": 1, "tax": 2}, {"net": 1.01, "tax": 1.99}, True),
        ({"net": 1}, {"net": 1, "tax": 0}, False),
        ([1, 2], [1.005, 2.005], True),
        ([1, 2], [1], False),
        (0, False, False),
        (0, ABSENT, False),
        ("a", "b", False),
        (str(2**64), str(2**64) + ".01", True),
    ],
)
def test_numbers_within_a_tolerance(left: Any, right: Any, is_equal: bool) -> None:
    assert equivalent(left, right, [WITHIN_A_CENT]) is is_equal
    assert equivalent(right, left, [WITHIN_A_CENT]) is is_equal


def test_a_tolerance_finds_its_partners_in_sorted_lists() -> None:
    assert equivalent([10, 9], ["9.01", "9.995"], [WITHIN_A_CENT, "sorted"])


@given(values, pipelines)
def test_what_comes_out_is_json_or_absent_and_the_value_is_left_alone(value: Any, pipeline: list[Normaliser]) -> None:
    before = ABSENT if value is ABSENT else canonical(value)
    result = normalised(value, pipeline)
    assert result is ABSENT or canonical(result)
    assert before == (ABSENT if value is ABSENT else canonical(value))


@given(values, normalisers)
def test_each_is_idempotent(value: Any, normaliser: Normaliser) -> None:
    once = normalised(value, [normaliser])
    assert same(normalised(once, [normaliser]), once)


@given(values, values, pipelines)
def test_equality_is_reflexive_and_symmetric(left: Any, right: Any, pipeline: list[Normaliser]) -> None:
    assert equivalent(left, left, pipeline)
    assert equivalent(left, right, pipeline) == equivalent(right, left, pipeline)


@given(values, pipelines)
def test_a_value_equals_its_normal_form_when_normalising_again_changes_nothing(
    value: Any, pipeline: list[Normaliser]
) -> None:
    once = normalised(value, pipeline)
    if same(normalised(once, pipeline), once):
        assert equivalent(value, once, pipeline)


@given(
    st.decimals(-(10**25), 10**25, places=6),
    st.integers(0, 5),
    st.sampled_from(["{}", "+{}"]),
)
def test_every_way_to_write_a_number_is_the_same_number(number: Decimal, zeros: int, form: str) -> None:
    plain = f"{number:f}"
    written = (form.format(plain) if number >= 0 and not plain.startswith("-") else plain) + "0" * zeros
    assert same(normalised(plain, ["number"]), normalised(written, ["number"]))
    assert same(normalised(f"{number:e}", ["number"]), normalised(plain, ["number"]))


@given(st.decimals(-(10**20), 10**20, places=8), st.decimals(-(10**20), 10**20, places=8))
def test_different_numbers_stay_different(left: Decimal, right: Decimal) -> None:
    assert same(normalised(f"{left:f}", ["number"]), normalised(f"{right:f}", ["number"])) == (left == right)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_equals_its_own_text(number: float) -> None:
    assert equivalent(number, repr(number), ["number"])


@given(st.decimals(-1_000, 1_000, places=3), st.decimals(-2, 2, places=3), st.decimals(0, 1, places=3))
def test_a_tolerance_is_exact(number: Decimal, step: Decimal, tolerance: Decimal) -> None:
    other = number + step
    assert equivalent(f"{number:f}", f"{other:f}", [NumberWithin(tolerance)]) == (abs(step) <= tolerance)
