"""One chaos run against a daemon: nemesis, probe and event recorder, then the verdict."""

from __future__ import annotations

import asyncio
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.chaos import checker
from tools.chaos.adapter import ControlAdapter
from tools.chaos.checker import Violation
from tools.chaos.groups import Tree
from tools.chaos.history import History
from tools.chaos.nemesis import Nemesis, almost_kill

#: The control server carries the orders; killing it is a test of its own.
SPARED = ("/ops",)
#: Seconds the tree gets to come back before it is judged.
SETTLE_SECONDS = 40.0
#: Seconds tasks, descriptors and memory get to return to where they were.
BASELINE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does.

    Attributes:
        socket: control socket of the daemon.
        seed: drives victims, verbs and pauses.
        duration: seconds of faults.
        rate: faults per second.
        only: glob on paths.
        probe: URL fetched all the time; empty: none.
        almost: bring every supervisor one restart below its limit instead.
    """

    socket: Path
    seed: int
    duration: float
    rate: float
    only: str | None = None
    probe: str = ""
    almost: bool = False


async def run(plan: Plan, say: Callable[[str], object]) -> tuple[History, list[Violation]]:
    """Do it and judge it.

    Raises:
        CannotConnect: no daemon answers.
    """
    history = History()
    control = ControlAdapter(plan.socket)
    recorder_control = ControlAdapter(plan.socket)
    nemesis = Nemesis(control, seed=plan.seed, history=history, only=plan.only, spare=SPARED)
    before = Tree.of(await control.tree())
    figures = await control.stats()
    done = False
    recorder = asyncio.create_task(recorder_control.follow(history, lambda: done))
    probe = asyncio.create_task(_probe(plan.probe, history)) if plan.probe else None
    try:
        if plan.almost:
            kills = await almost_kill(nemesis, control, spare=SPARED)
            say(f"almost-kill: {kills} kills; every supervisor is one restart below its limit")
        else:
            await _strike(plan, nemesis, say)
        after = await _settled(control, before)
        if plan.probe:
            await asyncio.sleep(2.0)
    finally:
        done = True
        recorder.cancel()
        if probe is not None:
            probe.cancel()
        await asyncio.wait([task for task in (recorder, probe) if task is not None])
    await recorder_control.close()  # its requests would count as tasks of the daemon
    end_figures = await _baseline(control, figures)
    await control.close()
    violations = judge(history, nemesis, before, after, figures, end_figures)
    return history, violations


def judge(
    history: History,
    nemesis: Nemesis,
    before: Tree,
    after: Tree,
    figures: dict[str, object],
    end_figures: dict[str, object],
) -> list[Violation]:
    """Every check a live run allows."""
    return [
        *checker.exits_are_unique(history),
        *checker.exits_are_explained(history),
        *checker.bystanders_live(before, after, history.actions),
        *checker.permanent_came_back(before, after),
        *checker.windows_hold(history, nemesis.windows),
        *checker.nothing_unowned(figures, end_figures),
        *checker.back_to_baseline(figures, end_figures),
        *checker.transfers_are_honest(history, ("/edge/streams", "/edge/agents", "/node")),
        *checker.probes_recover(history),
    ]


async def _strike(plan: Plan, nemesis: Nemesis, say: Callable[[str], object]) -> None:
    pauses = random.Random(plan.seed ^ 0x5EED)
    end = time.monotonic() + plan.duration
    while time.monotonic() < end:
        action = await nemesis.strike()
        if action is not None:
            result = "" if action.done else " (already gone)"
            say(f"{action.verb:<5} {action.path} incarnation {action.incarnation}{result}")
        await asyncio.sleep(min(pauses.expovariate(plan.rate), max(0.0, end - time.monotonic())))


async def _settled(control: ControlAdapter, before: Tree) -> Tree:
    """The tree once everything permanent runs again, or at the deadline."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        tree = Tree.of(await control.tree())
        if not checker.permanent_came_back(before, tree) or time.monotonic() > deadline:
            return tree
        await asyncio.sleep(0.2)


async def _baseline(control: ControlAdapter, figures: dict[str, object]) -> dict[str, object]:
    """The figures once they are back at the baseline, or at the deadline."""
    deadline = time.monotonic() + BASELINE_SECONDS
    while True:
        now = await control.stats()
        if not checker.back_to_baseline(figures, now) or time.monotonic() > deadline:
            return now
        await asyncio.sleep(0.5)


async def _probe(url: str, history: History) -> None:
    while True:
        began, clock = time.time(), time.monotonic()
        error = await asyncio.to_thread(_fetch, url)
        history.probes.append((began, time.monotonic() - clock, error))
        await asyncio.sleep(0.1)


def _fetch(url: str) -> str:
    """Empty when the page came, else what went wrong."""
    try:
        with urllib.request.urlopen(url, timeout=5.0) as answer:
            answer.read()
            return "" if answer.status == 200 else f"status {answer.status}"
    except (OSError, urllib.error.URLError) as error:
        return f"{type(error).__name__}: {error}"[:120]
