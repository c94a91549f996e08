"""Making engines for the suite: native, aioquic, and stock aioquic clients.

Clients whose name ends in "-bare" have no connection id, like those of quic-go, and begin with a
destination id that is not as long as ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from actors.pki.dev_pki import LeafFiles
from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.engine import Engine
from actors.transport.quic.engines import EngineMaker, select
from actors.transport.quic.native_engine import NativeClientWithoutId
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity
from tests.conftest import PkiFixture
from tests.transport.engines.stock import stock_client
from tests.transport.engines.virtual_link import Link, Weather

ALPN = ("orp/1",)
SERVERS = ("native", "aioquic")
#: Every pairing: client, server.
OURS = [(c, s) for c in ("native", "aioquic", "native-bare") for s in SERVERS]
PAIRINGS = [*OURS, *((c, s) for c in ("stock", "stock-bare") for s in SERVERS)]
BARE = [(c, s) for c in ("native-bare", "stock-bare") for s in SERVERS]
#: The length of the destination id that a client without an id begins with.
FIRST_CID_LENGTH = 17


def is_stock(client: str) -> bool:
    """True for clients that are not ours."""
    return client.startswith("stock")


def maker(name: str, first_cid_length: int = FIRST_CID_LENGTH) -> EngineMaker:
    """What makes engines of this kind."""
    if name == "native-bare":
        return partial(NativeClientWithoutId, original_destination_cid=os.urandom(first_cid_length))
    if name == "stock-bare":
        return partial(stock_client, cid_length=0, first_cid_length=first_cid_length)
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
    policy: PeerPolicy = PeerPolicy.MUTUAL,
) -> Callable[[bytes], Engine]:
    """Makes the server's engine from the first datagram, as the endpoint does."""

    def make(first: bytes) -> Engine:
        return maker(name)(
            settings,
            identity,
            alpn,
            client=False,
            peer_policy=policy,
            original_destination_cid=first_destination_cid(first),
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
    policy: PeerPolicy = PeerPolicy.MUTUAL,
) -> Link:
    """A link between two engines, with the client's first flight under way."""
    first = maker(client)(
        client_settings or QuicSettings(),
        identity(pki, pki.consumer),
        ALPN,
        client=True,
        peer_policy=policy,
        server_name="localhost",
    )
    settings = server_settings or QuicSettings()
    make = server_of(server, settings, identity(pki, pki.relay), policy=policy)
    return Link(first, make, weather, seed)
