"""TLS on the door's own port, for services that speak it.

Source: protocol sheet rendezvous 1.8, 5.6 row 6.
"""

from __future__ import annotations

import ssl

from actors.rendezvous.access import NOBODY, Client
from actors.transport.certificate_path import IdentityRejected
from actors.transport.key_log import KeyLog
from actors.transport.peer_policy import PeerPolicy
from actors.transport.tcp.tls_context import peer_chain, server_context
from actors.transport.tcp.tls_transport import READ, TlsTransport
from actors.transport.tls import TlsIdentity


class ServiceTls:
    """TLS on the door's own port, for services that speak it.

    Args:
        identity: our certificate, and whom we trust.
        certificates: services must have a certificate of our CA; its URI is who they are.
        required: nobody is served without TLS.

    Attributes:
        context: for new connections.
        buffer: what all connections read into.
    """

    def __init__(
        self,
        identity: TlsIdentity,
        *,
        certificates: bool,
        required: bool,
        key_log: KeyLog | None = None,
    ) -> None:
        self.required = required
        self.buffer = memoryview(bytearray(READ))
        self._policy = PeerPolicy.MUTUAL if certificates else PeerPolicy.SERVER_ONLY
        self._key_log = key_log
        self.reload(identity)

    def reload(self, identity: TlsIdentity) -> None:
        """New handshakes use this certificate."""
        self._identity = identity
        self.context: ssl.SSLContext = server_context(identity, (), self._key_log, self._policy)

    def client_of(self, transport: TlsTransport) -> Client:
        """Who showed a certificate; NOBODY when none is asked for.

        Raises:
            IdentityRejected: it is not good.
        """
        if not self._policy.of_clients:
            return NOBODY
        tls = transport.get_extra_info("ssl_object")
        try:
            chain = [] if tls is None else peer_chain(tls)
        except ValueError:
            chain = []
        if not chain:
            raise IdentityRejected("absent")
        return Client(self._policy.check(chain, self._identity, client=True).uri)
