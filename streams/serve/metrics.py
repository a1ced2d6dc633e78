"""What a served target tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from reconciler.records import OutcomeStatus

_COMMAND_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ServeMetrics:
    """The metrics of one process, in a registry of their own. Implements the SDK's `ConsumerMetrics`."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._commands = Counter(
            "reconciler_commands", "Commands by their outcome.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "reconciler_command_seconds",
            "From reading a command to its outcome's acknowledgement.",
            buckets=_COMMAND_SECONDS,
            registry=self._registry,
        )
        self._dead_letters = Counter(
            "reconciler_dead_letters", "Records put on the dead letters' topic.", ["reason"], registry=self._registry
        )
        self._partitions = Gauge("reconciler_partitions", "Partitions that are assigned.", registry=self._registry)
        self._waiting = Gauge(
            "reconciler_commands_waiting", "Commands that wait for their turn.", registry=self._registry
        )
        self._applying = Gauge(
            "reconciler_commands_applying", "Commands that are being applied.", registry=self._registry
        )

    def command_done(self, status: OutcomeStatus, duration_s: float) -> None:
        self._commands.labels(status).inc()
        self._seconds.observe(duration_s)

    def dead_letter(self, kind: str) -> None:
        self._dead_letters.labels(kind).inc()

    def load(self, partitions: int, waiting: int, applying: int) -> None:
        self._partitions.set(partitions)
        self._waiting.set(waiting)
        self._applying.set(applying)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
