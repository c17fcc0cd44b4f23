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
from greffier.agents.work import Work
from greffier.deliver.times import Times
from greffier.server.backlog import Backlog
from greffier.store.writer import Pressure

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The service's counters; ``exposition`` writes them for Prometheus."""

    def __init__(self, pressure: Pressure, backlog: Backlog, work: Work | None) -> None:
        """Make them.

        Args:
            pressure: The writer's own numbers.
            backlog: Looks at the queue of the whole database.
            work: What works on lanes in this process, if anything does.
        """
        self._backlog = backlog
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
        self._registry.register(_Queue(backlog))
        if work is not None:
            self._registry.register(_Work(work))

    def slow_page(self) -> None:
        """Count a page that took too long."""
        self._slow.inc()

    async def refresh(self) -> None:
        """See that what is about the whole database is of now; it waits no longer than a moment."""
        await self._backlog.refresh()

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


#: Of lanes of the whole database, as (name, states, words); every one has the label kind.
_LANES = (
    ("greffier_due_lanes", ("due", "expired"), "Lanes with something to do now"),
    ("greffier_expired_lanes", ("expired",), "Lanes whose worker was lost, to be taken by another"),
    ("greffier_leased_lanes", ("leased",), "Lanes that somebody works on"),
    ("greffier_waiting_lanes", ("waiting",), "Lanes that wait for their time to try"),
    ("greffier_endpoint_lanes", ("endpoint",), "Lanes that wait for their endpoint to go on"),
    ("greffier_parked_lanes", ("parked",), "Lanes that wait for a person"),
    ("greffier_paused_lanes", ("paused",), "Lanes that a person paused"),
)


class _Queue(Collector):
    """The queue of the whole database: the same from every process, so take the maximum of them."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        seen = self._backlog.seen
        if seen is None:
            return
        for name, states, words in _LANES:
            family = GaugeMetricFamily(name, f"{words}; of the whole database.", labels=("kind",))
            for kind in ("out", "run"):
                family.add_metric(
                    (kind,), sum(seen.lanes.get((kind, state), 0) for state in states)
                )
            yield family
        oldest = GaugeMetricFamily(
            "greffier_oldest_due_seconds",
            "Since when something is due, 0 when nothing is; of the whole database.",
            labels=("kind",),
        )
        for kind in ("out", "run"):
            oldest.add_metric((kind,), seen.oldest_due.get(kind, 0.0))
        yield oldest
        yield GaugeMetricFamily(
            "greffier_workers", "Workers that live; of the whole database.", seen.workers
        )
        alerts = GaugeMetricFamily(
            "greffier_alert",
            "1 for each alert that stands (/v1/ops/alerts); of the whole database.",
            labels=("code",),
        )
        for code in seen.alerts:
            alerts.add_metric((code,), 1)
        yield alerts


class _Work(Collector):
    """What this process did with lanes, read when it is asked for."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def collect(self) -> Iterator[Metric]:
        worker, answers, out = self._work.worker, self._work.answers, self._work.out
        counts = worker.counts
        yield GaugeMetricFamily("greffier_busy_lanes", "Lanes worked on here.", worker.busy)
        yield CounterMetricFamily("greffier_lanes_claimed", "Claims made here.", counts.claimed)
        yield CounterMetricFamily(
            "greffier_leases_lost", "Leases that were lost while somebody worked.", counts.lost
        )
        yield CounterMetricFamily(
            "greffier_zombie_writes_refused",
            "Writes of ours that were refused, since the lane was another's by then.",
            counts.refused,
        )
        yield CounterMetricFamily(
            "greffier_work_broken", "Work that ended with a fault of ours.", counts.broken
        )
        runs = CounterMetricFamily("greffier_runs", "Runs ended here.", labels=("status",))
        for status in ("completed", "interrupted", "cancelled", "failed"):
            runs.add_metric((status,), answers.ended[status])
        yield runs
        yield _histogram(
            "greffier_run_seconds", "How long runs took that answered here.", "status", answers.took
        )
        if out is None:
            return
        sends = CounterMetricFamily(
            "greffier_sends",
            "Tries to deliver a message, by what came of them.",
            labels=("channel", "outcome"),
        )
        for (channel, outcome), count in out.sends.items():
            sends.add_metric((channel, outcome), count)
        yield sends
        yield _histogram("greffier_send_seconds", "How long such a try took.", "channel", out.took)
        yield CounterMetricFamily(
            "greffier_duplicates_possible",
            "Messages sent of which an earlier try may have arrived.",
            out.doubles,
        )


def _histogram(name: str, words: str, label: str, times: Times) -> Metric:
    family = HistogramMetricFamily(name, words, labels=(label,))
    bounds = [*map(str, times.bounds), "+Inf"]
    for value, (buckets, total) in times.series.items():
        family.add_metric(
            (value,), list(zip(bounds, accumulate(buckets), strict=True)), sum_value=total
        )
    return family
