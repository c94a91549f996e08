"""Making engines for the suite: native, aioquic, and a stock aioquic client."""

from __future__ import annotations

from collections.abc import Callable

from actors.node.dev_pki import LeafFiles
from actors.transport.quic.engine import Engine
from actors.transport.quic.engines import EngineMaker, select
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture
from tests.transport.engines.link import Link, Weather
from tests.transport.engines.stock import stock_client

ALPN = ("orp/1",)
#: Every pairing: client, server.
OURS = [(c, s) for c in ("native", "aioquic") for s in ("native", "aioquic")]
PAIRINGS = [*OURS, ("stock", "native"), ("stock", "aioquic")]


def maker(name: str) -> EngineMaker:
    """What makes engines of this kind."""
    return stock_client if name == "stock" else select(name).make


def identity(pki: PkiFixture, leaf: LeafFiles) -> TlsIdentity:
    """The TLS identity of a leaf of the test PKI."""
    return TlsIdentity.load(leaf.certificate, leaf.key, pki.ca)


def first_destination_cid(datagram: bytes) -> bytes:
    """The destination id of a long-header packet."""
    return datagram[6 : 6 + datagram[5]]


def server_of(
    name: str,
    settings: QuicSettings,
    identity: TlsIdentity,
    alpn: tuple[str, ...] = ALPN,
) -> Callable[[bytes], Engine]:
    """Makes the server's engine from the first datagram, as the endpoint does."""

    def make(first: bytes) -> Engine:
        after = 6 + first[5]
        return maker(name)(
            settings,
            identity,
            alpn,
            client=False,
            original_destination_cid=first_destination_cid(first),
            peer_cid=first[after + 1 : after + 1 + first[after]],
        )

    return make


def join(
    pki: PkiFixture,
    client: str,
    server: str,
    *,
    client_settings: QuicSettings | None = None,
    server_settings: QuicSettings | None = None,
    weather: Weather | None = None,
    seed: int = 1,
) -> Link:
    """A link between two engines, with the client's first flight under way."""
    first = maker(client)(
        client_settings or QuicSettings(),
        identity(pki, pki.consumer),
        ALPN,
        client=True,
        server_name="localhost",
    )
    make = server_of(server, server_settings or QuicSettings(), identity(pki, pki.relay))
    return Link(first, make, weather, seed)
