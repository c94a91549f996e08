"""Strangers at the served controller's port: bounded in all, per source and in time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.controller import front
from actors.transport.revocation import NOBODY, RevocationList, marks_of
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.controller.rig import Controller, client, server
from tests.controller.test_roles import caller, secured
from wire.orp import control_pb2 as pb


@asynccontextmanager
async def silent(
    controller: Controller, source: str, count: int
) -> AsyncIterator[list[socket.socket]]:
    """Connections that say nothing."""
    loop, sockets = asyncio.get_running_loop(), list[socket.socket]()
    try:
        for _ in range(count):
            sock = socket.socket()
            sockets.append(sock)
            sock.setblocking(False)
            sock.bind((source, 0))
            await loop.sock_connect(sock, (controller.port.host, controller.port.port))
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def over(sock: socket.socket) -> bool:
    """The other side ended it."""
    try:
        return sock.recv(4096) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_one_source_has_its_share_and_another_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "MAX_CONNECTIONS_PER_SOURCE", 20)

    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as rig, silent(controller, "127.0.0.2", 50) as sockets:
            await eventually(lambda: sum(map(over, sockets)) == 30)
            async with client(controller.address) as foreign:
                assert await foreign.resolve("web") == []
            told = server(rig)
            assert told["strangers"]["refused_pending_per_source_limit"] == 30

    run(main())


def test_strangers_from_everywhere_give_way_and_callers_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pki: PkiFixture
) -> None:
    """All places are taken by who says nothing: callers come in, and none is pushed out."""
    monkeypatch.setattr(front, "MAX_CONNECTIONS", 40)

    async def main() -> None:
        controller = secured(tmp_path, pki)
        async with controller.run() as rig, caller(controller, pki.relay, pki.ca) as relay:
            watch = relay.stream("Registry/Watch", pb.WatchRequest(), timeout=60)
            await watch.initial_metadata()
            for n in range(2, 6):
                async with silent(controller, f"127.0.0.{n}", 60):
                    async with caller(controller, pki.relay, pki.ca) as other:
                        assert await other.resolve("web") == []
                    assert server(rig)["connections"] <= 40
            assert server(rig)["provider_watches"] == 1
            assert not watch.done()
            watch.cancel()

    run(main())


def test_who_makes_no_call_is_let_go_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "PROVE_SECONDS", 0.3)

    async def main() -> None:
        controller = Controller(tmp_path / "c.db")
        async with controller.run() as rig, client(controller.address) as foreign:
            watch = foreign.stream("Registry/Watch", pb.WatchRequest(), timeout=60)
            await watch.initial_metadata()
            async with silent(controller, "127.0.0.2", 10) as sockets:
                await eventually(lambda: sum(map(over, sockets)) == 10)
            assert server(rig)["provider_watches"] == 1
            assert server(rig)["strangers"]["handshake_failed_timeout"] == 10
            assert await foreign.resolve("web") == []
            watch.cancel()

    run(main())


def test_a_caller_whose_certificate_is_revoked_is_ended_and_refused(
    tmp_path: Path, pki: PkiFixture
) -> None:
    async def main() -> None:
        controller = secured(tmp_path, pki)
        revocations = controller.settings.revocations
        async with controller.run() as rig, caller(controller, pki.relay, pki.ca) as relay:
            watch = relay.stream("Registry/Watch", pb.WatchRequest(), timeout=60)
            await watch.initial_metadata()
            revoked = TlsIdentity.load(pki.relay.certificate, pki.relay.key).chain
            revocations.use(RevocationList(frozenset(marks_of(revoked)), None))
            assert (await watch.code()).name == "UNAUTHENTICATED"
            assert "was revoked" in await watch.details()
            resolve = pb.ResolveRequest(tenant="acme", service_name="web")
            assert await relay.status("Registry/Resolve", resolve) == "UNAUTHENTICATED"
            assert server(rig)["provider_watches"] == 0
            revocations.use(NOBODY)
            assert await relay.resolve("web") == []

    run(main())
