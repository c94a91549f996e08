"""The checkers can fail: each rule is broken on purpose, and the simulated world notices."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from actors.runtime import ending, life, monitor, supervisor, system
from actors.runtime.asks import Ask
from actors.runtime.cell import Cell
from actors.runtime.lifecycle import State
from actors.runtime.mailbox import Mailbox
from actors.runtime.messages import Down
from actors.runtime.reasons import ExitKind, ExitReason
from actors.runtime.report import Reporter
from actors.runtime.resources import NO_RESOURCES, ResourceSet
from actors.runtime.restart import Backoff, RestartWindow
from actors.runtime.signals import Notice, Tick
from actors.runtime.simulation import SimulationFault

from .scenario import run_seed

#: Seeds within which a broken rule must show.
SEEDS = 60


def numbers_found(limit: int = SEEDS) -> set[int]:
    """The invariants broken in the first run that breaks one."""
    for seed in range(limit):
        try:
            violations = run_seed(seed).violations
        except SimulationFault:
            continue  # the run did not even end; look for one that does
        if violations:
            return {violation.number for violation in violations}
    return set()


def test_1_a_second_report(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Reporter.exited

    def twice(self: Reporter, *args: object, **more: object) -> None:
        for _ in range(2):
            report(self, *args, **more)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(Reporter, "exited", twice)
    assert 1 in numbers_found()


def test_1_an_exit_nobody_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a supervisor that forgets the exits still waiting in its system lane."""

    def forgetful(cell: Cell) -> None:
        children, cell.children = cell.children or {}, {}
        for child in children.values():
            if child.task is not None:
                child.abort(ExitReason(ExitKind.KILLED, "supervisor ended"))

    monkeypatch.setattr(ending, "_release_children", forgetful)
    assert 1 in numbers_found()


def test_2_a_resource_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResourceSet, "release", lambda self: [])
    assert 2 in numbers_found()


def test_2_a_resource_acquired_after_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(self: Cell, resource: object, kind: str) -> None:
        if self.resources is NO_RESOURCES:
            self.resources = ResourceSet()
        self.resources.add(resource, kind)  # type: ignore[arg-type]  # passed through

    real = life.live

    async def acquiring(cell: Cell, failure: ExitReason | None) -> None:
        actor = cell.actor
        await real(cell, failure)
        acquire = getattr(actor, "acquire", None)
        if acquire is not None and cell.state is not State.RESTARTING:
            acquire()

    monkeypatch.setattr(Cell, "own", own)
    monkeypatch.setattr(life, "live", acquiring)
    assert 2 in numbers_found()


def test_3_an_ask_that_expires_late(monkeypatch: pytest.MonkeyPatch) -> None:
    expire = Ask.expire
    monkeypatch.setattr(
        Ask, "expire", lambda self: asyncio.get_running_loop().call_later(0.5, expire, self)
    )
    assert 3 in numbers_found()


def test_4_messages_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Mailbox.offer

    def swapped(self: Mailbox, message: object) -> bool:
        accepted = offer(self, message)
        if len(self.queue) > 1 and type(self.queue[-2]) is type(message):
            self.queue[-1], self.queue[-2] = self.queue[-2], self.queue[-1]
        return accepted

    monkeypatch.setattr(Mailbox, "offer", swapped)
    assert 4 in numbers_found()


def test_4_a_down_that_overtakes(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(self: Mailbox, message: Tick | Notice) -> None:
        reserve(self, message)
        self.queue.rotate(1)

    reserve = Mailbox.offer_reserved
    monkeypatch.setattr(Mailbox, "offer_reserved", first)
    assert 4 in numbers_found(400)


def test_4_a_second_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(cell: Cell, reason: ExitReason) -> None:
        for token, watcher in (cell.monitors or {}).items():
            if isinstance(watcher, tuple) and not watcher[0].released:
                down = Down(token, cell.path, cell.incarnation, reason)
                watcher[0].mailbox.offer_reserved(Notice(down))
        notify(cell, reason)

    notify = monitor.notify_monitors
    monkeypatch.setattr(ending, "notify_monitors", twice)
    monkeypatch.setattr(life, "take_notice", lambda cell, notice: True)
    assert 4 in numbers_found()


def test_5_a_dead_letter_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cell, "bury", lambda self, message, why: None)
    assert 5 in numbers_found()


def test_5_a_mailbox_above_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mailbox, "_at_bound", lambda self, message: None)
    assert 5 in numbers_found()


def test_6_more_restarts_than_the_window_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = RestartWindow.attempt
    monkeypatch.setattr(RestartWindow, "attempt", lambda self, now: attempt(self, now) or True)
    assert 6 in numbers_found()


def test_6_a_restart_without_its_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "delay", lambda self, attempt, uniform: 0.0)
    assert 6 in numbers_found()


def test_8_children_started_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    init = supervisor.Supervisor.init

    def backwards(self: supervisor.Supervisor) -> None:
        init(self)
        self._children.reverse()

    monkeypatch.setattr(supervisor.Supervisor, "init", backwards)
    assert 8 in numbers_found()


def test_8_children_stopped_in_start_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "reversed", iter, raising=False)
    assert 8 in numbers_found()


def test_9_an_escalation_nobody_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = RestartWindow.attempt

    def stingy(self: RestartWindow, now: float) -> bool:
        return attempt(self, now) and len(self._times) < self.intensity.restarts

    monkeypatch.setattr(RestartWindow, "attempt", stingy)
    assert 9 in numbers_found()


def test_10_a_stop_that_waits_for_the_undead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "KILLED_WITHIN", 4.0)
    monkeypatch.setattr("tests.runtime.scenario.STOP_SECONDS", 0.5)
    assert 10 in numbers_found(200)


@pytest.mark.parametrize(
    "target, name, broken",
    [
        (Backoff, "delay", lambda self, attempt, uniform: random.SystemRandom().random()),
        (random, "Random", lambda seed=None: random.SystemRandom()),
    ],
    ids=["an unseeded delay", "an unseeded everything"],
)
def test_14_a_random_source_without_seed(
    monkeypatch: pytest.MonkeyPatch, target: object, name: str, broken: Callable[..., object]
) -> None:
    monkeypatch.setattr(target, name, broken)
    assert len({run_seed(3).log.digest for _ in range(3)}) > 1
