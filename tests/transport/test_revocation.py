"""Certificates that were taken back: refused, and their connections end; nobody else notices."""

from __future__ import annotations

import pytest

from actors.transport.connection import Connection, DialFailed
from actors.transport.revocation import NOBODY, RevocationList, marks_of
from actors.transport.stream import CloseReason
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import identity
from tests.transport.test_certificates import TRANSPORTS, endpoint
from tests.transport.test_endpoint import LOCAL

ALERT = 0x100 + 44  # certificate_revoked


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_who_is_revoked_is_ended_and_refused(pki: PkiFixture, transport: str) -> None:
    relay, provider, consumer = (
        identity(pki, leaf) for leaf in (pki.relay, pki.provider, pki.consumer)
    )

    async def main() -> None:
        server = endpoint(transport, relay, server=True)
        address = server.attach(LOCAL)
        agents = [endpoint(transport, one, server=False) for one in (provider, consumer)]
        ended: list[CloseReason] = []
        try:
            doomed, other = [await one.connect(address) for one in agents]
            for connection in (doomed, other):
                connection.start()
            doomed.on_closed = ended.append
            await eventually(lambda: len(server._connections) == 2)

            listed = RevocationList(frozenset(marks_of(provider.chain)), None)
            assert relay.revocations.use(listed) == 1
            await eventually(lambda: ended)
            await eventually(lambda: len(server._connections) == 1)
            if transport != "tcp":
                assert (ended[0].code, ended[0].text) == (ALERT, "certificate revoked")
            with pytest.raises(DialFailed) as refused:
                await _lasting(await agents[0].connect(address))
            if transport != "tcp":
                assert refused.value.reason.code == ALERT
            assert server.counters["refused_revoked"] == 1
            assert other.closed is None

            relay.revocations.use(NOBODY)  # as after a mistake
            assert (await agents[0].connect(address)).closed is None
        finally:
            for one in (*agents, server):
                one.abort()

    run(main())


async def _lasting(connection: Connection) -> None:
    """What a client of TCP or QUIC learns a moment after its own handshake is done."""
    connection.start()
    await eventually(lambda: connection.closed)
    assert connection.closed is not None
    raise DialFailed(connection.closed)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_relay_that_is_revoked_is_left(pki: PkiFixture, transport: str) -> None:
    relay, agent = (identity(pki, leaf) for leaf in (pki.relay, pki.consumer))

    async def main() -> None:
        server = endpoint(transport, relay, server=True)
        client = endpoint(transport, agent, server=False)
        address = server.attach(LOCAL)
        try:
            connection = await client.connect(address)
            connection.start()
            agent.revocations.use(RevocationList(frozenset(marks_of(relay.chain)), None))
            assert connection.closed is not None
            with pytest.raises(DialFailed) as refused:
                await client.connect(address)
            assert refused.value.reason.text == "revoked"
        finally:
            client.abort()
            server.abort()

    run(main())


def test_what_ended_waits_for_no_list(pki: PkiFixture) -> None:
    relay, agent = (identity(pki, leaf) for leaf in (pki.relay, pki.consumer))

    async def main() -> None:
        server = endpoint("native", relay, server=True)
        client = endpoint("native", agent, server=False)
        address = server.attach(LOCAL)
        try:
            for _ in range(3):
                (await client.connect(address)).abort()
            await eventually(lambda: not server._connections)
            assert not relay.revocations._watches
            assert not agent.revocations._watches
        finally:
            client.abort()
            server.abort()

    run(main())
