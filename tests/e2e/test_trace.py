"""One trace tells the whole journey of one field, over every topic that it passes: the step, its drift, the correction, the
outcome; and then the rollback that takes the step back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.records import Actor, Command, Outcome, RollbackEvent, RollbackRequest, Selector
from tests.e2e.system import SqliteCrm, System
from tests.support.estate import Estate, Found
from tests.support.waiting import wait_until

WITHIN_S = 120.0
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
REQUESTS = "00-cccccccccccccccccccccccccccccccc-dddddddddddddddd-01"
KEY = "crm/contact/c1"


@pytest.fixture
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    estate = Estate.embedded(request.getfixturevalue("embedded_broker"))
    redis = request.getfixturevalue("embedded_redis")
    whole = System(estate, SqliteCrm(tmp_path / "crm.sqlite"), tmp_path, {"RECONCILER_REDIS_URL": redis.url})
    try:
        yield whole
    finally:
        whole.stop()


def _journey(system: System, topic: str) -> list[tuple[Found, str | None]]:
    """The records of a topic with the trace in the header; what a record says of its trace inside must agree."""
    found = []
    for record in system.estate.read(topic):
        header = record.headers.get("traceparent")
        trace = None if header is None else header.decode()
        inside = getattr(system.estate.codec.decode(record.value), "traceparent", None)
        assert inside in (None, trace), (topic, inside, trace)
        found.append((record, trace))
    return found


def _traces(system: System, topic: str) -> set[str | None]:
    return {trace for _, trace in _journey(system, topic)}


@pytest.mark.timeout(600)
def test_the_journey_of_one_field(system: System) -> None:
    topics = system.estate.topics
    system.service()
    system.worker()
    system.crm.execute("INSERT INTO contact (id, phone) VALUES ('c1', '0')")
    with (
        system.producer() as producer,
        producer.action(KEY, "update", run_id="run-1", step_id="call", traceparent=TRACE) as action,
    ):
        action.before({"/phone": "0"})
        system.crm.execute("UPDATE contact SET phone = '1' WHERE id = 'c1'")
        action.set("/phone", "1")
    assert _traces(system, topics.actions) == {TRACE}

    system.crm.execute("UPDATE contact SET phone = '9' WHERE id = 'c1'")
    wait_until(lambda: system.crm.contacts()["c1"]["phone"] == "1", deadline_s=WITHIN_S, what="the phone is put right")
    wait_until(
        lambda: len(_journey(system, topics.drift)) >= 2, deadline_s=WITHIN_S, what="the drift has opened and closed"
    )
    # The drift may be seen to be gone before it is told what became of the command.
    wait_until(lambda: _journey(system, topics.outcomes), deadline_s=WITHIN_S, what="the command has its outcome")
    for topic in (topics.drift, topics.reversal("crm"), topics.outcomes):
        assert _traces(system, topic) == {TRACE}, topic

    request = RollbackRequest(
        rollback_id="rb-1",
        select=Selector(run_id="run-1"),
        reason="A mistake.",
        requested_by=Actor(id="ana@example.com", kind="user"),
        mode="execute",
        traceparent=REQUESTS,
    )
    value = system.estate.codec.encode(topics.rollback_requests, request)
    system.estate.send(topics.rollback_requests, b"rb-1", value)
    system.estate.flush()
    wait_until(lambda: system.crm.contacts()["c1"]["phone"] == "0", deadline_s=WITHIN_S, what="the run is undone")

    def ended() -> bool:
        events = [system.estate.codec.decode(found.value) for found in system.estate.read(topics.rollback_events)]
        return any(isinstance(event, RollbackEvent) and event.status == "completed" for event in events)

    wait_until(ended, deadline_s=WITHIN_S, what="the rollback is completed")
    for topic in (
        topics.rollback_events,
        topics.undo_steps,
        topics.step_reports,
        topics.gather_queries,
        topics.gathered,
    ):
        assert _traces(system, topic) == {REQUESTS}, topic
    commands = {
        record.command_id: record.traceparent
        for found, _ in _journey(system, topics.reversal("crm"))
        if isinstance(record := system.estate.codec.decode(found.value), Command) and record.rollback_id == "rb-1"
    }
    assert set(commands.values()) == {REQUESTS}
    outcomes = {
        record.traceparent
        for found, _ in _journey(system, topics.outcomes)
        if isinstance(record := system.estate.codec.decode(found.value), Outcome) and record.command_id in commands
    }
    assert outcomes == {REQUESTS}
    # The ledger says in which trace the step was made and in which it was taken back.
    assert _traces(system, topics.actions) == {TRACE, REQUESTS}
