"""Figures fit their columns, and nothing from the wire can steer a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.control_text import actor_words, clock, count, duration, event_line, size, text


@given(st.floats(0, 1e17))
def test_figures_fit_five_columns(amount: float) -> None:
    assert len(size(amount)) <= 5
    assert len(count(amount)) <= 5
    assert len(duration(min(amount, 8e8))) <= 5


@pytest.mark.parametrize(
    "amount,as_size,as_count",
    [
        (0, "0B", "0"),
        (999, "999B", "999"),
        (1000, "1.0K", "1.0k"),
        (1536, "1.5K", "1.5k"),
        (12_000_000, "11M", "12M"),
    ],
)
def test_sizes_and_counts(amount: float, as_size: str, as_count: str) -> None:
    assert (size(amount), count(amount)) == (as_size, as_count)


@pytest.mark.parametrize(
    "seconds,shown", [(0, "0s"), (59.9, "59s"), (250, "4m10"), (11_100, "3h05"), (1e6, "11d")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@given(st.text())
def test_no_control_character_gets_through(value: str) -> None:
    assert text(value).isprintable()


def test_rows_of_a_newer_daemon_are_printed_too() -> None:
    assert event_line({"kind": "novel", "fields": {"color": "\x1b[31m", "empty": ""}}).startswith(
        "--:--:-- novel         color �[31m"
    )
    assert event_line({}) == "--:--:-- ?           "
    assert actor_words({"mailbox": "many", "state": None}) == "-  NONE  up 0s"
    assert clock("soon") == "--:--:--"
