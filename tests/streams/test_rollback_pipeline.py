"""The second pipeline: a table keyed by rollbacks, fed by requests, answers, reports and timers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.machines.protocol import Effect, EmitRollback, HistoryReader
from reconciler.records import Gathered, Record, RollbackEvent, RollbackRequest, StepReport, Timer
from reconciler.values.errors import InputError
from reconciler.wire.codec import Codec
from reconciler.wire.topics import TopicNames
from streams.runner.pipeline import check_rollback_id, rollback_pipeline
from tests.support.batches import NOW_MS, Bench, Raw

NOW = NOW_MS * 1000
TOPICS = TopicNames()
CODEC = Codec.packaged()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Seen(msgspec.Struct, frozen=True):
    """The kinds of what came."""

    kinds: tuple[str, ...] = ()


class Recorder:
    """Implements `Machine`: remembers what came, and answers a request with an event."""

    def initial(self, key: str) -> Seen:
        return Seen()

    def decode(self, key: str, value: bytes) -> Seen:
        return msgspec.json.decode(value, type=Seen)

    def encode(self, state: object) -> bytes:
        return msgspec.json.encode(state)

    def due_at(self, state: object) -> int | None:
        return None

    def step(self, state: object, event: Any, now: int, history: HistoryReader) -> tuple[object, tuple[Effect, ...]]:
        assert isinstance(state, Seen)
        effects: tuple[Effect, ...] = ()
        if isinstance(event, RollbackRequest):
            told = RollbackEvent(event_id="e", rollback_id=event.rollback_id, status="gathering", occurred_at=now)
            effects = (EmitRollback(told),)
        return Seen((*state.kinds, type(event).__name__)), effects


def bench() -> Bench:
    return Bench(Recorder(), pipeline_of=rollback_pipeline)


def raw(topic: str, record: Record, key: str = "rb-7") -> Raw:
    return Raw(0, key.encode(), CODEC.encode(topic, record), NOW_MS)


REQUEST = RollbackRequest(rollback_id="rb-7", requested_at=NOW, traceparent=TRACE)
INPUTS: list[tuple[str, Record]] = [
    (TOPICS.rollback_requests, REQUEST),
    (TOPICS.gathered, Gathered(rollback_id="rb-7", round=1, partition=0, occurred_at=NOW)),
    (
        TOPICS.step_reports,
        StepReport(
            report_id="p", rollback_id="rb-7", step_id="s", resource="crm/contact/1", status="sent", occurred_at=NOW
        ),
    ),
    (TOPICS.rollback_timers, Timer(resource="rb-7", due_at=NOW)),
]


def test_all_inputs_reach_the_state_of_their_rollback() -> None:
    there = bench()
    for topic, record in INPUTS:
        batch = there.run([raw(topic, record)], topic)
        assert batch.counts.folded == 1
    state = there.table.peek(b"rb-7")
    assert state == Seen(("RollbackRequest", "Gathered", "StepReport", "Timer"))


def test_an_event_is_a_part_of_the_trace_of_its_request() -> None:
    there = bench()
    (sent,) = there.run([raw(TOPICS.rollback_requests, REQUEST)], TOPICS.rollback_requests).effects
    assert (sent.topic, sent.key) == (TOPICS.rollback_events, b"rb-7")
    assert dict(sent.headers)["traceparent"] == TRACE.encode()


@pytest.mark.parametrize("key", ["", "rb/7", "rb 7", "rb\n7", "rb\0007", "r" * 201])
def test_what_can_not_name_a_rollback_is_put_aside(key: str) -> None:
    there = bench()
    record = msgspec.structs.replace(REQUEST, rollback_id=key)
    batch = there.run([raw(TOPICS.rollback_requests, record, key)], TOPICS.rollback_requests)
    assert batch.counts.dead_letters == {"key": 1}
    with pytest.raises(InputError, match="the rollback's id"):
        check_rollback_id(key)


def test_a_record_of_another_rollback_than_its_key_is_put_aside() -> None:
    there = bench()
    batch = there.run([raw(TOPICS.rollback_requests, REQUEST, "rb-8")], TOPICS.rollback_requests)
    assert batch.counts.dead_letters == {"key": 1}


def test_another_kind_of_record_is_put_aside() -> None:
    there = bench()
    batch = there.run([raw(TOPICS.gathered, REQUEST)], TOPICS.gathered)
    assert batch.counts.dead_letters == {"kind": 1}


def test_its_topics_are_its_own() -> None:
    pipeline = rollback_pipeline(Recorder(), TOPICS)
    assert {TOPICS.rollbacks, TOPICS.rollback_history, TOPICS.rollback_timers, TOPICS.gather_queries} <= set(
        pipeline.partitioned_topics
    )
    assert {TOPICS.rollback_events, TOPICS.undo_steps, TOPICS.dead_letters} <= set(pipeline.required_topics)
    assert TOPICS.expected not in pipeline.required_topics
