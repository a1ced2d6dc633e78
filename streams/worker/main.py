"""A worker from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

from reconciler.values.errors import InputError
from reconciler.wire.changelog import ExpectedHead, HistoryEntry
from reconciler.wire.codec import Codec
from streams.exits import ExitCode, end_process, leave_notes_in
from streams.health import HealthServer
from streams.log_ends import LogEnds, Place
from streams.merged_metrics import merged
from streams.metrics import WorkerMetrics
from streams.runner.effects import TopicEffects
from streams.runner.pipeline import Pipeline
from streams.settings import Settings
from streams.store.recovery import StoreFactory
from streams.transport.consumer import BatchConsumer
from streams.worker.app import build_app, consumer_of
from streams.worker.companion import Companion, Companions, Supervisor
from streams.worker.engine import Engine
from streams.worker.hosting import HostContext, ServiceHost
from streams.worker.identity import client_id, lock_data_dir, refuse_second_instance
from streams.worker.memory import keep_freed_memory, search_less_for_garbage
from streams.worker.publisher import Publisher
from streams.worker.restarts import forget_exits, restart_delay_s
from streams.worker.table import WorkerApp
from streams.worker.ticker import Ticker
from streams.worker.topics_check import KnownTopics, check_topics
from streams.worker.watchdog import Watchdog
from streams.worker_services import WorkerService

logger = logging.getLogger(__name__)

_CRASH_POLL_S = 0.2
_STOP_WITHIN_S = 60.0
_NUMBER_OF_PROCESSES = b"""\
# HELP reconciler_processes Processes whose metrics are on this page.
# TYPE reconciler_processes gauge
reconciler_processes %d
"""


def run_worker(
    settings: Settings,
    pipeline: Pipeline,
    codec: Codec,
    services: Sequence[WorkerService] = (),
    on_listening: Callable[[int], None] | None = None,
    companions: Companions | None = None,
    supervisor: Supervisor | None = None,
    name: str | None = None,
) -> None:
    """Runs until SIGTERM or SIGINT, then finishes what is in flight, commits and leaves the group.

    `companions` are the processes that this one looks after; `supervisor` is the one that looks after this. `name` tells this
    one from its peers among them.

    Ends the process by itself with a code of `ExitCode` when something is wrong. Raises InputError for what a person must
    put right first: settings, missing topics, a second process of one identity. `on_listening` gets the port of /metrics.
    """
    if supervisor is not None:
        supervisor.await_start()
        supervisor.end_with_it()
    # What a supervisor left behind when it was killed may still be finishing.
    lock = lock_data_dir(settings.data_dir, wait_s=0.0 if supervisor is None else _STOP_WITHIN_S)
    try:
        leave_notes_in(settings.data_dir)
        _slow_down(settings)
        cluster_id = check_topics(settings, pipeline)
        refuse_second_instance(settings)
        if settings.fence == "none":
            logger.warning(
                "fence is off: a worker that was overtaken can still write; this is for the embedded broker alone"
            )
        if settings.session_timeout_s * 1000 < settings.fetch_max_wait_ms:
            raise InputError("fetch_max_wait_ms must be shorter than session_timeout_s")
        worker = Worker(
            settings,
            pipeline,
            codec,
            services,
            cluster_id,
            on_listening,
            companions or Companions(),
            supervisor,
            name or pipeline.name,
        )
        search_less_for_garbage()
        keep_freed_memory()
        code = asyncio.run(worker.run())
        forget_exits(settings.data_dir)
    finally:
        lock.close()
    if code:
        sys.exit(code)


def _slow_down(settings: Settings) -> None:
    delay_s = restart_delay_s(settings.data_dir, settings.restart_window_s, settings.restart_max_delay_s)
    if delay_s:
        logger.warning("this worker has ended with errors several times; waiting %.0f s before this start", delay_s)
        time.sleep(delay_s)


class Worker:
    """Puts the parts together. One instance, one run."""

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        codec: Codec,
        services: Sequence[WorkerService],
        cluster_id: str,
        on_listening: Callable[[int], None] | None,
        companions: Companions,
        supervisor: Supervisor | None,
        name: str,
    ) -> None:
        self._settings = settings
        self._companions = companions
        self._name = name
        self._supervisor = supervisor
        self._exit_code = 0
        self._pipeline = pipeline
        self._codec = codec
        self._on_listening = on_listening
        self._identity = client_id(settings)
        self._metrics = WorkerMetrics()
        self._host = ServiceHost(services, self._metrics)
        self._cluster_id = cluster_id
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Until a signal, or a companion's end; says with which code to exit."""
        self._codec.prepare([(self._pipeline.heads, ExpectedHead), (self._pipeline.history, HistoryEntry)])
        async with AsyncExitStack() as stack:
            engine = self._engine()
            app = build_app(self._settings, engine, self._identity)
            observed = _Observed(engine, consumer_of(app))
            watchdog = Watchdog(self._settings, observed, LogEnds(self._settings), end_process)
            consumer = consumer_of(app)
            self._metrics.watch(watchdog.lags, consumer.ledger.oldest_uncommitted_s, lambda: consumer.commits_refused)
            problem = self._problem_of(engine, app)
            await self._serve_health(stack, problem)
            publisher = Publisher(self._settings)
            stack.callback(publisher.close)
            stack.push_async_callback(engine.close)
            self._catch_signals()
            watchdog.start()
            stack.callback(watchdog.stop)
            tasks = [
                asyncio.create_task(watchdog.beating(), name="beating"),
                asyncio.create_task(
                    Ticker(self._settings, engine, self._codec, publisher, self._metrics).run(), name="ticker"
                ),
            ]
            if self._supervisor is not None:
                telling = self._supervisor.telling(problem, self._metrics.render)
                tasks.append(asyncio.create_task(telling, name="telling"))
            stack.push_async_callback(self._companions.stop)
            await self._companions.start()
            tasks.append(asyncio.create_task(self._end_with_companions(), name="companions"))
            for task in tasks:
                task.add_done_callback(_must_not_end)
            self._host.start(HostContext(self._settings, engine, publisher, self._metrics.registry))
            logger.info("worker %s starts, in the group %s", self._identity, self._settings.application_id)
            await app.start()
            await self._until_stopped(app)
            self._bound_the_end()
            self._companions.terminate()  # so that all finish at the same time
            await self._host.stop()
            for task in tasks[1:]:
                task.cancel()
            await app.stop()
            tasks[0].cancel()
        logger.info("worker %s has stopped", self._identity)
        return self._exit_code

    async def _end_with_companions(self) -> None:
        """When one of them ends, so does this process, with its code."""
        companion, code = await self._companions.ended()
        if not self._stopping.is_set():
            logger.error("the process %s has ended with code %d; so does this one", companion.name, code)
            self._exit_code = code
            self._stopping.set()

    def _engine(self) -> Engine:
        settings, pipeline = self._settings, self._pipeline
        return Engine(
            settings=settings,
            pipeline=pipeline,
            codec=self._codec,
            effects=TopicEffects(self._codec, pipeline.topics, KnownTopics(settings)),
            stores=StoreFactory(settings, pipeline, self._cluster_id),
            metrics=self._metrics,
            owner=self._identity,
            listeners=[self._host],
        )

    def _problem_of(self, engine: Engine, app: WorkerApp) -> Callable[[], str | None]:
        def problem() -> str | None:
            if self._stopping.is_set():
                return "the worker is stopping"
            if app.rebalancing or not engine.ready:
                return f"a rebalance or recovery has been under way for {engine.not_ready_s():.0f} s"
            return self._companions.problem()

        return problem

    async def _serve_health(self, stack: AsyncExitStack, problem: Callable[[], str | None]) -> None:
        settings, companions = self._settings, self._companions
        if self._supervisor is not None:
            return  # it tells for this process too
        page = WorkerPage(self._name, self._metrics, companions.peers)
        more = {f"/metrics/{companion.name}": companion.metrics for companion in companions.others}
        server = HealthServer(settings.http_host, settings.http_port, page, problem, more)
        port = await server.start()
        stack.push_async_callback(server.stop)
        logger.info("health and metrics on http://%s:%d", self._settings.http_host, port)
        if self._on_listening is not None:
            self._on_listening(port)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)

    async def _until_stopped(self, app: WorkerApp) -> None:
        while not self._stopping.is_set():
            if app.crashed or app.should_stop:
                end_process(
                    ExitCode.TRANSPORT, f"the Faust app ended: {app.crash_reason!r}", _as_error(app.crash_reason)
                )
            try:
                await asyncio.wait_for(self._stopping.wait(), _CRASH_POLL_S)
            except TimeoutError:
                continue

    def _bound_the_end(self) -> None:
        sentence = f"the worker could not finish what was in flight within {_STOP_WITHIN_S:.0f} s"
        timer = threading.Timer(_STOP_WITHIN_S, end_process, (ExitCode.STALLED, sentence))
        timer.daemon = True
        timer.start()


class WorkerPage:
    """The metrics of all processes that do the same. Implements `MetricsPage`."""

    def __init__(self, name: str, own: WorkerMetrics, peers: Sequence[Companion]) -> None:
        self._name = name
        self._own = own
        self._peers = peers

    def render(self) -> bytes:
        """Prometheus' text format. One that has gone silent isn't on it, and is missed in the number of processes."""
        pages = {self._name: self._own.render()}
        pages |= {peer.name: page for peer in self._peers if (page := peer.metrics()) is not None}
        samples = merged(pages) if self._peers else pages[self._name]
        return samples + _NUMBER_OF_PROCESSES % len(pages)


class _Observed:
    """What the watchdog sees."""

    def __init__(self, engine: Engine, consumer: BatchConsumer) -> None:
        self._engine = engine
        self._consumer = consumer

    def not_ready_s(self) -> float:
        return self._engine.not_ready_s()

    def uncommitted_s(self) -> float:
        return self._consumer.ledger.oldest_uncommitted_s()

    def done(self) -> Mapping[Place, int]:
        ledger = self._consumer.ledger
        done = {(place.topic, place.partition): ledger.done(place) for place in ledger.places()}
        return {place: offset for place, offset in done.items() if offset is not None}


def _must_not_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        end_process(ExitCode.STALLED, f"the task {task.get_name()} ended: {task.exception()!r}", task.exception())


def _as_error(reason: object) -> BaseException | None:
    return reason if isinstance(reason, BaseException) else None
