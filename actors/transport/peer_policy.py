"""Who shows a certificate, and whose is verified: said by the door, kept by every transport.

Agents of a relay network prove who they are with certificates of its CA. Clients of other doors
have none: they know the server by its name, as a browser does, and show who they are later, in
their protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from cryptography import x509

from actors.transport.tls import ANONYMOUS, CLIENT, SERVER, PeerIdentity, TlsIdentity, verify_peer


class PeerPolicy(Enum):
    #: Both sides, with an identity (URI SAN) in both certificates.
    MUTUAL = "mutual"
    #: The server shows one, and clients verify it; clients are asked for none and show none.
    SERVER_ONLY = "server only"
    #: As before, but clients do not verify it: what is said is hidden, and nobody is proven.
    NONE = "none"

    @property
    def of_clients(self) -> bool:
        """Clients are asked for a certificate, and have one."""
        return self is PeerPolicy.MUTUAL

    @property
    def of_servers(self) -> bool:
        """Clients verify the server."""
        return self is not PeerPolicy.NONE

    def check(
        self,
        chain: Sequence[x509.Certificate],
        identity: TlsIdentity,
        *,
        client: bool,
        server_name: str | None = None,
    ) -> PeerIdentity:
        """Judge what the peer showed.

        Args:
            chain: as sent, leaf first; empty when it sent none.
            identity: ours, with the authorities we trust and what they took back.
            client: the peer is one.
            server_name: of a server: the name that was dialled.

        Returns:
            Who it is; ANONYMOUS when that is not asked.

        Raises:
            IdentityRejected: see `verify_peer`; or slug is revoked.
        """
        if not (self.of_clients if client else self.of_servers):
            return ANONYMOUS
        peer = verify_peer(
            chain,
            identity.authorities,
            purpose=CLIENT if client else SERVER,
            server_name=server_name,
            needs_uri=self is PeerPolicy.MUTUAL,
        )
        identity.revocations.judge(peer.marks)
        return peer
