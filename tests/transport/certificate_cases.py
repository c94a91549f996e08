"""Chains of certificates that are right, or wrong in one way; every transport judges the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from actors.transport.tls import CLIENT, SERVER, TlsIdentity

URI = "outrelay://acme/agent/00000000-0000-0000-0000-000000000007"
#: A critical extension nobody knows.
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
Extension = tuple[x509.ExtensionType, bool]


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    def signs(self, subject: str, **how: Any) -> Issued:
        """Another one, issued by this one."""
        return issue(subject, self, **how)


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def issue(
    subject: str,
    issuer: Issued | None = None,
    *,
    key: Any = None,
    ca: bool | None = None,
    path_length: int | None = None,
    signs_certificates: bool | None = None,
    digital_signature: bool = True,
    purposes: Sequence[x509.ObjectIdentifier] = (),
    uris: Sequence[str] = (),
    dns: Sequence[str] = (),
    more: Sequence[Extension] = (),
    start: float = -3600,
    end: float = 3600,
) -> Issued:
    """A certificate; seconds from now for its validity."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certifies = bool(ca) if signs_certificates is None else signs_certificates
    usage = x509.KeyUsage(
        digital_signature, False, not ca, False, False, certifies, False, False, False
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(subject) if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(seconds=start))
        .not_valid_after(now + timedelta(seconds=end))
        .add_extension(usage, critical=True)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [x509.DNSName(name) for name in dns]  # type: ignore[misc]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical=critical)
    return Issued(builder.sign(key if issuer is None else issuer.key, hashes.SHA256()), key)


ROOT = issue("root", ca=True)
OTHER_ROOT = issue("another root", ca=True)
RSA_ROOT = issue("rsa root", ca=True, key=rsa.generate_private_key(65537, 2048))
SHORT_ROOT = issue("short root", ca=True, path_length=0)


def leaf(issuer: Issued, **how: Any) -> Issued:
    """What a peer of ours presents, unless told otherwise."""
    good: dict[str, Any] = {"purposes": [SERVER, CLIENT], "uris": [URI], "dns": ["localhost"]}
    return issuer.signs("peer", **{**good, **how})


def between(issuer: Issued = ROOT, **how: Any) -> Issued:
    """An intermediate."""
    return issuer.signs("between", **{"ca": True, "path_length": 0, **how})


def constrained(permitted: Sequence[x509.GeneralName], excluded: Sequence[x509.GeneralName]) -> Any:
    return [(x509.NameConstraints(permitted or None, excluded or None), True)]


def _der(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def signed_with_sha1(issuer: Issued) -> Issued:
    """The library makes none: the algorithm is replaced, and signed again."""
    right = leaf(issuer)
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    body = right.certificate.tbs_certificate_bytes.replace(sha256, sha1)
    signature = issuer.key.sign(body, padding.PKCS1v15(), hashes.SHA1())
    algorithm = _der(0x30, _der(0x06, sha1) + b"\x05\x00")
    der = _der(0x30, body + algorithm + _der(0x03, b"\0" + signature))
    return Issued(x509.load_der_x509_certificate(der), right.key)


@dataclass(frozen=True, slots=True)
class Presented:
    """What one side shows, and whom the other side trusts."""

    chain: Sequence[Issued]
    trusted: Sequence[Issued] = (ROOT,)

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        return tuple(one.certificate for one in self.chain)

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        return tuple(one.certificate for one in self.trusted)

    def identity(self) -> TlsIdentity:
        """Whoever shows this, trusting everybody that occurs here."""
        authorities = (ROOT, OTHER_ROOT, RSA_ROOT, SHORT_ROOT)
        return TlsIdentity(
            self.certificates, tuple(one.certificate for one in authorities), self.chain[0].key
        )


Case = Callable[[x509.ObjectIdentifier], Presented]


def _through(middle: Issued, **how: Any) -> Presented:
    return Presented([leaf(middle, **how), middle])


def _uri(name: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(name)


def _cross_signed(_: x509.ObjectIdentifier) -> Presented:
    """One key, certified by a root the verifier knows and by one it does not."""
    key = ec.generate_private_key(ec.SECP256R1())
    ours, theirs = between(key=key), between(OTHER_ROOT, key=key)
    return Presented([leaf(ours), ours, theirs])


_AGAIN = issue("again", ca=True)


def _again() -> Issued:
    """One more certificate of a CA that nobody knows, by itself: each may have issued each."""
    return issue("again", _AGAIN, ca=True, key=_AGAIN.key)


def _wrong(purpose: x509.ObjectIdentifier) -> x509.ObjectIdentifier:
    return SERVER if purpose == CLIENT else CLIENT


def _self_signed(**how: Any) -> Issued:
    good: dict[str, Any] = {"purposes": [SERVER, CLIENT], "uris": [URI], "dns": ["localhost"]}
    return issue("peer", **good, **how)


ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

#: Chains every transport takes, in both roles.
RIGHT: dict[str, Case] = {
    "plain": lambda _: Presented([leaf(ROOT)]),
    "through an intermediate": lambda _: _through(between()),
    "root sent too": lambda _: Presented([leaf(ROOT), ROOT]),
    "several URIs": lambda _: Presented([leaf(ROOT, uris=[URI, "outrelay://evil/agent/x"])]),
    "no subject": lambda _: Presented([ROOT.signs("", **_NAMES)]),
    "RSA": lambda _: Presented(
        [leaf(RSA_ROOT, key=rsa.generate_private_key(65537, 2048))], [RSA_ROOT]
    ),
    "P-384": lambda _: Presented([leaf(ROOT, key=ec.generate_private_key(ec.SECP384R1()))]),
    "intermediate for this purpose": lambda purpose: _through(between(purposes=[purpose])),
    "permitted DNS name": lambda _: _through(
        between(more=constrained([x509.DNSName("localhost")], []))
    ),
    "cross-signed": _cross_signed,
    "two roots trusted": lambda _: Presented([leaf(ROOT)], [OTHER_ROOT, ROOT]),
}
_NAMES: dict[str, Any] = {"purposes": [SERVER, CLIENT], "uris": [URI], "dns": ["localhost"]}

#: Chains none takes, and QUIC's word for why.
WRONG: dict[str, tuple[Case, str]] = {
    "expired": (lambda _: Presented([leaf(ROOT, end=-60)]), "expired"),
    "not yet valid": (lambda _: Presented([leaf(ROOT, start=600)]), "not_yet_valid"),
    "intermediate expired": (lambda _: _through(between(end=-60)), "expired"),
    "purpose of the other side": (
        lambda purpose: Presented([leaf(ROOT, purposes=[_wrong(purpose)])]),
        "wrong_purpose",
    ),
    "no purpose": (lambda _: Presented([leaf(ROOT, purposes=[])]), "wrong_purpose"),
    "intermediate of the other purpose": (
        lambda purpose: _through(between(purposes=[_wrong(purpose)])),
        "wrong_purpose",
    ),
    "intermediate for any purpose": (
        lambda _: _through(between(purposes=[ANY])),
        "wrong_purpose",
    ),
    "DNS name not permitted": (
        lambda _: _through(between(more=constrained([x509.DNSName("example.org")], []))),
        "name_constraint",
    ),
    "DNS name excluded": (
        lambda _: _through(between(more=constrained([], [x509.DNSName("localhost")]))),
        "name_constraint",
    ),
    "tenant not permitted": (
        lambda _: _through(between(more=constrained([_uri("evil")], []))),
        "name_constraint",
    ),
    "tenant excluded": (
        lambda _: _through(between(more=constrained([], [_uri("acme")]))),
        "name_constraint",
    ),
    "tenant permitted": (  # the library knows no constraints of URIs: refused unseen
        lambda _: _through(between(more=constrained([_uri("acme")], []))),
        "name_constraint",
    ),
    "second URI not permitted": (
        lambda _: _through(
            between(more=constrained([_uri("acme")], [])),
            uris=[URI, "outrelay://evil/agent/00000000-0000-0000-0000-000000000007"],
        ),
        "name_constraint",
    ),
    "unknown critical extension": (
        lambda _: Presented([leaf(ROOT, more=[(UNKNOWN, True)])]),
        "unknown_critical",
    ),
    "intermediate with unknown critical extension": (
        lambda _: _through(between(more=[(UNKNOWN, True)])),
        "unknown_critical",
    ),
    "path too long": (
        lambda _: Presented([leaf(m := between(SHORT_ROOT)), m], [SHORT_ROOT]),
        "unknown_ca",
    ),
    "two intermediates below path length 0": (
        lambda _: Presented([leaf(m := between(b := between()).signs("m2", ca=True)), m, b]),
        "unknown_ca",
    ),
    "self-signed": (lambda _: Presented([_self_signed()]), "unknown_ca"),
    "self-signed CA": (lambda _: Presented([_self_signed(ca=True)]), "wrong_usage"),
    "unknown CA": (lambda _: Presented([leaf(OTHER_ROOT)]), "unknown_ca"),
    "unknown CA of the same name": (
        lambda _: Presented([leaf(issue("root", ca=True))]),
        "unknown_ca",
    ),
    "unknown CA sent along": (lambda _: Presented([leaf(OTHER_ROOT), OTHER_ROOT]), "unknown_ca"),
    "intermediate missing": (lambda _: Presented([leaf(between())]), "unknown_ca"),
    "issued by a leaf": (
        lambda _: Presented([leaf(middle := leaf(ROOT)), middle]),
        "unknown_ca",
    ),
    "issued by a leaf that says CA:FALSE": (
        lambda _: Presented([leaf(middle := leaf(ROOT, ca=False)), middle]),
        "unknown_ca",
    ),
    "intermediate must not sign certificates": (
        lambda _: _through(between(signs_certificates=False)),
        "wrong_usage",
    ),
    "a CA as peer": (lambda _: Presented([leaf(ROOT, ca=True)]), "wrong_usage"),
    "key not for signatures": (
        lambda _: Presented([leaf(ROOT, digital_signature=False)]),
        "wrong_usage",
    ),
    "no URI": (lambda _: Presented([leaf(ROOT, uris=[])]), "no_uri"),
    "more names than anybody has": (
        lambda _: Presented(
            [leaf(ROOT, dns=["localhost"] + [f"h{n}.example" for n in range(200)])]
        ),
        "chain_too_large",
    ),
    "more constraints than anybody has": (
        lambda _: _through(
            between(
                OTHER_ROOT,
                more=constrained([x509.DNSName(f"h{n}.example") for n in range(200)], []),
            )
        ),
        "chain_too_large",
    ),
    "many of one name and key": (
        lambda _: Presented([leaf(one := _again()), one, *(_again() for _ in range(3))]),
        "chain_too_large",
    ),
    "small RSA key": (
        lambda _: Presented([leaf(ROOT, key=rsa.generate_private_key(65537, 1024))]),
        "weak_key",
    ),
    "SHA-1": (
        lambda _: Presented([signed_with_sha1(RSA_ROOT)], [RSA_ROOT]),
        "weak_signature",
    ),
}
