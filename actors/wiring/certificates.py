"""Our own certificates, judged before they are used: as strictly as a peer will judge them.

A certificate that peers refuse is no certificate: it is refused here, at the start and at every
reload, with the file and the reason, by the verifier that judges peers.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from actors.files.ownership import check_secret
from actors.transport.certificate_path import IdentityRejected, validate_path
from actors.transport.tcp.tls_context import client_context, server_context
from actors.transport.tls import CLIENT, SERVER, TlsIdentity, TlsMaterialError
from config.schema import Settings
from wire.orp.identity import IdentityError, RelayUri, parse_identity

#: What the words of the verifier mean for a certificate of ours.
_MEANING: Final = {
    "wrong_purpose": "does not say that it is for TLS {purpose}s (extended key usage)",
    "unknown_ca": "does not chain to {ca}",
    "chain_too_long": "comes with too many intermediates",
}


def configured_identity(settings: Settings) -> TlsIdentity | None:
    """The certificate of this relay as settings name it; None: they name none.

    The certificates towards a controller, and of the served one, are judged on the way.

    Raises:
        TlsMaterialError, OSError: see `load_relay_identity`.
    """
    control, tls = settings.control, settings.edge.tls
    if control.tls.key is not None:
        check_secret(control.tls.key)
    served = control.serve.tls
    if served.certificate is not None and served.key is not None and served.ca is not None:
        check_served(served.certificate, served.key, served.ca)
    if tls.certificate is None or tls.key is None or tls.ca is None:
        return None
    dials = bool(settings.edge.relays.accept)
    return load_relay_identity(tls.certificate, tls.key, tls.ca, dials=dials)


def load_relay_identity(
    certificate: Path, key: Path, ca: Path, *, dials: bool = False
) -> TlsIdentity:
    """The certificate of this relay.

    Args:
        dials: it is also shown to other relays, as a client.

    Raises:
        TlsMaterialError: the files cannot be read or do not belong together, or a peer would
            refuse it: out of date, another CA, another purpose, or not of a relay.
        OSError: the key is not ours alone, or TLS cannot use it.
    """
    check_secret(key)
    identity = TlsIdentity.load(certificate, key, ca)
    for purpose in (SERVER, CLIENT) if dials else (SERVER,):
        _judge(identity, certificate, ca, purpose)
    try:
        is_relay = isinstance(parse_identity(identity.uri), RelayUri)
    except IdentityError:
        is_relay = False
    if not is_relay:
        raise TlsMaterialError(
            f"{certificate}: its identity is {identity.uri or 'missing'!r}, not that of a relay"
        )
    _try_contexts(identity, certificate)
    return identity


def check_served(certificate: Path, key: Path, ca: Path) -> None:
    """The certificate of the served controller: whoever its name says, as a TLS server.

    Raises:
        TlsMaterialError, OSError: see `load_relay_identity`.
    """
    check_secret(key)
    identity = TlsIdentity.load(certificate, key, ca)
    _judge(identity, certificate, ca, SERVER)
    _try_contexts(identity, certificate)


def _judge(
    identity: TlsIdentity, certificate: Path, ca: Path, purpose: x509.ObjectIdentifier
) -> None:
    now = datetime.now(UTC)
    leaf = identity.chain[0]
    try:
        validate_path(
            identity.chain, identity.authorities, purpose=purpose, server_name=None, moment=now
        )
    except IdentityRejected as rejected:
        what = "server" if purpose == SERVER else "client"
        slug = rejected.slug
        meaning = _MEANING.get(slug, slug.replace("_", " ")).format(purpose=what, ca=ca)
        if slug == "expired":
            meaning = f"expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            if leaf.not_valid_after_utc >= now:
                meaning = "a certificate above it is expired"
        elif slug == "not_yet_valid":
            meaning = f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise TlsMaterialError(f"{certificate}: {meaning}") from None


def _try_contexts(identity: TlsIdentity, certificate: Path) -> None:
    """What OpenSSL would refuse, it refuses now."""
    try:
        server_context(identity, ["h2"])
        client_context(identity, ["h2"])
    except ssl.SSLError as error:
        raise TlsMaterialError(f"{certificate}: TLS cannot use it: {error.reason}") from None
