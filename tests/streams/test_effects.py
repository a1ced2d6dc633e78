"""Effects as records: where each goes, under which key, with which id and trace."""

from __future__ import annotations

import msgspec
import pytest

from reconciler.machines.protocol import (
    AppendHistory,
    Effect,
    EmitAction,
    EmitCommand,
    EmitDrift,
    EmitQuery,
    EmitReport,
    EmitRollback,
    EmitUndoStep,
)
from reconciler.records import Action, Command, DriftEvent, GatherQuery, Record, RollbackEvent, StepReport, UndoStep
from reconciler.wire.codec import MAX_RECORD_BYTES, Codec
from reconciler.wire.errors import EncodedTooLargeError
from reconciler.wire.topics import TopicNames
from streams.runner.effects import TopicEffects
from streams.store.producer import ANY_PARTITION
from tests.support.estate import action

NOW = 1_780_000_000_000_000
CAUSE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OWN = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"
CODEC = Codec.packaged()
TOPICS = TopicNames()
EFFECTS = TopicEffects(CODEC, TOPICS, lambda topic: True)

KEY = "crm/contact/1"
ACTION = action(KEY, "a1", stage="reversed", traceparent=OWN)
REPORT = StepReport(
    report_id="p1",
    rollback_id="rb",
    step_id="s1",
    resource=KEY,
    status="sent",
    occurred_at=NOW,
    traceparent=OWN,
)
QUERY = GatherQuery(rollback_id="rb", round=2, partition=7, occurred_at=NOW)
STEP = UndoStep(step_id="s1", rollback_id="rb", resource=KEY, occurred_at=NOW, traceparent=OWN)
EVENT = RollbackEvent(event_id="e1", rollback_id="rb", status="executable", occurred_at=NOW, traceparent=OWN)


@pytest.mark.parametrize(
    ("effect", "record", "topic", "key", "partition", "effect_id"),
    [
        (EmitAction(ACTION), ACTION, TOPICS.actions, KEY, 3, "a1"),
        (EmitReport(REPORT), REPORT, TOPICS.step_reports, "rb", ANY_PARTITION, "p1"),
        (EmitUndoStep(STEP), STEP, TOPICS.undo_steps, KEY, ANY_PARTITION, f"s1/undo/{NOW}"),
        (EmitRollback(EVENT), EVENT, TOPICS.rollback_events, "rb", ANY_PARTITION, "e1"),
    ],
)
def test_an_effect_goes_to_its_topic_with_its_own_trace(
    effect: Effect, record: Record, topic: str, key: str, partition: int, effect_id: str
) -> None:
    sent = EFFECTS.write(effect, 3, 1, NOW, CAUSE)
    assert (sent.topic, sent.key, sent.partition) == (topic, key.encode(), partition)
    assert dict(sent.headers) == {"effect-id": effect_id.encode(), "traceparent": OWN.encode()}
    assert CODEC.decode(sent.value) == record


def test_a_query_goes_into_the_partition_that_it_asks_under_the_trace_of_its_cause() -> None:
    sent = EFFECTS.write(EmitQuery(QUERY), 3, 1, NOW, CAUSE)
    assert (sent.topic, sent.key, sent.partition) == (TOPICS.gather_queries, b"rb", 7)
    assert dict(sent.headers) == {"effect-id": b"rb/2/7", "traceparent": CAUSE.encode()}
    assert CODEC.decode(sent.value) == QUERY


def test_a_record_without_a_trace_has_that_of_its_cause_or_none() -> None:
    plain = Action(
        stage="reversed", run_id="rb", step_id="undo", occurred_at=NOW, resource=KEY, operation="update", action_id="a"
    )
    assert dict(EFFECTS.write(EmitAction(plain), 0, 1, NOW, CAUSE).headers)["traceparent"] == CAUSE.encode()
    assert "traceparent" not in dict(EFFECTS.write(EmitAction(plain), 0, 1, NOW, None).headers)


def test_a_command_carries_its_trace_inside_too() -> None:
    for own, trace in ((None, CAUSE), ("nonsense", CAUSE), (OWN, OWN)):
        command = Command(command_id="c1", resource=KEY, action="patch", traceparent=own)
        sent = EFFECTS.write(EmitCommand(command), 3, 7, NOW, CAUSE)
        assert dict(sent.headers)["traceparent"] == trace.encode()
        assert CODEC.decode(sent.value) == msgspec.structs.replace(command, epoch=7, traceparent=trace)


def test_drift_is_told_in_the_trace_of_the_step_that_wrote_the_field() -> None:
    event = DriftEvent(
        drift_id="d1", resource=KEY, status="opened", verdict="drifted", occurred_at=NOW, traceparent=OWN
    )
    sent = EFFECTS.write(EmitDrift(event), 3, 1, NOW, CAUSE)
    assert dict(sent.headers)["traceparent"] == OWN.encode()
    assert CODEC.decode(sent.value) == event


@pytest.mark.parametrize(
    "effect",
    [
        EmitAction(msgspec.structs.replace(ACTION, traceparent="nonsense")),
        EmitReport(msgspec.structs.replace(REPORT, traceparent="nonsense")),
        EmitUndoStep(msgspec.structs.replace(STEP, traceparent="nonsense")),
        EmitRollback(msgspec.structs.replace(EVENT, traceparent="nonsense")),
    ],
)
def test_a_malformed_trace_is_never_passed_on(effect: Effect) -> None:
    assert dict(EFFECTS.write(effect, 3, 1, NOW, CAUSE).headers)["traceparent"] == CAUSE.encode()
    assert "traceparent" not in dict(EFFECTS.write(effect, 3, 1, NOW, None).headers)


def test_an_event_whose_plan_is_too_large_goes_without_it() -> None:
    large = RollbackEvent(
        event_id="e1",
        rollback_id="rb",
        status="executable",
        occurred_at=NOW,
        story="What would be done.",
        plan={"waves": ["x" * MAX_RECORD_BYTES]},
    )
    sent = CODEC.decode(EFFECTS.write(EmitRollback(large), 0, 1, NOW, None).value)
    assert isinstance(sent, RollbackEvent)
    assert (sent.plan, sent.story) == (None, "What would be done.")


def test_a_story_too_long_for_a_record_is_cut_and_says_so() -> None:
    large = RollbackEvent(
        event_id="e1", rollback_id="rb", status="executable", occurred_at=NOW, story="é" * MAX_RECORD_BYTES
    )
    sent = CODEC.decode(EFFECTS.write(EmitRollback(large), 0, 1, NOW, None).value)
    assert isinstance(sent, RollbackEvent)
    assert sent.story.endswith("The story goes on; it is too long for one message.")


def test_what_can_not_be_shortened_is_an_error() -> None:
    large = RollbackEvent(
        event_id="e1", rollback_id="rb", status="halted", occurred_at=NOW, error="x" * MAX_RECORD_BYTES
    )
    with pytest.raises(EncodedTooLargeError):
        EFFECTS.write(EmitRollback(large), 0, 1, NOW, None)


def test_an_effect_that_nobody_writes_is_an_error() -> None:
    with pytest.raises(TypeError, match="AppendHistory"):
        EFFECTS.write(AppendHistory("a", b"{}"), 0, 1, NOW, None)
