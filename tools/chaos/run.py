"""One chaos run against a daemon: nemesis, probe and event recorder, then the verdict."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.chaos import checker, stream_checks
from tools.chaos.adapter import ControlAdapter
from tools.chaos.checker import Violation
from tools.chaos.credentials import chaos_credentials
from tools.chaos.groups import Row, Tree
from tools.chaos.history import History, Probe
from tools.chaos.load import Load, LoadFailed
from tools.chaos.nemesis import Nemesis, almost_kill

#: The control server carries the orders; killing it is a test of its own.
SPARED = ("/ops",)
#: Seconds the tree gets to come back before it is judged.
SETTLE_SECONDS = 40.0
#: Seconds tasks, descriptors and memory get to return to where they were: longer than a pair
#: waits for an agent.
BASELINE_SECONDS = 45.0
#: Seconds the users go on after the last fault.
AFTERMATH_SECONDS = 2.0
#: Seconds the registry gets to agree with the connections.
REGISTRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does.

    Attributes:
        socket: control socket of the daemon.
        seed: drives victims, verbs, pauses, sizes and contents.
        duration: seconds of faults.
        rate: faults per second.
        only: glob on paths.
        probe: URL fetched all the time; empty: none.
        almost: bring every supervisor one restart below its limit instead; then the load goes on
            for `duration`.
        streams: byte-verified streams at a time; 0: none.
        relay: where agents reach the relay; None: ask the daemon.
        pki: directory with the CA; None: beside the control socket.
        tenant: of the run's agents; empty: that of the agents in `pki`.
        within: seconds after a fault in which a new stream must work.
    """

    socket: Path
    seed: int
    duration: float
    rate: float
    only: str | None = None
    probe: str = ""
    almost: bool = False
    streams: int = 0
    relay: tuple[str, int] | None = None
    pki: Path | None = None
    tenant: str = ""
    within: float = 1.0


async def run(plan: Plan, say: Callable[[str], object]) -> tuple[History, list[Violation]]:
    """Do it and judge it.

    Raises:
        CannotConnect: no daemon answers.
        LoadFailed, PkiError: the streams cannot be set up, or do not pass before any fault.
    """
    history = History()
    control = ControlAdapter(plan.socket)
    try:
        with tempfile.TemporaryDirectory(prefix="trunkline-chaos-") as scratch:
            load = await _load(plan, control, history, Path(scratch)) if plan.streams else None
            try:
                if load is not None:
                    await load.start()
                    say(f"{plan.streams} verified streams through the relay; now the faults")
                violations = await _run(plan, control, history, load, say)
            finally:
                if load is not None:
                    await load.stop()
    finally:
        await control.close()
    return history, violations


async def _load(plan: Plan, control: ControlAdapter, history: History, scratch: Path) -> Load:
    relay = plan.relay or await control.relay_address()
    if relay is None:
        raise LoadFailed("the daemon does not say where it listens; give --relay")
    pki = plan.pki or plan.socket.parent / "pki"
    provider, consumer = chaos_credentials(pki, scratch, plan.tenant)
    return Load(
        history,
        relay=relay,
        provider=provider,
        consumer=consumer,
        streams=plan.streams,
        seed=plan.seed,
    )


async def _run(
    plan: Plan,
    control: ControlAdapter,
    history: History,
    load: Load | None,
    say: Callable[[str], object],
) -> list[Violation]:
    recorder_control = ControlAdapter(plan.socket)
    nemesis = Nemesis(control, seed=plan.seed, history=history, only=plan.only, spare=SPARED)
    history.connections, history.pairs = await control.carriers()
    before = Tree.of(await _without_streams(control))
    figures = await control.stats()
    done = False
    recorder = asyncio.create_task(recorder_control.follow(history, lambda: done))
    tasks = [recorder]
    if plan.probe:
        tasks.append(asyncio.create_task(_probe(plan.probe, history)))
    try:
        if load is not None:
            load.begin()
        if plan.almost:
            kills = await almost_kill(nemesis, control, spare=SPARED)
            say(f"almost-kill: {kills} kills; every supervisor is one restart below its limit")
            await _settled(control, before)
            await asyncio.sleep(plan.duration)
        else:
            await _strike(plan, nemesis, say)
            await _settled(control, before)
        await asyncio.sleep(AFTERMATH_SECONDS)
        if load is not None:
            await load.finish()
        after = await _settled(control, before)
        registered = await _registered(control)
    finally:
        done = True
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await recorder_control.close()  # its requests would count as tasks of the daemon
    end_figures = await _baseline(control, figures)
    return judge(plan, history, nemesis, before, after, figures, end_figures) + registered


def judge(
    plan: Plan,
    history: History,
    nemesis: Nemesis,
    before: Tree,
    after: Tree,
    figures: Mapping[str, object],
    end_figures: Mapping[str, object],
) -> list[Violation]:
    """Every check of a recorded run."""
    found = [
        *checker.exits_are_unique(history),
        *checker.exits_are_explained(history),
        *checker.mailboxes_are_bounded(history),
        *checker.bystanders_live(before, after, history.actions),
        *checker.permanent_came_back(before, after),
        *checker.windows_hold(history, nemesis.windows),
        *checker.escalations_are_paid_for(history, nemesis.windows),
        *checker.order_holds(history, before),
        *checker.nothing_unowned(figures, end_figures),
        *checker.back_to_baseline(figures, end_figures),
        *stream_checks.transfers_are_honest(history),
        *stream_checks.resets_are_explained(history),
        *stream_checks.refusals_are_explained(history, within=plan.within),
        *stream_checks.agents_are_unharmed(history),
        *stream_checks.pages_recover(history, within=plan.within),
    ]
    if plan.streams:
        found += stream_checks.new_streams_work(history, within=plan.within)
    return found


async def _registered(control: ControlAdapter) -> list[Violation]:
    """15, polled for the second the registry has."""
    deadline = time.monotonic() + REGISTRY_SECONDS
    while True:
        connections = sum(
            row.get("class") == "AgentConnection" for row in await control.tree("/edge/agents")
        )
        described = (await control.describe("/control/registry")).get("describe")
        registry = described if isinstance(described, dict) else {}
        found = stream_checks.registry_counts(connections, registry)
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.1)


async def _without_streams(control: ControlAdapter) -> list[Row]:
    """The tree once the streams of the warm-up are gone, or at the deadline."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        rows = await control.tree()
        if time.monotonic() > deadline or not any(r.get("class") == "StreamPair" for r in rows):
            return rows
        await asyncio.sleep(0.1)


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


async def _baseline(control: ControlAdapter, figures: Mapping[str, object]) -> dict[str, object]:
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
        history.probes.append(Probe(began, time.monotonic() - clock, error))
        await asyncio.sleep(0.1)


def _fetch(url: str) -> str:
    """Empty when the page came, else what went wrong."""
    try:
        with urllib.request.urlopen(url, timeout=5.0) as answer:
            answer.read()
            return "" if answer.status == 200 else f"status {answer.status}"
    except (OSError, urllib.error.URLError) as error:
        return f"{type(error).__name__}: {error}"[:120]
