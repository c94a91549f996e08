"""Build the CA and the leaf certificates of a relay network, byte for byte as the sheet has them.

Knows X.509 and the identity grammar; no files, no clock (`now` is an argument). Used by the
development PKI and by `trunkline pki`. Source: protocol sheet orp 1.1 (identities) and 1.2
(certificates); RFC 5280 4.2.1.1 and 4.2.1.2 for the key identifiers the sheet does not list.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_COMMON_NAME = "outrelay-ca"
CA_LIFETIME = timedelta(days=3650)
#: Lifetime of leaves made by development and command-line tools (sheet 1.2).
TOOL_LEAF_LIFETIME = timedelta(days=30)
MAX_LEAF_LIFETIME = CA_LIFETIME
#: Certificates start this long before `now`, for peers whose clock is behind.
BACKDATING = timedelta(minutes=1)
#: The name every TLS client of this protocol asks for (sheet 1.3).
SERVER_NAME = "localhost"
#: ub-common-name, RFC 5280 appendix A.1.
MAX_COMMON_NAME_CHARACTERS = 64
SERIAL_BITS = 128

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DNS_NAME = re.compile(
    r"(?:\*\.)?(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
_LONGEST_NAME = 253


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and the private key it belongs to."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """PKCS#8, unencrypted. Secret: write it with mode 0600 and nowhere else."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def agent_identity(tenant: str, uuid: UUID) -> str:
    """`outrelay://<tenant>/agent/<uuid>`.

    Raises:
        ValueError: the tenant is not of the form `[a-z0-9][a-z0-9-]{0,62}`.
    """
    return f"outrelay://{_checked('tenant', tenant)}/agent/{uuid}"


def relay_identity(region: str, relay_id: str) -> str:
    """`outrelay://<region>/relay/<relay-id>`; development tools put the tenant into the region.

    Raises:
        ValueError: one of the names is not of the form `[a-z0-9][a-z0-9-]{0,62}`.
    """
    return f"outrelay://{_checked('region', region)}/relay/{_checked('relay id', relay_id)}"


def valid_tenant(name: str) -> bool:
    """True for a name that an identity may begin with."""
    return _NAME.fullmatch(name) is not None


def _checked(what: str, name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"{what} {name[:80]!r}: use 1 to 63 of a-z, 0-9 and -, not starting with -"
        )
    return name


def create_ca(now: datetime) -> KeyPair:
    """A new self-signed CA, valid for ten years from `now` (timezone-aware)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CA_COMMON_NAME)])
    builder = (
        _builder(name, name, key.public_key(), now, now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return KeyPair(builder.sign(key, hashes.SHA256()), key)


def create_leaf(
    ca: KeyPair,
    identity: str,
    *,
    lifetime: timedelta,
    now: datetime,
    key: ec.EllipticCurvePrivateKey | None = None,
    server: bool = True,
    names: Sequence[str] = (),
) -> KeyPair:
    """A leaf for one identity URI, good as TLS client, and as server.

    Args:
        identity: from `agent_identity` or `relay_identity`; the only URI in the SAN.
        lifetime: above zero, at most ten years; cut to the end of the CA's own validity.
        key: an existing key to certify again; None generates one.
        server: False: it is no server's, neither by purpose nor by name.
        names: DNS names and IP addresses of a server, besides `SERVER_NAME`.

    Raises:
        ValueError: the lifetime is out of range, the CA is not valid at `now`, or a name is none.
    """
    key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    leaf = certify(
        ca, identity, key.public_key(), lifetime=lifetime, now=now, server=server, names=names
    )
    return KeyPair(leaf, key)


def certify(
    ca: KeyPair,
    identity: str,
    key: ec.EllipticCurvePublicKey,
    *,
    lifetime: timedelta,
    now: datetime,
    server: bool = True,
    names: Sequence[str] = (),
) -> x509.Certificate:
    """A leaf for one identity URI and a key of somebody else; see `create_leaf`.

    Raises:
        ValueError: see `create_leaf`.
    """
    if not timedelta(0) < lifetime <= MAX_LEAF_LIFETIME:
        raise ValueError(f"lifetime must be above zero and at most {MAX_LEAF_LIFETIME.days} days")
    issuer = ca.certificate
    if not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc:
        raise ValueError(
            f"the CA is valid until {issuer.not_valid_after_utc:%Y-%m-%d %H:%M} UTC only"
        )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name(identity))])
    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity)]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if server:
        alternatives += (_server_name(name) for name in dict.fromkeys((SERVER_NAME, *names)))
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    end = min(now + lifetime, issuer.not_valid_after_utc)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = (
        _builder(subject, issuer.subject, key, now, end)
        .add_extension(_key_usage(key_encipherment=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(authority, critical=False)
    )
    return builder.sign(ca.key, hashes.SHA256())


def _server_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if len(text) > _LONGEST_NAME or not _DNS_NAME.fullmatch(text):
            raise ValueError(f"{text!r}: neither a DNS name nor an IP address") from None
        return x509.DNSName(text)


def identity_of(certificate: x509.Certificate) -> str | None:
    """The identity of a leaf: its first URI SAN as an exact string, None without one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):  # ValueError: an extension that does not parse
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else None


def common_name(identity: str) -> str:
    """The whole identity; when that is over the limit, its last part (nothing reads the CN)."""
    if len(identity) <= MAX_COMMON_NAME_CHARACTERS:
        return identity
    return identity.rpartition("/")[2]


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(secrets.randbits(SERIAL_BITS) or 1)
        .not_valid_before(now - BACKDATING)
        .not_valid_after(end)
    )


def _key_usage(*, key_cert_sign: bool = False, key_encipherment: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
