"""Our own certificate, judged before it is used: as strictly as a peer will judge it.

A certificate that peers refuse is no certificate: it is refused at the start and at every reload,
with the file and the reason, by the verifier that judges peers.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from actors.transport.certificate_path import IdentityRejected, validate_path
from actors.transport.peer_policy import PeerPolicy
from actors.transport.tcp.tls_context import client_context, server_context
from actors.transport.tls import SERVER, TlsIdentity, TlsMaterialError

#: What the words of the verifier mean for a certificate of ours.
_MEANING: Final = {
    "wrong_purpose": "does not say that it is for TLS {purpose}s (extended key usage)",
    "unknown_ca": "does not chain to {ca}",
    "chain_too_long": "comes with too many intermediates",
}


def judge_own(
    identity: TlsIdentity, certificate: Path, ca: Path, *purposes: x509.ObjectIdentifier
) -> None:
    """Refuse what a peer would refuse, and what TLS cannot use.

    Args:
        certificate, ca: where it was read from, for the reason.
        purposes: SERVER, CLIENT: what it must be good for.

    Raises:
        TlsMaterialError: why not.
    """
    for purpose in purposes:
        _judge(identity, certificate, ca, purpose)
    try:
        server_context(identity, ["h2"])
        client_context(identity, ["h2"])
    except ssl.SSLError as error:
        raise TlsMaterialError(f"{certificate}: TLS cannot use it: {error.reason}") from None


def judge_shown(
    identity: TlsIdentity, certificate: Path, purpose: x509.ObjectIdentifier = SERVER
) -> None:
    """Refuse what no peer could accept, of a certificate whose CA we need not know.

    Args:
        certificate: where it was read from, for the reason.
        purpose: SERVER or CLIENT: what it must be good for.

    Raises:
        TlsMaterialError: out of date, for another purpose, or TLS cannot use it.
    """
    leaf, now = identity.chain[0], datetime.now(UTC)
    if leaf.not_valid_after_utc < now:
        raise TlsMaterialError(
            f"{certificate}: expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC{_clock(now)}"
        )
    if leaf.not_valid_before_utc > now:
        raise TlsMaterialError(
            f"{certificate}: is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            f"{_clock(now)}"
        )
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = None
    if usages is not None and purpose not in usages:
        what = "server" if purpose == SERVER else "client"
        meaning = _MEANING["wrong_purpose"].format(purpose=what)
        raise TlsMaterialError(f"{certificate}: {meaning}")
    try:
        if purpose == SERVER:
            server_context(identity, (), policy=PeerPolicy.SERVER_ONLY)
        else:
            client_context(identity, ["h2"])
    except ssl.SSLError as error:
        raise TlsMaterialError(f"{certificate}: TLS cannot use it: {error.reason}") from None


def _clock(now: datetime) -> str:
    """Dates are judged by a clock, which may be what is wrong."""
    return f" (this clock says {now:%Y-%m-%d %H:%M} UTC)"


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
            meaning = f"expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC{_clock(now)}"
            if leaf.not_valid_after_utc >= now:
                meaning = "a certificate above it is expired"
        elif slug == "not_yet_valid":
            since = f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            meaning = f"is not valid before {since}{_clock(now)}"
        raise TlsMaterialError(f"{certificate}: {meaning}") from None
