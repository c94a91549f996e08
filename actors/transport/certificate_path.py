"""Path validation of a peer's certificate (RFC 5280 section 6): one way for every transport.

The path is built and judged by cryptography's verifier: signatures and their algorithms, validity,
CA flags, path lengths, name constraints, and that no critical extension is left over that nobody
looked at. Its profile is that of the web; what a private network needs else is said here: key
identifiers may be missing (sheet ORP 1.2 has none), and what a certificate is for is checked of
leaf and intermediates (docs/decisions/0076).

Source: RFC 5280 sections 4.2.1.3, 4.2.1.9, 4.2.1.10, 4.2.1.12, 6.1; protocol sheet ORP 1.1 to 1.4.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

#: Certificates a peer may send: leaf, and at most this many intermediates.
MAX_INTERMEDIATES: Final = 4
#: Bytes of all certificates a peer sends. With the two below it bounds what an unknown peer can
#: make path building cost: every name is held against every constraint, every signature tried.
MAX_CHAIN_BYTES: Final = 16 * 1024
#: Names of a certificate, and constraints of one.
MAX_NAMES: Final = 100
#: Certificates with one subject: a CA that was signed anew, or by two others.
MAX_SAME_SUBJECT: Final = 2
_SMALLEST_RSA_BITS: Final = 2048
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
#: What the library says, and the word for it; what is not among them is an unknown CA.
_WORDS: Final = (
    ("name constraint", "name_constraint"),
    ("critical extension", "unknown_critical"),
    ("no matching subjectaltname", "wrong_name"),
    ("signature algorithm", "weak_signature"),
    ("public key algorithm", "weak_key"),
    ("rsa key", "weak_key"),
)


class IdentityRejected(Exception):
    """A peer's certificate was refused; `slug` is the counter's label."""

    def __init__(self, slug: str) -> None:
        super().__init__(slug)
        self.slug = slug


def validate_path(
    chain: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    *,
    purpose: x509.ObjectIdentifier,
    server_name: str | None,
    moment: datetime,
) -> None:
    """Find a valid path from the leaf to an authority.

    Args:
        chain: as sent, leaf first, not empty.
        authorities: trusted CA certificates.
        purpose: the extended key usage the leaf must have, and intermediates must not exclude.
        server_name: DNS name or IP address the leaf must have; None: none.
        moment: time of the check, timezone-aware.

    Raises:
        IdentityRejected: slug is one of chain_too_long, chain_too_large, malformed, not_yet_valid,
            expired, wrong_purpose, wrong_usage, wrong_name, name_constraint, unknown_critical,
            weak_key, weak_signature, unknown_ca.
    """
    if len(chain) > 1 + MAX_INTERMEDIATES:
        raise IdentityRejected("chain_too_long")
    if not _affordable(chain):
        raise IdentityRejected("chain_too_large")
    leaf = chain[0]
    _check_validity(leaf, moment)
    if not _strong(leaf):
        raise IdentityRejected("weak_key")
    if not authorities:
        raise IdentityRejected("unknown_ca")
    profile = _Profile(purpose)
    builder = (
        PolicyBuilder()
        .store(_store(tuple(authorities)))
        .time(moment)
        .max_chain_depth(MAX_INTERMEDIATES)
        .extension_policies(ca_policy=profile.authority(), ee_policy=profile.leaf())
    )
    try:
        if server_name is None:
            builder.build_client_verifier().verify(leaf, list(chain[1:]))
        else:
            builder.build_server_verifier(_subject(server_name)).verify(leaf, list(chain[1:]))
    except VerificationError as error:
        slug = profile.complaint or _word(str(error)) or _outdated(chain[1:], moment)
        raise IdentityRejected(slug or "unknown_ca") from None
    except (ValueError, x509.DuplicateExtension):
        raise IdentityRejected("malformed") from None


class _Profile:
    """What certificates must say of themselves, for one check.

    Attributes:
        complaint: why the last one was refused here; empty: none was.
    """

    def __init__(self, purpose: x509.ObjectIdentifier) -> None:
        self._purpose = purpose
        self.complaint = ""

    def leaf(self) -> ExtensionPolicy:
        """Of the peer itself."""
        agnostic = Criticality.AGNOSTIC
        return (
            ExtensionPolicy.permit_all()
            .require_present(x509.SubjectAlternativeName, agnostic, None)
            .may_be_present(x509.BasicConstraints, agnostic, self._no_authority)
            .may_be_present(x509.KeyUsage, agnostic, self._signs_handshakes)
            .may_be_present(x509.ExtendedKeyUsage, agnostic, self._serves)
        )

    def authority(self) -> ExtensionPolicy:
        """Of those above it; CA flag and path length are the library's."""
        agnostic = Criticality.AGNOSTIC
        return (
            ExtensionPolicy.permit_all()
            .require_present(x509.BasicConstraints, agnostic, None)
            .require_present(x509.KeyUsage, agnostic, self._signs_certificates)
            .may_be_present(x509.ExtendedKeyUsage, agnostic, self._does_not_exclude)
        )

    def _refuse(self, complaint: str) -> None:
        self.complaint = complaint
        raise ValueError(complaint)

    def _no_authority(
        self, _: Policy, __: x509.Certificate, constraints: x509.BasicConstraints | None
    ) -> None:
        if constraints is not None and constraints.ca:
            self._refuse("wrong_usage")

    def _signs_handshakes(
        self, _: Policy, __: x509.Certificate, usage: x509.KeyUsage | None
    ) -> None:
        if usage is not None and not usage.digital_signature:
            self._refuse("wrong_usage")

    def _serves(
        self, _: Policy, __: x509.Certificate, usages: x509.ExtendedKeyUsage | None
    ) -> None:
        """One that says nothing is good for everything elsewhere; not here (sheet 1.3)."""
        if usages is None or self._purpose not in usages:
            self._refuse("wrong_purpose")

    def _signs_certificates(self, _: Policy, __: x509.Certificate, usage: x509.KeyUsage) -> None:
        if not usage.key_cert_sign:
            self._refuse("wrong_usage")

    def _does_not_exclude(
        self, _: Policy, __: x509.Certificate, usages: x509.ExtendedKeyUsage | None
    ) -> None:
        """Any purpose does not count: OpenSSL does not take that either."""
        if usages is not None and self._purpose not in usages:
            self._refuse("wrong_purpose")


@lru_cache(maxsize=16)
def _store(authorities: tuple[x509.Certificate, ...]) -> Store:
    return Store(list(authorities))


def _subject(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _affordable(chain: Sequence[x509.Certificate]) -> bool:
    if sum(len(one.public_bytes(Encoding.DER)) for one in chain) > MAX_CHAIN_BYTES:
        return False
    if max(Counter(one.subject for one in chain).values()) > MAX_SAME_SUBJECT:
        return False
    return all(_names(one) <= MAX_NAMES for one in chain)


def _names(certificate: x509.Certificate) -> int:
    """Names of it, or constraints, whichever are more; none when they cannot be read."""
    try:
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension):
        return 0  # the library refuses it
    most = 0
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            most = max(most, len(list(value)))
        elif isinstance(value, x509.NameConstraints):
            count = len(value.permitted_subtrees or ()) + len(value.excluded_subtrees or ())
            most = max(most, count)
    return most


def _check_validity(certificate: x509.Certificate, moment: datetime) -> None:
    if moment < certificate.not_valid_before_utc:
        raise IdentityRejected("not_yet_valid")
    if moment > certificate.not_valid_after_utc:
        raise IdentityRejected("expired")


def _outdated(intermediates: Sequence[x509.Certificate], moment: datetime) -> str:
    """Whether one of them being out of date may be why there is no path."""
    for certificate in intermediates:
        try:
            _check_validity(certificate, moment)
        except IdentityRejected as rejected:
            return rejected.slug
    return ""


def _strong(leaf: x509.Certificate) -> bool:
    """The library looks at the keys of those who sign; this is the same for the leaf's."""
    try:
        key = leaf.public_key()
    except ValueError:
        return False
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _SMALLEST_RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)


def _word(text: str) -> str:
    lowered = text.lower()
    return next((word for fragment, word in _WORDS if fragment in lowered), "")
