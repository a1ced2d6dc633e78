"""Topics on a cluster: made with the settings that each must have, and verified against them.

Making is idempotent and never changes a topic that exists: somebody may have had a reason. Verifying names every
deviation in a sentence that stays the same as long as the deviation does.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigResource, NewTopic

from reconciler.values.errors import ReconcilerError
from reconciler.wire.topics import TopicSpec

DEFAULT_REPLICATION: Final = 3
"""Kafka's usual advice: with `min.insync.replicas` 2, one broker may be away and nothing acknowledged is lost."""

_TIMEOUT_S: Final = 15.0
_READY_WITHIN_S: Final = 60.0
_ASK_AGAIN_S: Final = 0.1
_CREATE: Final = "run `reconciler topics create`"


class ClusterError(ReconcilerError):
    """The cluster can't be asked, or refuses."""


class WantedTopic(msgspec.Struct, frozen=True):
    """A topic as it must be on the cluster."""

    spec: TopicSpec
    partitions: int
    replication_factor: int

    @property
    def name(self) -> str:
        return self.spec.name

    def config(self) -> dict[str, str]:
        """Its settings in Kafka's words."""
        return {**self.spec.config(), "min.insync.replicas": str(max(1, self.replication_factor - 1))}


class Made(msgspec.Struct, frozen=True):
    """What became of a topic that was to be made."""

    name: str
    is_new: bool


class Deviation(msgspec.Struct, frozen=True, order=True):
    """One way in which a topic isn't as it must be."""

    topic: str
    setting: str
    sentence: str


class Cluster:
    """The topics of a cluster."""

    def __init__(self, client_config: dict[str, Any]) -> None:
        self._servers = client_config["bootstrap.servers"]
        self._admin = AdminClient({**client_config, "log_level": 0})

    def wanted(
        self, specs: Iterable[TopicSpec], *, partitions: int, replication_factor: int | None
    ) -> list[WantedTopic]:
        """The topics as they must be here. Without a replication factor it is that of the cluster: as many replicas as there
        are brokers, at most three. Raises ClusterError."""
        replicas = replication_factor or min(DEFAULT_REPLICATION, max(1, len(self._metadata().brokers)))
        return [WantedTopic(spec, partitions, replicas) for spec in specs]

    def create(self, wanted: Sequence[WantedTopic]) -> list[Made]:
        """Makes what is missing. Raises ClusterError naming the first topic that could not be made."""
        topics = [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication_factor,
                config=topic.config(),
            )
            for topic in wanted
        ]
        self._metadata()  # says in a sentence that no broker answers, where the futures below would only time out
        futures: dict[str, Future[None]] = self._admin.create_topics(topics, operation_timeout=_TIMEOUT_S)
        made = [Made(topic.name, _is_made(topic.name, futures[topic.name])) for topic in wanted]
        self._await({topic.name for topic in wanted})
        return made

    def _await(self, names: set[str]) -> None:
        """Returns when every topic has leaders for its partitions: the controller says `made` a moment before the brokers
        know of it, and a worker that starts in that moment would find no topics."""
        end = time.monotonic() + _READY_WITHIN_S
        while waiting := sorted(names - _led(self._metadata())):
            if time.monotonic() >= end:
                raise ClusterError(
                    f"the topic {waiting[0]} was made, but after {_READY_WITHIN_S:g} s has no leaders yet; see to the brokers"
                )
            time.sleep(_ASK_AGAIN_S)

    def broker_count(self) -> int:
        """How many brokers there are. Raises ClusterError where none answers."""
        return len(self._metadata().brokers)

    def missing(self, wanted: Sequence[WantedTopic]) -> list[Deviation]:
        """The topics that aren't there. Raises ClusterError."""
        return _missing(wanted, self._metadata().topics)

    def deviations(self, wanted: Sequence[WantedTopic]) -> list[Deviation]:
        """Every way in which the topics aren't as they must be. Raises ClusterError."""
        existing = self._metadata().topics
        there = [topic for topic in wanted if topic.name in existing]
        found = _missing(wanted, existing)
        for topic, config in zip(there, self._configs(there), strict=True):
            partitions = existing[topic.name].partitions
            found += _partition_deviations(topic, len(partitions), min(len(p.replicas) for p in partitions.values()))
            found += _config_deviations(topic, config)
        return sorted(found)

    def _metadata(self) -> ClusterMetadata:
        try:
            return self._admin.list_topics(timeout=_TIMEOUT_S)
        except KafkaException as error:
            raise ClusterError(
                f"no broker answers at {self._servers} ({error.args[0].str()}); check RECONCILER_BOOTSTRAP_SERVERS"
            ) from None

    def _configs(self, topics: Sequence[WantedTopic]) -> list[dict[str, str]]:
        if not topics:
            return []
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in topics]
        futures = self._admin.describe_configs(resources, request_timeout=_TIMEOUT_S)
        by_name = {resource.name: future for resource, future in futures.items()}
        try:
            return [{name: entry.value for name, entry in by_name[topic.name].result().items()} for topic in topics]
        except KafkaException as error:
            raise ClusterError(f"the settings of the topics can't be read: {error.args[0].str()}") from None


def _missing(wanted: Sequence[WantedTopic], existing: Container[str]) -> list[Deviation]:
    return sorted(
        Deviation(topic.name, "existence", f"is missing; {_CREATE}") for topic in wanted if topic.name not in existing
    )


def _led(cluster: ClusterMetadata) -> set[str]:
    """The topics of which every partition has a leader."""
    return {
        name
        for name, topic in cluster.topics.items()
        if topic.error is None and topic.partitions and all(each.leader >= 0 for each in topic.partitions.values())
    }


def _is_made(name: str, future: Future[None]) -> bool:
    try:
        future.result()
    except KafkaException as error:
        problem: KafkaError = error.args[0]
        if problem.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise ClusterError(f"the topic {name} can't be made: {problem.str()}") from None
    return True


def _partition_deviations(topic: WantedTopic, partitions: int, replicas: int) -> Iterable[Deviation]:
    if partitions != topic.partitions:
        yield Deviation(
            topic.name,
            "partitions",
            f"has {partitions} partitions instead of {topic.partitions}; all topics must have the same number, and more can't be "
            "added without moving keys: make the topic anew, or set RECONCILER_PARTITIONS to what they have",
        )
    if replicas < topic.replication_factor:
        yield Deviation(
            topic.name,
            "replication",
            f"has {replicas} replicas instead of {topic.replication_factor}; reassign its partitions to more brokers",
        )


def _config_deviations(topic: WantedTopic, config: dict[str, str]) -> Iterable[Deviation]:
    for setting, wanted in topic.config().items():
        found = config.get(setting, "")
        if _comparable(setting, found) != _comparable(setting, wanted):
            yield Deviation(
                topic.name,
                setting,
                f"has {setting}={found} instead of {wanted}; set it with `kafka-configs.sh --alter --topic {topic.name} "
                f"--add-config {setting}=[{wanted}]`",
            )


def _comparable(setting: str, value: str) -> object:
    return frozenset(value.split(",")) if setting == "cleanup.policy" else value
