"""The main job as a user runs it, in processes of their own: on the embedded broker with SQLite, and on a real Apache Kafka
with a real Redis and a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.records import DriftEvent, Outcome
from tests.e2e.system import PostgresqlCrm, SqliteCrm, System
from tests.support.estate import Estate
from tests.support.waiting import wait_until

WITHIN_S = 120.0


@pytest.fixture(params=["embedded", "real"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    if request.param == "embedded":
        broker = request.getfixturevalue("embedded_broker")
        redis = request.getfixturevalue("embedded_redis")
        whole = System(
            Estate.embedded(broker), SqliteCrm(tmp_path / "crm.sqlite"), tmp_path, {"RECONCILER_REDIS_URL": redis.url}
        )
    else:
        whole = _real(request, tmp_path)
    try:
        yield whole
    finally:
        whole.stop()


def _real(request: pytest.FixtureRequest, folder: Path) -> System:
    kafka = request.getfixturevalue("kafka")
    redis = request.getfixturevalue("redis_server")
    crm = PostgresqlCrm(request.getfixturevalue("postgresql_dsn"))
    return System(Estate.real(kafka.bootstrap), crm, folder, {"RECONCILER_REDIS_URL": redis.url})


def _intake(system: System, contacts: int) -> dict[str, dict[str, Any]]:
    """A workflow makes contacts and tells so."""
    made = {}
    with system.producer() as producer:
        for number in range(contacts):
            fields = {"name": f"n{number}", "email": f"e{number}@example.com", "phone": f"{1000 + number}"}
            with producer.action(
                f"crm/contact/c{number}", "create", run_id=f"run-{number}", step_id="create"
            ) as action:
                names, values = ", ".join(fields), ", ".join(f"'{value}'" for value in fields.values())
                system.crm.execute(f"INSERT INTO contact (id, {names}) VALUES ('c{number}', {values})")
                for name, value in fields.items():
                    action.set(f"/{name}", value)
            made[f"c{number}"] = {**fields, "note": None}
    return made


@pytest.mark.timeout(600)
def test_drift_is_put_right_and_nothing_else_is_touched(system: System) -> None:
    system.service()
    system.worker()
    made = _intake(system, 6)
    system.crm.execute("UPDATE contact SET phone = 'none' WHERE id = 'c1'")
    system.crm.execute("UPDATE contact SET email = NULL, note = 'theirs' WHERE id = 'c2'")
    system.crm.execute("DELETE FROM contact WHERE id = 'c3'")
    system.crm.execute("UPDATE contact SET name = 'reported only' WHERE id = 'c4'")
    system.crm.execute("UPDATE contact SET phone = '10-05' WHERE id = 'c5'")
    made["c2"]["note"] = "theirs"
    made["c4"]["name"] = "reported only"
    made["c5"]["phone"] = "10-05"
    wait_until(lambda: system.crm.contacts() == made, deadline_s=WITHIN_S, what="the CRM is as it should be")

    def reported() -> dict[str, DriftEvent]:
        return {event.resource: event for event in _records(system, system.estate.topics.drift, DriftEvent)}

    def told(*, is_closed: bool) -> set[str]:
        return {resource for resource, event in reported().items() if (event.status == "closed") == is_closed}

    wait_until(
        lambda: (
            told(is_closed=True) == {f"crm/contact/c{number}" for number in (1, 2, 3)}
            and told(is_closed=False) == {"crm/contact/c4"}
        ),
        deadline_s=WITHIN_S,
        what="what was put right is closed, and what is only reported is open",
    )
    open_drift = [event for event in reported().values() if event.status != "closed"]
    assert [(event.resource, event.changes[0].path) for event in open_drift] == [("crm/contact/c4", "/name")]
    assert {outcome.status for outcome in _records(system, system.estate.topics.outcomes, Outcome)} == {"applied"}
    assert not system.estate.read(system.estate.topics.dead_letters)
    assert system.crm.contacts() == made
    _decide_what_was_reported(system, made)


def _decide_what_was_reported(system: System, made: dict[str, dict[str, Any]]) -> None:
    """A person sees the drift on the command line, and has it put right."""
    (listed,) = [json.loads(line) for line in system.command("drift", "list", "--json").splitlines()]
    assert (listed["resource"], listed["changes"][0]["path"]) == ("crm/contact/c4", "/name")
    system.command("drift", "decide", "crm/contact/c4", "--take", "expected", "--by", "ana@example.com")
    made["c4"]["name"] = "n4"
    wait_until(lambda: system.crm.contacts() == made, deadline_s=WITHIN_S, what="the decision is carried out")
    wait_until(lambda: not system.command("drift", "list", "--json"), deadline_s=WITHIN_S, what="no drift is open")


def _records(system: System, topic: str, kind: type[Any]) -> list[Any]:
    found = [system.estate.codec.decode(record.value) for record in system.estate.read(topic)]
    return [record for record in found if isinstance(record, kind)]
