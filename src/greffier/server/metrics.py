"""What is measured, on a registry of our own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from greffier._version import __version__
from greffier.store.writer import Pressure

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The service's counters; ``exposition`` writes them for Prometheus."""

    def __init__(self, pressure: Pressure) -> None:
        self._registry = CollectorRegistry()
        requests = _Requests()
        self._registry.register(requests)
        #: Counts a request: its route as declared, never as sent, its method, status and seconds.
        self.request = requests.count
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

    def slow_page(self) -> None:
        """Count a page that took too long."""
        self._slow.inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Write everything in the format asked for; returns it with its media type."""
        encode, media = choose_encoder(accept)
        return encode(self._registry), media


class _Requests(Collector):
    """How long requests took.

    Counted here and put into Prometheus' form when it is asked for: its own histogram takes three
    times as long, for locks that one thread does not need.
    """

    def __init__(self) -> None:
        # By route, method and status: how many in each bucket, and the seconds of all.
        self._series: dict[tuple[str, str, int], tuple[list[int], list[float]]] = {}

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        key = (route, method, status)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = ([0] * (len(_BUCKETS) + 1), [0.0])
        buckets, total = found
        buckets[bisect_left(_BUCKETS, seconds)] += 1
        total[0] += seconds

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "greffier_http_request_seconds",
            "Requests, by route, method and status.",
            labels=("route", "method", "status"),
        )
        bounds = [*map(str, _BUCKETS), "+Inf"]
        for (route, method, status), (buckets, (total,)) in self._series.items():
            family.add_metric(
                (route, method, str(status)),
                list(zip(bounds, accumulate(buckets), strict=True)),
                sum_value=total,
            )
        yield family


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
