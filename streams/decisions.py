"""Sending a person's decisions to the resource machine."""

from __future__ import annotations

import time
import uuid
from typing import Literal

from confluent_kafka import KafkaError, Message, Producer

from reconciler.records import Actor, Decision
from reconciler.values.errors import ReconcilerError
from reconciler.wire.codec import Codec
from reconciler.wire.partition import PARTITIONER
from reconciler.wire.topics import TopicNames
from streams.settings import Settings

Verb = Literal["hold", "release", "adopt", "expected"]

_DELIVERY_S = 15.0


class DecisionNotDelivered(ReconcilerError):
    """The brokers did not take a decision."""


def decide(
    settings: Settings,
    codec: Codec,
    resource: str,
    verb: Verb,
    decided_by: str,
    *,
    path: str | None = None,
    version_seen: str | None = None,
    reason: str = "",
) -> Decision:
    """Sends a decision, and returns it once the brokers have acknowledged it. Raises DecisionNotDelivered."""
    decision = Decision(
        decision_id=str(uuid.uuid4()),
        resource=resource,
        verb=verb,
        path=path,
        version_seen=version_seen,
        decided_by=Actor(id=decided_by, kind="user"),
        reason=reason,
        occurred_at=time.time_ns() // 1_000,
    )
    topic = TopicNames(settings.topic_prefix).decisions
    failures: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer({**settings.client_config(), "partitioner": PARTITIONER, "acks": "all"})
    producer.produce(topic, codec.encode(topic, decision), resource.encode(), on_delivery=delivered)
    if producer.flush(_DELIVERY_S) or failures:
        why = failures[0] if failures else "no answer in time"
        raise DecisionNotDelivered(f"the brokers did not take the decision ({why}); check them and decide again")
    return decision
