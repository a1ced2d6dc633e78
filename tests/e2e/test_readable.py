"""Every topic as Kafka UI reads it: with nothing of ours, a string for the key, and the registry's schema for the value.

`docker-compose.yml` sets its serdes so (DEFAULTKEYSERDE=String, DEFAULTVALUESERDE=SchemaRegistry): a record is shown as rubbish if
its value isn't the wire format with an id that the registry knows for `<topic>-value`, or a header is no text.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient

from reconciler.records import Action, Command, Decision, DriftEvent, Observation, Outcome, UndoStep
from tests.e2e.system import PostgresqlCrm, System
from tests.support.estate import SYSTEM, Estate, Found
from tests.support.kafka import KafkaBroker
from tests.support.redis_server import RedisServer
from tests.support.registry import SchemaRegistry
from tests.support.waiting import wait_until

WITHIN_S = 120.0
NONSENSE = b"no record at all"


@pytest.fixture
def system(
    kafka: KafkaBroker, registry: SchemaRegistry, redis_server: RedisServer, postgresql_dsn: str, tmp_path: Path
) -> Iterator[System]:
    estate = Estate.real(kafka.bootstrap, 3)
    environment = {"RECONCILER_REDIS_URL": redis_server.url, "RECONCILER_REGISTRY_URL": registry.url}
    contract = "service: {ack_within_s: 1}\nretry: {first_s: 0.5}\n"
    whole = System(estate, PostgresqlCrm(postgresql_dsn), tmp_path, environment, contract=contract)
    try:
        yield whole
    finally:
        whole.stop()


class Viewer:
    """Reads values by the registry alone, as Kafka UI's serde does."""

    def __init__(self, url: str) -> None:
        self._client = SchemaRegistryClient({"url": url})
        self._schemas: dict[tuple[str, int], Any] = {}

    def value(self, topic: str, value: bytes) -> Any:
        assert value[0] == 0
        schema_id = int.from_bytes(value[1:5], "big")
        if (topic, schema_id) not in self._schemas:
            versions = [
                self._client.get_version(f"{topic}-value", version)
                for version in self._client.get_versions(f"{topic}-value")
            ]
            assert schema_id in {version.schema_id for version in versions}, "the id belongs to another subject"
            text = self._client.get_schema(schema_id).schema_str
            self._schemas[topic, schema_id] = fastavro.parse_schema(json.loads(text or ""))
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schemas[topic, schema_id])


@pytest.mark.timeout(600)
def test_every_topic_is_readable_with_a_registry_alone(
    system: System, registry: SchemaRegistry, tmp_path: Path
) -> None:
    estate, names = system.estate, system.estate.topics
    system.command("schemas", "register")
    system.worker()
    _let_everything_happen(system, tmp_path)
    viewer = Viewer(registry.url)
    seen: set[str] = set()
    for spec in names.specs((SYSTEM,)):
        for found in estate.read(spec.name):
            seen.add(spec.name)
            _check_text(found)
            if spec.record is None or found.value == NONSENSE:
                continue
            if found.value is None:  # the tombstone of a compacted topic
                assert "compact" in spec.cleanup
                continue
            record = viewer.value(spec.name, found.value)
            if spec.record in (Action, Observation, DriftEvent, Command, Outcome, UndoStep, Decision):
                assert record["resource"].encode() == found.key
    # The timers of rollbacks are for what doesn't come in time, and everything did.
    assert seen | {names.rollback_timers} == {spec.name for spec in names.specs((SYSTEM,))}


def _let_everything_happen(system: System, folder: Path) -> None:
    estate, names = system.estate, system.estate.topics
    actions = [
        _action(f"c{number}", f"create-{number}", "create", {"/name": f"n{number}", "/phone": f"{1000 + number}"})
        for number in range(4)
    ]
    actions.append(_action("c0", "", "update", {"/name": "n0"}, stage="initiated"))
    actions.append({**_action("c3", "", "update", {"/phone": "2"}), "run_id": "run-2", "before": {"/phone": "1003"}})
    for number in range(4):
        system.crm.execute(
            f"INSERT INTO contact (id, name, phone) VALUES ('c{number}', 'n{number}', '{1000 + number}')"
        )
    system.crm.execute("UPDATE contact SET phone = '2' WHERE id = 'c3'")
    file = folder / "actions.jsonl"
    file.write_text("".join(json.dumps(action) + "\n" for action in actions))
    system.command("actions", "send", str(file))
    wait_until(lambda: len(estate.read(names.observations)) >= 4, deadline_s=WITHIN_S, what="all is sampled")
    # Drift, a command, a timer for the outcome that doesn't come in time, the command again, and its outcome.
    system.crm.execute("UPDATE contact SET phone = 'none' WHERE id = 'c1'")
    wait_until(lambda: bool(estate.read(names.timers)), deadline_s=WITHIN_S, what="an outcome is missed")
    system.service()
    wait_until(lambda: bool(estate.read(names.outcomes)), deadline_s=WITHIN_S, what="a command has its outcome")
    # An alert: the same action_id with another content. A decision. A record that is none.
    file.write_text(json.dumps(_action("c2", "create-2", "create", {"/name": "another"})) + "\n")
    system.command("actions", "send", str(file))
    system.command("holds", "place", "crm/contact/c2", "--reason", "it is looked at")
    estate.send(names.actions, b"crm/contact/c1", NONSENSE, headers=[("traceparent", "00-ä".encode())])
    estate.flush()
    # A rollback, carried out: what its two machines say to each other is on topics too.
    system.command("rollback", "request", "--run", "run-2", "--execute", "--id", "undo-run-2")
    system.command("rollback", "watch", "undo-run-2", "--until-done", "--timeout", str(WITHIN_S))
    for topic in (names.alerts, names.dead_letters):
        wait_until(partial(estate.read, topic), deadline_s=WITHIN_S, what=f"{topic} holds a record")


def _action(contact: str, action_id: str, operation: str, set_: dict[str, str], stage: str = "succeeded") -> Any:
    return {
        "stage": stage,
        "action_id": action_id,
        "run_id": "run-1",
        "step_id": f"{operation}-{contact}",
        "occurred_at": "2026-05-03T10:00:00Z",
        "resource": f"crm/contact/{contact}",
        "operation": operation,
        "set": {} if stage == "initiated" else set_,
    }


def _check_text(found: Found) -> None:
    assert found.key is not None
    found.key.decode()
    names = [name for name, _ in found.raw_headers]
    assert len(names) == len(set(names)), "a name with two values: Kafka UI shows one"
    for _, value in found.raw_headers:
        value.decode()
