"""`trunkline forward` behind a relay of ours, in one loop: local servers, losses, reload."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.rendezvous.service_actor import Leave
from actors.runtime import ActorSystem
from tests.conftest import eventually, run
from tests.rendezvous.rig import QUICK, Peer, Relay, relay
from tools.forward import service_link
from tools.forward.settings import (
    ForwardedService,
    ForwardSettings,
    SettingsRefused,
    load,
    service_of,
)
from tools.forward.tree import Forwarder

PROTOCOLS = ["multiplex", "pool", "event"]


class LocalServer:
    """Sends back what it got, once it got all of it."""

    def __init__(self) -> None:
        self.users = 0
        self.resets = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: Any, writer: asyncio.StreamWriter) -> None:
        self.users += 1
        try:
            writer.write(await reader.read())
            await writer.drain()
        except ConnectionError:
            self.resets += 1
        finally:
            writer.close()


class Running:
    def __init__(self, system: ActorSystem, forwarder: Forwarder) -> None:
        self.system = system
        self.forwarder = forwarder
        self.addresses: list[tuple[str, str]] = []

    async def port(self, title: str, count: int = 1) -> int:
        """Where users come to, once it was told so often."""
        await eventually(
            lambda: sum(one == title for one, _ in self.addresses) >= count, timeout=10
        )
        return int([a for one, a in self.addresses if one == title][-1].rpartition(":")[2])

    def state(self, title: str) -> str:
        cells = self.system.find("/services")
        assert cells is not None
        for cell in (cells.children or {}).values():
            if cell.actor is not None and cell.actor.describe()["service"] == title:
                return str(cell.actor.describe()["state"])
        return "gone"


@asynccontextmanager
async def forwarding(
    *services: ForwardedService, path: Path | None = None
) -> AsyncIterator[Running]:
    system = ActorSystem("forward")
    settings = load(path) if path else ForwardSettings({one.title: one for one in services})
    told: list[tuple[str, str]] = []
    forwarder = Forwarder(settings, lambda one, address: told.append((one.title, address)))
    running = Running(system, forwarder)
    running.addresses = told
    await system.start(forwarder.root)
    try:
        yield running
    finally:
        await system.stop()
        forwarder._pipes.abort()


@asynccontextmanager
async def local() -> AsyncIterator[LocalServer]:
    server = LocalServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def of(it: Relay, server: LocalServer, **more: Any) -> ForwardedService:
    return service_of(to=(f"127.0.0.1:{it.port}",), local=(f"127.0.0.1:{server.port}",), **more)


async def echo(port: int, data: bytes) -> None:
    user = await Peer.connect(port)

    async def send() -> None:
        await user.send(data)
        user.finish()

    sending = asyncio.create_task(send())
    assert await user.to_end() == data
    await sending
    user.close()


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_link, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(service_link, "LONGEST_PAUSE", 0.2)


def with_all(test: Callable[..., Any]) -> Any:
    return pytest.mark.parametrize("protocol", PROTOCOLS)(test)


@with_all
def test_users_reach_the_local_server_and_half_close(protocol: str) -> None:
    async def main() -> None:
        async with relay() as it, local() as server:
            service = of(it, server, protocol=protocol)
            async with forwarding(service) as running:
                port = await running.port(service.title)
                data = os.urandom(1 << 20)
                await asyncio.gather(*(echo(port, data[n:]) for n in range(0, 4)))
                await echo(port, b"small")
                assert server.users == 5

    run(main(), timeout=40)


@with_all
def test_r12_a_local_server_that_is_down_costs_its_users_only(protocol: str) -> None:
    async def main() -> None:
        async with relay() as it, local() as server:
            service = of(it, server, protocol=protocol)
            async with forwarding(service) as running:
                port = await running.port(service.title)
                held = await Peer.connect(port)
                await held.send(b"before ")
                await eventually(lambda: server.users == 1)
                await server.stop()
                refused = await Peer.connect(port)
                await refused.send(b"x")
                assert await refused.end() == "reset"
                refused.close()
                await server.start()
                await echo(port, b"again")
                await held.send(b"and after")
                held.finish()
                assert await held.to_end() == b"before and after"
                held.close()
                assert len(running.addresses) == 1

    run(main())


@with_all
def test_a_relay_that_is_lost_is_found_again_or_another_one(protocol: str) -> None:
    async def main() -> None:
        async with local() as server, relay() as second, relay() as first:
            service = service_of(
                to=(f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"),
                local=(f"127.0.0.1:{server.port}",),
                protocol=protocol,
            )
            async with forwarding(service) as running:
                port = await running.port(service.title)
                await echo(port, b"first")
                ref = first.system.ref(
                    f"/rendezvous/services/{next(iter(first.door.services))}/service"
                )
                assert ref is not None
                first.system.kill(ref)
                await eventually(lambda: len(second.door.services) == 1, timeout=10)
                await echo(await running.port(service.title, 2), b"second")

    run(main(), timeout=40)


def test_a_pool_that_the_relay_has_forgotten_is_registered_again() -> None:
    async def main() -> None:
        async with relay() as it, local() as server:
            service = of(it, server, protocol="pool", idle=2)
            async with forwarding(service) as running:
                await running.port(service.title)
                # Its members end in order, and its id is unknown: nobody says more.
                (one,) = it.door.services
                ref = it.system.ref(f"/rendezvous/services/{one}/service")
                assert ref is not None
                ref.tell(Leave())
                await echo(await running.port(service.title, 2), b"x")

    run(main())


def test_a_relay_that_drains_keeps_the_users_and_loses_the_service() -> None:
    async def main() -> None:
        async with local() as server, relay() as second, relay() as first:
            service = service_of(
                to=(f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"),
                local=(f"127.0.0.1:{server.port}",),
            )
            async with forwarding(service) as running:
                user = await Peer.connect(await running.port(service.title))
                await user.send(b"begun")
                await eventually(lambda: server.users == 1)
                draining = asyncio.create_task(first.rendezvous.drain())
                await echo(await running.port(service.title, 2), b"elsewhere")
                user.finish()
                assert await user.to_end() == b"begun"
                user.close()
                await draining

    run(main())


def test_the_local_server_hears_who_its_user_is() -> None:
    async def main() -> None:
        async with relay() as it, local() as server:
            service = of(it, server, proxy_protocol="v1", name="web")
            async with forwarding(service) as running:
                port = await running.port("web")
                user = await Peer.connect(port)
                host, own = user.sock.getsockname()
                await user.send(b"GET /")
                user.finish()
                line = f"PROXY TCP4 {host} 127.0.0.1 {own} {port}\r\n"
                assert await user.to_end() == f"{line}GET /".encode()
                user.close()

    run(main())


def test_users_are_spread_over_local_servers_and_a_dead_one_is_passed_over() -> None:
    async def main() -> None:
        async with relay() as it, local() as one, local() as two:
            dead = LocalServer()
            await dead.start()
            service = service_of(
                to=(f"127.0.0.1:{it.port}",),
                local=tuple(f"127.0.0.1:{each.port}" for each in (one, dead, two)),
            )
            await dead.stop()
            async with forwarding(service) as running:
                port = await running.port(service.title)
                for _ in range(6):
                    await echo(port, b"x")
                assert one.users + two.users == 6
                assert min(one.users, two.users) >= 2

    run(main())


def test_with_a_check_a_service_is_withdrawn_while_its_server_is_down() -> None:
    async def main() -> None:
        async with relay() as it, local() as server:
            service = of(it, server, check_seconds=0.1)
            async with forwarding(service) as running:
                port = await running.port(service.title)
                await server.stop()
                await eventually(lambda: not it.door.services)
                assert not await it.listens(port)
                await server.start()
                await echo(await running.port(service.title, 2), b"x")

    run(main())


def test_a_reload_touches_what_changed_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with relay(QUICK) as it, local() as server:
            path = tmp_path / "forward.toml"

            def write(*names: str) -> None:
                head = f'to = ["127.0.0.1:{it.port}"]\n'
                body = f'local = ["127.0.0.1:{server.port}"]\n'
                path.write_text(head + "".join(f'[[service]]\nname = "{n}"\n{body}' for n in names))

            write("one", "two")
            async with forwarding(path=path) as running:
                stays = await running.port("one")
                await running.port("two")
                write("one", "three")
                assert (await running.forwarder.reload(running.system)).done
                await echo(await running.port("three"), b"x")
                await eventually(lambda: len(it.door.services) == 2)
                await echo(stays, b"still there")
                assert [title for title, _ in running.addresses] == ["one", "two", "three"]
                path.write_text("nonsense")
                assert not (await running.forwarder.reload(running.system)).done
                await echo(stays, b"still there")

    run(main())


@pytest.mark.parametrize(
    "options,why",
    [
        ({"local": ()}, "at least one relay"),
        ({"to": ("here",)}, "host:port"),
        ({"name": "a b"}, "name:"),
        ({"visitors": ("10.0.0.1/8",)}, "visitors:"),
        ({"token_file": "/dev/null/token"}, "Not a directory"),
    ],
)
def test_what_cannot_be_forwarded_is_said_in_one_sentence(options: Any, why: str) -> None:
    with pytest.raises(SettingsRefused, match=why):
        service_of(**{"to": ("127.0.0.1:1",), "local": ("127.0.0.1:2",)} | options)


def test_a_token_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o644)
    with pytest.raises(SettingsRefused, match="chmod 600"):
        service_of(to=("127.0.0.1:1",), local=("127.0.0.1:2",), token_file=str(path))
    path.chmod(0o600)
    service = service_of(to=("127.0.0.1:1",), local=("127.0.0.1:2",), token_file=str(path))
    assert service.options.token == "secret"
    assert "secret" not in repr(service)
