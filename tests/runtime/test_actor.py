"""Rules 3.x: states, hooks, handlers, what an actor may acquire."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from actors.runtime import (
    DEFERRED,
    Actor,
    ActorDown,
    BadChildSpec,
    ChildSpec,
    Deferred,
    DynamicSupervisor,
    Event,
    ExitKind,
    Request,
    Restart,
    handles,
)
from actors.runtime import context as runtime_context
from actors.runtime.inspection import state_word
from actors.runtime.simulation import Simulation

from .rig import (
    Call,
    Get,
    Probe,
    Say,
    Stranger,
    Thing,
    at,
    cell_at,
    decisions,
    end_of,
    everywhere,
    probe,
    reports,
    tree,
    until,
)

VARIABLE: ContextVar[str] = ContextVar("test_variable", default="clean")


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_3_1_what_is_sent_while_starting_is_served_after_init_and_continue() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []

        async def slow_init(actor: Probe) -> None:
            await asyncio.sleep(1.0)
            actor.write("init done")

        async def slow_continue(actor: Probe) -> None:
            await asyncio.sleep(1.0)
            actor.write("continue done")

        system = await tree(sim, ChildSpec("d", DynamicSupervisor))
        ref = system.start_child(
            at(system, "/d"), probe("a", journal, on_init=slow_init, on_continue=slow_continue)
        )
        ref.tell(Say("hello"))
        words = [state_word(cell_at(system, "/d/a"))]
        await asyncio.sleep(1.5)
        words.append(state_word(cell_at(system, "/d/a")))
        await until(lambda: "/d/a hello" in journal)
        words.append(state_word(cell_at(system, "/d/a")))
        assert words == ["starting", "busy", "running"]
        assert [line.split(" ", 1)[1] for line in journal] == [
            "init",
            "init done",
            "continue done",
            "hello",
        ]
        await system.stop()

    everywhere(scenario)


def test_3_1_draining_serves_what_is_queued_and_takes_nothing_new() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal))
        ref = at(system, "/a")
        ref.tell(Call(lambda a: pause(1.0)))
        for text in ("one", "two"):
            ref.tell(Say(text))
        system.stop_actor(ref, drain=True)
        ref.tell(Say("late"))
        down = await end_of(system, ref)
        assert down.reason.kind is ExitKind.NORMAL
        assert journal == ["/a init", "/a one", "/a two", "/a terminate normal"]
        assert system.dead_letters.by_type["Say", "draining"] == 1
        await system.stop()

    everywhere(scenario)


def test_3_1_a_draining_actor_refuses_and_says_so() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        ref.tell(Say("queued"))
        system.suspend(ref)
        ref.tell(Call(lambda a: pause(1.0)))
        system.stop_actor(ref, drain=True)
        await asyncio.sleep(0.1)
        assert state_word(cell_at(system, "/a")) == "suspended"
        ref.tell(Say("late"))
        with pytest.raises(ActorDown, match="draining"):
            await ref.ask(Get(lambda a: None), timeout=1)
        assert system.dead_letters.by_type["Say", "draining"] == 1
        system.resume(ref)
        await end_of(system, ref)
        await system.stop()

    everywhere(scenario)


def test_3_2_a_factory_or_init_that_fails_is_init_failed() -> None:
    async def scenario(sim: Simulation) -> None:
        def fail(actor: Probe) -> None:
            raise ValueError("no")

        def exit_(actor: Probe) -> None:
            raise SystemExit(1)

        async def overrun(actor: Probe) -> None:
            await asyncio.sleep(11.0)

        def broken() -> Actor:
            raise KeyError("factory")

        used = Actor()
        system = await tree(
            sim,
            probe("fails", [], on_init=fail),
            probe("exits", [], on_init=exit_),
            probe("overruns", [], on_init=overrun),
            ChildSpec("broken", broken, Restart.TEMPORARY),
            ChildSpec("reused", lambda: used, Restart.TRANSIENT),
            ChildSpec("no_actor", lambda: 1, Restart.TEMPORARY),  # type: ignore[arg-type, return-value]  # on purpose
        )
        for name, error in (
            ("fails", "ValueError: no"),
            ("exits", "SystemExit: 1"),
            ("overruns", "TimeoutError"),
            ("broken", "KeyError: 'factory'"),
            ("no_actor", "AttributeError"),
        ):
            (event,) = reports(sim, f"/{name}")
            assert event.fields["kind"] == "init_failed", name
            assert error in str(event.fields["reason"])
            assert event.fields["decision"] == "remove"
        system.kill(at(system, "/reused"))
        await until(lambda: len(reports(sim, "/reused")) >= 2)
        assert "used actor" in str(reports(sim, "/reused")[1].fields["reason"])
        await system.stop()

    everywhere(scenario)


def test_3_2_nobody_waits_for_continue() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", [], on_continue=lambda a: pause(100.0)), probe("b", []))
        assert sim.loop.time() < 1.0
        assert at(system, "/b").alive
        await system.stop(timeout=200.0)

    everywhere(scenario)


def test_3_3_one_handler_at_a_time() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []

        async def slow(actor: Probe) -> None:
            actor.write("begin")
            await asyncio.sleep(1.0)
            actor.write("end")

        system = await tree(sim, probe("a", journal))
        for _ in range(2):
            at(system, "/a").tell(Call(slow))
        await until(lambda: journal.count("/a end") == 2)
        assert journal[1:] == ["/a begin", "/a end"] * 2
        await system.stop()

    everywhere(scenario)


def test_3_3_a_handler_that_waits_too_long_is_stuck() -> None:
    class Hasty(Probe):
        handler_limit = 2.0

    async def scenario(sim: Simulation) -> None:
        system = await tree(
            sim,
            probe("handler", [], kind=Hasty, restart=Restart.PERMANENT),
            probe("continue", [], kind=Hasty, on_continue=lambda a: pause(60.0)),
            probe("patient", []),
        )
        at(system, "/patient").tell(Call(lambda a: pause(20.0)))
        ref = at(system, "/handler")
        ref.tell(Call(lambda a: pause(60.0)))
        down = await end_of(system, ref)
        assert down.reason.kind is ExitKind.STUCK
        assert 2.0 <= sim.loop.time() <= 4.1
        await until(lambda: ref.alive)
        assert reports(sim, "/continue")[0].fields["kind"] == "stuck"
        assert at(system, "/patient").alive
        await system.stop()

    everywhere(scenario)


def test_3_4_a_message_without_handler_is_a_dead_letter_and_the_actor_lives() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        ref.tell("text")
        with pytest.raises(ActorDown, match="unhandled message"):
            await ref.ask(Stranger(), timeout=1)
        assert system.dead_letters.by_type["str", "unhandled"] == 1
        assert system.dead_letters.by_type["Stranger", "unhandled"] == 1
        assert await ref.ask(Get(lambda a: 1), timeout=1) == 1
        await system.stop()

    everywhere(scenario)


def test_3_4_an_actor_may_take_messages_without_handler_itself() -> None:
    class Taking(Probe):
        def unhandled(self, message: object) -> None:
            self.write(f"took {message}")

    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal, kind=Taking))
        at(system, "/a").tell("text")
        await until(lambda: "/a took text" in journal)
        assert system.dead_letters.total == 0
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize("where", ["handler", "task", "guard", "init", "continue", "timer"])
def test_3_5_stop_ends_the_actor_wherever_it_is_called(where: str) -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []

        def stop(actor: Probe) -> None:
            actor.stop()

        async def stop_in_task(actor: Probe) -> None:
            actor.stop()

        def arrange(actor: Probe) -> None:
            if where == "task":
                actor.spawn_task(stop_in_task(actor), "stopper")
            elif where == "guard":
                sim.loop.call_soon(actor.guard("route", stop), actor)
            elif where == "timer":
                actor.start_timer(0.1, Call(stop))
            else:
                stop(actor)

        hooks = {"init": "on_init", "continue": "on_continue"}
        more: dict[str, Any] = {hooks[where]: stop} if where in hooks else {}
        system = await tree(sim, ChildSpec("d", DynamicSupervisor))
        ref = system.start_child(at(system, "/d"), probe("a", journal, **more))
        if where not in hooks:
            ref.tell(Call(arrange))
        down = await end_of(system, ref)
        assert down.reason.kind is ExitKind.NORMAL
        assert journal == ["/d/a init", "/d/a terminate normal"]
        await system.stop()

    everywhere(scenario)


def test_3_5_after_stop_messages_are_refused_while_the_handler_still_runs() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []

        async def stop_and_linger(actor: Probe) -> None:
            actor.stop()
            await asyncio.sleep(1.0)

        system = await tree(sim, probe("a", journal))
        ref = at(system, "/a")
        ref.tell(Call(stop_and_linger))
        await asyncio.sleep(0.5)
        ref.tell(Say("late"))
        assert system.dead_letters.by_type["Say", "stopping"] == 1
        with pytest.raises(ActorDown):
            await ref.ask(Get(lambda a: None), timeout=5)
        assert sim.loop.time() == 0.5
        await end_of(system, ref)
        assert "/a late" not in journal
        await system.stop()

    everywhere(scenario)


def test_3_6_actors_and_their_tasks_start_in_an_empty_context() -> None:
    async def scenario(sim: Simulation) -> None:
        seen: list[tuple[str, object]] = []

        async def look() -> None:
            seen.append((VARIABLE.get(), runtime_context.current()))

        def spawn(actor: Probe) -> None:
            VARIABLE.set("set in the handler")
            actor.spawn_task(look(), "look")

        VARIABLE.set("the spawner's")
        system = await tree(sim, probe("a", []))
        ref, cell = at(system, "/a"), cell_at(system, "/a")
        ref.tell(Call(lambda a: seen.append((VARIABLE.get(), runtime_context.current()))))
        ref.tell(Call(spawn))
        await until(lambda: len(seen) == 2)
        assert seen == [("clean", cell), ("clean", cell)]
        assert runtime_context.current() is None
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize("how", ["task", "guard", "task exit", "guard exit", "guard cancelled"])
def test_3_7_a_failing_task_or_callback_is_the_exit_of_its_owner(how: str) -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        error = {"exit": SystemExit(3), "cancelled": asyncio.CancelledError()}.get(
            how.split()[-1], ValueError("broken")
        )

        def fail() -> None:
            raise error

        async def fail_later() -> None:
            fail()

        def arrange(actor: Probe) -> None:
            actor.own(Thing(journal, "socket"))
            if how.startswith("task"):
                actor.spawn_task(fail_later(), "pump")
            else:
                sim.loop.call_soon(actor.guard("pump", fail))

        system = await tree(sim, probe("a", journal))
        ref = at(system, "/a")
        ref.tell(Call(arrange))
        ref.tell(Call(lambda a: pause(100.0)))  # a waiting handler is interrupted
        down = await end_of(system, ref)
        assert sim.loop.time() < 1.0
        assert down.reason.kind is ExitKind.RESOURCE
        assert "pump" in down.reason.detail
        assert journal == ["/a init", "released socket"]
        assert system.unowned_exceptions == 0
        await system.stop()

    everywhere(scenario)


def test_3_7_an_actor_may_handle_the_failure_itself() -> None:
    class Forgiving(Probe):
        def on_resource_failed(self, kind: str, error: Exception) -> bool:
            self.write(f"{kind}: {error}")
            if "worse" in str(error):
                raise RuntimeError("cannot handle that")
            return "bad" in str(error)

    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal, kind=Forgiving))
        ref = at(system, "/a")

        def fail(text: str) -> None:
            raise ValueError(text)

        guarded = await ref.ask(Get(lambda a: a.guard("route", fail)), timeout=1)
        assert guarded("bad") is None
        assert await ref.ask(Get(lambda a: 1), timeout=1) == 1
        guarded("worse")
        await until(lambda: reports(sim, "/a"))
        (event,) = reports(sim, "/a")
        assert "cannot handle that" in str(event.fields["reason"])
        guarded("after the end")  # harmless
        assert journal[1:3] == ["/a route: bad", "/a route: worse"]
        await system.stop()

    everywhere(scenario)


def test_3_7_a_finished_task_is_no_resource_any_more() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref, cell = at(system, "/a"), cell_at(system, "/a")
        task = await ref.ask(Get(lambda a: a.spawn_task(pause(1.0), "t")), timeout=1)
        assert cell.resources.kinds() == {"task": 1}
        await asyncio.sleep(1.5)
        assert task.done
        assert cell.resources.kinds() == {}
        assert system.owned_tasks == 0
        await system.stop()

    everywhere(scenario)


def test_3_7_a_keyboard_interrupt_stops_the_system() -> None:
    async def scenario(sim: Simulation) -> None:
        def interrupt(actor: Probe) -> None:
            raise KeyboardInterrupt

        async def interrupt_later() -> None:
            raise KeyboardInterrupt

        for function in (interrupt, lambda a: a.spawn_task(interrupt_later(), "t")):
            system = await tree(sim, probe("a", []), probe("b", []))
            at(system, "/a").tell(Call(function))
            async with asyncio.timeout(10):
                reason = await system.terminated
            assert str(reason) == "shutdown(keyboard interrupt)"
            await system.stop()

    everywhere(scenario)


def test_overridden_handlers_replace_what_they_override() -> None:
    class Ping(Request[str]):
        pass

    class Parent(Actor):
        @handles(Ping)
        def _ping(self, message: Ping) -> str | Deferred:
            return "parent"

    class Child(Parent):
        def _ping(self, message: Ping) -> str | Deferred:
            return "child" if message else DEFERRED

    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, ChildSpec("a", Child))
        assert await at(system, "/a").ask(Ping(), timeout=1) == "child"
        await system.stop()

    everywhere(scenario)


def test_two_handlers_for_one_type_are_refused() -> None:
    with pytest.raises(BadChildSpec, match="two handlers for int"):

        class Confused(Actor):
            @handles(int)
            def _one(self, message: int) -> None: ...

            @handles(int)
            def _two(self, message: int) -> None: ...


def test_an_actor_hears_the_events_it_subscribed_to_until_it_ends() -> None:
    class Listener(Probe):
        @handles(Event)
        def _event(self, event: Event) -> None:
            self.write(f"{event.kind} {event.path}")

    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(
            sim,
            probe("a", journal, kind=Listener, restart=Restart.TRANSIENT),
            probe("b", [], restart=Restart.PERMANENT),
        )
        ref = at(system, "/a")
        await ref.ask(Get(lambda a: a.subscribe(lambda e: e.path == "/b")), timeout=1)
        subscribers = system.events.subscribers
        system.kill(at(system, "/b"))
        await until(lambda: "/a started /b" in journal)
        assert "/a exited /b" in journal
        system.stop_actor(ref)
        await until(lambda: not ref.alive)
        assert system.events.subscribers == subscribers - 1
        await system.stop()

    everywhere(scenario)


def test_a_subscription_whose_filter_fails_is_its_actors_failure() -> None:
    async def scenario(sim: Simulation) -> None:
        def fail(event: Event) -> bool:
            raise ValueError("filter")

        system = await tree(sim, probe("a", []), probe("b", [], restart=Restart.PERMANENT))
        await at(system, "/a").ask(Get(lambda a: a.subscribe(fail)), timeout=1)
        system.kill(at(system, "/b"))
        await until(lambda: reports(sim, "/a"))
        assert reports(sim, "/a")[0].fields["kind"] == "resource"
        assert decisions(sim, "/b") == ["restart"]
        await system.stop()

    everywhere(scenario)
