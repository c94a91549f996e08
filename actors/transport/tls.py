"""Certificates: what we present, and how a peer's is verified by us.

The TLS library only proves that the peer holds the key of the certificate it sent. Everything else
(chain, validity, purpose, identity) is checked here, before a connection is reported to anybody.

Source: protocol sheet ORP 1.1 to 1.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

#: Certificates a peer may send: leaf, and at most this many intermediates.
MAX_INTERMEDIATES = 4


class TlsMaterialError(Exception):
    """A certificate or key file of ours cannot be used; the text names the file, never the key."""


class IdentityRejected(Exception):
    """A peer's certificate was refused; `slug` is the counter's label."""

    def __init__(self, slug: str) -> None:
        super().__init__(slug)
        self.slug = slug


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What we present and whom we trust. The key never appears in a repr."""

    chain: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes = field(repr=False)

    @classmethod
    def load(cls, certificate: Path, key: Path, ca: Path) -> TlsIdentity:
        """Read three PEM files.

        Raises:
            TlsMaterialError: a file is missing, malformed, or key and certificate do not match.
        """
        try:
            chain = tuple(x509.load_pem_x509_certificates(certificate.read_bytes()))
            authorities = tuple(x509.load_pem_x509_certificates(ca.read_bytes()))
            private = load_pem_private_key(key.read_bytes(), password=None)
        except OSError as error:
            raise TlsMaterialError(f"{error.filename}: {error.strerror}") from None
        except (ValueError, TypeError):
            raise TlsMaterialError(
                f"not usable PEM: one of {certificate}, {ca}, {key.name}"
            ) from None
        if private.public_key() != chain[0].public_key():
            raise TlsMaterialError(f"{key} is not the key of {certificate}")
        return cls(chain, authorities, private)

    @property
    def uri(self) -> str:
        """Our own identity: the first URI SAN of the leaf, empty when it has none."""
        return first_uri(self.chain[0]) or ""


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who the peer proved to be.

    Attributes:
        uri: first URI SAN of its leaf, exact text.
        fingerprint: SHA-256 of the leaf, hex.
        not_after: end of the leaf's validity.
    """

    uri: str
    fingerprint: str
    not_after: datetime


def first_uri(leaf: x509.Certificate) -> str | None:
    """The first URI SAN; None when there is none or the extension is malformed."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else None


def verify_peer(
    chain: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    *,
    purpose: x509.ObjectIdentifier,
    server_name: str | None = None,
    now: datetime | None = None,
) -> PeerIdentity:
    """Verify a peer's certificate chain.

    Args:
        chain: as sent, leaf first; empty when the peer sent none.
        authorities: trusted CA certificates.
        purpose: the extended key usage the leaf must have.
        server_name: DNS SAN the leaf must have; None for client certificates.
        now: time of the check; None is the present.

    Raises:
        IdentityRejected: slug is one of absent, chain_too_long, malformed, not_yet_valid, expired,
            unknown_ca, wrong_purpose, wrong_name, no_uri.
    """
    if not chain:
        raise IdentityRejected("absent")
    if len(chain) > 1 + MAX_INTERMEDIATES:
        raise IdentityRejected("chain_too_long")
    moment = now or datetime.now(UTC)
    leaf = chain[0]
    _check_validity(leaf, moment)
    _check_chain(leaf, list(chain[1:]), authorities, moment)
    return identify(leaf, purpose=purpose, server_name=server_name)


def identify(
    leaf: x509.Certificate, *, purpose: x509.ObjectIdentifier, server_name: str | None = None
) -> PeerIdentity:
    """Who the holder of a certificate is whose chain and validity were verified already.

    Raises:
        IdentityRejected: slug is one of malformed, wrong_purpose, wrong_name, no_uri.
    """
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise IdentityRejected("wrong_purpose") from None
    except (x509.DuplicateExtension, ValueError):
        raise IdentityRejected("malformed") from None
    if purpose not in usages:
        raise IdentityRejected("wrong_purpose")
    if server_name is not None and server_name not in _dns_names(leaf):
        raise IdentityRejected("wrong_name")
    uri = first_uri(leaf)
    if uri is None:
        raise IdentityRejected("no_uri")
    return PeerIdentity(uri, leaf.fingerprint(hashes.SHA256()).hex(), leaf.not_valid_after_utc)


CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


def _check_validity(certificate: x509.Certificate, moment: datetime) -> None:
    if moment < certificate.not_valid_before_utc:
        raise IdentityRejected("not_yet_valid")
    if moment > certificate.not_valid_after_utc:
        raise IdentityRejected("expired")


def _check_chain(
    leaf: x509.Certificate,
    intermediates: list[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    moment: datetime,
) -> None:
    """Walk from the leaf to a trusted CA: signatures, validity, CA flag and path length.

    By hand, because the library's verifier insists on key identifiers that certificates issued
    after the sheet's profile (1.2) do not have.
    """
    current = leaf
    for depth in range(len(intermediates) + 1):
        for authority in authorities:
            if _issued(current, authority):
                _check_validity(authority, moment)
                _check_authority(authority, depth)
                return
        parent = next((c for c in intermediates if _issued(current, c)), None)
        if parent is None:
            break
        intermediates.remove(parent)
        _check_validity(parent, moment)
        _check_authority(parent, depth)
        current = parent
    raise IdentityRejected("unknown_ca")


def _issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    if child.issuer != parent.subject:
        return False
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_authority(certificate: x509.Certificate, depth: int) -> None:
    """A CA may sign certificates, and stands at most its path length above the leaf's issuer."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise IdentityRejected("unknown_ca") from None
    except (x509.DuplicateExtension, ValueError):
        raise IdentityRejected("malformed") from None
    if not constraints.ca or not usage.key_cert_sign:
        raise IdentityRejected("unknown_ca")
    if constraints.path_length is not None and depth > constraints.path_length:
        raise IdentityRejected("unknown_ca")


def _dns_names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    return names.get_values_for_type(x509.DNSName)
