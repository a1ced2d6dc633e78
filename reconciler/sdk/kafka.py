"""Settings of the Kafka clients that the SDK makes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from reconciler.wire.partition import PARTITIONER
from reconciler.wire.topics import MAX_DEAD_LETTER_BYTES

client_logger = logging.getLogger("reconciler.sdk.kafka")
"""Where librdkafka's own messages go."""

ClientSetting: TypeAlias = str | int | float | bool

RECONNECT_WITHIN_MS: Final = 1_000
"""librdkafka's own bound is 10 s: too long a silence after a broker that is back."""


@dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    """Where the brokers are and how long to wait for them.

    ``delivery_timeout_s`` bounds the wait for the brokers' acknowledgement of one record (librdkafka looks about once a
    second). ``client`` goes to librdkafka as it is (TLS, SASL, …), below what the SDK's guarantees rest on.
    """

    bootstrap_servers: str
    topic_prefix: str = ""
    delivery_timeout_s: float = 30.0
    client: Mapping[str, ClientSetting] = field(default_factory=dict, repr=False)  # may hold passwords

    def producer(self) -> dict[str, ClientSetting]:
        """librdkafka's settings of a producer that neither loses nor reorders nor repeats by itself."""
        return {
            # Whoever waits for each event gains nothing by waiting for company; under load batches form all the same.
            "linger.ms": 0,
            **self._common(),
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": PARTITIONER,
            # How large a record may be is the topic's word, not the client's.
            "message.max.bytes": MAX_DEAD_LETTER_BYTES,
            "message.timeout.ms": max(1, round(self.delivery_timeout_s * 1000)),
        }

    def consumer(self, group: str, session_timeout_s: float) -> dict[str, ClientSetting]:
        """librdkafka's settings of a consumer whose offsets are committed by hand."""
        return {
            "auto.offset.reset": "earliest",
            **self._common(),
            "group.id": group,
            "session.timeout.ms": round(session_timeout_s * 1000),
            "heartbeat.interval.ms": round(session_timeout_s * 1000 / 5),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # A member that comes or goes takes only the partitions that move away from the others.
            "partition.assignment.strategy": "cooperative-sticky",
            # What a fenced worker wrote after its successor began was aborted: it was never said.
            "isolation.level": "read_committed",
        }

    def _common(self) -> dict[str, ClientSetting]:
        return {
            "reconnect.backoff.max.ms": RECONNECT_WITHIN_MS,
            **self.client,
            "bootstrap.servers": self.bootstrap_servers,
        }
