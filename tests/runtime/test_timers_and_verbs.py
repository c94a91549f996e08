"""Sections 8 and 9 of docs/runtime.md: timers, inspection, operators' verbs."""

from __future__ import annotations

import asyncio

import pytest

from actors.runtime import (
    AskTimeout,
    Backoff,
    ChildSpec,
    DynamicSupervisor,
    Restart,
    Supervisor,
    inspection,
)
from actors.runtime.simulation import Simulation
from tests.runtime.rig import (
    Call,
    Get,
    Probe,
    Say,
    at,
    cell_at,
    everywhere,
    kinds,
    probe,
    reports,
    tree,
    until,
)


def test_8_1_a_timer_is_never_early_and_a_key_replaces() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal))

        def arm(actor: Probe) -> None:
            actor.start_timer(1.0, Say("one"))
            actor.start_timer(2.0, Say("replaced"), key="k")
            actor.start_timer(3.0, Say("kept"), key="k")

        at(system, "/a").tell(Call(arm))
        await asyncio.sleep(0.999)
        assert "/a one" not in journal
        await asyncio.sleep(0.01)
        assert "/a one" in journal
        await asyncio.sleep(5.0)
        assert "/a kept" in journal
        assert "/a replaced" not in journal
        await system.stop()

    everywhere(scenario)


def test_8_2_a_cancelled_tick_does_not_arrive_even_when_it_was_queued() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal))

        async def arm_and_wait(actor: Probe) -> None:
            actor.start_timer(0.5, Say("tick"), key="k")
            await asyncio.sleep(2.0)  # it is due meanwhile, and queued behind us
            actor.cancel_timer("k")

        at(system, "/a").tell(Call(arm_and_wait))
        await asyncio.sleep(5.0)
        assert "/a tick" not in journal
        await system.stop()

    everywhere(scenario)


def test_8_3_timers_end_with_their_incarnation() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal, restart=Restart.PERMANENT, mailbox="keep"))
        at(system, "/a").tell(Call(lambda actor: actor.start_timer(1.0, Say("tick")) and None))
        await asyncio.sleep(0.1)
        system.kill(at(system, "/a"))
        await asyncio.sleep(5.0)
        assert journal.count("/a init") == 2
        assert "/a tick" not in journal
        await system.stop()

    everywhere(scenario)


def test_8_4_one_loop_timer_serves_thousands_and_a_failing_callback_stops_nobody() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        fired: list[int] = []

        def fail() -> None:
            raise ValueError("mine")

        before = len(sim.loop._scheduled)  # type: ignore[attr-defined]
        for number in range(3000):
            system.timers.after(1.0 + number % 7, lambda n=number: fired.append(n))  # type: ignore[misc]
            if number % 100 == 0:
                system.timers.after(1.0, fail)
        assert len(sim.loop._scheduled) <= before + 1  # type: ignore[attr-defined]
        await asyncio.sleep(10.0)
        assert len(fired) == 3000
        await system.stop()

    everywhere(scenario, seeds=range(2))


def test_9_1_a_row_runs_no_actor_code_and_details_survive_a_failing_describe() -> None:
    async def scenario(sim: Simulation) -> None:
        class Shy(Probe):
            def describe(self) -> dict[str, object]:
                raise RuntimeError("no")

        system = await tree(sim, probe("a", [], kind=Shy))
        cell = cell_at(system, "/a")
        row = inspection.row(cell)
        assert row["path"] == "/a"
        assert row["class"] == "Shy"
        assert row["state"] == "running"
        assert "RuntimeError" in str(inspection.details(cell)["describe"])
        assert not reports(sim, "/a")
        await system.stop()

    everywhere(scenario, seeds=range(2))


def test_9_1_an_actor_that_still_starts_is_not_asked_to_describe_itself() -> None:
    async def scenario(sim: Simulation) -> None:
        class Slow(Probe):
            async def init(self) -> None:
                await asyncio.sleep(5.0)
                self.opened = "something"

            def describe(self) -> dict[str, object]:
                return {"opened": self.opened}

        system = sim.system()
        child = probe("a", [], kind=Slow)
        starting = asyncio.create_task(system.start(lambda: Supervisor((child,))))
        await asyncio.sleep(1.0)
        cell = cell_at(system, "/a")
        assert inspection.row(cell)["state"] == "starting"
        assert inspection.details(cell)["describe"] == {}
        await starting
        assert inspection.details(cell)["describe"] == {"opened": "something"}
        await system.stop()

    everywhere(scenario, seeds=range(2))


def test_9_2_verbs_answer_false_where_nobody_lives() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, ChildSpec("d", DynamicSupervisor))
        ref = system.start_child(at(system, "/d"), probe("a", []))
        await asyncio.sleep(0.01)
        system.kill(ref)
        await until(lambda: system.find("/d/a") is None)
        for verb in (
            system.kill,
            system.crash,
            system.suspend,
            system.resume,
            system.restart,
            system.stop_actor,
        ):
            assert verb(ref) is False
        await system.stop()

    everywhere(scenario, seeds=range(2))


def test_9_3_suspension_stops_the_user_lane_only_and_loses_nothing() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal, restart=Restart.PERMANENT, mailbox="keep"))
        ref = at(system, "/a")
        assert system.suspend(ref)
        for number in range(5):
            ref.tell(Say(str(number)))
        await asyncio.sleep(5.0)
        assert journal == ["/a init"]
        assert inspection.row(cell_at(system, "/a"))["state"] == "suspended"
        system.resume(ref)
        await until(lambda: len(journal) == 6)
        assert journal[1:] == [f"/a {number}" for number in range(5)]
        # A stop gets through a suspension.
        system.suspend(ref)
        system.kill(ref)
        await until(lambda: journal.count("/a init") == 2)
        await system.stop()

    everywhere(scenario)


def test_9_4_an_operators_restart_counts_nothing_and_ends_a_wait() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        slow = Backoff(base=1000.0, cap=1000.0)
        system = await tree(sim, probe("a", journal, restart=Restart.TRANSIENT, backoff=slow))
        for number in range(20):
            await until(lambda n=number: journal.count("/a init") == n + 1)  # type: ignore[misc]
            assert system.restart(at(system, "/a"))
        await until(lambda: journal.count("/a init") == 21)
        system.kill(at(system, "/a"))
        await until(lambda: journal.count("/a init") == 22)
        system.kill(at(system, "/a"))
        await asyncio.sleep(1.0)
        assert inspection.row(cell_at(system, "/a"))["state"] == "restarting"
        assert system.restart(at(system, "/a"))
        await until(lambda: journal.count("/a init") == 23)
        assert sim.loop.time() < 100.0
        await system.stop()

    everywhere(scenario, seeds=range(3))


def test_9_5_a_trace_names_types_never_payload_and_ends() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        seen: list[object] = []
        ref = at(system, "/a")
        system.trace(ref, seen.append, limit=3, ttl=60.0)
        for _ in range(10):
            ref.tell(Say("a secret"))
        await asyncio.sleep(1.0)
        assert 1 <= len(seen) <= 4
        assert "Say" in str(seen)
        assert "secret" not in str(seen)
        await system.stop()

    everywhere(scenario, seeds=range(2))


def test_9_6_a_subscriber_that_fails_hurts_nobody_and_events_are_kept() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", [], restart=Restart.PERMANENT))

        def fail(event: object) -> None:
            raise ValueError("subscriber")

        heard: list[object] = []
        system.events.subscribe(fail)
        system.events.subscribe(heard.append)
        system.kill(at(system, "/a"))
        await until(lambda: len(heard) >= 2)
        assert "exited" in kinds(sim)
        assert cell_at(system, "/a") is not None
        await system.stop()

    everywhere(scenario, seeds=range(2))


def test_an_ask_waits_through_a_suspension_until_its_deadline() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        system.suspend(ref)
        asked = asyncio.ensure_future(ref.ask(Get(lambda actor: 1), timeout=2.0))
        with pytest.raises(AskTimeout):
            await asked
        assert 2.0 <= sim.loop.time() < 2.2
        system.resume(ref)
        assert await ref.ask(Get(lambda actor: 2), timeout=2.0) == 2
        await system.stop()

    everywhere(scenario, seeds=range(2))
