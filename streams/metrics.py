"""What a worker tells Prometheus: prefix `reconciler_`, base units, and never an id as a label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.runner.counts import BatchCounts

_BATCH_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BATCH_RECORDS = (1, 10, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000)
_RECOVERY_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)

Lags = Mapping[tuple[str, int], int]


class WorkerMetrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        # A series of creation instants for every counter doubles the page and says nothing here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.records = self._counter("records", "Records by what became of them.", "topic", "verdict")
        self.dead_letters = self._counter("dead_letters", "Records put on the dead letters' topic.", "reason")
        self.effects = self._counter("effects", "Effects of the machine that were written.", "effect")
        self.history_entries = self._counter("history_entries", "History entries appended.")
        self.batches = self._counter("batches", "Batches written.")
        self.timers = self._counter("timers", "Timer records sent.")
        self.recoveries = self._counter("recoveries", "Recoveries of the table that came to their end.")
        self.recovered_records = self._counter("recovered_records", "Changelog records read in recoveries.")
        self.stale_records = self._counter("stale_changelog_records", "Changelog records of earlier owners, ignored.")
        self.rebuilt_stores = self._counter("rebuilt_stores", "Local stores that were read again from the changelog.")
        self.service_failures = self._counter("service_failures", "Failures of services inside the worker.", "service")
        self.batch_seconds = self._histogram(
            "batch_seconds", "From taking a batch to its being durable.", _BATCH_SECONDS
        )
        self.step_seconds = self._histogram("batch_step_seconds", "Of that, decoding and stepping.", _BATCH_SECONDS)
        self.batch_records = self._histogram("batch_records", "Records in a batch.", _BATCH_RECORDS)
        self.recovery_seconds = self._histogram("recovery_seconds", "Recoveries of the table.", _RECOVERY_SECONDS)
        self.partitions = self._gauge("partitions", "Partitions that are owned and recovered.")

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"reconciler_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"reconciler_{name}", what, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(f"reconciler_{name}", what, buckets=tuple(buckets), registry=self.registry)

    def count_batch(self, topic: str, counts: BatchCounts) -> None:
        """Adds what a batch did; `topic` is that of its records, or `several`."""
        for verdict, number in (
            ("folded", counts.folded),
            ("replayed", counts.replayed),
            ("forwarded", counts.forwarded),
            ("dead_letter", sum(counts.dead_letters.values())),
        ):
            if number:
                self.records.labels(topic, verdict).inc(number)
        for reason, number in counts.dead_letters.items():
            self.dead_letters.labels(reason).inc(number)
        for effect, number in counts.effects.items():
            self.effects.labels(effect).inc(number)
        self.history_entries.inc(counts.entries)
        self.batches.inc()

    def watch(
        self, lags: Callable[[], Lags], commit_age_s: Callable[[], float], commits_refused: Callable[[], int]
    ) -> None:
        """Gauges that are read when they are asked for."""
        self.registry.register(_Watched(lags, commit_age_s, commits_refused))

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _Watched(Collector):
    def __init__(
        self, lags: Callable[[], Lags], commit_age_s: Callable[[], float], commits_refused: Callable[[], int]
    ) -> None:
        self._lags = lags
        self._commit_age_s = commit_age_s
        self._commits_refused = commits_refused

    def collect(self) -> Iterator[Metric]:
        lag = GaugeMetricFamily("reconciler_lag_records", "Records that wait.", labels=("topic", "partition"))
        for (topic, partition), records in sorted(self._lags().items()):
            lag.add_metric((topic, str(partition)), records)
        yield lag
        yield GaugeMetricFamily(
            "reconciler_uncommitted_age_seconds", "Age of the oldest finished work not committed.", self._commit_age_s()
        )
        yield GaugeMetricFamily(
            "reconciler_commits_refused", "Commits that the group refused since the start.", self._commits_refused()
        )
