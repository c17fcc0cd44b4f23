"""What is measured, on a registry of our own."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from greffier._version import __version__
from greffier.store.writer import Pressure

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The service's counters; ``exposition`` writes them for Prometheus."""

    def __init__(self, pressure: Pressure) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "greffier_http_request_seconds",
            "Requests, by route, method and status.",
            ("route", "method", "status"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        # Finding a labelled child takes longer than counting in it.
        self._children: dict[tuple[str, str, int], Histogram] = {}
        self._slow = Counter(
            "greffier_slow_pages",
            "Pages of messages that took more than 100 ms.",
            registry=self._registry,
        )
        self.up = Gauge(
            "greffier_up", "1 while it serves, 0 once it stops.", registry=self._registry
        )
        Gauge(
            "greffier_build_info", "The version that runs.", ("version",), registry=self._registry
        ).labels(__version__).set(1)
        ProcessCollector(registry=self._registry)
        self._registry.register(_Writer(pressure))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the path as declared, never as sent."""
        key = (route, method, status)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(route, method, str(status))
        child.observe(seconds)

    def slow_page(self) -> None:
        """Count a page that took too long."""
        self._slow.inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Write everything in the format asked for; returns it with its media type."""
        encode, media = choose_encoder(accept)
        return encode(self._registry), media


class _Writer(Collector):
    """The writer's own numbers, read when they are asked for."""

    def __init__(self, pressure: Pressure) -> None:
        self._pressure = pressure

    def collect(self) -> Iterator[Metric]:
        now = self._pressure
        yield GaugeMetricFamily(
            "greffier_writer_waiting_messages", "Messages taken and not stored yet.", now.messages
        )
        yield GaugeMetricFamily("greffier_writer_waiting_bytes", "Their bytes of text.", now.size)
        yield CounterMetricFamily("greffier_writer_batches", "Calls that stored.", now.batches)
        yield CounterMetricFamily("greffier_messages_stored", "Messages stored.", now.stored)
        yield CounterMetricFamily(
            "greffier_messages_replayed", "Messages sent again that were there.", now.replayed
        )
        yield CounterMetricFamily(
            "greffier_writer_set_aside",
            "Times a conversation's row was held by somebody else.",
            now.set_aside,
        )
