"""The Faust app: one agent over all input topics, raw bytes in chunks, our transport, our table."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import faust
from yarl import URL

from streams.exits import ExitCode, end_process
from streams.settings import Settings
from streams.transport.chunk import Chunk
from streams.transport.consumer import BatchConsumer, BatchTransport
from streams.worker.engine import Engine
from streams.worker.process import Work
from streams.worker.table import EngineTable, EngineTableManager, WorkerApp

_STREAM_CHUNKS = 16
_LEAST_REQUEST_TIMEOUT_S = 60.0


class RawSchema(faust.Schema[Any, Any]):
    """Nothing is decoded before the agent: Faust acknowledges what it can't decode (row 3 in docs/worker.md)."""

    def compile(self, app: Any, **_options: Any) -> Any:
        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001 - Faust's signature
            return app.create_event(None, message.value, message.headers, message)

        return decode


def build_app(settings: Settings, engine: Engine, client_id: str) -> WorkerApp:
    """The app of a worker, not started."""
    app = WorkerApp(
        settings.application_id,
        broker=[URL(f"kafka://{server.strip()}") for server in settings.bootstrap_servers.split(",")],
        broker_client_id=client_id,
        broker_credentials=_credentials(settings),
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_request_timeout=max(_LEAST_REQUEST_TIMEOUT_S, settings.session_timeout_s),
        broker_commit_interval=settings.commit_interval_s,
        consumer_group_instance_id=settings.instance_id,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=settings.fetch_max_bytes,
        datadir=settings.data_dir / "faust",
        store="memory://",
        Table=EngineTable,
        TableManager=EngineTableManager,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=settings.partitions,
        stream_buffer_maxsize=_STREAM_CHUNKS,
        stream_wait_empty=True,
        web_enabled=False,
    )
    app.engine = engine
    app.transport = BatchTransport(app.conf.broker, app, settings=settings)
    app.Table(engine.pipeline.name, partitions=settings.partitions)
    _add_agent(app)
    return app


def consumer_of(app: WorkerApp) -> BatchConsumer:
    """The app's consumer."""
    return cast(BatchConsumer, app.consumer)


def _add_agent(app: WorkerApp) -> None:
    engine = app.engine
    topic = app.topic(*engine.pipeline.input_topics, schema=RawSchema(key_type=bytes, value_type=bytes))

    @app.agent(topic, name=f"{engine.pipeline.name}-feed", concurrency=1)
    async def feed(stream: Any) -> None:
        # noack: an exception here would acknowledge the event (#315), and the Cython iterator acknowledges past our consumer.
        async for event in stream.noack().events():
            try:
                await engine.submit(_work(app, event))
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - Faust would acknowledge, restart the agent and go on
                end_process(ExitCode.BATCH, f"a chunk could not be handed over: {error!r}", error)


def _work(app: WorkerApp, event: Any) -> Work:
    consumer = consumer_of(app)
    chunk: Chunk = event.value
    message = event.message

    def finished() -> None:
        consumer.finish(chunk)
        consumer.ack(message)

    return Work(chunk, lambda: consumer.is_current(chunk), finished, lambda: consumer.release(message))


def _credentials(settings: Settings) -> Any:
    context = settings.ssl_context()
    if settings.uses_sasl and settings.sasl_password is not None:
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    # The context itself: SSLCredentials(cafile=…) raises TypeError (row 13).
    return None if context is None else faust.SSLCredentials(context)
