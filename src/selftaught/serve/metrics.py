"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from selftaught.serve.engine import Engine

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)


class Metrics:
    """Counts of one server.

    Args:
        engines: those that are loaded, by name.
        head: name of HEAD.
    """

    def __init__(self, engines: Callable[[], Mapping[str, Engine]], head: Callable[[], str]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "selftaught_requests", "Requests, by path and status.", ["path", "status"], registry=self._registry
        )
        self.tokens = Counter(
            "selftaught_tokens", "Tokens read (prompt) and drawn (completion).", ["kind"], registry=self._registry
        )
        self.first_seconds = Histogram(
            "selftaught_first_token_seconds",
            "From a request to its first token.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.seconds = Histogram(
            "selftaught_answer_seconds", "From a request to its end.", buckets=SECONDS, registry=self._registry
        )
        self.feedback = Counter("selftaught_feedback", "Feedback, by kind.", ["kind"], registry=self._registry)
        self._registry.register(_Engines(engines, head))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)


class _Engines:
    """How busy the engines are, when it is asked."""

    def __init__(self, engines: Callable[[], Mapping[str, Engine]], head: Callable[[], str]) -> None:
        self._engines, self._head = engines, head

    def collect(self) -> Iterable[Metric]:
        running = GaugeMetricFamily("selftaught_running", "Completions being drawn.", labels=["version"])
        waiting = GaugeMetricFamily("selftaught_waiting", "Completions that wait.", labels=["version"])
        head = GaugeMetricFamily("selftaught_head", "1 for the version that is HEAD.", labels=["version"])
        for name, engine in self._engines().items():
            running.add_metric([name], engine.num_running)
            waiting.add_metric([name], engine.num_waiting)
        head.add_metric([self._head()], 1)
        return [running, waiting, head]
