"""Reading changelog topics in bulk: many partitions at once, committed transactions only, up to their ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.settings import Settings

logger = logging.getLogger(__name__)

_POLL_RECORDS = 20_000
_POLL_S = 0.1
_WATERMARK_TIMEOUT_S = 20.0
_LEADER_MOVES = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})


class RecoveryAborted(Exception):
    """A rebalance has begun: what is being read may no longer be ours."""


class RecoveryStalled(Exception):
    """The changelog's end isn't reached, and nothing comes."""

    def __init__(self, message: str, partitions: frozenset[int]) -> None:
        super().__init__(message)
        self.partitions = partitions


class Span(NamedTuple):
    """What the log of a topic's partition holds: offsets [low, high)."""

    low: int
    high: int


class Place(NamedTuple):
    topic: str
    partition: int


class ChangelogReader:
    """Reads while `alive()`; gives up when nothing comes for the settings' `recovery_stall_s`. Blocking: for a thread."""

    def __init__(self, settings: Settings, alive: Callable[[], bool]) -> None:
        self._stall_s = settings.recovery_stall_s
        self._alive = alive
        self._consumer = Consumer(
            {
                **settings.client_config(),
                # librdkafka wants a name; no group is joined and nothing is committed.
                "group.id": f"{settings.application_id}-recovery",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "queued.min.messages": 200_000,
                "fetch.wait.max.ms": 20,
                "allow.auto.create.topics": False,
            }
        )

    def spans(self, places: list[Place]) -> dict[Place, Span]:
        """What the logs hold. Raises RecoveryStalled when the brokers don't say."""
        spans = {}
        for place in places:
            spans[place] = self._span(place)
        return spans

    def _span(self, place: Place) -> Span:
        deadline = time.monotonic() + _WATERMARK_TIMEOUT_S
        while True:
            self._check_alive()
            try:
                return Span(*self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=_WATERMARK_TIMEOUT_S))
            except KafkaException as error:
                # A partition that was just made, or whose leader moves, has none for a moment.
                if error.args[0].code() not in _LEADER_MOVES or time.monotonic() > deadline:
                    raise RecoveryStalled(
                        f"the brokers don't say where {place.topic} ends: {error}", _partitions([place])
                    ) from None
            time.sleep(_POLL_S)

    def read(self, starts: Mapping[Place, int]) -> Iterator[tuple[list[Message], dict[Place, int]]]:
        """Everything from `starts` to the ends: records as they come, and for places that are done the offset after all.

        Raises RecoveryAborted and RecoveryStalled, the latter also for what a broker answers.
        """
        left = set(starts)
        if not left:
            return
        self._consumer.assign(
            [TopicPartition(place.topic, place.partition, offset) for place, offset in starts.items()]
        )
        progress_at = time.monotonic()
        while left:
            self._check_alive()
            records, ends = self._split(self._consumer.consume(_POLL_RECORDS, _POLL_S), left)
            if records or ends:
                progress_at = time.monotonic()
                yield records, ends
                left -= ends.keys()
            elif time.monotonic() - progress_at > self._stall_s:
                names = ", ".join(sorted(f"{place.topic}/{place.partition}" for place in left))
                raise RecoveryStalled(f"nothing comes of {names} for {self._stall_s:g} s", _partitions(left))
        self._consumer.unassign()

    def _split(self, messages: list[Message], left: set[Place]) -> tuple[list[Message], dict[Place, int]]:
        records: list[Message] = []
        ends: dict[Place, int] = {}
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[Place(str(message.topic()), int(message.partition() or 0))] = int(message.offset() or 0)
            elif error.fatal() or not error.retriable():
                raise RecoveryStalled(f"the brokers answer: {error.str()}", _partitions(left))
            else:
                logger.warning("recovery: %s", error.str())
        return records, ends

    def _check_alive(self) -> None:
        if not self._alive():
            raise RecoveryAborted

    def close(self) -> None:
        self._consumer.close()


def _partitions(places: object) -> frozenset[int]:
    return frozenset(place.partition for place in places)  # type: ignore[attr-defined]
