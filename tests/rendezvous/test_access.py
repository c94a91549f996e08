"""Who may register: tokens, certificates, TLS, port ranges, names that keep their port."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from pathlib import Path
from typing import Any

import pytest

from actors.rendezvous.access import Access, AccessError
from actors.rendezvous.service_tls import ServiceTls
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tests.forward.test_forward import LocalServer, echo, forwarding, local, of
from tests.rendezvous.rig import Relay, free_base, relay
from tools.forward.settings import service_of

SECRET = "correct-horse-battery-staple"


def tokens(path: Path, **more: str) -> Path:
    """A file with one client, `laptop`."""
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    lines = [f"{key} = {value}" for key, value in more.items()]
    path.write_text("\n".join([f'[[client]]\nname = "laptop"\ntoken_sha256 = "{digest}"', *lines]))
    return path


async def asks(it: Relay, options: str, then: bytes = b"multiplex\n") -> list[str]:
    """What is answered to a line with options, up to a port or the end."""
    peer = await it.say(f"relay/1 {options}\n".encode() + then)
    answers = [await peer.line()]
    if answers[0] == "ok":
        answers.append(await peer.line())
    return answers


def test_without_a_token_nobody_registers_where_one_is_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        path = tokens(tmp_path / "tokens.toml")
        async with relay(require_auth=True, tokens=path) as it:
            assert await (await it.say(b"multiplex\n")).end() in ("eof", "reset")
            assert await asks(it, "name=a") == ["error unauthorized"]
            assert await asks(it, "token=wrong") == ["error unauthorized"]
            assert it.refused("unauthorized") == 3
            assert (await asks(it, f"token={SECRET}"))[0] == "ok"
            assert SECRET not in repr(list(it.door.services.values()))

    run(main())


def test_a_client_has_its_own_ports_services_and_visitors(tmp_path: Path) -> None:
    async def main() -> None:
        base = free_base()
        path = tokens(
            tmp_path / "tokens.toml",
            ports=f'["{base + 3}-{base + 4}"]',
            max_services="2",
            visitors='["10.0.0.0/8"]',
        )
        async with relay(port=base, tokens=path) as it:
            assert await asks(it, f"token={SECRET} port={base + 1}") == [
                "ok",
                "error port_not_allowed",
            ]
            assert await asks(it, f"token={SECRET} port={base + 4}") == ["ok", str(base + 4)]
            assert await asks(it, f"token={SECRET}") == ["ok", str(base + 3)]
            assert await asks(it, f"token={SECRET}") == ["ok", "error too_many_services"]
            assert await it.turned_away(base + 4) == "reset"
            assert it.refused("visitor_not_allowed") == 1
            assert (await it.multiplex())[1] == base + 1

    run(main())


def test_a_service_by_name_takes_its_port_over_from_its_stale_session(tmp_path: Path) -> None:
    async def main() -> None:
        base = free_base()
        path = tokens(tmp_path / "tokens.toml")
        async with relay(port=base, tokens=path, name_kept=60.0) as it:
            line = f"token={SECRET} name=web"
            assert await asks(it, line) == ["ok", str(base + 1)]
            stale = it.peers[-1]
            assert await asks(it, line) == ["ok", str(base + 1)]
            assert await stale.end() in ("eof", "reset")
            assert len(it.door.services) == 1
            it.peers[-1].close()
            await eventually(lambda: not it.door.services)
            # And while it is away nobody else gets it.
            assert (await it.multiplex())[1] == base + 2
            assert await asks(it, line) == ["ok", str(base + 1)]

    run(main())


def test_a_freed_port_is_kept_for_its_source_for_a_while() -> None:
    async def main() -> None:
        base = free_base()
        async with relay(host="::", port=base, quarantine=0.5) as it:
            service, port = await it.multiplex()
            service.close()
            await eventually(lambda: not it.door.services)
            other = await it.connect(host="::1")
            await other.send(b"multiplex\n")
            assert int(await other.line()) == port + 1
            assert (await it.multiplex())[1] == port

    run(main())


def test_tokens_are_read_again_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        path = tokens(tmp_path / "tokens.toml")
        async with relay(require_auth=True, tokens=path) as it:
            path.write_text("nonsense")
            told = it.rendezvous.reload(TlsIdentity.anonymous([]))
            assert told.startswith("rendezvous: tokens stay as they were: ")
            assert (await asks(it, f"token={SECRET}"))[0] == "ok"
            path.write_text("")
            assert it.rendezvous.reload(TlsIdentity.anonymous([])) == ""
            assert await asks(it, f"token={SECRET}") == ["error unauthorized"]

    run(main())


@pytest.mark.parametrize(
    "text,why",
    [
        ("x = 1", "only"),
        ('[[client]]\nname = "a"\ntoken_sha256 = "short"', "client 1: token_sha256"),
        ('[[client]]\nname = "a b"', "client 1: name"),
        ('[[client]]\nname = "a"\nhue = 1', "client 1: its keys"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(AccessError, match=why):
        Access(path)
    with pytest.raises(AccessError, match="cannot read"):
        Access(tmp_path / "none.toml")


def over_tls(it: Relay, pki: PkiFixture, *, certificates: bool = False, required: bool) -> None:
    it.door.tls = ServiceTls(identity(pki, pki.relay), certificates=certificates, required=required)


def through(it: Relay, server: LocalServer, pki: PkiFixture, **more: Any) -> Any:
    return of(it, server, tls_ca=str(pki.ca), tls_server_name="localhost", **more)


def test_services_speak_tls_or_clear_text_at_one_port(pki: PkiFixture) -> None:
    async def main() -> None:
        async with relay() as it, local() as server:
            over_tls(it, pki, required=False)
            service = through(it, server, pki)
            async with forwarding(service) as running:
                port = await running.port(service.title)
                await echo(port, bytes(1 << 20))
                await echo(port, b"x")
                assert service.tls is not None
            assert (await it.multiplex())[1]
            # What is no TLS behind the first byte is closed, and counted.
            nonsense = await it.say(b"\x16\x03\x01\x00\x05hello")
            assert await nonsense.end() in ("eof", "reset")
            assert any(reason.startswith("tls_") for reason in it.door.refused)

    run(main(), timeout=40)


def test_where_tls_must_be_clear_text_is_closed(pki: PkiFixture) -> None:
    async def main() -> None:
        async with relay() as it:
            over_tls(it, pki, required=True)
            assert await (await it.say(b"multiplex\n")).end() in ("eof", "reset")
            assert it.refused("tls_required") == 1

    run(main())


def test_a_certificate_is_who_a_service_is(pki: PkiFixture) -> None:
    async def main() -> None:
        async with relay(require_auth=True) as it, local() as server:
            over_tls(it, pki, certificates=True, required=True)
            service = through(
                it,
                server,
                pki,
                tls_cert=str(pki.provider.certificate),
                tls_key=str(pki.provider.key),
            )
            async with forwarding(service) as running:
                await echo(await running.port(service.title), b"x")
                (one,) = it.door.services.values()
                assert one.client.name.startswith("outrelay://")
                await _stranger_is_refused(it, pki)

    run(main(), timeout=40)


async def _stranger_is_refused(it: Relay, pki: PkiFixture) -> None:
    context = ssl.create_default_context(cafile=str(pki.ca))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", it.port, ssl=context, server_hostname="localhost"
    )
    writer.write(b"multiplex\n")
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.transport.abort()


def test_a_relay_that_is_not_the_one_is_not_trusted(pki: PkiFixture) -> None:
    async def main() -> None:
        async with relay() as it, local() as server:
            over_tls(it, pki, required=False)
            service = service_of(
                to=(f"127.0.0.1:{it.port}",),
                local=(f"127.0.0.1:{server.port}",),
                tls_ca=str(pki.foreign_ca_certificate),
                tls_server_name="localhost",
            )
            async with forwarding(service) as running:
                await eventually(lambda: running.state(service.title) == "waiting")
                assert not it.door.services

    run(main())
