"""Sections 5 and 6 of docs/runtime.md: how an incarnation ends, and who hears of it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from actors.runtime import ActorDown, ExitKind, Restart, Supervisor
from actors.runtime.simulation import Simulation
from tests.runtime.rig import (
    MANY,
    Call,
    Get,
    Probe,
    Say,
    Thing,
    TrappingProbe,
    at,
    cell_at,
    end_of,
    everywhere,
    probe,
    reports,
    swallow,
    tree,
    until,
)


def test_5_1_a_reason_keeps_text_and_pins_nothing() -> None:
    async def scenario(sim: Simulation) -> None:
        class Big:
            pass

        pinned: list[weakref.ref[Big]] = []

        def fail(actor: Probe) -> None:
            big = Big()
            pinned.append(weakref.ref(big))
            raise ValueError("broken")

        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        ref.tell(Call(fail))
        down = await end_of(system, ref)
        assert "ValueError: broken" in str(down.reason)
        gc.collect()
        assert pinned[0]() is None
        await system.stop()

    everywhere(scenario, seeds=range(2))


def test_5_4_a_failing_terminate_does_not_hide_the_crash() -> None:
    async def scenario(sim: Simulation) -> None:
        def fail(actor: Probe) -> None:
            raise ValueError("first")

        def fail_again(actor: Probe, reason: object) -> None:
            raise OSError("second")

        system = await tree(sim, probe("a", [], on_terminate=fail_again))
        ref = at(system, "/a")
        ref.tell(Call(fail))
        down = await end_of(system, ref)
        assert "first" in str(down.reason)
        await system.stop()

    everywhere(scenario)


def test_6_1_resources_go_in_reverse_order_before_anybody_hears() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []

        def acquire(actor: Probe) -> None:
            for name in ("one", "two", "three"):
                actor.own(Thing(journal, name, fails=name == "two"), name)

        system = await tree(
            sim,
            probe("a", journal, on_init=acquire),
            probe("b", journal),
        )

        def watch(actor: Probe) -> None:
            actor.monitor(at(system, "/a"))

        at(system, "/b").tell(Call(watch))
        await asyncio.sleep(0.01)
        at(system, "/a").tell(Call(lambda actor: actor.stop()))
        await until(lambda: any("down" in line for line in journal))
        wanted = [
            "/a terminate normal",
            "released three",
            "released two",
            "released one",
            "/b down /a normal",
        ]
        assert [line for line in journal if line in wanted] == wanted
        assert "cannot release two" in str(reports(sim, "/a")[0].fields)
        await system.stop()

    everywhere(scenario)


def test_6_1_what_waits_fails_at_once_and_messages_become_dead_letters() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        busy = asyncio.ensure_future(ref.ask(Get(lambda a: asyncio.sleep(50)), timeout=100))
        await asyncio.sleep(0.1)
        queued = asyncio.ensure_future(ref.ask(Get(lambda a: None), timeout=100))
        await asyncio.sleep(0.1)
        ref.tell(Say("never read"))
        system.kill(ref)
        for ask in (busy, queued):
            with pytest.raises(ActorDown):
                await ask
        assert sim.loop.time() < 1.0
        assert system.dead_letters.total >= 1
        await system.stop()

    everywhere(scenario)


def test_6_3_a_kill_reaches_code_that_swallows_cancellation() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal, restart=Restart.PERMANENT))
        ref = at(system, "/a")
        ref.tell(Call(lambda actor: swallow(2, journal)))
        await asyncio.sleep(0.1)
        system.kill(ref)
        await until(lambda: journal.count("/a init") == 2)
        assert journal.count("swallowed") == 2
        assert "/a terminate killed" not in journal
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize("where", ["init", "continue", "handler", "terminate"])
def test_6_5_a_kill_works_in_every_state(where: str) -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []

        async def wait(actor: Probe, reason: object = None) -> None:
            journal.append("waiting")
            await asyncio.sleep(1000.0)

        hooks = {"init": "on_init", "continue": "on_continue", "terminate": "on_terminate"}
        first = [True]

        async def wait_once(actor: Probe, reason: object = None) -> None:
            if first[0]:
                first[0] = False
                await wait(actor)

        more: dict[str, Any] = {hooks[where]: wait_once} if where in hooks else {}
        spec = probe("a", journal, restart=Restart.PERMANENT, start_timeout=2000.0, **more)
        system = sim.system()
        starting = asyncio.ensure_future(system.start(lambda: Supervisor([spec], intensity=MANY)))
        if where == "handler":
            await starting
            at(system, "/a").tell(Call(wait))
        elif where == "terminate":
            await starting
            system.stop_actor(at(system, "/a"))
        await until(lambda: "waiting" in journal)
        system.kill(at(system, "/a"))
        await until(lambda: journal.count("/a init") == 2 or where == "init")
        await starting
        assert cell_at(system, "/a") is not None
        assert any(event.fields["kind"] == "killed" for event in reports(sim, "/a"))
        await system.stop()

    everywhere(scenario, seeds=range(3))


@pytest.mark.parametrize("busy", [False, True])
def test_6_6_an_operators_crash_is_an_exception_like_the_actors_own(busy: bool) -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal))
        ref = at(system, "/a")
        if busy:
            ref.tell(Call(lambda actor: asyncio.sleep(1000.0)))
            await asyncio.sleep(0.1)
        system.crash(ref, "drill")
        down = await end_of(system, ref)
        assert down.reason.kind is ExitKind.CRASH
        assert ("/a terminate crash" in journal) is not busy
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize("keep", [False, True])
def test_6_7_queued_messages_are_kept_when_asked_for(keep: bool) -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        mailbox = "keep" if keep else "drop"
        system = await tree(sim, probe("a", journal, restart=Restart.PERMANENT, mailbox=mailbox))
        ref = at(system, "/a")

        async def linger(actor: Probe) -> None:
            await asyncio.sleep(1000.0)

        ref.tell(Call(linger))
        ref.tell(Say("queued"))
        asked = asyncio.ensure_future(ref.ask(Get(lambda actor: "answer"), timeout=100))
        await asyncio.sleep(0.1)
        system.kill(ref)
        if keep:
            assert await asked == "answer"
            assert "/a queued" in journal
        else:
            with pytest.raises(ActorDown):
                await asked
            await until(lambda: journal.count("/a init") == 2)
            assert "/a queued" not in journal
        # The one that was being handled is lost, and never replayed.
        await asyncio.sleep(1)
        assert cell_at(system, "/a").ref is not None
        await system.stop()

    everywhere(scenario)


def test_6_8_a_monitor_is_heard_exactly_once_also_of_the_dead() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal), probe("w", journal))
        ref = at(system, "/a")

        def watch_twice(actor: Probe) -> None:
            actor.monitor(ref)
            actor.demonitor(actor.monitor(ref))
            actor.monitor(ref)

        at(system, "/w").tell(Call(watch_twice))
        await asyncio.sleep(0.01)
        system.kill(ref)
        await until(lambda: journal.count("/w down /a killed") == 2)
        at(system, "/w").tell(Call(lambda actor: actor.monitor(ref) and None))
        await until(lambda: len([line for line in journal if "down" in line]) == 3)
        await asyncio.sleep(5)
        assert len([line for line in journal if "down" in line]) == 3
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize("traps", [False, True])
@pytest.mark.parametrize("abnormal", [False, True])
def test_6_9_links_carry_abnormal_ends_only(traps: bool, abnormal: bool) -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        kind = TrappingProbe if traps else Probe
        system = await tree(sim, probe("a", journal), probe("b", journal, kind=kind))
        a, b = at(system, "/a"), at(system, "/b")
        b.tell(Call(lambda actor: actor.link(a)))
        await asyncio.sleep(0.01)
        if abnormal:
            system.kill(a)
        else:
            a.tell(Call(lambda actor: actor.stop()))
        await until(lambda: reports(sim, "/a"))
        await asyncio.sleep(1)
        if traps:
            heard = [line for line in journal if line.startswith("/b exit /a")]
            assert len(heard) == (1 if abnormal else 0)
            assert not reports(sim, "/b")
        elif abnormal:
            assert reports(sim, "/b")[0].fields["kind"] == "linked"
        else:
            assert not reports(sim, "/b")
        await system.stop()

    everywhere(scenario)
