"""Revocation lists (CRLs) as files.

A list is good when a CA we trust signed it, whatever that CA's key usage says: the CAs of this
network have no cRLSign (sheet ORP 1.2). Its next update is a promise of news and no end: what it
revokes stays revoked.

Source: RFC 5280 section 5; docs/decisions/0133.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from actors.transport.revocation import RevocationList, mark
from actors.transport.tls import TlsMaterialError

#: Of a file, all its lists together; some 200 000 certificates.
MAX_CRL_BYTES: Final = 8 * 1024 * 1024
_END: Final = b"-----END X509 CRL-----"


def read_revocations(path: Path, authorities: Sequence[x509.Certificate]) -> RevocationList:
    """The lists in a PEM file, or one in DER. Blocking.

    Args:
        authorities: who may have signed them.

    Raises:
        TlsMaterialError: it cannot be read, is none, or is signed by somebody else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CRL_BYTES + 1)
    except OSError as error:
        raise TlsMaterialError(
            f"{path}: cannot read the revocation list: {error.strerror}"
        ) from None
    if len(data) > MAX_CRL_BYTES:
        raise TlsMaterialError(f"{path}: more than {MAX_CRL_BYTES} bytes, too large a list")
    try:
        lists = _parsed(data)
        updates = [one.next_update_utc for one in lists if one.next_update_utc is not None]
        marks = frozenset(mark(one.issuer, each.serial_number) for one in lists for each in one)
    except ValueError:
        raise TlsMaterialError(f"{path}: not a revocation list (CRL), or damaged") from None
    for one in lists:
        if not any(_signed(one, ca) for ca in authorities):
            raise TlsMaterialError(
                f"{path}: its issuer {one.issuer.rfc4514_string()[:200]} is no CA that is trusted "
                "here, or the signature is not its own"
            )
    return RevocationList(marks, min(updates, default=None))


def _parsed(data: bytes) -> list[x509.CertificateRevocationList]:
    if b"-----BEGIN" not in data:
        return [x509.load_der_x509_crl(data)]
    blocks = [block + _END for block in data.split(_END)[:-1]]
    if not blocks:
        raise ValueError("no list")
    return [x509.load_pem_x509_crl(block) for block in blocks]


def _signed(one: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    if one.issuer != ca.subject:
        return False
    try:
        return one.is_signature_valid(ca.public_key())  # type: ignore[arg-type]  # other keys raise
    except (TypeError, ValueError):
        return False
