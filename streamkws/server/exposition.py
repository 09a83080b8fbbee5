"""A server's metrics as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamkws.server.metrics import LATE_S, Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format that every Prometheus reads; the names of these metrics need no newer one."""


class Exposition(Collector):
    """The text of a server's metrics, made when it is asked for, in a registry of its own.

    n_clients, n_waiting: how many clients are connected, and how many messages wait, at the moment.
    """

    def __init__(self, metrics: Metrics, n_clients: Callable[[], int], n_waiting: Callable[[], int]) -> None:
        self._metrics = metrics
        self._n_clients = n_clients
        self._n_waiting = n_waiting
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the metrics as they are now, in CONTENT_TYPE."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering collects nothing."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Give every metric."""
        counts = self._metrics
        yield _gauge("clients", "Clients that are connected now.", self._n_clients())
        yield _gauge(
            "waiting_messages",
            "Messages that have come whole and are not answered yet, audio that is not heard yet among them.",
            self._n_waiting(),
        )
        yield _counter("admitted_clients", "Clients that were admitted.", counts.n_clients)
        yield _counters("refused_clients", "Clients turned away or disconnected, by reason.", "reason", counts.refused)
        yield _counter("audio_seconds", "Seconds of audio that detectors have heard.", counts.audio_s)
        yield _counter("audio_chunks", "Audio-chunk messages whose audio has been heard.", counts.n_chunks)
        yield _counter(
            "late_audio_chunks",
            f"Audio-chunk messages heard more than {LATE_S:g} s after the server had read the whole message.",
            counts.n_late,
        )
        yield _counters("detections", "Detections, by keyword.", "keyword", counts.detections)
        yield _counters(
            "near_misses",
            "Scores of --near or more that stayed below the threshold, by keyword; none without --near.",
            "keyword",
            counts.near,
        )
        yield _counter(
            "detecting_seconds",
            "Seconds that the detectors' threads have worked; with N threads they are busy at N each second.",
            counts.detecting_s,
        )
        yield _counter("errors", "Clients that a bug in the server has ended; each is in the log.", counts.n_errors)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"streamkws_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"streamkws_{name}", text, value)


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"streamkws_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
