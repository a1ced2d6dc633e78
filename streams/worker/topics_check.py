"""Refusing to start without the topics: one that is made only after the worker has joined its group is never consumed."""

from __future__ import annotations

import logging
import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from reconciler.values.errors import InputError, ReconcilerError
from streams.runner.pipeline import Pipeline
from streams.settings import Settings

_TIMEOUT_S = 15.0
_MOST_NAMED = 3
_ASK_AGAIN_S = 5.0

logger = logging.getLogger(__name__)


class BrokersUnreachable(ReconcilerError):
    """No broker answers."""


def check_topics(settings: Settings, pipeline: Pipeline) -> str:
    """The cluster's id. Raises InputError naming what is missing or has another number of partitions."""
    admin = AdminClient(settings.client_config())
    cluster = _metadata(admin, settings)
    missing = sorted(set(pipeline.required_topics) - cluster.topics.keys())
    if missing:
        named = ", ".join(missing[:_MOST_NAMED]) + (", …" if len(missing) > _MOST_NAMED else "")
        raise InputError(
            f"{len(missing)} topics are missing ({named}); make them with `reconciler topics create` before a worker starts"
        )
    for name in pipeline.partitioned_topics:
        found = len(cluster.topics[name].partitions)
        if found != settings.partitions:
            raise InputError(
                f"the topic {name} has {found} partitions, not {settings.partitions}; set RECONCILER_PARTITIONS to what the "
                "topics have: all that are keyed by resource must have the same number"
            )
    return str(cluster.cluster_id)


def _metadata(admin: AdminClient, settings: Settings) -> ClusterMetadata:
    try:
        return admin.list_topics(timeout=_TIMEOUT_S)
    except KafkaException as error:
        raise BrokersUnreachable(
            f"no broker answers at {settings.bootstrap_servers} ({error.args[0].str()}); check RECONCILER_BOOTSTRAP_SERVERS"
        ) from None


class KnownTopics:
    """Which topics exist: asked of the brokers, and asked again at most every few seconds for one that wasn't there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(settings.client_config())
        self._known: set[str] = set()
        self._asked_at = float("-inf")

    def __call__(self, topic: str) -> bool:
        """Whether a topic exists. On the embedded broker every topic does, as soon as it is used."""
        if self._settings.fence == "none" or topic in self._known:
            return True
        if time.monotonic() - self._asked_at > _ASK_AGAIN_S:
            try:
                self._known.update(self._admin.list_topics(timeout=_TIMEOUT_S).topics)
            except KafkaException as error:
                # Not a reason to give a command up: if the brokers stay away, the batch fails as a whole.
                logger.warning("whether the topic %s exists is not known: %s", topic, error)
                return True
            self._asked_at = time.monotonic()
        return topic in self._known
