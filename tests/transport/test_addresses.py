"""Addresses as people write them: both IP versions, on one port, and link-local ones."""

from __future__ import annotations

import socket

import pytest

from actors.transport.addresses import (
    Target,
    address_text,
    host_and_port,
    literal,
    only_ipv6,
    to_bind,
)
from actors.transport.dialling import connect_tcp
from actors.transport.quic import QuicEndpoint
from actors.transport.tcp import TcpEndpoint
from actors.transport.udp import UdpSocket, bind_udp
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tools.agent.candidates import interface_addresses


@pytest.mark.parametrize(
    "host, address, again",
    [
        ("127.0.0.1", ("127.0.0.1", 5), "127.0.0.1"),
        ("::1", ("::1", 5, 0, 0), "::1"),
        ("fe80::1%lo", ("fe80::1", 5, 0, socket.if_nametoindex("lo")), "fe80::1%lo"),
        (f"fe80::1%{socket.if_nametoindex('lo')}", None, "fe80::1%lo"),
        ("fe80::1%99999", ("fe80::1", 5, 0, 99999), "fe80::1%99999"),
    ],
)
def test_a_literal_there_and_back(host: str, address: object, again: str) -> None:
    target = literal(host, 5)
    assert target is not None
    assert address in (None, target.address)
    assert host_and_port(target.address) == (again, 5)


def test_what_is_bound_and_written() -> None:
    assert to_bind("", 1) == to_bind("*", 1) == Target(socket.AF_INET, ("0.0.0.0", 1))
    assert to_bind("localhost", 1) == Target(socket.AF_INET, ("localhost", 1))
    assert address_text("fe80::1%eth0", 1) == "[fe80::1%eth0]:1"
    assert address_text("relay.example", 1) == "relay.example:1"


def test_who_leaves_ipv4_to_another() -> None:
    both = [("0.0.0.0", 7443), ("::", 7443)]
    assert [only_ipv6(one, both) for one in both] == [False, True]
    assert only_ipv6(("::", 1), [("127.0.0.1", 1), ("::", 1)])
    assert not only_ipv6(("::", 1), [("127.0.0.1", 2), ("::", 1), ("::1", 1)])
    assert not only_ipv6(("::", 0), [("0.0.0.0", 0), ("::", 0)])


@pytest.mark.parametrize("kind", [QuicEndpoint, TcpEndpoint])
def test_both_wildcards_on_one_port(
    pki: PkiFixture, kind: type[QuicEndpoint] | type[TcpEndpoint]
) -> None:
    async def main() -> None:
        heard: list[str] = []
        who = identity(pki, pki.relay)
        ipv4 = kind(alpn=("orp/1",), identity=who, on_connection=lambda _: heard.append("ipv4"))
        ipv6 = kind(alpn=("orp/1",), identity=who, on_connection=lambda _: heard.append("ipv6"))
        client = kind(alpn=("orp/1",), identity=identity(pki, pki.provider))
        _, port = ipv4.attach(("0.0.0.0", 0))
        assert ipv6.attach(("::", port), only_ipv6=True) == ("::", port)
        for host in ("127.0.0.1", "::1"):
            (await client.connect((host, port))).abort()
        await eventually(lambda: len(heard) == 2)
        assert heard == ["ipv4", "ipv6"]
        for endpoint in (client, ipv4, ipv6):
            endpoint.abort()

    run(main())


def link_local() -> str:
    """A link-local address of this host with its zone; of lo where there is none."""
    for index, name in socket.if_nameindex():
        for address in interface_addresses():
            if address.startswith("fe80"):
                with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                    try:
                        probe.bind((address, 0, 0, index))
                    except OSError:
                        continue
                    return f"{address}%{name}"
    return "::1"  # a machine without IPv6 on its links: the rest holds


@pytest.mark.parametrize("kind", [QuicEndpoint, TcpEndpoint])
def test_a_relay_at_a_link_local_address(
    pki: PkiFixture, kind: type[QuicEndpoint] | type[TcpEndpoint]
) -> None:
    host = link_local()

    async def main() -> None:
        server = kind(
            alpn=("orp/1",), identity=identity(pki, pki.relay), on_connection=lambda _: None
        )
        client = kind(alpn=("orp/1",), identity=identity(pki, pki.provider))
        bound = server.attach((host, 0))
        assert bound[0] == host
        (await client.connect(bound)).abort()
        wildcard = server.attach(("::", 0))
        (await client.connect((host, wildcard[1]))).abort()
        client.abort()
        server.abort()

    run(main())


def test_a_link_local_target_and_plane() -> None:
    host = link_local()

    async def main() -> None:
        family, address = to_bind(host, 0)
        with socket.socket(family) as target:
            target.bind(address)
            target.listen()
            sock = await connect_tcp(host, target.getsockname()[1])
            sock.close()
        heard: list[object] = []
        for where in (host, "::"):
            plane = UdpSocket(bind_udp(where, 0), lambda *got: heard.append(got[2]))
            with bind_udp(host, 0) as peer:
                peer.connect(to_bind(host, plane.address[1]).address)
                peer.send(b"x")
                await eventually(lambda: heard)
                assert plane.send(b"y", heard.pop()) == 1  # type: ignore[arg-type]
                assert not plane.errors
                peer.settimeout(5)
                assert peer.recv(10) == b"y"
            plane.abort()

    run(main())
