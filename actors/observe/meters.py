"""Counters, gauges and histograms of one process.

A plain object that outlives the actors which count: a restart loses nothing. Counting is an integer
addition; what it takes to show it is paid by whoever asks (`exposition`).

Names are those of the reference relay where it has one (protocol sheet ORP 5). Keys that may carry
a value of a peer (a code, a reason) are chosen by the caller from a fixed set; to be safe no family
holds more than `MAX_KEYS` of them, and the rest is counted as `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

#: Keys of one counter family.
MAX_KEYS: Final = 512
#: Upper bounds of every histogram, nanoseconds; one more bucket takes what is larger.
BOUNDS_NS: Final = (
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
)


#: What is shown of a distribution; 1 is the largest value.
QUANTILES: Final = (0.5, 0.9, 0.99, 1.0)


def quantiles(values: Sequence[float]) -> dict[float, float]:
    """The values at `QUANTILES`; nothing of nothing."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {share: ordered[int(share * last)] for share in QUANTILES} if ordered else {}


class Histogram:
    """How long something took.

    Attributes:
        counts: observations per bucket of `BOUNDS_NS`, not cumulative; the last is overflow.
        sum_ns: of all observations.
    """

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.sum_ns = 0

    def observe(self, seconds: float) -> None:
        """Count one duration; what is below zero counts as zero."""
        duration = max(0.0, seconds * 1e9)
        self.sum_ns += int(duration)
        self.counts[bisect_left(BOUNDS_NS, duration)] += 1

    @property
    def count(self) -> int:
        """Observations."""
        return sum(self.counts)


class Family(Counter[str]):
    """Counters that differ in one label of few values; `Meters.family` makes them."""

    def __missing__(self, key: str) -> int:
        return 0

    def __setitem__(self, key: str, value: int) -> None:
        if key not in self and len(self) >= MAX_KEYS:
            value += self.get("other", 0) if key != "other" else 0
            key = "other"
        super().__setitem__(key, value)


class Meters:
    """Counters, gauges and histograms of one process.

    Attributes:
        counters: single counters by name.
        families: counters with one label, by name.
        labels: the label's name, by family.
        totals: functions that know a counter's value, by name.
        gauges: functions that look at what is there now, by name.
        distributions: functions that look at many things of a kind, by name; shown as quantiles.
        histograms: by name.
    """

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.families: dict[str, Family] = {}
        self.labels: dict[str, str] = {}
        self.totals: dict[str, Callable[[], int]] = {}
        self.gauges: dict[str, Callable[[], float]] = {}
        self.distributions: dict[str, Callable[[], Sequence[float]]] = {}
        self.histograms: dict[str, Histogram] = {}

    def declare(self, *names: str) -> None:
        """Show these counters from the start: one that is missing until its first event cannot be
        watched, and its first event is no increase.
        """
        for name in names:
            self.counters[name] += 0

    def family(self, name: str, label: str, keys: Iterable[str] = ()) -> Family:
        """The counters of this name, made at the first call; `keys` are shown from the start."""
        if name not in self.families:
            self.families[name] = Family()
            self.labels[name] = label
        family = self.families[name]
        for key in keys:
            family[key] += 0
        return family

    def histogram(self, name: str) -> Histogram:
        """The histogram of this name, made at the first call."""
        return self.histograms.setdefault(name, Histogram())

    def gauge(self, name: str, look: Callable[[], float]) -> None:
        """Ask `look` whenever somebody wants to know; the newest function counts."""
        self.gauges[name] = look
