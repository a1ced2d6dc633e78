"""Others read what we write and we read what others write: confluent-kafka's own Avro (de)serialiser, over real Kafka."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from reconciler.records import Action, Outcome
from reconciler.wire.codec import Codec, subject_of
from reconciler.wire.partition import PARTITIONER, partition_of
from reconciler.wire.registry import Registry
from reconciler.wire.schema_folder import packaged_folder
from reconciler.wire.topics import TopicNames
from streams.topics import Cluster
from tests.support.kafka import KafkaBroker
from tests.support.registry import SchemaRegistry
from tests.support.waiting import wait_until
from tests.wire.strategies import full_action

FOLDER = packaged_folder()
PARTITIONS = 3
ACTION = full_action()


@pytest.fixture
def names(registry: SchemaRegistry) -> TopicNames:
    """Registered topics of this test alone."""
    names = TopicNames(f"{uuid.uuid4().hex[:8]}.")
    for topic, schema in ((names.actions, "action"), (names.outcomes, "outcome")):
        Registry(registry.url).register(subject_of(topic), FOLDER.versions[schema])
    return names


def context(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


def test_confluents_deserialiser_reads_what_we_write(registry: SchemaRegistry, names: TopicNames) -> None:
    read = AvroDeserializer(SchemaRegistryClient({"url": registry.url}))
    codec = Codec.with_registry(registry.url)
    action: Any = read(codec.encode(names.actions, ACTION), context(names.actions))
    assert action["stage"] == "succeeded"
    assert action["occurred_at"] == datetime(2026, 6, 1, tzinfo=UTC)
    assert json.loads(action["before"]) == {"/phone": "1", "/fax": 9.5}
    assert action["set"] == '{"/phone":null}'
    assert action["actor"] == {"id": "ana@example.com", "kind": "user"}
    outcome = Outcome(
        command_id="c", resource="crm/contact/42", status="transient", occurred_at=ACTION.occurred_at, retry_after_s=2.5
    )
    asked: Any = read(codec.encode(names.outcomes, outcome), context(names.outcomes))
    assert asked["retry_after_s"] == Decimal("2.500000")
    assert asked["observed"] is None


def test_we_read_what_confluents_serialiser_writes(registry: SchemaRegistry, names: TopicNames) -> None:
    write = AvroSerializer(
        SchemaRegistryClient({"url": registry.url}),
        FOLDER.latest("action").text,
        conf={"auto.register.schemas": False},
    )
    sent: dict[str, Any] = {
        field["name"]: None for field in FOLDER.latest("action").schema["fields"] if "null" in field["type"]
    }
    sent |= {
        "operation_id": "",
        "action_id": "",
        "stage": "succeeded",
        "operation": "update",
        "resource": "crm/contact/42",
        "occurred_at": datetime(2026, 6, 1, tzinfo=UTC),
        "set": '{ "/phone" : "é" }',
        "unset": [],
        "run_id": "run-7",
        "step_id": "update",
        "sequence": 3,
        "depends_on": [],
        "workflow_id": "",
        "workflow_version": "",
        "rule": "",
    }
    payload = write(sent, context(names.actions))
    assert payload is not None
    read = Codec.with_registry(registry.url).decode(payload)
    assert isinstance(read, Action)
    assert read.operation_id == "run-7/update"
    assert read.set == {"/phone": "é"}
    assert read.occurred_at == ACTION.occurred_at


def test_records_travel_over_kafka(kafka: KafkaBroker, registry: SchemaRegistry, names: TopicNames) -> None:
    config = {"bootstrap.servers": kafka.bootstrap, "log_level": 0}
    cluster = Cluster(config)
    specs = [spec for spec in names.specs() if spec.name == names.actions]
    cluster.create(cluster.wanted(specs, partitions=PARTITIONS, replication_factor=None))
    codec = Codec.with_registry(registry.url)
    actions = [msgspec.structs.replace(ACTION, resource=f"crm/contact/{n}", sequence=n) for n in range(30)]
    producer = Producer({**config, "partitioner": PARTITIONER})
    for action in actions:
        producer.produce(names.actions, key=action.resource.encode(), value=codec.encode(names.actions, action))
    assert producer.flush(30) == 0
    consumer = Consumer({**config, "group.id": names.prefix, "auto.offset.reset": "earliest"})
    consumer.subscribe([names.actions])
    found: list[Action] = []

    def all_found() -> bool:
        for message in consumer.consume(50, timeout=1.0):
            assert message.error() is None
            record = Codec.with_registry(registry.url).decode(message.value())
            assert isinstance(record, Action)
            key = message.key()
            assert isinstance(key, bytes)
            assert (key, message.partition()) == (record.resource.encode(), partition_of(key, PARTITIONS))
            found.append(record)
        return len(found) >= len(actions)

    try:
        wait_until(all_found, deadline_s=60, what="all records")
    finally:
        consumer.close()
    assert sorted(found, key=lambda action: action.sequence) == actions
