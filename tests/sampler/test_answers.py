"""What an adapter answered becomes exactly one answer a resource, and known only where it is whole and unmistakable."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.records import Actor, Observation
from reconciler.values.json_value import canonical
from streams.sampler.answers import Answer, answers, strays

ASKED_AT = 1_777_777_777_000_000
ONE, TWO = "crm/contact/1", "crm/contact/2"


def present(resource: str = ONE, **values: Any) -> Observation:
    whole = {"exists": True, "fields": {"phone": "1"}, "observed_at": ASKED_AT + 5}
    return Observation(resource=resource, **{**whole, **values})


def ask(given: object, asked: tuple[str, ...] = (ONE,), **options: Any) -> list[Answer]:
    return list(answers(asked, given, ASKED_AT, **options))


def ask_one(observation: Observation) -> Answer:
    [answer] = ask([observation])
    return answer


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_a_whole_answer_is_known() -> None:
    answer = ask_one(present(version="v1"))
    assert answer.result == "present"
    assert answer.observation.fields == {"phone": "1"}
    assert answer.observation.version == "v1"
    assert answer.digest is not None


def test_a_resource_that_the_target_says_isnt_there_is_known_too() -> None:
    answer = ask_one(Observation(resource=ONE, exists=False))
    assert (answer.result, answer.observation.exists) == ("absent", False)
    assert answer.digest is not None


@pytest.mark.parametrize(
    ("given", "result", "reason"),
    [
        pytest.param(None, "malformed", "answered with NoneType, not with a list", id="no list"),
        pytest.param({}, "malformed", "answered with dict, not with a list", id="a dict"),
        pytest.param([], "missing", "says nothing about this resource", id="empty"),
        pytest.param([None, 7, "x"], "missing", "says nothing about this resource", id="no observations"),
        pytest.param([present(TWO)], "missing", "says nothing about this resource", id="about another one"),
        pytest.param([present(), present()], "duplicate", "more than once", id="a duplicate"),
        pytest.param(
            [present(), Observation(resource=ONE, exists=None)], "duplicate", "more than once", id="two minds"
        ),
        pytest.param([present(fields={})], "malformed", "is empty", id="no fields"),
        pytest.param([present(fields=[1])], "malformed", "are no object", id="fields are a list"),
        pytest.param([present(fields=None)], "malformed", "are no object", id="fields are None"),
        pytest.param(
            [Observation(resource=ONE, exists=False, fields={"phone": "1"})],
            "malformed",
            "contradicts itself",
            id="absent",
        ),
        pytest.param([present(exists=1)], "malformed", "doesn't say whether", id="exists is 1"),
        pytest.param([present(exists="yes")], "malformed", "doesn't say whether", id="exists is a string"),
        pytest.param([present(version=7)], "malformed", "of the wrong type", id="version is a number"),
        pytest.param([present(observed_at="now")], "malformed", "of the wrong type", id="observed_at is a string"),
        pytest.param([present(modified_by="ana")], "malformed", "of the wrong type", id="modified_by is a string"),
        pytest.param([present(fields={"n": float("nan")})], "malformed", "no JSON", id="NaN"),
        pytest.param([present(fields={"n": [{"m": float("-inf")}]})], "malformed", "no JSON", id="infinity"),
        pytest.param([present(fields={"n": (1, 2)})], "malformed", "a tuple, which is no JSON", id="a tuple"),
        pytest.param(
            [present(fields={"n": datetime(2026, 5, 3, tzinfo=UTC)})], "malformed", "no JSON", id="a datetime"
        ),
        pytest.param([present(fields={"n": 2**64})], "malformed", "no JSON", id="a huge integer"),
        pytest.param([present(fields={"n": "\ud800"})], "malformed", "no JSON", id="a lone surrogate"),
        pytest.param([present(fields={"n": object()})], "malformed", "no JSON", id="a foreign type"),
        pytest.param([present(fields={1: "n"})], "malformed", "no JSON", id="a name that is a number"),
        pytest.param([present(fields=nested(120))], "malformed", "levels deep", id="too deep"),
        pytest.param([present(fields=nested(3_000))], "malformed", "no JSON", id="far too deep"),
        pytest.param([Observation(resource=ONE, exists=None, reason="HTTP 503")], "unknown", "HTTP 503", id="said so"),
        pytest.param(
            [Observation(resource=ONE, exists=None)], "unknown", "gave no reason", id="said so, without a reason"
        ),
    ],
)
def test_everything_else_is_unknown_with_its_reason(given: object, result: str, reason: str) -> None:
    [answer] = ask(given)
    observation = answer.observation
    assert (answer.result, answer.digest) == (result, None)
    assert (observation.resource, observation.exists, observation.fields) == (ONE, None, {})
    assert reason in (observation.reason or "")
    assert observation.observed_at is not None
    assert observation.observed_at <= ASKED_AT


def test_the_others_of_a_partial_answer_are_known() -> None:
    known, unknown = ask([present(TWO), present("crm/contact/3")], (TWO, ONE))
    assert (known.result, unknown.result) == ("present", "missing")
    assert strays((TWO, ONE), [present(TWO), present("crm/contact/3"), None]) == 2


def test_answers_come_in_the_order_asked_whatever_the_order_given() -> None:
    assert [answer.observation.resource for answer in ask([present(TWO), present(ONE)], (ONE, TWO))] == [ONE, TWO]


def test_what_is_too_large_for_kafka_is_unknown() -> None:
    [answer] = ask([present(fields={"text": "x" * 1_000})], max_bytes=1_000)
    assert "1011 bytes; at most 1000" in (answer.observation.reason or "")


@pytest.mark.parametrize(
    ("claimed", "believed"),
    [(None, ASKED_AT), (ASKED_AT + 1, ASKED_AT), (ASKED_AT - 9, ASKED_AT - 9)],
    ids=["says nothing", "after the read began", "from a copy that is older"],
)
def test_no_observation_claims_to_be_newer_than_it_is(claimed: int | None, believed: int) -> None:
    assert ask_one(present(observed_at=claimed)).observation.observed_at == believed


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
whole = st.builds(
    Observation,
    resource=st.just(ONE),
    exists=st.just(True),
    fields=st.dictionaries(st.text(max_size=3), json_values, min_size=1, max_size=4),
    version=st.none() | st.sampled_from(["", "v1", "v2"]),
    observed_at=st.integers(ASKED_AT, ASKED_AT + 9),
    modified_at=st.none() | st.integers(0, 1),
    modified_by=st.none() | st.builds(Actor, id=st.sampled_from(["a", "b"]), kind=st.sampled_from(["a", "b"])),
)


@given(left=whole, right=whole)
def test_two_answers_have_one_digest_exactly_when_they_say_the_same(left: Observation, right: Observation) -> None:
    def content(observation: Observation) -> object:
        plain = msgspec.structs.replace(observation, observed_at=None, fields={})
        return msgspec.json.encode(plain), canonical(observation.fields)

    left_answer, right_answer = ask_one(left), ask_one(right)
    assert left_answer.result == right_answer.result == "present"
    assert (left_answer.digest == right_answer.digest) == (content(left) == content(right))


anything = st.one_of(
    st.none(),
    st.integers(),
    st.builds(
        Observation,
        resource=st.sampled_from([ONE, TWO, "crm/contact/3", 7]),
        exists=st.sampled_from([True, False, None, 0, "true"]),
        fields=st.sampled_from([{}, {"a": 1}, {"a": float("nan")}, None, [1]]),
        reason=st.sampled_from([None, "HTTP 500", 7]),
        version=st.sampled_from([None, "v", 1]),
        observed_at=st.sampled_from([None, ASKED_AT - 1, ASKED_AT + 1, "now"]),
    ),
)


@given(given=st.lists(anything, max_size=6))
def test_whatever_is_answered_there_is_one_answer_each_and_nothing_is_made_up(given: list[Any]) -> None:
    asked = (ONE, TWO)
    found = ask(given, asked)
    assert [answer.observation.resource for answer in found] == list(asked)
    about = Counter(str(item.resource) for item in given if isinstance(item, Observation))
    assert strays(asked, given) == len(given) - about[ONE] - about[TWO]
    for answer in found:
        observation = answer.observation
        assert (answer.digest is None) == (observation.exists is None) == (observation.reason is not None)
        assert observation.observed_at is not None
        assert observation.observed_at <= ASKED_AT
        if observation.exists is not None:
            assert about[observation.resource] == 1
            [said] = [item for item in given if isinstance(item, Observation) and item.resource == observation.resource]
            assert said.exists is observation.exists
            assert said.fields == observation.fields
            assert bool(observation.fields) == observation.exists
