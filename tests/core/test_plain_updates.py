"""The shorter way of updates: what it takes it takes as the other way does, byte for byte, and what it doesn't it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reconciler.contracts.model import ContractSet
from reconciler.history.chain import linked
from reconciler.history.entry import NO_FACTS, Entry, Facts
from reconciler.history.plain import kept_plainly
from reconciler.machines.head import ACTION_PREFIX, Head, encode
from reconciler.machines.protocol import AppendHistory
from reconciler.machines.resource import ResourceMachine
from reconciler.records import Action, Actor, PlainUpdate
from reconciler.values.errors import InputError
from reconciler.values.instant import SECOND
from reconciler.values.json_value import MAX_INTEGER, MIN_INTEGER, canonical
from reconciler.values.pointer import path_of
from reconciler.values.resource_key import parse_resource_key
from reconciler.wire import action_reader, plain_reader
from reconciler.wire.codec import Codec
from tests.core.dice import Dice
from tests.core.histories import RESOURCE, make_action, wild_actions
from tests.core.machine_bench import DictHistory
from tests.support.compiled import from_source
from tests.wire.strategies import actions, full_action

CODEC = Codec.packaged()
READERS = pytest.mark.parametrize("reader", [plain_reader, from_source(plain_reader)], ids=["as installed", "source"])
Read = Callable[[bytes], PlainUpdate | None]

PLAIN_TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), max_size=40)
PLAIN_WORDS = PLAIN_TEXTS.filter(bool)
FLAT_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(MIN_INTEGER, MAX_INTEGER),
    st.sampled_from([0, -1, MAX_INTEGER, MIN_INTEGER, 2**63]),
    st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"], exclude_characters='"\\'), max_size=12),
    st.sampled_from(["\u2028", "\x7f", "\U0001f9ea", "é", "9" * 40]),
)
FLAT_PATHS = st.text(
    st.characters(min_codepoint=0x20, exclude_categories=["Cs"], exclude_characters='"\\/~'), max_size=6
).map("/{}".format)
FLAT_FIELDS = st.dictionaries(FLAT_PATHS, FLAT_VALUES, max_size=4)
PLAIN_ACTIONS = st.builds(
    Action,
    stage=st.just("succeeded"),
    run_id=PLAIN_WORDS,
    step_id=PLAIN_WORDS,
    occurred_at=st.integers(0, 2**62 - 1),
    resource=st.text("abcXYZ09._~@:", min_size=1, max_size=40).map("crm/contact/{}".format),
    operation=st.just("update"),
    operation_id=PLAIN_WORDS,
    action_id=PLAIN_WORDS,
    before=FLAT_FIELDS,
    set=FLAT_FIELDS.filter(bool),
    workflow_id=PLAIN_TEXTS,
    workflow_version=PLAIN_TEXTS,
    sequence=st.integers(0, 2**62 - 1),
    actor=st.none() | st.builds(Actor, id=PLAIN_TEXTS, kind=PLAIN_TEXTS),
)


def same_action(update: PlainUpdate) -> Action:
    """The action of an update."""
    return Action(
        stage="succeeded",
        run_id=update.run_id,
        step_id=update.step_id,
        occurred_at=update.occurred_at,
        resource=update.resource,
        operation="update",
        operation_id=update.operation_id,
        action_id=update.action_id,
        before=update.before,
        set=update.set,
        workflow_id=update.workflow_id,
        workflow_version=update.workflow_version,
        sequence=update.sequence,
        actor=None if update.actor is None else Actor(id=update.actor[0], kind=update.actor[1]),
    )


def as_read(payload: bytes) -> Action:
    action = CODEC.decode(payload)
    assert isinstance(action, Action)
    return action


def assert_joined_alike(update: PlainUpdate, action: Action, facts: Facts = NO_FACTS) -> None:
    """What is joined of the texts is what is made of the action."""
    assert encode(Entry(number=1, action=same_action(update))) == encode(Entry(number=1, action=action))
    chain, entry = kept_plainly(update, 7, 9, "ab", "" if facts is NO_FACTS else encode(facts).decode())
    assert chain == linked("ab", action)
    assert entry == encode(Entry(number=7, action=action, facts=facts, link=9, chain=chain))


# -- reading


@READERS
@given(action=PLAIN_ACTIONS)
@settings(deadline=None, max_examples=300)
def test_what_is_plain_is_read_and_joined_as_the_action_is(reader: Any, action: Action) -> None:
    payload = CODEC.encode("any", action)
    update = reader.read_plain_update(payload)
    assert update is not None
    assert same_action(update) == action
    action = as_read(payload)  # its fields in the order of the text
    assert_joined_alike(update, action)
    assert_joined_alike(update, action, Facts(base_set={"/é": 'a"b'}, base_unset=["/x"]))


@READERS
@given(action=actions())
@settings(deadline=None, max_examples=300)
def test_of_any_action_only_what_is_plain_is_read(reader: Any, action: Action) -> None:
    action = msgspec.structs.replace(action, stage="succeeded", operation="update")
    payload = CODEC.encode("any", action)
    update = reader.read_plain_update(payload)
    if update is not None:
        assert_joined_alike(update, as_read(payload))


@READERS
@pytest.mark.parametrize(
    "change",
    [
        {"stage": "reversed"},
        {"stage": "initiated"},
        {"operation": "create"},
        {"operation": "delete"},
        {"before": None},
        {"set": {}},
        {"set": {"/a": 1.5}},
        {"set": {"/a": []}},
        {"set": {"/a": {}}},
        {"set": {"/a/b": 1}},
        {"set": {"/a~1b": 1}},
        {"set": {"": {"a": 1}}},
        {"set": {"/a": 'a "quoted" word'}},
        {"set": {"/a": "two\nlines"}},
        {"before": {"/a\\b": 1}},
        {"unset": ["/fax"]},
        {"run_id": 'run "7"'},
        {"step_id": "back\\slash"},
        {"actor": Actor(id="José")},
        {"workflow_id": "a\tb"},
        {"workflow_version": "w" * 64},
        {"action_id": "\x7f"},
        {"sequence": -1},
        {"occurred_at": -1},
        {"depends_on": ["run/step"]},
        {"version_before": "v1"},
        {"version_after": "v2"},
        {"rule": "r"},
        {"traceparent": "t"},
        {"origin": "c4"},
        {"reverses": "a1"},
        {"compensation": full_action().compensation},
    ],
)
def test_what_is_anything_else_is_left(reader: Any, change: dict[str, Any]) -> None:
    plain = make_action(1, before={"/a": 1}, set={"/a": 2}, actor=Actor(id="ana"))
    assert reader.read_plain_update(CODEC.encode("any", plain)) is not None
    assert reader.read_plain_update(CODEC.encode("any", msgspec.structs.replace(plain, **change))) is None


@READERS
@given(action=PLAIN_ACTIONS)
@settings(deadline=None)
def test_the_order_of_the_fields_may_be_any(reader: Any, action: Action) -> None:
    """Producers in other languages write them as they come."""
    payload = CODEC.encode("any", action)
    for fields in (action.before or {}, action.set):
        text, other = canonical(fields), orjson.dumps(dict(sorted(fields.items(), reverse=True)))
        payload = payload.replace(text, other)
    update = reader.read_plain_update(payload)
    assert update is not None
    assert_joined_alike(update, as_read(payload))


@READERS
@pytest.mark.parametrize(
    "text",
    [
        '{"/a": 2}',
        '{"/a":2 }',
        '{"/a":2,"/a":2}',
        '{"/a":-0}',
        '{"/a":"\\u0041"}',
        '{"/a":"\\/"}',
        '{"\\u002fa":2}',
        '{"/a":2e0}',
        '{"a":2}',
        '["/a"]',
        '{"/a":123456789012345678901}',
        '{"/a":tru}',
    ],
)
def test_a_text_that_would_be_written_otherwise_is_left(reader: Any, text: str) -> None:
    payload = CODEC.encode("any", make_action(1, before={}, set={"/a": 2}))
    usual = b'{"/a":2}'
    there = payload.replace(bytes((2 * len(usual),)) + usual, bytes((2 * len(text),)) + text.encode())
    assert there != payload or text == usual.decode()
    assert reader.read_plain_update(payload) is not None
    assert reader.read_plain_update(there) is None


@READERS
@given(data=st.data())
@settings(deadline=None, max_examples=400)
def test_nothing_is_read_that_is_refused_otherwise(reader: Any, data: st.DataObject) -> None:
    payload = bytearray(CODEC.encode("any", data.draw(PLAIN_ACTIONS)))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(5, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        assume(len(payload) > 5)
    assert_refused_or_alike(reader.read_plain_update, bytes(payload))


@READERS
def test_every_byte_broken_in_every_way(reader: Any) -> None:
    action = make_action(
        9, before={"/a": "x", "/b": 12}, set={"/a": "y", "/b": None}, actor=Actor(id="ana"), workflow_id="w", sequence=3
    )
    payload = CODEC.encode("any", action)
    for at in range(5, len(payload)):
        for byte in range(256):
            assert_refused_or_alike(reader.read_plain_update, payload[:at] + bytes((byte,)) + payload[at + 1 :])
        assert reader.read_plain_update(payload[:at]) is None


def assert_refused_or_alike(read: Read, payload: bytes) -> None:
    update = read(payload)
    if update is not None and is_key(update.resource):  # what is a head's is one
        assert_joined_alike(update, as_read(payload))


def is_key(text: str) -> bool:
    try:
        parse_resource_key(text)
    except InputError:
        return False
    return True


def test_the_codec_knows_which_payloads_may_be_plain() -> None:
    payload = CODEC.encode("workflow.actions", make_action(1, before={}, set={"/a": 2}))
    assert (CODEC.read_plain_update(payload) is not None) == plain_reader.IS_SHORTER
    assert CODEC.read_plain_update(None) is None
    assert CODEC.read_plain_update(b"\x01" + payload[1:]) is None
    assert Codec.packaged(max_record_bytes=len(payload) - 1).read_plain_update(payload) is None
    assert action_reader.read_action(payload) == CODEC.decode(payload)


# -- taking


def flat_actions(dice: Dice, count: int) -> list[Action]:
    """Updates of some flat fields, whose `before` is what was there, or isn't; some come again."""
    there: dict[str, Any] = {}
    made: list[Action] = []
    for number in range(1, count + 1):
        paths = dice.some(["/a", "/b", "/c"], at_least=1)
        set_ = {path: dice.pick([None, True, 0, 1, "1", "", "x", 2**53 + 1]) for path in paths}
        before = {path: there[path] for path in paths if path in there}
        if dice.one_in(6):
            before[dice.pick(["/a", "/b", "/d"])] = dice.pick([None, 1, True, "x"])
        there |= set_
        stage = dice.pick(["succeeded"] * 6 + ["initiated"])
        made.append(make_action(number, before=before, set=set_, stage=stage, operation_id=f"step-{dice.below(count)}"))
        if dice.one_in(5):
            made.append(dice.pick(made))
    return made


def stepped_both_ways(log: list[Action]) -> int:
    """Steps over a log the long way, and holds the short one against each step. How many it took."""
    machine, history = ResourceMachine(ContractSet()), DictHistory()
    head, taken = machine.initial(RESOURCE), 0
    for place, payload in enumerate([CODEC.encode("any", action) for action in log]):
        now = (place - 2) * SECOND
        action = as_read(payload)
        update = plain_reader.read_plain_update(payload)
        before = encode(head)
        shortly = None if update is None else machine.take_plain_update(head, update, now, history)
        assert encode(head) == before
        after, effects = machine.step(head, action, now, history)
        assert isinstance(after, Head)
        if shortly is not None:
            assert encode(after) == machine.encode(shortly[0])
            assert after == shortly[0]
            assert effects == (AppendHistory(shortly[1], shortly[2]),)
            assert shortly[1] == ACTION_PREFIX + action.action_id
            taken += 1
        head = after
        history.take(effects)
    return taken


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_an_update_is_taken_as_its_action_is(data: st.DataObject) -> None:
    dice = Dice(data.draw)
    log = flat_actions(dice, 1 + dice.below(12))
    for action in data.draw(wild_actions(4)):
        log.insert(dice.below(len(log) + 1), msgspec.structs.replace(action, action_id=f"wild-{action.action_id}"))
    stepped_both_ways(log)


def test_most_updates_are_taken_so() -> None:
    log = [make_action(1, operation="create", set={"/a": 0})]
    log += [
        make_action(
            number, before={"/a": number - 2, "/b": 1} if number % 2 else {"/a": number - 2}, set={"/a": number - 1}
        )
        for number in range(2, 40)
    ]
    log = [
        msgspec.structs.replace(action, set=action.set | ({"/b": 1} if "/b" in (action.before or {}) else {}))
        for action in log
    ]
    assert stepped_both_ways(log) > 15


def test_where_the_history_is_too_long_it_is_left() -> None:
    """The oldest entries are to collapse then."""
    log = [make_action(1, operation="create", set={"/a": 1})]
    log += [make_action(number, before={"/a": number - 1}, set={"/a": number}) for number in range(2, 1_110)]
    assert len(log) - 5 < stepped_both_ways(log) < len(log) - 1


def test_a_path_that_is_no_member_is_left_as_it_is() -> None:
    assert path_of(("a/b",)) == "/a~1b"
    log = [make_action(1, before={}, set={"/a~1b": 1}), make_action(2, before={"/a~1b": 1}, set={"/a~1b": 2})]
    assert stepped_both_ways(log) == 0
