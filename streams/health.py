"""/live, /ready and /metrics, on the configured address. Faust's own web server is off: it binds all interfaces, and serves
table data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from aiohttp import web

from reconciler.values.errors import InputError

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsPage(Protocol):
    """What stands behind /metrics."""

    def render(self) -> bytes:
        """Prometheus' text format."""
        ...


class HealthServer:
    """The server. `problem` gives one sentence on why the process is not ready, None when it is. `more_metrics` are further
    pages of metrics by their path; None from one of them: not now."""

    def __init__(
        self,
        host: str,
        port: int,
        metrics: MetricsPage,
        problem: Callable[[], str | None],
        more_metrics: Mapping[str, Callable[[], bytes | None]] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._problem = problem
        self._more_metrics = dict(more_metrics or {})
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listens, and returns the port. Raises InputError where the address can't be had."""
        app = web.Application()
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._metrics_page)
        for path in self._more_metrics:
            app.router.add_get(path, self._more_metrics_page)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise InputError(
                f"can't listen on {self._host}:{self._port} ({error.strerror or error}); "
                "set RECONCILER_HTTP_HOST and RECONCILER_HTTP_PORT"
            ) from None
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        problem = self._problem()
        return web.json_response({"ready": problem is None, "why": problem}, status=200 if problem is None else 503)

    async def _metrics_page(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": _METRICS_TYPE})

    async def _more_metrics_page(self, request: web.Request) -> web.Response:
        page = self._more_metrics[request.path]()
        if page is None:
            return web.Response(status=503, text="there are no fresh metrics\n")
        return web.Response(body=page, headers={"Content-Type": _METRICS_TYPE})
