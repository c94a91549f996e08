"""TLS contexts from an identity: whom they verify, a `PeerPolicy` says.

OpenSSL verifies chain, validity and, for a server, the name; then the policy judges the same chain
as it does for QUIC, before a connection is reported to anybody.

Where both sides are ours there is TLS 1.3 only; clients of others may still come with 1.2.

Source: protocol sheet ORP 1.3, 3.13.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from actors.transport.key_log import KeyLog
from actors.transport.peer_policy import PeerPolicy
from actors.transport.tls import TlsIdentity

#: `_ssl.ENCODING_DER`.
_DER = 2


def server_context(
    identity: TlsIdentity,
    alpn: Sequence[str],
    key_log: KeyLog | None = None,
    policy: PeerPolicy = PeerPolicy.MUTUAL,
) -> ssl.SSLContext:
    """For accepted connections.

    Args:
        alpn: protocols offered; empty: none are.
        policy: MUTUAL: a client certificate of our CA is demanded.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED if policy.of_clients else ssl.CERT_NONE
    context.num_tickets = 0  # every connection is verified anew
    _load_key(context, identity)
    return _prepared(context, identity, alpn, key_log, policy)


def client_context(
    identity: TlsIdentity,
    alpn: Sequence[str],
    key_log: KeyLog | None = None,
    policy: PeerPolicy = PeerPolicy.MUTUAL,
) -> ssl.SSLContext:
    """For dialled connections: chain and DNS name of the server are verified, unless NONE."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if policy.of_clients:
        _load_key(context, identity)
    if not policy.of_servers:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return _prepared(context, identity, alpn, key_log, policy)


def peer_chain(tls: ssl.SSLObject) -> list[x509.Certificate]:
    """The certificates the peer sent, leaf first; empty when it sent none.

    Raises:
        ValueError: one of them is malformed.
    """
    if hasattr(tls, "get_unverified_chain"):  # Python 3.13
        sent = tls.get_unverified_chain()
    else:
        inner = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001  # no public name before
        held = inner.get_unverified_chain()
        sent = [one.public_bytes(_DER) for one in held or ()]
    return [x509.load_der_x509_certificate(one) for one in sent]


def _prepared(
    context: ssl.SSLContext,
    identity: TlsIdentity,
    alpn: Sequence[str],
    key_log: KeyLog | None,
    policy: PeerPolicy,
) -> ssl.SSLContext:
    if key_log is not None:
        context.keylog_filename = str(key_log.path)
    ours = policy is PeerPolicy.MUTUAL
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if ours else ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols(list(alpn))
    authorities = [one.public_bytes(Encoding.PEM).decode() for one in identity.authorities]
    if authorities:
        context.load_verify_locations(cadata="".join(authorities))
    return context


def _load_key(context: ssl.SSLContext, identity: TlsIdentity) -> None:
    """The ssl module reads keys from files only: this one is in memory where the system has that,
    else readable for us alone and gone at once."""
    pem = b"".join(one.public_bytes(Encoding.PEM) for one in identity.chain)
    pem += identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    else:
        with tempfile.NamedTemporaryFile() as named:
            named.write(pem)
            named.flush()
            context.load_cert_chain(named.name)
