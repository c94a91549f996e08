"""Making engines for the suite: native, aioquic, and a stock aioquic client."""

from __future__ import annotations

from actors.node.dev_pki import LeafFiles
from actors.transport.quic.engine import Engine
from actors.transport.quic.engines import EngineMaker, select
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture
from tests.transport.engines.link import CLIENT, Link, Weather

ALPN = ("orp/1",)


def maker(name: str) -> EngineMaker:
    """What makes engines of this kind."""
    return select(name).make


def identity(pki: PkiFixture, leaf: LeafFiles) -> TlsIdentity:
    """The TLS identity of a leaf of the test PKI."""
    return TlsIdentity.load(leaf.certificate, leaf.key, pki.ca)


def first_destination_cid(datagram: bytes) -> bytes:
    """The destination id of a long-header packet."""
    return datagram[6 : 6 + datagram[5]]


class LateServer:
    """Makes the server's engine from the first datagram, as the endpoint does."""

    def __init__(self, name: str, settings: QuicSettings, identity: TlsIdentity) -> None:
        self.name, self.settings, self.identity = name, settings, identity

    def make(self, first: bytes) -> Engine:
        return maker(self.name)(
            self.settings,
            self.identity,
            ALPN,
            client=False,
            original_destination_cid=first_destination_cid(first),
        )


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
    late = LateServer(server, server_settings or QuicSettings(), identity(pki, pki.relay))
    return Link(first, late.make, weather, seed)


__all__ = ["ALPN", "CLIENT", "Link", "Weather", "identity", "join", "maker"]
