"""Certificates: what we present, and how a peer's is verified by us.

The TLS library of QUIC only proves that the peer holds the key of the certificate it sent;
OpenSSL, below TCP, checks the chain as well. `verify_peer` decides, the same for both, before a
connection is reported to anybody.

Source: protocol sheet ORP 1.1 to 1.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from actors.transport.certificate_path import IdentityRejected, validate_path
from actors.transport.revocation import Revocations, marks_of

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


class TlsMaterialError(Exception):
    """A certificate, key or list of ours cannot be used; the text names the file, never the key."""


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What we present and whom we trust. The key never appears in a repr."""

    chain: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes = field(repr=False)
    #: Whose certificates were taken back.
    revocations: Revocations = field(default_factory=Revocations, repr=False, compare=False)

    @classmethod
    def load(cls, certificate: Path, key: Path, ca: Path | None = None) -> TlsIdentity:
        """Read PEM files; without a CA no peer is trusted.

        Raises:
            TlsMaterialError: a file is missing, malformed, or key and certificate do not match.
        """
        try:
            chain = _certificates(certificate)
            authorities = () if ca is None else _certificates(ca)
            private = load_pem_private_key(key.read_bytes(), password=None)
        except OSError as error:
            raise TlsMaterialError(f"{error.filename}: {error.strerror}") from None
        except (ValueError, TypeError):
            files = ", ".join(str(one) for one in (certificate, ca, key.name) if one is not None)
            raise TlsMaterialError(f"not usable PEM: one of {files}") from None
        if private.public_key() != chain[0].public_key():
            raise TlsMaterialError(f"{key} is not the key of {certificate}")
        return cls(chain, authorities, private)

    @classmethod
    def anonymous(cls, authorities: Sequence[x509.Certificate] = ()) -> TlsIdentity:
        """For clients that show nothing and trust these."""
        return cls((), tuple(authorities), ec.generate_private_key(ec.SECP256R1()))

    @property
    def uri(self) -> str:
        """Our own identity: the first URI SAN of the leaf, empty when it has none."""
        return first_uri(self.chain[0]) or "" if self.chain else ""


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificates(path.read_bytes()))


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who the peer proved to be.

    Attributes:
        uri: first URI SAN of its leaf, exact text; empty: none.
        fingerprint: SHA-256 of the leaf, hex; empty: it showed none.
        not_after: end of the leaf's validity.
        marks: of its certificates, as revocation lists name them.
    """

    uri: str
    fingerprint: str
    not_after: datetime
    marks: tuple[bytes, ...] = ()


#: A peer of whom no certificate is asked.
ANONYMOUS: Final = PeerIdentity("", "", datetime.max.replace(tzinfo=UTC))


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
    needs_uri: bool = True,
    now: datetime | None = None,
) -> PeerIdentity:
    """Verify a peer's certificate chain, and tell who it is.

    Args:
        chain: as sent, leaf first; empty when the peer sent none.
        authorities: trusted CA certificates.
        purpose: the extended key usage the leaf must have.
        server_name: DNS SAN the leaf must have; None for client certificates.
        needs_uri: it must have an identity (URI SAN).
        now: time of the check; None is the present.

    Raises:
        IdentityRejected: slug is absent, no_uri, or one of `validate_path`.
    """
    if not chain:
        raise IdentityRejected("absent")
    leaf = chain[0]
    validate_path(
        chain,
        authorities,
        purpose=purpose,
        server_name=server_name,
        moment=now or datetime.now(UTC),
    )
    uri = first_uri(leaf)
    if uri is None and needs_uri:
        raise IdentityRejected("no_uri")
    return PeerIdentity(
        uri or "",
        leaf.fingerprint(hashes.SHA256()).hex(),
        leaf.not_valid_after_utc,
        marks_of(chain),
    )
