"""TLS contexts from an identity: TLS 1.3 only, both sides verified.

OpenSSL verifies chain, validity and, for a server, the name; then `tls.verify_peer` judges the same
chain as it does for QUIC, before a connection is reported to anybody.

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
from actors.transport.tls import TlsIdentity

#: `_ssl.ENCODING_DER`.
_DER = 2


def server_context(
    identity: TlsIdentity, alpn: Sequence[str], key_log: KeyLog | None = None
) -> ssl.SSLContext:
    """For accepted connections: a client certificate of our CA is demanded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # every connection is verified anew
    return _prepared(context, identity, alpn, key_log)


def client_context(
    identity: TlsIdentity, alpn: Sequence[str], key_log: KeyLog | None = None
) -> ssl.SSLContext:
    """For dialled connections: chain and DNS name of the server are verified."""
    return _prepared(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), identity, alpn, key_log)


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
    context: ssl.SSLContext, identity: TlsIdentity, alpn: Sequence[str], key_log: KeyLog | None
) -> ssl.SSLContext:
    if key_log is not None:
        context.keylog_filename = str(key_log.path)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(list(alpn))
    authorities = (one.public_bytes(Encoding.PEM).decode() for one in identity.authorities)
    context.load_verify_locations(cadata="".join(authorities))
    _load_key(context, identity)
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
