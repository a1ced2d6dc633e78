"""One process that serves one target, from its start to SIGTERM."""

from __future__ import annotations

import logging

from reconciler.sdk.consumer.consumers import AsyncReversalConsumer
from reconciler.sdk.consumer.dedup import RedisDedup
from reconciler.sdk.consumer.settings import ConsumerSettings
from reconciler.sdk.kafka import KafkaSettings
from reconciler.targets.port import ApplyingTarget, Target
from reconciler.values.errors import InputError
from reconciler.wire.codec import Codec
from streams.health import HealthServer
from streams.serve.metrics import ServeMetrics
from streams.serve.settings import ServeSettings
from streams.settings import Settings

logger = logging.getLogger(__name__)


def applying_target(targets: dict[str, Target], system: str) -> ApplyingTarget:
    """The target of a system, if it can be served. Raises InputError."""
    target = targets.get(system)
    if target is None:
        known = ", ".join(sorted(targets))
        raise InputError(f"the targets file names no system {system!r}; it has {known}")
    if not isinstance(target, ApplyingTarget) or not target.describe().can_apply:
        raise InputError(
            f"the target {system!r} can only be observed: allow writing in the targets file, or let its own service consume "
            "the commands (docs/sdk.md)"
        )
    return target


async def serve_target(target: ApplyingTarget, settings: Settings, serve_settings: ServeSettings, codec: Codec) -> None:
    """Serves until SIGTERM or SIGINT. Raises InputError for what can't be served so, KafkaException where Kafka's client can't
    go on."""
    metrics = ServeMetrics()
    system = target.describe().system
    dedup = _dedup_for(target, settings)
    try:
        consumer = AsyncReversalConsumer(
            _consumer_settings(system, settings, serve_settings, codec, metrics),
            target,
            dedup=dedup,
            verifier=serve_settings.verifier(),
        )
        server = HealthServer(settings.http_host, settings.http_port, metrics, lambda: consumer.health().reason)
        port = await server.start()
        logger.info("serving the target %s; health on http://%s:%d/ready", system, settings.http_host, port)
        try:
            await consumer.run(stop_on_signals=True)
        finally:
            await server.stop()
        logger.info("stopped serving the target %s", system)
    finally:
        await target.close()
        if dedup is not None:
            await dedup.close()


def _dedup_for(target: ApplyingTarget, settings: Settings) -> RedisDedup | None:
    """Where repeated commands are recognised, for a target that doesn't do it itself. Raises InputError where nowhere."""
    description = target.describe()
    if description.deduplicates:
        return None
    if settings.redis_url is None:
        raise InputError(
            f"the target {description.system!r} does not recognise repeated commands: set RECONCILER_REDIS_URL, so that Redis "
            "remembers them"
        )
    return RedisDedup(settings.redis_url)


def _consumer_settings(
    system: str, settings: Settings, serve_settings: ServeSettings, codec: Codec, metrics: ServeMetrics
) -> ConsumerSettings:
    client = {name: value for name, value in settings.client_config().items() if name != "bootstrap.servers"}
    return ConsumerSettings(
        kafka=KafkaSettings(
            bootstrap_servers=settings.bootstrap_servers,
            topic_prefix=settings.topic_prefix,
            delivery_timeout_s=settings.delivery_timeout_s,
            client=client,
        ),
        system=system,
        group=serve_settings.group,
        entitlement=serve_settings.entitlement(),
        apply_timeout_s=serve_settings.apply_timeout_s,
        concurrency=serve_settings.concurrency,
        max_waiting=serve_settings.max_waiting,
        commit_interval_s=settings.commit_interval_s,
        session_timeout_s=settings.session_timeout_s,
        stop_timeout_s=serve_settings.stop_timeout_s,
        codec=codec,
        metrics=metrics,
    )
