"""Meters as JSON (sheet ORP 5) and as Prometheus text.

Source: protocol sheet ORP 5; https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from actors.observe.meters import BOUNDS_NS, Meters, quantiles

PREFIX = "trunkline_"


def snapshot(meters: Meters, now: float | None = None) -> dict[str, object]:
    """Everything, in the shape of the reference; families are spelt `name.key`.

    Args:
        now: seconds since the epoch.
    """
    counters: dict[str, int] = dict(meters.counters)
    counters.update((name, look()) for name, look in meters.totals.items())
    for name, family in meters.families.items():
        counters.update((f"{name}.{key}", value) for key, value in family.items())
    gauges = {name: look() for name, look in meters.gauges.items()}
    for name, look_at in meters.distributions.items():
        gauges.update((f"{name}.{share:g}", value) for share, value in quantiles(look_at()).items())
    return {
        "ts_unix_ms": int((time.time() if now is None else now) * 1000),
        "counters": counters,
        "gauges": gauges,
        "histograms": {
            name: {
                "bounds_ns": list(BOUNDS_NS),
                "counts": list(histogram.counts),
                "sum_ns": histogram.sum_ns,
                "n": histogram.count,
            }
            for name, histogram in meters.histograms.items()
        },
    }


def json_line(meters: Meters) -> bytes:
    """One snapshot and a line end."""
    return orjson.dumps(snapshot(meters), option=orjson.OPT_APPEND_NEWLINE)


class _Collector(Collector):
    """Meters as Prometheus metrics; one pass per scrape."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def collect(self) -> Iterator[Metric]:
        """Every counter, gauge and histogram; durations in seconds."""
        meters = self._meters
        for name, value in meters.counters.items():
            yield CounterMetricFamily(_name(name), name, value=value)
        for name, total_of in meters.totals.items():
            yield CounterMetricFamily(_name(name), name, value=total_of())
        for name, family in meters.families.items():
            metric = CounterMetricFamily(_name(name), name, labels=[meters.labels[name]])
            for key, value in family.items():
                metric.add_metric([key], value)
            yield metric
        for name, look in meters.gauges.items():
            yield GaugeMetricFamily(_name(name), name, value=look())
        for name, look_at in meters.distributions.items():
            shown = GaugeMetricFamily(_name(name), name, labels=["quantile"])
            for share, at in quantiles(look_at()).items():
                shown.add_metric([f"{share:g}"], at)
            yield shown
        for name, histogram in meters.histograms.items():
            total = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*BOUNDS_NS, None), histogram.counts, strict=True):
                total += count
                buckets.append(("+Inf" if bound is None else f"{bound / 1e9:g}", total))
            yield HistogramMetricFamily(
                f"{_name(name)}_seconds", name, buckets=buckets, sum_value=histogram.sum_ns / 1e9
            )


def _name(name: str) -> str:
    return PREFIX + name.removesuffix("_total")


def prometheus_text(meters: Meters) -> bytes:
    """The text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(meters))
    return generate_latest(registry)
