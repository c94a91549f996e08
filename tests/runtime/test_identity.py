"""Rules 1.x: paths, ids, incarnations, references, names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime import (
    Actor,
    ActorDown,
    ActorRef,
    BadChildSpec,
    ChildSpec,
    DynamicSupervisor,
    ExitKind,
    Restart,
    Supervisor,
    escape_id,
)
from actors.runtime.simulation import Simulation

from .rig import Call, Get, Say, at, cell_at, end_of, everywhere, probe, tree, until


def test_1_1_the_path_names_the_place_and_survives_restarts() -> None:
    async def scenario(sim: Simulation) -> None:
        inner = ChildSpec("edge", lambda: Supervisor([probe("a:1", [], restart=Restart.PERMANENT)]))
        system = await tree(sim, inner)
        ref = at(system, "/edge/a:1")
        first = ref.incarnation
        assert (ref.path, ref.id, repr(ref)) == ("/edge/a:1", "a:1", "<ActorRef /edge/a:1>")
        system.kill(ref)
        await until(lambda: ref.incarnation > first and ref.alive)
        assert ref.path == "/edge/a:1"
        assert at(system, "/").path == "/"
        assert system.ref("/edge/nobody") is None
        assert system.ref("/edge/a:1/below") is None
        await system.stop()

    everywhere(scenario)


@given(st.text())
def test_1_2_every_text_can_become_an_id(text: str) -> None:
    name = escape_id(text)
    ChildSpec(name, Actor).check()
    assert len(name) <= 128
    assert name.isascii()


@given(st.text(max_size=400), st.text(max_size=400))
def test_1_2_texts_that_differ_give_ids_that_differ(one: str, two: str) -> None:
    assert (escape_id(one) == escape_id(two)) == (one == two)
    assert escape_id("x" * 200 + one) != escape_id("x" * 200 + two) or one == two


@pytest.mark.parametrize(
    "name", ["", "a/b", "a b", "ä", "x" * 129, "%", "%2", "%zz", "a\n", "\x00"]
)
def test_1_2_an_illegal_id_is_refused(name: str) -> None:
    with pytest.raises(BadChildSpec, match="escape_id"):
        ChildSpec(name, Actor).check()


@pytest.mark.parametrize(
    "name", ["a", "acme:0002", "203.0.113.5:41312", "a%20b", "[::1]", "x" * 128]
)
def test_1_2_a_legal_id_passes(name: str) -> None:
    ChildSpec(name, Actor).check()


def test_1_3_incarnations_grow_over_the_whole_system() -> None:
    async def scenario(sim: Simulation) -> None:
        system = await tree(sim, *(probe(n, [], restart=Restart.PERMANENT) for n in "abc"))
        seen = [at(system, path).incarnation for path in ("/", "/a", "/b", "/c")]
        for _ in range(3):
            ref = at(system, "/b")
            system.kill(ref)
            await until(lambda ref=ref: ref.alive and ref.incarnation not in seen)  # type: ignore[misc]  # mypy cannot type the bound default
            seen.append(ref.incarnation)
        assert seen == sorted(set(seen))
        await system.stop()

    everywhere(scenario)


def test_1_4_a_reference_reaches_the_successor_also_below_a_restarted_supervisor() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        inner = ChildSpec("s", lambda: Supervisor([probe("a", journal, restart=Restart.PERMANENT)]))
        system = await tree(sim, inner)
        ref = at(system, "/s/a")
        old_cell = cell_at(system, "/s/a")
        system.kill(at(system, "/s"))
        await until(lambda: at(system, "/s").alive and system.ref("/s/a"))
        await ref.started(timeout=5)
        assert cell_at(system, "/s/a") is not old_cell
        ref.tell(Say("hello"))
        assert await ref.ask(Get(lambda a: a.path), timeout=1) == "/s/a"
        assert "/s/a hello" in journal
        assert ref == at(system, "/s/a")
        assert hash(ref) == hash(at(system, "/s/a"))
        await system.stop()

    everywhere(scenario)


@pytest.mark.parametrize("mailbox", ["drop", "keep"])
def test_1_4_a_pinned_reference_knows_one_incarnation(mailbox: str) -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, probe("a", journal, restart=Restart.PERMANENT, mailbox=mailbox))
        ref = at(system, "/a")
        pinned = ref.pinned()
        first = ref.incarnation
        pinned.tell(Say("one"))
        assert pinned.try_tell(Say("two"))
        await pinned.started(timeout=1)
        assert await pinned.ask(Get(lambda a: 4), timeout=1) == 4
        system.kill(ref)
        for _ in range(2):  # while it ends, and when its successor lives
            assert not pinned.alive
            assert pinned.incarnation == first
            pinned.tell(Say("lost"))
            assert pinned.try_tell(Say("lost"))
            with pytest.raises(ActorDown) as caught:
                await pinned.ask(Get(lambda a: 4), timeout=1)
            assert caught.value.reason.kind is ExitKind.INCARNATION
            with pytest.raises(ActorDown):
                await pinned.started(timeout=1)
            await until(lambda: ref.alive)
        assert [line for line in journal if "init" not in line] == ["/a one", "/a two"]
        assert system.dead_letters.by_type["Say", "incarnation"] == 4
        await system.stop()

    everywhere(scenario)


def test_1_4_a_removed_place_can_be_taken_again_under_the_same_reference() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(sim, ChildSpec("d", DynamicSupervisor))
        first = system.start_child(at(system, "/d"), probe("x", journal))
        first.tell(Call(lambda a: a.stop()))
        await end_of(system, first)
        await until(lambda: system.ref("/d/x") is None)
        first.tell(Say("nobody"))
        assert system.dead_letters.by_type["Say", "noproc"] == 1
        second = system.start_child(at(system, "/d"), probe("x", journal))
        first.tell(Say("hello"))
        await second.ask(Get(lambda a: None), timeout=1)
        assert "/d/x hello" in journal
        assert first == second
        await system.stop()

    everywhere(scenario)


def test_1_5_a_name_is_free_before_anybody_hears_of_the_end() -> None:
    async def scenario(sim: Simulation) -> None:
        journal: list[str] = []
        system = await tree(
            sim,
            probe("a", journal, on_init=lambda a: a.register_name("boss")),
            probe("b", journal),
        )
        assert system.whereis("boss") == at(system, "/a")
        found: list[ActorRef | None] = []
        system.monitor(at(system, "/a"), lambda down: found.append(system.whereis("boss")))
        b = at(system, "/b")
        with pytest.raises(ActorDown) as caught:
            await b.ask(Get(lambda actor: actor.register_name("boss")), timeout=1)
        assert "boss" in caught.value.reason.error
        system.kill(at(system, "/a"))
        await until(lambda: found)
        assert found == [None]
        await system.stop()

    everywhere(scenario)
