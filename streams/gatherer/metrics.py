"""What the gatherer says of itself to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class GathererMetrics(Collector):
    """The metrics of one worker's gatherer."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        self._served_with: CollectorRegistry | None = None

        def counter(name: str, what: str) -> Counter:
            return Counter(f"reconciler_gatherer_{name}", what, registry=self._own)

        self.answers = counter("answers", "Questions of rollbacks that were answered.")
        self.refused = counter("refused_questions", "Questions that could not be answered; an alert says why.")
        self.dossiers = counter("dossiers", "Resources of which rollbacks were told.")
        self.late = counter("late_actions", "Actions that were told because they came after the answer.")
        actions = Counter(
            "reconciler_gatherer_actions",
            "Actions that were indexed: as the table folded them (fed), or as they were read a second time (read).",
            ["source"],
            registry=self._own,
        )
        self.fed, self.read = actions.labels("fed"), actions.labels("read")
        self.busy_s = counter("busy_seconds", "Time spent on reading and indexing the ledger.")
        self.reading = Gauge(
            "reconciler_gatherer_reading_partitions",
            "Partitions whose ledger is read a second time, since the table's folding doesn't supply the index.",
            registry=self._own,
        )
        self.waiting = Gauge(
            "reconciler_gatherer_waiting_questions", "Questions that aren't answered yet.", registry=self._own
        )

    def count(self, busy_s: float, fed: int, read: int, reading: int) -> None:
        """Counts what one look at the ledger brought."""
        self.busy_s.inc(busy_s)
        self.fed.inc(fed)
        self.read.inc(read)
        self.reading.set(reading)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        yield from self._own.collect()

    def serve_with(self, registry: CollectorRegistry) -> None:
        """Adds them to a registry, once."""
        if self._served_with is not registry:
            registry.register(self)
            self._served_with = registry
