from __future__ import annotations

import pytest

from wire.peer.health import HealthCheck


def run(answers: list[float], until: float, **options: float) -> tuple[list[float], float | None]:
    """When it asked, and when it gave up, on a clock of its own."""
    attempts = int(options.get("attempts", 1))
    health = HealthCheck(0.0, interval=25.0, timeout=20.0, attempts=attempts)
    asked: list[float] = []
    pending = sorted(answers)
    while (now := health.due) <= until:
        while pending and pending[0] < now:
            pending.pop(0)
            health.answered()
        ask, gone = health.tick(now)
        if ask:
            asked.append(now)
        if gone:
            return asked, now
    return asked, None


def test_a_silent_client_is_gone_after_45_seconds() -> None:
    assert run([], 200.0) == ([25.0], 45.0)


def test_a_client_that_answers_stays() -> None:
    asked, gone = run([25.1, 50.1, 75.1, 100.1, 125.1, 150.1], 160.0)
    assert asked == [25.0, 50.0, 75.0, 100.0, 125.0, 150.0]
    assert gone is None


def test_a_client_that_answers_once_is_gone_after_90_seconds() -> None:
    assert run([25.1], 200.0)[1] == 90.0


@pytest.mark.parametrize("attempts, gone", [(0, 45.0), (-1, 45.0), (1, 45.0), (3, 135.0)])
def test_so_many_looks_without_an_answer(attempts: int, gone: float) -> None:
    assert run([], 200.0, attempts=attempts)[1] == gone


def test_one_answer_begins_the_count_anew() -> None:
    assert run([60.0], 300.0, attempts=2)[1] == 180.0
