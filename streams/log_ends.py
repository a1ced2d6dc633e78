"""Where logs end."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.settings import Settings

logger = logging.getLogger(__name__)

_REQUEST_TIMEOUT_S = 10.0

Place = tuple[str, int]
"""A topic and one of its partitions."""


class LogEnds:
    """Asks the brokers where the logs end, by a client of its own: a consumer may be what is being watched."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(settings.client_config())

    def __call__(self, places: Iterable[Place]) -> dict[Place, int]:
        """The end of each log for a reader of committed transactions; without those that can't be had just now."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(topic, partition): latest for topic, partition in places}
        if not asked:
            return {}
        ends: dict[Place, int] = {}
        futures = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_REQUEST_TIMEOUT_S
        )
        for place, future in futures.items():
            try:
                ends[str(place.topic), place.partition] = future.result().offset
            except KafkaException as error:
                logger.debug("the end of %s/%s is not known: %s", place.topic, place.partition, error)
        return ends
