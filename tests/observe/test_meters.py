"""Counting, and what it looks like from outside."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from actors.observe.exposition import json_line, prometheus_text, snapshot
from actors.observe.meters import BOUNDS_NS, MAX_KEYS, Meters


def test_durations_fall_into_the_buckets_of_the_sheet() -> None:
    meters = Meters()
    histogram = meters.histogram("policy_eval_duration")
    for seconds in (0.0, 1e-6, 1.0001e-6, 0.01, 10.0, 10.1, -1.0):
        histogram.observe(seconds)
    assert histogram.counts == [3, 1, 0, 0, 1, 0, 0, 1, 1]
    assert snapshot(meters, 1.5) == {
        "ts_unix_ms": 1500,
        "counters": {},
        "gauges": {},
        "histograms": {
            "policy_eval_duration": {
                "bounds_ns": list(BOUNDS_NS),
                "counts": histogram.counts,
                "sum_ns": histogram.sum_ns,
                "n": 7,
            }
        },
    }


def test_a_family_never_has_more_keys_than_its_bound() -> None:
    meters = Meters()
    family = meters.family("edge_events_total", "event")
    for number in range(2 * MAX_KEYS):
        family[f"key-{number}"] += 1
        family["known"] += 0 if number else 1
    assert len(family) <= MAX_KEYS + 1
    assert sum(family.values()) == 2 * MAX_KEYS + 1
    assert family["never counted"] == 0
    assert meters.family("edge_events_total", "event") is family


def test_prometheus_reads_what_is_written() -> None:
    meters = Meters()
    meters.counters["stream_opens_total"] += 3
    meters.totals["bytes_forwarded"] = lambda: 1 << 40
    meters.family("streams_ended_total", "outcome")['odd "label"\n'] += 2
    meters.gauge("stream_active", lambda: 7)
    meters.distributions["quic_round_trip_seconds"] = lambda: [n / 1000 for n in range(101)]
    meters.distributions["nothing"] = lambda: []
    meters.histogram("stream_open_duration").observe(0.5)
    families = {
        family.name: family
        for family in text_string_to_metric_families(prometheus_text(meters).decode())
    }
    assert families["trunkline_stream_opens"].samples[0].value == 3
    assert families["trunkline_bytes_forwarded"].samples[0].value == 1 << 40
    shown = families["trunkline_quic_round_trip_seconds"].samples
    assert {one.labels["quantile"]: one.value for one in shown} == {
        "0.5": 0.05,
        "0.9": 0.09,
        "0.99": 0.099,
        "1": 0.1,
    }
    assert snapshot(meters)["gauges"] == {
        "stream_active": 7,
        "quic_round_trip_seconds.0.5": 0.05,
        "quic_round_trip_seconds.0.9": 0.09,
        "quic_round_trip_seconds.0.99": 0.099,
        "quic_round_trip_seconds.1": 0.1,
    }
    ended = families["trunkline_streams_ended"].samples[0]
    assert (ended.labels, ended.value) == ({"outcome": 'odd "label"\n'}, 2)
    assert families["trunkline_stream_active"].samples[0].value == 7
    duration = {
        (
            sample.name.removeprefix("trunkline_stream_open_duration_seconds"),
            *sample.labels.values(),
        ): (sample.value)
        for sample in families["trunkline_stream_open_duration_seconds"].samples
    }
    assert duration["_bucket", "0.1"] == 0
    assert duration["_bucket", "1"] == 1
    assert duration["_bucket", "+Inf"] == 1
    assert duration["_count",] == 1
    assert duration["_sum",] == 0.5


def test_a_line_is_one_line() -> None:
    meters = Meters()
    meters.family("edge_events_total", "event")["reject_404"] += 1
    line = json_line(meters)
    assert line.count(b"\n") == 1
    assert json.loads(line)["counters"] == {"edge_events_total.reject_404": 1}
