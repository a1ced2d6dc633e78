"""What the sampler says of itself to Prometheus. The only labels are targets, of which a configuration names a few, and closed
vocabularies: never a resource."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_CALL_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class SamplerMetrics(Collector):
    """The metrics of all lanes of one worker. They are their own until `serve_with` puts them beside others."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        self._served_with: CollectorRegistry | None = None

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"reconciler_sampler_{name}", help, labels, registry=self._own)

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(f"reconciler_sampler_{name}", help, labels, registry=self._own)

        self.observations = counter("observations", "Resources asked about, by what became of it.", "target", "result")
        self.strays = counter(
            "stray_answers", "Answers about resources that nobody asked about, thrown away.", "target"
        )
        self.scanned = counter("scanned", "Resources named by scans, by whether they are ours.", "target", "ours")
        self.scans = counter("scans", "Scans of whole targets, by how they ended.", "target", "end")
        self.published = counter("published", "Observations published, by why.", "target", "why")
        self.unchanged = counter("unchanged", "Observations not published, because they say nothing new.", "target")
        self.publish_failures = counter("publish_failures", "Observations that could not be published.", "target")
        self.faults = counter("faults", "Errors of the sampler itself, which it logs and outlives.", "target")
        self.call_s = Histogram(
            "reconciler_sampler_read_duration_seconds",
            "How long bulk reads take.",
            ("target",),
            buckets=_CALL_BUCKETS_S,
            registry=self._own,
        )
        self.budget_wait_s = counter("budget_wait_seconds", "Time that reads waited for the rate budget.", "target")
        self.resources = gauge("resources", "Resources watched.", "target")
        self.lag_s = gauge("lag_seconds", "By how much the most overdue resource is overdue.", "target")
        self.breaker = gauge(
            "breaker_state", "1 for the state that the target's circuit breaker is in.", "target", "state"
        )
        self.budget_rate = gauge(
            "budget_reads_per_second", "Resources a second that this worker may read now.", "target"
        )
        self.budget_shared = gauge(
            "budget_is_shared", "1 while the budgets are shared through Redis, 0 while each worker keeps its share."
        )
        self.abandoned = gauge("abandoned_reads", "Reads that timed out and have not ended yet.", "target")
        self.without_target = gauge(
            "systems_without_target", "Systems of owned resources for which no target is configured."
        )

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        yield from self._own.collect()

    def value(self, name: str, **labels: str) -> float:
        """What one of the metrics says now, 0 before it was first set. `name` is without the prefix."""
        return self._own.get_sample_value(f"reconciler_sampler_{name}", labels) or 0.0

    def serve_with(self, registry: CollectorRegistry) -> None:
        """Adds them to a registry, once."""
        if self._served_with is not registry:
            registry.register(self)
            self._served_with = registry
