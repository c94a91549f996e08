"""An agent that reaches no relay says why and what helps; the relay says whom it refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
from loguru import logger

from actors.pki.dev_pki import LeafFiles
from actors.transport.quic import QuicEndpoint
from actors.transport.tcp import TcpEndpoint
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture, run
from tools.agent.complaints import LAST_REPEAT, Complaints
from tools.agent.dialling import race

Kind = type[QuicEndpoint] | type[TcpEndpoint]
KINDS: dict[str, Kind] = {"QUIC": QuicEndpoint, "TCP": TcpEndpoint}


def identity(pki: PkiFixture, leaf: LeafFiles) -> TlsIdentity:
    return TlsIdentity.load(leaf.certificate, leaf.key, pki.ca)


@contextmanager
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    try:
        yield lines
    finally:
        logger.remove(sink)


async def told(
    transport: str, relay: TlsIdentity | None, agent: TlsIdentity, *, name: str = "localhost"
) -> str:
    """What an agent hears of a relay with such a certificate; None: there is no relay."""
    kind = KINDS[transport]
    client = kind(alpn=("orp/1",), identity=agent)
    server = None
    try:
        if relay is None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = free.getsockname()
        else:
            server = kind(
                alpn=("orp/1",), identity=relay, on_connection=lambda arrived: arrived.start()
            )
            address = server.attach(("127.0.0.1", 0))
        winner, why = await race(
            client, [address], transport=transport, server_name=name, timeout=1.0
        )
        assert winner is None
        start = f"127.0.0.1:{address[1]} ({transport}): "
        assert why.startswith(start)
        return why.removeprefix(start)
    finally:
        client.abort()
        if server is not None:
            server.abort()


@pytest.mark.parametrize("transport", KINDS)
def test_the_reason_is_said_in_words_on_both_sides(pki: PkiFixture, transport: str) -> None:
    ours, relay = identity(pki, pki.consumer), identity(pki, pki.relay)
    stranger = TlsIdentity.load(
        pki.foreign_agent.certificate, pki.foreign_agent.key, pki.foreign_ca_certificate
    )

    async def main() -> None:
        with warnings() as lines:
            why = await told(transport, relay, ours, name="relay.example")
            assert why.startswith("its certificate is for another name: set --server-name")
            trusting_others = replace(ours, authorities=stranger.authorities)
            why = await told(transport, relay, trusting_others)
            assert why.startswith("its certificate is of another CA: compare --ca")
        assert len(lines) == 2
        assert all("connections turned away: " in line for line in lines)
        assert all("(last: 127.0.0.1)" in line for line in lines)
        why = await told(transport, None, ours)
        if transport == "TCP":
            assert why == "nobody listens there: is it up, and is the port right?"
        else:
            assert why.startswith("no answer: is it up, ")
            assert "--relay-tcp" in why

    run(main())


def test_a_name_without_address_is_said_to_be_one(pki: PkiFixture) -> None:
    async def main() -> None:
        client = QuicEndpoint(alpn=("orp/1",), identity=identity(pki, pki.consumer))
        try:
            _, why = await race(
                client, [("a.invalid", 1)], transport="QUIC", server_name="a", timeout=5.0
            )
        finally:
            client.abort()
        assert why.startswith("a.invalid:1 (QUIC): ")
        assert "DNS" in why

    run(main())


def test_the_same_complaint_is_repeated_at_growing_intervals() -> None:
    lines: list[str] = []
    complaints = Complaints(lines.append)
    said: list[int] = []
    for second in range(0, 40_000, 5):
        before = len(lines)
        complaints.say("no relay answers: x", float(second))
        if len(lines) > before:
            said.append(second)
    assert said[:4] == [0, 30, 90, 210]
    assert max(b - a for a, b in pairwise(said)) == LAST_REPEAT
    assert lines[1] == "no relay answers: x; tried 7 times in 30 s"
    complaints.say("another reason", 40_000.0)
    assert lines[-1] == "another reason; trying again"
    complaints.over()
    complaints.say("another reason", 40_001.0)
    assert lines[-2:] == ["another reason; trying again"] * 2
