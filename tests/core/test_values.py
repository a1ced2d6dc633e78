"""JSON values, pointers and instants: what goes in comes out, and what can't be kept exactly is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.values.errors import InputError, ValueLimitError
from reconciler.values.instant import format_instant, parse_instant
from reconciler.values.json_value import (
    ABSENT,
    MAX_DEPTH,
    MAX_INTEGER,
    MIN_INTEGER,
    canonical,
    check_depth,
    check_value,
    parse,
    same,
)
from reconciler.values.pointer import path_of, tokens_of, value_at

NAMES = st.text(max_size=6) | st.sampled_from(["", "/", "~", "~0", "~1", "~01", "\x00", "é", "e\u0301", "\U0001f9ea"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(MIN_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1, 0.0, -0.0, 1.0, 2**53 + 1, -(2**53) - 1, MIN_INTEGER, MAX_INTEGER, 5e-324])
    | NAMES
    | st.sampled_from(["1", "true", "null", "9" * 40])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
FOUR_NOTHINGS: tuple[Any, ...] = (ABSENT, None, {}, [])


# -- canonical form


@given(VALUES)
def test_canonical_form_survives_a_round_trip(value: Any) -> None:
    text = canonical(value)
    assert same(parse(text), value)
    assert canonical(parse(text)) == text
    assert same(parse(text.decode()), value)


@given(VALUES)
def test_canonical_form_is_json_to_everybody(value: Any) -> None:
    assert same(json.loads(canonical(value)), value)


@given(VALUES, VALUES)
def test_values_are_equal_exactly_when_their_texts_are(left: Any, right: Any) -> None:
    assert same(left, right) is (canonical(left) == canonical(right))


@given(st.dictionaries(NAMES, SCALARS, max_size=5), st.randoms(use_true_random=False))
def test_canonical_form_doesnt_know_the_order_of_names(value: dict[str, Any], random: Any) -> None:
    shuffled = list(value.items())
    random.shuffle(shuffled)
    assert canonical(dict(shuffled)) == canonical(value)


@pytest.mark.parametrize("left", FOUR_NOTHINGS, ids=repr)
@pytest.mark.parametrize("right", FOUR_NOTHINGS, ids=repr)
def test_absent_null_and_the_empty_ones_are_four(left: Any, right: Any) -> None:
    assert same(left, right) is (left is right)


@pytest.mark.parametrize("left", range(6))
@pytest.mark.parametrize("right", range(6))
def test_one_written_in_six_ways_is_six_values(left: int, right: int) -> None:
    ones = [1, 1.0, "1", True, [1], {"1": 1}]
    assert same(ones[left], ones[right]) is (left == right)


def test_minus_zero_is_not_zero() -> None:
    assert not same(0.0, -0.0) and not same(0, -0.0)
    assert canonical(-0.0) == b"-0.0"
    assert math.copysign(1, parse(b"-0.0")) == -1


# -- what is refused


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"18446744073709551616", "the integer 18446744073709551616 is beyond 64 bits"),
        (b"-9223372036854775809", "the integer -9223372036854775809 is beyond 64 bits"),
        (b"1" + b"0" * 23, f"the integer 1{'0' * 23} is beyond 64 bits"),
        (b"1" + b"0" * 40, f"the integer 1{'0' * 23}… is beyond 64 bits"),
        (b'{"a": {"b": [18446744073709551616]}}', "a: the integer 18446744073709551616 is beyond 64 bits"),
        (b"1e400", "is not JSON"),
        (b"NaN", "is not JSON"),
        (b"-Infinity", "is not JSON"),
        (b'"\\ud800"', "is not JSON"),
        (b'"\xed\xa0\x80"', "is not UTF-8: byte 2 is 0xED"),
        (b'"\xff"', "is not UTF-8: byte 2 is 0xFF; save it as UTF-8"),
        ('"é"'.encode("latin-1"), "is not UTF-8: byte 2 is 0xE9; save it as UTF-8"),
        ('"é"'.encode("utf-16"), "is not UTF-8: byte 1 is 0xF"),
        (b'"\0a\0"\0', "is not UTF-8: byte 2 is 0x00, as in UTF-16; save it as UTF-8"),
        (b"[1,]", "is not JSON"),
        (b"", "is not JSON"),
        (b'{\n"a": 1,\n}', "line 2, column 7"),
        (b"{a: 1}", "(column 2); check the quotes, commas and brackets there"),
    ],
)
def test_texts_that_would_be_changed_by_reading_are_refused(text: bytes, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b'"18446744073709551616"', b'{"18446744073709551616": 1}', b"18446744073709551615"])
def test_long_digits_that_are_no_integer_beyond_the_limit_are_kept(text: bytes) -> None:
    assert canonical(parse(text)).replace(b" ", b"") == text.replace(b" ", b"")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 300, 2_000, 200_000])
def test_nesting_is_kept_up_to_the_limit_and_refused_beyond(opening: str, closing: str, depth: int) -> None:
    text = (opening * depth + "1" + closing * depth).encode()
    if depth <= MAX_DEPTH:
        assert canonical(parse(text)) == text
    else:
        with pytest.raises(ValueLimitError, match=f"is nested more than {MAX_DEPTH} levels deep"):
            parse(text)


def test_depth_is_named_by_the_member_that_has_it() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    with pytest.raises(ValueLimitError) as caught:
        parse(f'{{"shallow": [], "deep": {deep}}}')
    assert caught.value.field == "deep"
    assert parse(f'{{"deep": {deep}}}', levels=MAX_DEPTH + 1)


def test_depth_counts_what_is_above() -> None:
    check_depth([[]], MAX_DEPTH - 2)
    with pytest.raises(ValueLimitError):
        check_depth([[]], MAX_DEPTH - 1)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, [{"a": -math.inf}], 2**64, {"a": -(2**63) - 1}, "\ud800", {"\ud800": 1}, {1: 2}, object()],
)
def test_values_made_by_code_that_are_no_json_are_refused(value: Any) -> None:
    with pytest.raises(InputError):
        check_value(value)


# -- pointers


@given(st.lists(NAMES, max_size=5).map(tuple))
def test_pointers_survive_a_round_trip(tokens: tuple[str, ...]) -> None:
    path = path_of(tokens)
    assert tokens_of(path) == tokens
    assert path == "" or path.startswith("/")


@pytest.mark.parametrize(
    ("path", "tokens"),
    [  # RFC 6901, section 5, and what people get wrong
        ("", ()),
        ("/", ("",)),
        ("//", ("", "")),
        ("/a~1b", ("a/b",)),
        ("/m~0n", ("m~n",)),
        ("/~01", ("~1",)),
        ("/c%d", ("c%d",)),
        ("/ ", (" ",)),
    ],
)
def test_pointers_are_those_of_the_rfc(path: str, tokens: tuple[str, ...]) -> None:
    assert tokens_of(path) == tokens
    assert path_of(tokens) == path


@pytest.mark.parametrize("path", ["a", "a/b", "/~", "/~2", "/a~/b", "#/a", " /a", "/a" * (MAX_DEPTH + 1)])
def test_what_is_no_pointer_is_refused(path: str) -> None:
    with pytest.raises(InputError):
        tokens_of(path)


@pytest.mark.parametrize("nothing", FOUR_NOTHINGS[1:], ids=repr)
def test_a_place_that_holds_nothing_much_isnt_absent(nothing: Any) -> None:
    assert value_at({"a": nothing}, ("a",)) is nothing
    assert value_at({"a": nothing}, ("a", "b")) is ABSENT
    assert value_at({"a": [1]}, ("a", "0")) is ABSENT


# -- instants


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_instants_survive_a_round_trip(instant: int) -> None:
    assert parse_instant(format_instant(instant)) == instant


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-05-03T12:00:00+02:00", 1_777_802_400_000_000),
        ("1970-01-01T00:00:00.000001Z", 1),
    ],
)
def test_instants_are_those_of_iso_8601(text: str, instant: int) -> None:
    assert parse_instant(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-05-03",
        "2026-05-03T10:00:00",
        "10000-01-01T00:00:00Z",
        0,
        None,
        "0001-01-01T00:00:00+14:00",
    ],
)
def test_what_is_no_instant_is_refused(text: Any) -> None:
    with pytest.raises(InputError):
        parse_instant(text)
