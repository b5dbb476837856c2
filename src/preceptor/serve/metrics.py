"""What the service counts, in Prometheus' text format. Numbers and the service's own words only: no label is ever made of a client's text."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from preceptor.records import Judgement, Verdict

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """One registry per service, so that two in a process do not share counts."""

    def __init__(self, waiting: Callable[[], int]):
        self._registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by HTTP status.", "status")
        self.items = self._counter("items", "Items taken into the queue.")
        self.verdicts = self._counter("verdicts", "Verdicts by score.", "score")
        self.abstentions = self._counter("abstentions", "Abstentions by reason.", "reason")
        self.failures = self._counter("judge_failures", "Batches in which the judge itself failed.")
        self.request_seconds = self._histogram("request_seconds", "From the first byte of a judged request to its answer.", SECONDS)
        self.batch_seconds = self._histogram("batch_seconds", "One call of the judge.", SECONDS)
        self.batch_items = self._histogram("batch_items", "Items judged in one call.", ITEMS)
        queue = Gauge("preceptor_queue_items", "Items waiting for the judge.", registry=self._registry)
        queue.set_function(waiting)

    def count(self, judgements: Iterable[Judgement]) -> None:
        """Verdicts and abstentions."""
        for judgement in judgements:
            if isinstance(judgement, Verdict):
                self.verdicts.labels(f"{judgement.score:.2g}").inc()
            else:
                self.abstentions.labels(judgement.reason).inc()

    def text(self) -> bytes:
        """The page of `GET /metrics`."""
        return generate_latest(self._registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"preceptor_{name}", about, labels, registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"preceptor_{name}", about, buckets=buckets, registry=self._registry)
