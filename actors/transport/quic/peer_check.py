"""Whether the peer of a finished handshake is one we talk to, and the TLS alert when not."""

from __future__ import annotations

from typing import Final

from actors.transport.certificate_path import IdentityRejected
from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.engine import Established
from actors.transport.tls import PeerIdentity, TlsIdentity

#: certificate_revoked.
REVOKED: Final = 44
#: TLS alerts (RFC 8446 section 6) by rejection.
_ALERTS: Final = {
    "absent": 116,
    "unknown_ca": 48,
    "expired": 45,
    "not_yet_valid": 45,
    "revoked": REVOKED,
    "wrong_purpose": 43,
    "wrong_usage": 43,
    "no_alpn": 120,
}
#: bad_certificate, for every other one.
BAD_CERTIFICATE: Final = 42


class PeerRefused(Exception):
    """The handshake is not accepted.

    Attributes:
        slug: why, in a word for counters and the peer.
        alert: the TLS alert that says it.
    """

    def __init__(self, slug: str) -> None:
        super().__init__(slug)
        self.slug = slug
        self.alert = _ALERTS.get(slug, BAD_CERTIFICATE)


def check_peer(
    event: Established,
    identity: TlsIdentity,
    alpn: tuple[str, ...],
    policy: PeerPolicy,
    *,
    client: bool,
    server_name: str | None = None,
) -> PeerIdentity:
    """Check the peer's protocol and chain.

    Args:
        event: what the handshake found out.
        identity: ours, with the authorities we trust.
        alpn: the protocols we speak.
        policy: whose certificate is verified.
        client: the peer is one.
        server_name: of a server: the name that was dialled.

    Raises:
        PeerRefused: no common protocol, or a certificate that is absent, not valid, revoked, of the
            wrong purpose, without identity, or not by our authorities.
    """
    if event.alpn not in alpn:
        raise PeerRefused("no_alpn")
    try:
        return policy.check(event.chain, identity, client=client, server_name=server_name)
    except IdentityRejected as rejection:
        raise PeerRefused(rejection.slug) from None
