"""The two reversal consumers: one work, offered to event loops and to threads."""

from __future__ import annotations

import asyncio

from reconciler.sdk.consumer.applying import AsyncHandler, Handler, make_applier
from reconciler.sdk.consumer.dedup import DedupStore
from reconciler.sdk.consumer.engine import Engine, Health
from reconciler.sdk.consumer.settings import ConsumerSettings
from reconciler.sdk.signing import Verifier
from reconciler.targets.port import ApplyingTarget


class AsyncReversalConsumer:
    """Applies the commands for one system by a coroutine function or a target. Runs once.

    consumer = AsyncReversalConsumer(settings, handler, dedup=RedisDedup("redis://cache"))
    await consumer.run(stop_on_signals=True)
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        served: ApplyingTarget | AsyncHandler,
        *,
        dedup: DedupStore | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        """``dedup`` is needed where `served` doesn't recognise repeated commands itself. With a ``verifier``, commands that it
        refuses, unsigned ones among them, are rejected. Raises InputError for what doesn't fit together."""
        applier = make_applier(served, dedup=dedup, clock=settings.clock, wants_coroutines=True)
        self._engine = Engine(settings, applier, verifier)

    async def run(self, *, stop_on_signals: bool = False) -> None:
        """Works until `stop` is called, or SIGTERM or SIGINT comes if ``stop_on_signals``; then what is under way is finished,
        answered and committed. A target stays open. Raises ClosedError the second time, KafkaException where Kafka's client
        can't go on."""
        await self._engine.run(stop_on_signals=stop_on_signals)

    def stop(self) -> None:
        """Asks `run` to end. Safe from any thread."""
        self._engine.stop()

    def health(self) -> Health:
        """How the consumer is, now. Safe from any thread."""
        return self._engine.health()


class ReversalConsumer:
    """Applies the commands for one system by a plain function, in threads, or by a target. Runs once.

    consumer = ReversalConsumer(settings, handler, dedup=RedisDedup("redis://cache"))
    consumer.run(stop_on_signals=True)
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        served: ApplyingTarget | Handler,
        *,
        dedup: DedupStore | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        """As `AsyncReversalConsumer`."""
        applier = make_applier(served, dedup=dedup, clock=settings.clock, wants_coroutines=False)
        self._target = served if isinstance(served, ApplyingTarget) else None
        self._engine = Engine(settings, applier, verifier)

    def run(self, *, stop_on_signals: bool = False) -> None:
        """As `AsyncReversalConsumer.run`, blocking; with ``stop_on_signals`` only in the main thread. A target is closed at the
        end, because its connections belong to the event loop that ends here."""
        asyncio.run(self._run(stop_on_signals))

    async def _run(self, stop_on_signals: bool) -> None:
        try:
            await self._engine.run(stop_on_signals=stop_on_signals)
        finally:
            if self._target is not None:
                await self._target.close()

    def stop(self) -> None:
        """Asks `run` to end. Safe from any thread."""
        self._engine.stop()

    def health(self) -> Health:
        """How the consumer is, now. Safe from any thread."""
        return self._engine.health()
