"""The CA's own revocation list, `ca.crl` beside its certificate: made, read, and added to.

The list is a CRL of version 2 (RFC 5280 section 5), signed with the CA's key, replaced whole. What
is on it stays on it. Its next update is the end of the CA: it is written when somebody is revoked,
and promises nothing.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from actors.files.atomic import replace_file
from actors.pki.certificates import BACKDATING, KeyPair
from actors.pki.files import PUBLIC_FILE_MODE, PkiError

#: RFC 5280 section 5.3.1, without those that need another list.
REASONS = {
    "unspecified": None,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
}


def list_path(directory: Path) -> Path:
    """Where the CA of a directory has its list."""
    return directory / "ca.crl"


def read_list(directory: Path, ca: KeyPair) -> list[x509.RevokedCertificate]:
    """Who is on it, in the order they came; nobody when there is no list.

    Raises:
        PkiError: it cannot be read, is damaged, or another CA's.
    """
    path = list_path(directory)
    try:
        crl = x509.load_pem_x509_crl(path.read_bytes())
        if not crl.is_signature_valid(ca.certificate.public_key()):  # type: ignore[arg-type]
            raise PkiError(f"{path}: not signed by the ca.crt beside it; restore it")
        return list(crl)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PkiError(f"{path}: cannot read: {error.strerror}") from None
    except ValueError:
        raise PkiError(f"{path}: not a revocation list, or damaged; restore it") from None


def revoke(directory: Path, ca: KeyPair, serials: list[int], reason: str, now: datetime) -> int:
    """Add certificates by their serial numbers.

    Returns:
        How many were not on it before.

    Raises:
        PkiError: the list cannot be read or written; it is as it was.
    """
    entries = read_list(directory, ca)
    known = {one.serial_number for one in entries}
    new = [serial for serial in dict.fromkeys(serials) if serial not in known]
    if not new:
        return 0
    for serial in new:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
        flag = REASONS[reason]
        if flag is not None:
            entry = entry.add_extension(x509.CRLReason(flag), critical=False)
        entries.append(entry.build())
    pem = _signed(ca, entries, now).public_bytes(Encoding.PEM)
    try:
        replace_file(list_path(directory), pem, PUBLIC_FILE_MODE)
    except OSError as error:
        raise PkiError(f"{list_path(directory)}: cannot write: {error.strerror}") from error
    return len(new)


def _signed(
    ca: KeyPair, entries: list[x509.RevokedCertificate], now: datetime
) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(now - BACKDATING)
        .next_update(ca.certificate.not_valid_after_utc)
        # A number that grows: of two lists the one of the later second is the newer.
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(ca.key, hashes.SHA256())
