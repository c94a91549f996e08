"""Rules 2.x: lanes, bounds, overflow policies, order, counters, fairness."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime import (
    Actor,
    ActorDown,
    BadChildSpec,
    ChildSpec,
    Down,
    MailboxFull,
    MailboxSpec,
    Overflow,
    handles,
    shutdown,
)
from actors.runtime.asks import Ask
from actors.runtime.mailbox import Mailbox
from actors.runtime.signals import Notice, Tick
from actors.runtime.simulation import Simulation

from .invariants import mailbox_is_conserved
from .rig import Call, Get, Probe, Say, at, cell_at, end_of, everywhere, probe, tree, until


def says(journal: list[str]) -> list[str]:
    """What was said, without the hooks."""
    return [
        line.split(" ", 1)[1] for line in journal if line.split()[1] not in ("init", "terminate")
    ]


def narrow(overflow: Overflow, bound: int = 2) -> type[Probe]:
    """A probe class with a small mailbox."""
    spec = MailboxSpec(
        bound, overflow, key=by_first_letter if overflow is Overflow.COALESCE else None
    )
    return type("Narrow", (Probe,), {"mailbox": spec})


def by_first_letter(message: object) -> str | None:
    """Texts that begin with the same letter replace each other; those with `!` never do."""
    if not isinstance(message, Say) or message.text.startswith("!"):
        return None
    return message.text[0]


def test_2_1_the_system_lane_is_served_first_and_while_suspended() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal))
        ref = at(system, "/a")
        system.suspend(ref)
        for text in ("one", "two"):
            ref.tell(Say(text))
        system.stop_actor(ref, "enough")
        down = await end_of(system, ref)
        assert down.reason == shutdown("enough")
        assert says(journal) == []
        assert system.dead_letters.by_type["Say", "died"] == 2
        await system.stop()

    everywhere(scenario)


def test_2_2_ticks_and_downs_pass_a_full_mailbox_and_take_no_room() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal, kind=narrow(Overflow.REJECT)), probe("b", []))
        ref, other = at(system, "/a"), at(system, "/b")
        await ref.ask(Get(lambda a: [a.monitor(other) for _ in range(3)]), timeout=1)
        await ref.ask(Get(lambda a: a.start_timer(0.5, Say("tick"))), timeout=1)
        system.suspend(ref)
        ref.tell(Say("one"))
        system.kill(other)
        await asyncio.sleep(1.0)  # three Downs and a tick are queued now, one message
        ref.tell(Say("two"))
        with pytest.raises(MailboxFull):
            ref.tell(Say("three"))
        system.resume(ref)
        await until(lambda: len(says(journal)) == 6)
        assert says(journal) == ["one", *["down /b killed"] * 3, "tick", "two"]
        assert not list(mailbox_is_conserved(cell_at(system, "/a")))
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize(
    "overflow, served, rejected, dropped",
    [
        (Overflow.REJECT, ["a1", "a2"], 3, 0),
        (Overflow.DROP_NEWEST, ["a1", "a2"], 0, 3),
        (Overflow.DROP_OLDEST, ["!0", "!1"], 0, 3),
        # a2 replaced a1; b1 fitted; !0 and !1 have no key and no room
        (Overflow.COALESCE, ["a2", "b1"], 2, 1),
    ],
    ids=lambda value: value.value if isinstance(value, Overflow) else None,
)
def test_2_3_tells_at_the_bound(
    overflow: Overflow, served: list[str], rejected: int, dropped: int
) -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal, kind=narrow(overflow)))
        ref = at(system, "/a")
        system.suspend(ref)
        accepted = [ref.try_tell(Say(text)) for text in ("a1", "a2", "b1", "!0", "!1")]
        assert accepted.count(False) == rejected
        system.resume(ref)
        await asyncio.sleep(0.01)
        assert says(journal) == served
        statistics = cell_at(system, "/a").mailbox.statistics()
        assert (statistics.rejected, statistics.dropped) == (rejected, dropped)
        assert statistics.high_water == 2
        assert not list(mailbox_is_conserved(cell_at(system, "/a")))
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize("overflow", list(Overflow))
def test_2_3_an_ask_at_the_bound_hears_it_at_once(overflow: Overflow) -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", [], kind=narrow(overflow)))
        ref = at(system, "/a")
        system.suspend(ref)
        began = sim.loop.time()
        asking = [asyncio.ensure_future(ref.ask(Get(lambda a: 1), timeout=30)) for _ in range(3)]
        done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        assert isinstance(done.pop().exception(), MailboxFull)
        assert sim.loop.time() == began
        system.resume(ref)
        assert [await task for task in waiting] == [1, 1]
        assert not list(mailbox_is_conserved(cell_at(system, "/a")))
        await system.stop()

    everywhere(scenario)


def test_2_3_a_coalesced_message_keeps_its_place_and_is_newest() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal, kind=narrow(Overflow.COALESCE, bound=3)))
        ref = at(system, "/a")
        system.suspend(ref)
        for text in ("a1", "b1", "a2", "!", "b2", "a3"):
            ref.tell(Say(text))
        system.resume(ref)
        await asyncio.sleep(0.01)
        ref.tell(Say("a4"))
        await asyncio.sleep(0.01)
        assert says(journal) == ["a3", "b2", "!", "a4"]
        await system.stop()

    everywhere(scenario)


def test_2_3_a_mailbox_that_cannot_work_is_refused() -> None:
    class Keyless(Actor):
        mailbox = MailboxSpec(overflow=Overflow.COALESCE)

    class Boundless(Actor):
        mailbox = MailboxSpec(bound=0)

    async def scenario(sim: Simulation) -> None:
        for kind in (Keyless, Boundless):
            system = sim.system()
            with pytest.raises(ActorDown) as caught:
                await system.start(lambda kind=kind: kind())  # type: ignore[misc]  # any actor can be a root
            assert BadChildSpec.__name__ in caught.value.reason.error

    everywhere(scenario)


def test_2_5_a_down_arrives_after_everything_the_dead_had_sent() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal), probe("b", []))
        a, b = at(system, "/a"), at(system, "/b")
        await a.ask(Get(lambda actor: actor.monitor(b)), timeout=1)

        def say_and_fail(actor: Probe) -> None:
            for number in range(3):
                a.tell(Say(str(number)))
            raise ValueError("end")

        b.tell(Call(say_and_fail))
        await until(lambda: len(says(journal)) == 4)
        assert says(journal) == ["0", "1", "2", "down /b crash(ValueError: end)"]
        await system.stop()

    everywhere(scenario)


@given(
    st.sampled_from(list(Overflow)),
    st.integers(1, 4),
    st.lists(
        st.one_of(
            st.sampled_from(["a", "b", "!"]),
            st.sampled_from(["ask", "tick", "notice", "take", "take", "expire"]),
        ),
        max_size=60,
    ),
)
def test_2_6_nothing_is_lost_or_counted_twice(
    overflow: Overflow, bound: int, steps: list[str]
) -> None:
    loop = asyncio.new_event_loop()
    try:
        key = by_first_letter if overflow is Overflow.COALESCE else None
        mailbox = Mailbox(MailboxSpec(bound, overflow, key), lambda: 0.0)
        offered = taken = rejected = 0
        asks: deque[Ask] = deque()
        for step in steps:
            if step == "take":
                if mailbox.queue:
                    item = mailbox.unwrap(mailbox.queue.popleft())
                    mailbox.reserved -= type(item) in (Tick, Notice)
                    taken += 1
            elif step == "tick":
                mailbox.offer_reserved(Tick(None, None))
                offered += 1
            elif step == "notice":
                mailbox.offer_reserved(Notice(Down(1, "/", 1, shutdown(""))))
                offered += 1
            elif step == "expire":
                if asks:
                    asks.popleft().expire()
            else:
                message: object = Say(step)
                if step == "ask":
                    ask = Ask()
                    ask.future, ask.message, ask.callback = loop.create_future(), message, None
                    asks.append(ask)
                    message = ask
                offered += 1
                rejected += not mailbox.offer(message)
            assert mailbox.received == offered - rejected
            assert mailbox.rejected == rejected
            assert mailbox.received == taken + mailbox.dropped + len(mailbox.queue)
            assert len(mailbox.queue) - mailbox.reserved <= bound
            assert mailbox.high_water <= bound + mailbox.reserved + taken + offered
    finally:
        loop.close()


def test_2_6_the_law_holds_over_every_way_a_message_can_go() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []), probe("b", []))
        ref, cell = at(system, "/a"), cell_at(system, "/a")
        for number in range(70):
            ref.tell(Say(str(number)))
        ref.tell("a message without handler")
        await ref.ask(Get(lambda a: a.demonitor(a.monitor(at(system, "/b")))), timeout=1)
        await ref.ask(Get(lambda a: a.start_timer(0.1, Say("tick"), "key")), timeout=1)
        token = await ref.ask(Get(lambda a: a.monitor(at(system, "/b"))), timeout=1)
        system.suspend(ref)
        asking = asyncio.ensure_future(ref.ask(Get(lambda a: 1), timeout=0.5))
        system.kill(at(system, "/b"))
        await asyncio.sleep(1.0)  # a tick, a Down and an expired ask are queued
        cell.cancel_timer("key")
        await asyncio.wait({asking})
        asking.exception()
        system.resume(ref)
        await ref.ask(Get(lambda a: a.demonitor(token)), timeout=1)
        system.suspend(ref)
        late = asyncio.ensure_future(ref.ask(Get(lambda a: 1), timeout=5))
        await asyncio.sleep(0.01)
        ref.tell(Say("dies"))
        system.kill(ref)
        assert isinstance((await asyncio.gather(late, return_exceptions=True))[0], ActorDown)
        ref.tell(Say("too late"))
        assert not list(mailbox_is_conserved(cell))
        assert (cell.failed, cell.dead, cell.late) == (1, 3, 1)
        assert cell.expired >= 2
        await system.stop()

    everywhere(scenario)


def test_2_7_a_flood_leaves_the_event_loop_its_turns() -> None:
    async def scenario(sim: Simulation) -> None:
        turns: list[int] = []
        system = await tree(sim, probe("a", []))
        for _ in range(1000):
            at(system, "/a").tell(Call(lambda a: turns.append(sim.loop.turns)))
        await until(lambda: len(turns) == 1000)
        assert max(turns.count(turn) for turn in turns) <= 128
        await system.stop()

    everywhere(scenario)


def test_2_7_slow_handlers_leave_the_event_loop_its_turns_earlier() -> None:
    class Slow(Actor):
        """Every message takes a millisecond of the loop's time."""

        def __init__(self) -> None:
            self.turns: list[int] = []

        @handles(int)
        def _number(self, number: int) -> None:
            loop = self.system.loop
            loop._now += 0.001  # type: ignore[attr-defined]  # the simulation's clock
            self.turns.append(loop.turns)  # type: ignore[attr-defined]  # the simulation's counter

    async def scenario(sim: Simulation) -> None:
        slow = Slow()
        system = await tree(sim, ChildSpec("a", lambda: slow))
        for number in range(100):
            at(system, "/a").tell(number)
        await until(lambda: len(slow.turns) == 100)
        assert max(slow.turns.count(turn) for turn in slow.turns) <= 32
        await system.stop()

    everywhere(scenario)


def test_2_8_sojourn_and_busy_time_are_sampled() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, probe("a", []))
        ref, cell = at(system, "/a"), cell_at(system, "/a")
        system.suspend(ref)
        for _ in range(130):
            ref.tell(Call(lambda a: sum(range(2000))))
        await asyncio.sleep(2.0)
        system.resume(ref)
        await ref.ask(Get(lambda a: None), timeout=1)
        assert cell.mailbox.sojourn == pytest.approx(2.0, abs=0.01)
        assert cell.busy > 0
        await system.stop()

    everywhere(scenario)
