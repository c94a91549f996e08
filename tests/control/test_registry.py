"""The registry: connections and their generations, services, providers, stream ids."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from actors.control.backend import (
    Backend,
    BackendSpec,
    BackendUnavailable,
)
from actors.control.messages import (
    AgentUp,
    PeerOf,
    RegisterRefused,
    RegisterService,
    Resolve,
    Unavailable,
)
from actors.control.registry import registry
from actors.control.store.embedded import embedded_backend
from actors.control.store.requests import DeregisterAgents, FindProviders, RegisterServices
from actors.runtime import Actor, AskTimeout, ReplyError, Request
from tests.conftest import eventually, run
from tests.control.rig import Rig, running

R = TypeVar("R")


def rows(path: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT name, agent_uri, relay_id FROM services ORDER BY name, agent_uri"
        ).fetchall()


def has_rows(path: Path, expected: list[tuple[str, str, str]]) -> bool:
    return rows(path) == sorted(expected)


async def refused(rig: Rig, message: RegisterService | AgentUp) -> str:
    with pytest.raises(ReplyError) as caught:
        await rig.registry.ask(message, timeout=5)
    assert isinstance(caught.value.refusal, RegisterRefused)
    return caught.value.refusal.why


# Register, resolve, end.


def test_register_resolve_end(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(path, endpoint="192.0.2.1:7443", region="eu") as rig:
            connection, generation = await rig.connect("u1")
            assert await rig.register("u1", "web", generation) == "acme/web"
            (provider,) = (await rig.resolve("web")).providers
            assert provider.service_id == "acme/web"
            assert (provider.uri, provider.connection) == ("u1", connection.ref)
            assert (provider.relay_id, provider.relay_endpoint) == ("r1", "192.0.2.1:7443")
            assert provider.local_address == "127.0.0.1:80"
            assert has_rows(path, [("web", "u1", "r1")])
            assert await rig.providers("other") == []
            assert (await rig.resolve("web", tenant="other")).providers == ()
            await rig.kill(connection)
            assert await rig.providers("web") == []
            await eventually(lambda: has_rows(path, []), what="withdrawal")

    run(main())


def test_a_service_is_confirmed_only_when_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(path) as rig:
            _, generation = await rig.connect("u1")
            for n in range(20):
                await rig.register("u1", f"svc{n}", generation)
                assert ("svc" + str(n), "u1", "r1") in rows(path)

    run(main())


def test_who_may_not_register() -> None:
    async def main() -> None:
        async with running() as rig:
            _, old = await rig.connect("u1")
            _, new = await rig.connect("u1")
            register = RegisterService("acme", "web", "u1", old)
            assert await refused(rig, register) == "stale_generation"
            register = RegisterService("acme", "web", "nobody", 1)
            assert await refused(rig, register) == "not_connected"
            register = RegisterService("other", "web", "u1", new)
            assert await refused(rig, register) == "denied"
            for name in ("", "x" * 256, "tab\there", "nul\0", "\ud800"):
                assert await refused(rig, RegisterService("acme", name, "u1", new)) == "bad_name"
            assert await rig.register("u1", "x" * 255, new)

    run(main())


def test_several_agents_provide_one_name_newest_first() -> None:
    async def main() -> None:
        async with running() as rig:
            for uri in ("u1", "u2", "u3"):
                await rig.connect(uri, "web")
                await asyncio.sleep(0.002)  # another millisecond
            assert await rig.providers("web") == ["u3", "u2", "u1"]

    run(main())


# Generations.


def test_a_fast_reconnect_keeps_the_new_registration(tmp_path: Path) -> None:
    """R17: the clean-up of the old connection takes nothing with it."""
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(path) as rig:
            old, old_generation = await rig.connect("u1", "web")
            new, new_generation = await rig.connect("u1", "web")
            assert new_generation > old_generation
            await eventually(lambda: old.superseded == [new_generation])
            await rig.kill(old)
            (provider,) = (await rig.resolve("web")).providers
            assert provider.connection == new.ref
            assert has_rows(path, [("web", "u1", "r1")])
            await rig.kill(new)
            assert await rig.providers("web") == []
            await eventually(lambda: has_rows(path, []), what="withdrawal")

    run(main())


def test_the_old_connection_ends_at_any_moment_of_the_reconnect(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(path) as rig:
            for moment in range(4):
                uri = f"u{moment}"
                old, _ = await rig.connect(uri, "web")
                new = rig.idle()
                if moment == 0:
                    rig.system.kill(old.ref)
                up = asyncio.create_task(rig.up(uri, new))
                if moment == 1:
                    rig.system.kill(old.ref)
                generation = await up
                if moment == 2:
                    rig.system.kill(old.ref)
                register = asyncio.create_task(rig.register(uri, "web", generation))
                if moment == 3:
                    await asyncio.sleep(0)
                    rig.system.kill(old.ref)
                await register
                assert uri in await rig.providers("web")
            expected = [("web", f"u{n}", "r1") for n in range(4)]
            await eventually(lambda: rig.describe("registry")["unpublished"] == 0)
            assert has_rows(path, expected)
            assert rig.describe("registry")["agents"] == 4

    run(main())


def test_a_hundred_reconnects_in_a_row_leave_one_row(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(path) as rig:
            last = None
            for _ in range(100):
                last, _ = await rig.connect("u1", "web", "db")
                if len(rig.system.find("/agents").children or ()) > 3:  # type: ignore[union-attr]  # it runs
                    rig.system.kill(rig.ref(f"/agents/c{rig.count - 2}"))
            assert last is not None
            (provider,) = (await rig.resolve("web")).providers
            assert provider.connection == last.ref
            await eventually(lambda: rig.describe("registry")["unpublished"] == 0)
            assert has_rows(path, [("db", "u1", "r1"), ("web", "u1", "r1")])

    run(main())


def test_a_service_stays_resolvable_between_reconnect_and_register() -> None:
    async def main() -> None:
        async with running() as rig:
            await rig.connect("u1", "web")
            new = rig.idle()
            await rig.up("u1", new)
            (provider,) = (await rig.resolve("web")).providers
            assert provider.connection == new.ref

    run(main())


def test_a_service_the_reconnected_agent_does_not_publish_again_goes(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(path, carry=0.05) as rig:
            await rig.connect("u1", "web", "db")
            await rig.connect("u1", "db")
            await eventually(lambda: has_rows(path, [("db", "u1", "r1")]), what="clean-up")
            assert await rig.providers("web") == []
            assert await rig.providers("db") == ["u1"]

    run(main())


def test_a_repeated_agent_up() -> None:
    async def main() -> None:
        async with running() as rig:
            old, old_generation = await rig.connect("u1")
            assert await rig.up("u1", old, old_generation) == old_generation
            assert await rig.up("u1", old) == old_generation  # its first answer was lost
            new, new_generation = await rig.connect("u1")
            assert old.superseded == [new_generation]
            stale = AgentUp("u1", "acme", old.ref, old_generation)
            assert await refused(rig, stale) == "stale_generation"
            await eventually(lambda: len(old.superseded) == 2)
            assert await rig.up("u1", new, new_generation) == new_generation
            assert new.superseded == []

    run(main())


def test_a_connection_that_ended_before_it_was_heard_leaves_nothing() -> None:
    async def main() -> None:
        async with running() as rig:
            connection = rig.idle()
            await rig.kill(connection)
            await rig.up("u1", connection)
            await eventually(lambda: rig.describe("registry")["agents"] == 0)

    run(main())


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with running(grace=0.5) as rig:
            monkeypatch.setattr(registry, "MAX_AGENTS", 1)
            monkeypatch.setattr(registry, "MAX_SERVICES_PER_AGENT", 2)
            monkeypatch.setattr(registry, "MAX_CLAIMS", 1)
            monkeypatch.setattr(registry, "MAX_WAITING", 3)
            _, generation = await rig.connect("u1", "a", "b")
            other = rig.idle()
            assert await refused(rig, AgentUp("u2", "acme", other.ref)) == "limit"
            assert await refused(rig, RegisterService("acme", "c", "u1", generation)) == "limit"
            assert await rig.register("u1", "a", generation) == "acme/a"
            assert await rig.claim(1, other)
            assert not await rig.claim(2, other)
            waiting = [asyncio.create_task(rig.resolve("none")) for _ in range(3)]
            await asyncio.sleep(0.02)
            with pytest.raises(ReplyError) as caught:
                await rig.resolve("none")
            assert isinstance(caught.value.refusal, Unavailable)
            assert await rig.providers("a") == ["u1"]
            for task in waiting:
                assert (await task).providers == ()
            assert rig.describe("registry")["waiting"] == 0

    run(main())


# Restart.


def test_agents_and_services_come_back_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(path, grace=2.0) as rig:
            rig.agent("u1", "web", "db")
            rig.agent("u2", "web")
            await eventually(lambda: len(rows(path)) == 3)
            for name in ("store", "registry"):
                rig.system.kill(rig.ref(f"/control/{name}"))
                # Right away: never "not found".
                assert await rig.providers("web")
                assert await rig.providers("db") == ["u1"]
                await eventually(lambda: rig.describe("registry")["agents"] == 2)
            await eventually(lambda: rig.describe("registry")["unpublished"] == 0)
            assert len(rows(path)) == 3
            assert sorted(await rig.providers("web")) == ["u1", "u2"]

    run(main())


def test_a_restarted_registry_takes_the_newest_of_two_connections() -> None:
    async def main() -> None:
        async with running() as rig:
            old = rig.agent("u1", "web")
            await eventually(lambda: rig.describe("registry")["agents"] == 1)
            new = rig.agent("u1", "web")
            await eventually(lambda: old.superseded)
            for _ in range(3):
                rig.system.kill(rig.registry)
                (provider,) = (await rig.resolve("web")).providers
                await eventually(lambda: rig.describe("registry")["agents"] is not None)
            await eventually(lambda: rig.describe("registry")["agents"] == 1)
            (provider,) = (await rig.resolve("web")).providers
            assert provider.connection == new.ref
            assert new.superseded == []
            assert len(old.superseded) >= 2

    run(main())


def test_a_resolve_waits_for_the_grace_and_no_longer() -> None:
    async def main() -> None:
        async with running(grace=0.2) as rig:
            loop = asyncio.get_running_loop()
            began = loop.time()
            waiting = asyncio.create_task(rig.providers("web"))
            assert await rig.providers("nobody") == []
            assert loop.time() - began >= 0.15
            assert await waiting == []
            rig.system.kill(rig.registry)
            waiting = asyncio.create_task(rig.providers("web"))
            _, generation = await rig.connect("u1")
            assert not waiting.done()
            await rig.register("u1", "web", generation)
            assert await waiting == ["u1"]
            rig.system.kill(rig.registry)
            with pytest.raises(AskTimeout):
                await rig.registry.ask(Resolve("acme", "none"), timeout=0.02)

    run(main())


def test_rows_of_an_earlier_life_are_withdrawn_and_never_offered(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def crash() -> None:
        async with running(path) as rig:
            await rig.connect("u1", "web")
            await rig.connect("u2", "web")
            rig.system.kill_all()  # no farewell: the rows stay

    async def again() -> None:
        assert len(rows(path)) == 2
        async with running(path, grace=0.05) as rig:
            await rig.connect("u2", "web")
            assert await rig.providers("web") == ["u2"]
            await eventually(lambda: has_rows(path, [("web", "u2", "r1")]), what="purge")
            assert await rig.providers("web") == ["u2"]

    run(crash())
    run(again())


def test_an_orderly_stop_withdraws_what_ended_before_it(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(path) as rig:
            for n in range(300):
                await rig.connect(f"u{n}", "web")

    run(main())
    assert rows(path) == []


def test_a_register_after_a_restart_asks_for_the_agent_up_first() -> None:
    async def main() -> None:
        async with running(grace=0.3) as rig:
            connection, generation = await rig.connect("u1")
            rig.system.kill(rig.registry)
            # Answered at once, during the grace too: the agent may wait for it before its AgentUp.
            register = RegisterService("acme", "web", "u1", generation)
            assert await refused(rig, register) == "not_connected"
            await rig.up("u1", connection, generation)
            assert await rig.register("u1", "web", generation) == "acme/web"

    run(main())


# Other relays.


def test_providers_at_another_relay(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        east = {"relay_id": "east", "region": "e", "endpoint": "192.0.2.1:7443"}
        west = {"relay_id": "west", "region": "w", "endpoint": "192.0.2.2:7443"}
        async with running(path, **east) as here, running(path, **west) as there:  # type: ignore[arg-type]
            await there.connect("far", "web")
            (provider,) = (await here.resolve("web")).providers
            assert provider.connection is None
            assert (provider.uri, provider.relay_id) == ("far", "west")
            assert provider.relay_endpoint == "192.0.2.2:7443"
            await asyncio.sleep(0.002)
            await here.connect("near", "web")
            assert await here.providers("web", region="w") == ["far", "near"]
            assert await here.providers("web", region="e") == ["near", "far"]
            assert await here.providers("web") == ["near", "far"]
            # The agent moves over here; the old relay notices later.
            await here.connect("far", "web")
            await eventually(lambda: ("web", "far", "east") in rows(path))
            await there.kill(there.idle())
            there.system.kill(there.ref("/agents/c1"))
            await eventually(lambda: there.describe("registry")["agents"] == 0)
            assert has_rows(path, [("web", "far", "east"), ("web", "near", "east")])

    run(main())


class Failing(Backend):
    """The embedded backend behind a line that can be cut."""

    cut = False

    async def ask(self, request: Request[R]) -> R:
        if Failing.cut and isinstance(request, RegisterServices | DeregisterAgents | FindProviders):
            raise BackendUnavailable("the line is cut")
        return await super().ask(request)


def failing(path: Path) -> BackendSpec:
    Failing.cut = False
    embedded = embedded_backend(path)

    def connect(actor: Actor) -> Failing:
        store = actor.system.ref("/control/store")
        assert store is not None
        return Failing(store)

    return BackendSpec(embedded.children, connect)


def test_a_store_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(backend=failing(path), grace=0.01) as rig:
            _, generation = await rig.connect("u1", "web")
            leaving, _ = await rig.connect("u2", "web")
            Failing.cut = True
            # Who is connected here is reached all the same.
            assert set(await rig.providers("web")) == {"u1", "u2"}
            # Nobody knows: unavailable, not "not found".
            with pytest.raises(ReplyError) as caught:
                await rig.resolve("none")
            assert isinstance(caught.value.refusal, Unavailable)
            register = RegisterService("acme", "db", "u1", generation)
            with pytest.raises(AskTimeout):
                await rig.registry.ask(register, timeout=0.05)
            await rig.kill(leaving)
            assert await rig.providers("web") == ["u1"]
            Failing.cut = False
            assert await rig.providers("none") == []
            # Nothing was forgotten, also not what its asker gave up waiting for.
            both = [("db", "u1", "r1"), ("web", "u1", "r1")]
            await eventually(lambda: has_rows(path, both), what="what was missed")
            assert rig.describe("registry")["backend_failures"] > 0

    run(main())


def test_a_reconnect_while_the_withdrawal_cannot_be_stored(tmp_path: Path) -> None:
    path = tmp_path / "c.db"

    async def main() -> None:
        async with running(backend=failing(path), grace=0.01) as rig:
            old, _ = await rig.connect("u1", "web", "db")
            Failing.cut = True
            await rig.kill(old)
            await eventually(lambda: rig.describe("registry")["agents"] == 0)
            _, generation = await rig.connect("u1")
            registering = asyncio.create_task(rig.register("u1", "web", generation))
            await asyncio.sleep(0.01)
            assert not registering.done()
            Failing.cut = False
            assert await registering == "acme/web"
            await eventually(lambda: rig.describe("registry")["unpublished"] == 0)
            assert has_rows(path, [("web", "u1", "r1")])

    run(main())


# Stream ids.


async def peer(rig: Rig, stream_id: int, uri: str) -> object:
    return await rig.registry.ask(PeerOf(stream_id, uri), timeout=5)


def test_claims() -> None:
    async def main() -> None:
        async with running() as rig:
            consumer, _ = await rig.connect("u1")
            provider, _ = await rig.connect("u2")
            pair, other = rig.idle(), rig.idle()
            assert await rig.claim(7, pair)
            assert await rig.claim(7, pair)  # the same again
            assert await rig.claim(7, pair, provider="u3")  # it lost the first one
            assert await peer(rig, 7, "u2") is None
            assert await rig.claim(7, pair)
            assert not await rig.claim(7, other)  # a live stream
            assert not await rig.claim(7, other, consumer="u3")  # another pair
            assert await peer(rig, 7, "u1") == provider.ref
            assert await peer(rig, 7, "u2") == consumer.ref
            assert await peer(rig, 7, "u3") is None
            await rig.kill(pair)
            assert await rig.claim(7, other, consumer="u3")  # free after the end
            assert await peer(rig, 7, "u1") is None
            assert await peer(rig, 7, "u2") is None  # u3 is not connected
            await eventually(lambda: not rig.describe("registry")["in_grace"])
            assert await peer(rig, 8, "u1") is None

    run(main())


def test_stream_id_zero_is_nobodys() -> None:
    async def main() -> None:
        async with running() as rig:
            assert await rig.claim(0, rig.idle())
            assert await rig.claim(0, rig.idle(), consumer="u3")
            assert rig.describe("registry")["claimed_streams"] == 0

    run(main())


def test_the_end_of_a_late_claimant_does_not_free_the_id_of_the_first() -> None:
    async def main() -> None:
        async with running() as rig:
            pair, other = rig.idle(), rig.idle()
            assert await rig.claim(7, pair)
            assert not await rig.claim(7, other)
            await rig.kill(other)
            assert not await rig.claim(7, rig.idle())
            assert rig.describe("registry")["claimed_streams"] == 1

    run(main())


def test_claims_and_peers_are_heard_of_again_after_a_restart() -> None:
    async def main() -> None:
        async with running(grace=1.0) as rig:
            consumer, first = await rig.connect("u1")
            provider, second = await rig.connect("u2")
            pair = rig.idle()
            await rig.claim(7, pair)
            rig.system.kill(rig.registry)
            await rig.registry.started(timeout=5)
            asked = asyncio.create_task(peer(rig, 7, "u1"))
            assert await rig.up("u1", consumer, first) == first
            assert await rig.claim(7, pair)
            asked_again = asyncio.create_task(peer(rig, 7, "u1"))
            await asyncio.sleep(0.01)
            assert not asked_again.done()
            assert await rig.up("u2", provider, second) == second
            assert await asked_again == provider.ref
            assert await asked in (None, provider.ref)  # it was answered with the claim

    run(main())


def test_a_service_whose_provider_was_just_lost_is_waited_for() -> None:
    async def main() -> None:
        async with running(grace=1.0) as rig:
            await eventually(lambda: not rig.describe("registry")["in_grace"])
            connection, generation = await rig.connect("u1")
            await rig.register("u1", "web", generation)
            await rig.kill(connection)
            asked = asyncio.create_task(rig.resolve("web"))
            await asyncio.sleep(0.05)
            assert not asked.done()
            again, generation = await rig.connect("u1")
            await rig.register("u1", "web", generation)
            (provider,) = (await asked).providers
            assert provider.connection == again.ref

    run(main())


def test_a_provider_that_does_not_come_back_is_waited_for_once() -> None:
    async def main() -> None:
        async with running(grace=0.2) as rig:
            await eventually(lambda: not rig.describe("registry")["in_grace"])
            connection, generation = await rig.connect("u1")
            await rig.register("u1", "web", generation)
            await rig.kill(connection)
            assert rig.describe("registry")["missed_services"] == 1
            assert (await rig.resolve("web")).providers == ()
            assert rig.describe("registry")["missed_services"] == 0

    run(main())
