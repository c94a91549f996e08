"""A close while a handshake is not complete: the other side hears of it, whatever it can read."""

from __future__ import annotations

import pytest

from tests.conftest import PkiFixture
from tests.transport.engines.rig import OURS, join
from tests.transport.engines.virtual_link import Link, Side

pairings = pytest.mark.parametrize("client,server", OURS)
UNKNOWN_CA = 0x100 + 48
#: Virtual seconds; a server that hears nothing waits for its handshake deadline.
SOON = 2.0


def _hears(link: Link, side: Side) -> tuple[int, bool, str]:
    link.run(lambda: side.closed is not None, timeout=SOON)
    assert side.closed is not None
    assert side.closed.peer
    return side.closed.code, side.closed.application, side.closed.text


@pairings
def test_a_server_that_is_refused_hears_it(pki: PkiFixture, client: str, server: str) -> None:
    """The client looks at the certificate before its Finished leaves, as the endpoint does."""
    link = join(pki, client, server)
    refuse = link.client.engine.close
    link.client.on_established = lambda: refuse(UNKNOWN_CA, "unknown_ca", application=False)
    assert _hears(link, link.server) == (UNKNOWN_CA, False, "unknown_ca")
    assert link.server.established is None
    assert link.client.after_close == 0


@pairings
def test_a_close_behind_a_finished_that_was_lost(pki: PkiFixture, client: str, server: str) -> None:
    link = join(pki, client, server)
    link.client.on_established = lambda: setattr(link, "cut", True)
    link.run(lambda: link.client.established is not None)
    link.cut = False
    link.client.engine.close(UNKNOWN_CA, "unknown_ca", application=False)
    assert _hears(link, link.server)[0] == UNKNOWN_CA


@pairings
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_server_that_completed_sees_the_code_of_the_application(
    pki: PkiFixture, client: str, server: str, lost: int
) -> None:
    """Not confirmed: what the server answered has not arrived. The close is repeated for it."""
    link = join(pki, client, server)
    link.server.on_established = lambda: link.client_addresses.clear()
    link.run(lambda: link.server.established is not None)
    stream_id = link.server.engine.open_stream()
    assert stream_id is not None
    link.client.engine.close(7, "done", application=True)
    for _ in range(lost):
        link.cut = True
        link.settle()
        link.cut = False
        link.client_addresses.add(link.client.address)
        link.server.engine.write(stream_id, b"?", end=False)
        link.run(lambda: not link.on_the_way and link.client.datagrams_in > 0)
    assert _hears(link, link.server) == (7, True, "done")


@pytest.mark.parametrize("client", ["native", "aioquic"])
def test_a_client_with_half_of_the_servers_flight(pki: PkiFixture, client: str) -> None:
    link = join(pki, client, "native")  # the other engine's flight is one datagram here
    arrived = link.client

    def only_the_first(side: Side, _: bytes) -> None:
        link.cut = side is link.server and arrived.datagrams_in + len(link.on_the_way) > 0

    link.on_send = only_the_first
    link.run(lambda: link.client.datagrams_in > 0)
    assert link.client.established is None
    link.on_send, link.cut = None, False
    link.server.engine.close(2, "no", application=False)
    assert _hears(link, link.client)[0] == 2
