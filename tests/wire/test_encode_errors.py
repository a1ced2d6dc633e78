"""A record that can't be written is refused in words, with its field, before a byte of it leaves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.records import Alert, Change, Command, Observation, Outcome, Record, RollbackEvent, Timer
from reconciler.wire.changelog import ExpectedHead, HistoryEntry, SourceOffset
from reconciler.wire.codec import MAX_RECORD_BYTES, Codec
from reconciler.wire.errors import EncodeError
from tests.wire.strategies import full_action

CODEC = Codec.packaged()
ACTION = full_action()
KEY = "crm/contact/42"
COMMAND = Command(command_id="c", resource=KEY, action="patch")
OUTCOME = Outcome(command_id="c", resource=KEY, status="applied", occurred_at=0)
HEAD = ExpectedHead(table="t", resource=KEY, machine_version=1, state=b"{}")
ENTRY = HistoryEntry(table="t", resource=KEY, entry_id="e", machine_version=1, entry=b"{}")
EVENT = RollbackEvent(event_id="e", rollback_id="r", status="halted", occurred_at=0)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        (ACTION, {"set": {"/a": float("nan")}}, "set: nan is no JSON number"),
        (ACTION, {"set": {"/a": [{"b": float("inf")}]}}, "set: inf is no JSON number"),
        (ACTION, {"set": {"/a": 2**64}}, "set: is no JSON value"),
        (ACTION, {"set": {"/a": object()}}, "set: is no JSON value"),
        (ACTION, {"set": {"/a": "\ud800"}}, "set: is no JSON value"),
        (ACTION, {"before": {"/a": deep(101)}}, "before: is nested more than 100 levels deep"),
        (ACTION, {"set": {"a": 1}}, "set: the path 'a' must be empty or begin with '/'"),
        (ACTION, {"set": {"/fax": 1}}, "unset: '/fax' is in both `set` and `unset`"),
        (ACTION, {"stage": "paused"}, "stage: 'paused' is none of failed, initiated, reversed, succeeded"),
        (ACTION, {"stage": "unrecognised"}, "stage: 'unrecognised' is none of"),
        (ACTION, {"resource": "contact"}, "resource: the resource 'contact' must be system/type/id"),
        (ACTION, {"rule": "\ud800"}, "rule: has a lone surrogate"),
        (ACTION, {"rule": None}, "rule: must be a text, not NoneType"),
        (ACTION, {"rule": 5}, "rule: must be a text, not int"),
        (ACTION, {"sequence": 2**63}, "sequence: must be a whole number of 64 bits"),
        (ACTION, {"sequence": True}, "sequence: must be a whole number of 64 bits, not True"),
        (ACTION, {"occurred_at": None}, "occurred_at"),
        (ACTION, {"depends_on": "run-7/create"}, "depends_on: must be a list, not str"),
        (ACTION, {"depends_on": ["a", 5]}, "depends_on[1]: must be a text, not int"),
        (ACTION, {"set": {"/a": "x" * MAX_RECORD_BYTES}}, "more than the limit of 1048576"),
        (COMMAND, {"attempt": 2**31}, "attempt: must be a whole number of 32 bits"),
        (COMMAND, {"expect_exists": 1}, "expect_exists: must be true or false, not int"),
        (COMMAND, {"changes": [Change(path="a", op="set")]}, "changes[0].path: the path 'a' must be empty or begin"),
        (COMMAND, {"changes": [Change(path="/a", op="set", expect={1: 2})]}, "changes[0].expect: is no JSON value"),
        (
            COMMAND,
            {"changes": [Timer(resource=KEY, due_at=0)]},
            "changes[0]: must be a record of kind Change, not Timer",
        ),
        (OUTCOME, {"retry_after_s": float("inf")}, "retry_after_s: inf is no number of 18 digits"),
        (OUTCOME, {"retry_after_s": 1e12}, "retry_after_s: 1000000000000.0 is no number of 18 digits"),
        (OUTCOME, {"observed": Observation(resource="x", exists=None)}, "observed.resource: the resource 'x' must be"),
        (EVENT, {"counts": {"applied": 1.5}}, "counts: must be a whole number of 64 bits, not 1.5"),
        (EVENT, {"counts": []}, "counts: must be a mapping, not list"),
        (EVENT, {"plan": []}, "plan: must be a JSON object"),
        (HEAD, {"epoch": 2**63}, "the integer 9223372036854775808 is beyond 64 bits"),
        (HEAD, {"table": "\ud800"}, "has a lone surrogate"),
        (HEAD, {"sources": [SourceOffset(topic="t", partition=0, offset=-(2**63) - 1)]}, "is beyond 64 bits"),
        (ENTRY, {"entry_id": "\udfff"}, "has a lone surrogate"),
    ],
)
def test_refused_in_words(record: Record, change: dict[str, Any], message: str) -> None:
    with pytest.raises(EncodeError) as caught:
        CODEC.encode("any", msgspec.structs.replace(record, **change))
    assert message in str(caught.value)


def test_what_does_not_travel_is_refused() -> None:
    with pytest.raises(EncodeError, match="Change is no record that travels on a topic"):
        CODEC.encode("any", Change(path="/a", op="set"))


def test_ids_that_are_left_out_are_filled_in_before_they_travel() -> None:
    bare = msgspec.structs.replace(ACTION, operation_id="", action_id="")
    decoded = CODEC.decode(CODEC.encode("any", bare))
    assert decoded == CODEC.decode(CODEC.encode("any", decoded))
    assert getattr(decoded, "operation_id") == "run-7/update"  # noqa: B009
    assert len(getattr(decoded, "action_id")) == 32  # noqa: B009


def test_the_good_ones_pass() -> None:
    alert = Alert(alert_id="a", subject="s", kind="k", message="m", occurred_at=0)
    for record in (ACTION, COMMAND, OUTCOME, EVENT, HEAD, ENTRY, alert):
        assert CODEC.decode(CODEC.encode("any", record)) == record
