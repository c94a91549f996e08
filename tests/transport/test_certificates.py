"""One judgement of certificates whatever carries them: QUIC on both engines, TCP; both roles."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from actors.transport.connection import Connection, DialFailed
from actors.transport.quic import QuicEndpoint, QuicSettings
from actors.transport.tcp import TcpEndpoint, TcpSettings, tls_context
from actors.transport.tls import CLIENT, SERVER, TlsIdentity
from tests.conftest import eventually, run
from tests.transport.certificate_cases import RIGHT, ROOT, WRONG, Case, Presented, leaf
from tests.transport.test_endpoint import LOCAL

TRANSPORTS = ("native", "aioquic", "tcp")
ROLES = ("relay", "agent")
Endpoint = QuicEndpoint | TcpEndpoint


def endpoint(transport: str, identity: TlsIdentity, *, server: bool) -> Endpoint:
    def take(connection: Connection) -> None:
        connection.start()

    taker = take if server else None
    if transport == "tcp":
        return TcpEndpoint(
            alpn=("orp/1",), identity=identity, settings=TcpSettings(), on_connection=taker
        )
    settings = QuicSettings(engine=transport)
    return QuicEndpoint(alpn=("orp/1",), identity=identity, settings=settings, on_connection=taker)


@contextmanager
def anything_goes() -> Iterator[None]:
    """OpenSSL presents what it would not accept itself."""
    load = tls_context._load_key

    def careless(context: ssl.SSLContext, identity: TlsIdentity) -> None:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        load(context, identity)

    tls_context._load_key = careless
    try:
        yield
    finally:
        tls_context._load_key = load


async def judged(transport: str, role: str, case: Case) -> str:
    """The verifying side's counter: ok, or why not."""
    purpose = CLIENT if role == "relay" else SERVER
    presented = case(purpose)
    with anything_goes():
        shown = endpoint(transport, presented.identity(), server=role == "agent")
    trusting = replace(Presented([leaf(ROOT)]).identity(), authorities=presented.authorities)
    judge = endpoint(transport, trusting, server=role == "relay")
    server, client = (judge, shown) if role == "relay" else (shown, judge)
    address = server.attach(LOCAL)
    refused = ""
    try:
        try:
            await client.connect(address, timeout=10.0)
        except DialFailed as failed:
            refused = failed.reason.text or "refused"
        if role == "agent":
            return refused or "ok"
        await eventually(lambda: judge.counters)
        assert len(judge.counters) == 1, judge.counters
        return next(iter(judge.counters)).removeprefix("handshake_").removeprefix("refused_")
    finally:
        client.abort()
        server.abort()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("case", RIGHT)
def test_right_ones_are_taken(case: str, transport: str, role: str) -> None:
    assert run(judged(transport, role, RIGHT[case])) == "ok"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("case", WRONG)
def test_wrong_ones_are_refused(case: str, transport: str, role: str) -> None:
    make, word = WRONG[case]
    outcome = run(judged(transport, role, make))
    assert outcome != "ok"
    if transport != "tcp":  # OpenSSL comes first there, with words of its own
        assert outcome == word
