"""A broker inside the process: librdkafka's mock cluster, reachable over TCP by every client on this machine.

It serves `reconciler dev`, the demo and fast tests. It keeps at most 5 MiB or 100,000 message sets a partition, in memory;
it has no admin API, no compaction, and no fence: its transactions prove nothing. What rests on those is tested on a real
Apache Kafka.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

# How many partitions a topic gets when it is first used: `defaults.partition_cnt` in librdkafka's rdkafka_mock.c, which
# no setting of a client changes.
PARTITIONS = 4

_METADATA_TIMEOUT_S = 10.0


class EmbeddedBroker:
    """A mock cluster of one broker, from `start` to `stop`; as a context manager it does both."""

    def __init__(self) -> None:
        self._owner: Producer | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """The address for `bootstrap.servers`. Raises RuntimeError when the broker isn't started."""
        if self._owner is None:
            raise RuntimeError("the embedded broker isn't started")
        return self._bootstrap

    def start(self) -> None:
        """Starts the cluster; it lives as long as the client that owns it."""
        owner = Producer({"test.mock.num.brokers": 1, "log_level": 3})
        (broker,) = owner.list_topics(timeout=_METADATA_TIMEOUT_S).brokers.values()
        self._bootstrap = f"{broker.host}:{broker.port}"
        self._owner = owner

    def stop(self) -> None:
        """Ends the cluster with all its records."""
        self._owner = None

    def create_topics(self, names: Iterable[str]) -> None:
        """Makes topics that don't exist yet, of `PARTITIONS` partitions each: asking about a topic is what makes it."""
        if self._owner is None:
            raise RuntimeError("the embedded broker isn't started")
        for name in names:
            topic = self._owner.list_topics(name, timeout=_METADATA_TIMEOUT_S).topics[name]
            if topic.error is not None or len(topic.partitions) != PARTITIONS:
                raise RuntimeError(f"the embedded broker could not make the topic {name}: {topic.error}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
