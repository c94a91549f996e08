"""Rules 4.x: every ask has one outcome, in time, whatever dies."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from actors.runtime import (
    DEFERRED,
    ActorDown,
    AskCycle,
    AskTimeout,
    ChildSpec,
    DynamicSupervisor,
    ExitKind,
    Refusal,
    Reply,
    ReplyError,
    Restart,
    TooManyAsks,
)
from actors.runtime.ref import MAX_ASKS_OUT
from actors.runtime.simulation import Simulation

from .rig import (
    Call,
    Get,
    Probe,
    Say,
    at,
    cell_at,
    end_of,
    everywhere,
    probe,
    reports,
    tree,
    until,
)


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def late_answer(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return 1


def test_4_1_the_handlers_value_answers() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        assert await ref.ask(Get(lambda a: {"x": 1}), timeout=1) == {"x": 1}
        assert await ref.ask(Get(lambda a: None), timeout=1) is None
        assert await ref.ask(Get(lambda a: late_answer(0.5)), timeout=1) == 1
        await system.stop()

    everywhere(scenario)


def test_4_1_a_refusal_is_a_reply_error_and_the_actor_lives() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        with pytest.raises(ReplyError) as caught:
            await ref.ask(Get(lambda a: Refusal("quota")), timeout=1)
        assert caught.value.refusal == "quota"
        assert await ref.ask(Get(lambda a: 1), timeout=1) == 1
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize("how", ["kill", "crash", "fail", "task", "supervisor"])
@pytest.mark.parametrize("where", ["handled", "queued", "deferred"])
def test_4_1_the_targets_death_is_heard_at_once(how: str, where: str) -> None:
    async def scenario(sim: Simulation) -> None:
        inner = ChildSpec("d", DynamicSupervisor, Restart.TEMPORARY)
        system = await tree(sim, inner)
        ref = system.start_child(at(system, "/d"), probe("a", []))

        async def fail_soon(seconds: float) -> None:
            await asyncio.sleep(seconds)
            raise ValueError("broken")

        def defer(actor: Probe) -> object:
            actor.kept.append(actor.defer())
            return DEFERRED

        if how == "task":
            ref.tell(Call(lambda a: a.spawn_task(fail_soon(1.0), "t")))
        if where == "handled":
            question = Get(lambda a: fail_soon(1.0) if how == "fail" else pause(60.0))
        elif where == "queued":
            ref.tell(Call(lambda a: fail_soon(1.0) if how == "fail" else pause(60.0)))
            question = Get(lambda a: 1)
        else:
            question = Get(defer)
        asking = asyncio.ensure_future(ref.ask(question, timeout=30))
        await asyncio.sleep(1.0)
        if how == "kill":
            system.kill(ref)
        elif how == "crash":
            system.crash(ref)
        elif how == "supervisor":
            system.kill(at(system, "/d"))
        elif how == "fail" and where == "deferred":
            ref.tell(Call(lambda a: fail_soon(0.0)))
        with pytest.raises(ActorDown) as caught:
            await asking
        assert caught.value.path == "/d/a"
        assert sim.loop.time() <= 1.1
        await system.stop()

    everywhere(scenario, seeds=range(3))


def test_4_1_a_stop_answers_the_current_ask_and_fails_the_others() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        current = asyncio.ensure_future(ref.ask(Get(lambda a: late_answer(1.0)), timeout=30))
        await asyncio.sleep(0.1)
        queued = asyncio.ensure_future(ref.ask(Get(lambda a: 1), timeout=30))
        await asyncio.sleep(0.1)
        system.stop_actor(ref, "goaway")
        assert await current == 1
        with pytest.raises(ActorDown) as caught:
            await queued
        assert str(caught.value.reason) == "shutdown(goaway)"
        assert sim.loop.time() <= 1.1
        await system.stop()

    everywhere(scenario)


def test_4_1_a_place_where_nobody_lives_says_why() -> None:
    async def scenario(sim: Simulation) -> None:
        slow = probe("a", [], restart=Restart.PERMANENT)
        object.__setattr__(slow, "backoff", type(slow.backoff)(base=1.0))
        system = await tree(sim, slow, probe("b", []))
        ref = at(system, "/a")
        for _ in range(2):  # the second restart waits
            await ref.started(timeout=5)
            system.kill(ref)
            await until(lambda: len(reports(sim, "/a")) > 0)
        await until(lambda: len(reports(sim, "/a")) == 2)
        with pytest.raises(ActorDown) as caught:
            await ref.ask(Get(lambda a: 1), timeout=1)
        assert caught.value.reason.kind is ExitKind.RESTARTING
        assert "in 0." in caught.value.reason.detail
        gone = at(system, "/b")
        system.kill(gone, "operator")
        await end_of(system, gone)
        with pytest.raises(ActorDown, match="operator"):
            await gone.ask(Get(lambda a: 1), timeout=1)
        await system.stop()

    everywhere(scenario)


def test_4_1_the_deadline_is_kept_and_never_early() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        for timeout in (0.0, 0.0123, 0.5, 2.0):
            began = sim.loop.time()
            with pytest.raises(AskTimeout, match="did not answer Get"):
                await ref.ask(Get(lambda a, t=timeout: pause(t + 1.0)), timeout=timeout)  # type: ignore[misc]  # mypy cannot type the bound default
            assert 0 <= sim.loop.time() - began - timeout <= 0.0051
            await asyncio.sleep(5.0)
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize("timeout", [float("inf"), float("nan")])
def test_4_1_an_ask_without_deadline_is_refused(timeout: float) -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        with pytest.raises((ValueError, OverflowError)):
            await at(system, "/a").ask(Get(lambda a: 1), timeout=timeout)
        assert cell_at(system, "/a").mailbox.received == 0
        await system.stop()

    everywhere(scenario)


def test_4_1_an_actor_waits_for_a_bounded_number_of_answers() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []), probe("b", []))
        b = at(system, "/b")
        b.tell(Call(lambda actor: pause(10.0)))

        async def ask_b() -> int:
            return await b.ask(Get(lambda actor: 1), timeout=60)

        async def flood(actor: Probe) -> int:
            for number in range(MAX_ASKS_OUT):
                actor.spawn_task(ask_b(), f"ask {number}")
            await asyncio.sleep(0.1)
            with pytest.raises(TooManyAsks):
                await ask_b()
            return MAX_ASKS_OUT

        ref = at(system, "/a")
        assert await ref.ask(Get(flood), timeout=5) == MAX_ASKS_OUT
        assert cell_at(system, "/a").asks_out == MAX_ASKS_OUT
        await asyncio.sleep(20.0)
        assert cell_at(system, "/a").asks_out == 0
        await system.stop()

    everywhere(scenario, seeds=range(2))


def test_4_2_an_ask_nobody_waits_for_is_not_served() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal))
        ref = at(system, "/a")
        ref.tell(Call(lambda a: pause(2.0)))
        cancelled = asyncio.ensure_future(ref.ask(Get(lambda a: a.write("served")), timeout=60))
        with pytest.raises(AskTimeout):
            await ref.ask(Get(lambda a: a.write("served")), timeout=1.0)
        cancelled.cancel()
        await asyncio.sleep(5.0)
        assert journal == ["/a init"]
        assert cell_at(system, "/a").expired == 2
        await system.stop()

    everywhere(scenario)


def test_4_2_answer_and_cancellation_in_the_same_moment_lose_no_exception() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        for outcome in (Refusal("no"), 1):
            replies: list[Reply[object]] = []

            def defer(actor: Probe, replies: list[Reply[object]] = replies) -> object:
                replies.append(actor.defer())
                return DEFERRED

            asking = asyncio.ensure_future(ref.ask(Get(defer), timeout=60))
            await until(lambda replies=replies: replies)  # type: ignore[misc]  # mypy cannot type the bound default
            replies[0].send(outcome)
            asking.cancel()
            await asyncio.wait({asking})
            assert asking.cancelled()
            del asking, replies
        gc.collect()  # a lost exception would be reported now, and fail the simulation
        await system.stop()

    everywhere(scenario)


def test_4_2_an_outcome_leaves_no_reference_cycle() -> None:
    class Answer:
        pass

    async def scenario(sim: Simulation) -> None:
        gone: list[weakref.ref[Answer]] = []

        def answer(actor: Probe) -> Answer:
            value = Answer()
            gone.append(weakref.ref(value))
            return value

        def refuse(actor: Probe) -> Refusal:
            return Refusal(answer(actor))

        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        gc.collect()
        gc.disable()
        try:
            await ref.ask(Get(answer), timeout=1)
            try:
                await ref.ask(Get(refuse), timeout=1)
            except ReplyError:
                pass
            await asyncio.sleep(0.1)
            assert [reference() for reference in gone] == [None, None]
        finally:
            gc.enable()
        await system.stop()

    everywhere(scenario)


def test_4_3_an_answer_may_come_later() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []

        def defer(actor: Probe) -> object:
            actor.kept.append(actor.defer())
            return DEFERRED

        def answer(actor: Probe) -> None:
            reply = actor.kept.pop()
            assert isinstance(reply, Reply)
            assert reply.wanted
            reply.send(5)
            reply.send(6)
            assert not reply.wanted

        system = await tree(sim, probe("a", journal))
        ref, cell = at(system, "/a"), cell_at(system, "/a")
        asking = asyncio.ensure_future(ref.ask(Get(defer), timeout=5))
        await asyncio.sleep(1.0)
        ref.tell(Say("in between"))
        ref.tell(Call(answer))
        assert await asking == 5
        assert "/a in between" in journal
        assert not cell.deferred
        await system.stop()

    everywhere(scenario)


def test_4_3_a_deferred_reply_knows_that_nobody_waits_any_more() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []

        def defer(actor: Probe) -> object:
            reply = actor.defer()
            actor.kept.append(reply)
            return DEFERRED

        system = await tree(sim, probe("a", journal))
        ref, cell = at(system, "/a"), cell_at(system, "/a")
        with pytest.raises(AskTimeout):
            await ref.ask(Get(defer), timeout=0.5)
        asking = asyncio.ensure_future(ref.ask(Get(defer), timeout=60))
        await asyncio.sleep(0.1)
        answered = asyncio.ensure_future(ref.ask(Get(defer), timeout=60))
        await asyncio.sleep(0.5)
        asking.cancel()
        kept = await ref.ask(Get(lambda a: list(a.kept)), timeout=1)
        kept[-1].send(1)
        assert await answered == 1
        assert not any(reply.wanted for reply in kept)
        assert not cell.deferred
        kept[0].send(1)  # harmless
        last = asyncio.ensure_future(ref.ask(Get(defer), timeout=60))
        await asyncio.sleep(0.5)
        system.kill(ref)
        with pytest.raises(ActorDown):
            await last
        await system.stop()

    everywhere(scenario)


def test_4_3_deferring_without_a_reply_is_a_crash_not_a_timeout() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        with pytest.raises(ActorDown, match="without defer"):
            await at(system, "/a").ask(Get(lambda a: DEFERRED), timeout=60)
        await system.stop()

    everywhere(scenario)


def test_4_3_an_answer_sent_before_the_handler_returned_counts() -> None:
    async def scenario(sim: Simulation) -> None:
        def both(actor: Probe) -> int:
            actor.defer().send(1)
            return 2

        def sent(actor: Probe) -> object:
            actor.defer().send(3)
            return DEFERRED

        def changed_its_mind(actor: Probe) -> int:
            actor.kept.append(actor.defer())
            return 4

        system = await tree(sim, probe("a", []))
        ref = at(system, "/a")
        assert await ref.ask(Get(both), timeout=1) == 1
        assert await ref.ask(Get(sent), timeout=1) == 3
        assert await ref.ask(Get(changed_its_mind), timeout=1) == 4
        assert not cell_at(system, "/a").deferred
        await system.stop()

    everywhere(scenario)


def test_4_4_a_cycle_is_found_at_once() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, *(probe(name, []) for name in "abc"))
        a, b, c = (at(system, f"/{name}") for name in "abc")

        async def ask_onward(actor: Probe) -> object:
            target = {"a": b, "b": c, "c": a}[actor.ref.id]
            try:
                return await target.ask(Get(ask_onward), timeout=30)
            except AskCycle as cycle:
                return f"{actor.path} may not ask {cycle.path}"

        assert await a.ask(Get(ask_onward), timeout=30) == "/c may not ask /a"
        assert sim.loop.time() < 0.1
        await system.stop()

    everywhere(scenario)


def test_4_4_asking_oneself_in_a_handler_is_a_cycle_in_a_task_it_is_not() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []

        async def ask_itself(actor: Probe) -> str:
            try:
                return str(await actor.ref.ask(Get(lambda x: "answer"), timeout=30))
            except AskCycle:
                return "cycle"

        async def in_a_task(actor: Probe) -> None:
            actor.write(await ask_itself(actor))

        system = await tree(sim, probe("a", journal))
        ref = at(system, "/a")
        assert await ref.ask(Get(ask_itself), timeout=1) == "cycle"
        ref.tell(Call(lambda a: a.spawn_task(in_a_task(a), "t")))
        await until(lambda: "/a answer" in journal)
        await system.stop()

    everywhere(scenario)


def test_4_4_what_only_looks_like_a_cycle_is_none() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []), probe("b", []))
        a, b = at(system, "/a"), at(system, "/b")

        async def ask_a(actor: Probe) -> object:
            return await a.ask(Get(lambda x: "a answers"), timeout=5)

        # An owned task of a asks b, whose handler asks a: a is free to answer.
        async def from_task(actor: Probe) -> None:
            actor.kept.append(await b.ask(Get(ask_a), timeout=5))

        a.tell(Call(lambda actor: actor.spawn_task(from_task(actor), "t")))
        await asyncio.sleep(0.5)
        assert await a.ask(Get(lambda actor: actor.kept), timeout=1) == ["a answers"]

        # b answers a first, then asks it, all in one handler.
        async def answer_and_ask(actor: Probe) -> object:
            actor.defer().send("b answers")
            actor.kept.append(await a.ask(Get(lambda x: "a answers"), timeout=5))
            return DEFERRED

        async def ask_b(actor: Probe) -> object:
            return await b.ask(Get(answer_and_ask), timeout=5)

        assert await a.ask(Get(ask_b), timeout=5) == "b answers"
        await asyncio.sleep(0.5)
        assert await b.ask(Get(lambda actor: actor.kept), timeout=1) == ["a answers"]
        await system.stop()

    everywhere(scenario)


def test_4_5_ask_again_survives_restarts_until_its_deadline() -> None:
    async def scenario(sim: Simulation) -> None:
        failures = [3]

        def fail_sometimes(actor: Probe) -> int:
            failures[0] -= 1
            if failures[0] >= 0:
                raise ValueError("not yet")
            return 7

        system = await tree(
            sim,
            probe("a", [], restart=Restart.PERMANENT),
            probe("b", []),
        )
        assert await at(system, "/a").ask_again(Get(fail_sometimes), timeout=5) == 7
        gone = at(system, "/b")
        system.kill(gone)
        began = sim.loop.time()
        with pytest.raises(ActorDown):
            await gone.ask_again(Get(lambda a: 1), timeout=2)
        assert 1.9 <= sim.loop.time() - began <= 2.0
        await system.stop()

    everywhere(scenario)


def test_an_asker_that_dies_takes_its_asks_with_it() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", [], restart=Restart.PERMANENT), probe("b", []))
        a, b = at(system, "/a"), at(system, "/b")
        b.tell(Call(lambda actor: pause(5.0)))

        async def ask_b(actor: Probe) -> None:
            await b.ask(Get(lambda x: 1), timeout=60)

        a.tell(Call(ask_b))
        await asyncio.sleep(1.0)
        assert cell_at(system, "/a").asks_out == 1
        system.kill(a)
        await until(lambda: cell_at(system, "/a").incarnation > 3 and a.alive)
        assert cell_at(system, "/a").asks_out == 0
        await asyncio.sleep(10.0)
        assert cell_at(system, "/b").expired == 1
        await system.stop()

    everywhere(scenario)
