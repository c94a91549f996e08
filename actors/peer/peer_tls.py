"""TLS of the door: the certificate of the server, and nobody else's."""

from __future__ import annotations

import ssl
from typing import Final

from actors.transport.key_log import KeyLog
from actors.transport.peer_policy import PeerPolicy
from actors.transport.tcp.tls_context import server_context
from actors.transport.tcp.tls_transport import READ
from actors.transport.tls import TlsIdentity

_ALPN: Final = ("http/1.1",)


class PeerTls:
    """TLS of the door: the certificate of the server, and nobody else's.

    Attributes:
        identity: our certificate.
        context: for new connections.
        buffer: what all connections read into.
    """

    def __init__(self, identity: TlsIdentity, key_log: KeyLog | None = None) -> None:
        self.buffer = memoryview(bytearray(READ))
        self._key_log = key_log
        self.reload(identity)

    def reload(self, identity: TlsIdentity) -> None:
        """New handshakes use this certificate."""
        self.identity = identity
        self.context: ssl.SSLContext = server_context(
            identity, _ALPN, self._key_log, PeerPolicy.SERVER_ONLY
        )
