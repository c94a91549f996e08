"""Enrolment: a machine makes its own key, and a CA signs for it, once, against a token.

The key never leaves the machine: it sends a request (PKCS#10) for the identity it wants; whoever
holds the CA checks that the request is signed by its own key, that it asks for one identity only,
and that the token allows it. A token is a JWT signed with Ed25519 and good for one request; it
names the agent it is for, or says in so many words that it is for any. One that says neither is
void.

Knows X.509 and tokens; no files, no clock (`now` is an argument).
Source: protocol sheet ORP 1.2, 4.5 (enrolment token, rotation helper), 7.3; RFC 2986, RFC 7519,
RFC 8037.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from actors.pki.certificates import KeyPair, certify, common_name, valid_tenant

ISSUER: Final = "outrelay-controller"
AUDIENCE: Final = "outrelay-agent"
TOKEN_LIFETIME: Final = timedelta(minutes=10)
#: A token is good this long before it was issued, for clocks that are behind.
TOKEN_BACKDATING: Final = timedelta(seconds=1)
#: In the place of an agent's UUID: the token is for any agent of its tenant.
ANY_AGENT: Final = "*"
#: Share of a certificate's lifetime after which it is renewed, and the pause between attempts.
RENEW_AFTER: Final = 0.7
RENEW_AGAIN: Final = timedelta(minutes=1)
#: How long past its end a redeemed token is remembered, for clocks that are set back.
REMEMBERED: Final = timedelta(days=1)
#: Redeemed tokens remembered. One more is refused.
MAX_REDEEMED: Final = 100_000


class EnrolmentRefused(Exception):
    """The request or its token is not good; the text says why and may be told to the asker."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows.

    Attributes:
        tenant: of the identity.
        agent: the only UUID it may be used for, or `ANY_AGENT`.
    """

    tenant: str
    agent: str


def create_request(identity: str) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    """A PEM request for an identity, and the new key it is for."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name(identity))])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(Encoding.PEM), key


def read_request(pem: bytes) -> tuple[str, ec.EllipticCurvePublicKey]:
    """The identity a request asks for, and its key.

    Raises:
        EnrolmentRefused: not a request, not signed by its own key, not P-256, or not exactly one
            URI.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
    except ValueError:
        raise EnrolmentRefused("not a certificate request") from None
    key = request.public_key()
    if not request.is_signature_valid:
        raise EnrolmentRefused("the request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EnrolmentRefused("the key of the request is not on P-256")
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise EnrolmentRefused("the request names no identity") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or len(list(names)) != 1:
        raise EnrolmentRefused("the request names something other than one identity")
    return uris[0], key


def sign_request(
    ca: KeyPair, pem: bytes, grant: Grant, *, lifetime: timedelta, now: datetime
) -> x509.Certificate:
    """A certificate for what the request asks, if the grant covers it.

    Raises:
        EnrolmentRefused: see `read_request`; or the identity is not the grant's.
        ValueError: the lifetime is out of range or the CA is not valid at `now`.
    """
    identity, key = read_request(pem)
    prefix = f"outrelay://{grant.tenant}/agent/"
    agent = identity.removeprefix(prefix)
    if agent == identity or not _is_uuid(agent):
        raise EnrolmentRefused(f"the token is for agents of {grant.tenant}")
    if grant.agent not in (agent, ANY_AGENT):
        raise EnrolmentRefused("the token is for another agent")
    return certify(ca, identity, key, lifetime=lifetime, now=now)


def _is_uuid(text: str) -> bool:
    """True for the one spelling an identity has."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


class Tokens:
    """Issues and redeems enrolment tokens.

    Args:
        key: signs; whoever has it can enrol any agent.
        redeemed: ids of tokens used before, with their ends (seconds since the epoch); kept up to
            date here, so that the owner can store it.
    """

    def __init__(
        self, key: ed25519.Ed25519PrivateKey, redeemed: dict[str, int] | None = None
    ) -> None:
        self._key = key
        self.redeemed = {} if redeemed is None else redeemed

    def issue(
        self, tenant: str, now: datetime, *, agent: str, lifetime: timedelta = TOKEN_LIFETIME
    ) -> str:
        """A token for one agent of a tenant: a UUID, or `ANY_AGENT`.

        Raises:
            ValueError: the tenant or the agent is none, or the lifetime is not above zero.
        """
        if not valid_tenant(tenant):
            raise ValueError(f"tenant {tenant[:80]!r}: use 1 to 63 of a-z, 0-9 and -")
        if agent != ANY_AGENT and not _is_uuid(agent):
            raise ValueError(f"agent {agent[:80]!r}: a UUID, or {ANY_AGENT} for any agent")
        if lifetime <= timedelta(0):
            raise ValueError("the lifetime of a token is above zero")
        identifier = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
        claims: dict[str, Any] = {
            "ten": tenant,
            "iss": ISSUER,
            "aud": [AUDIENCE],
            "iat": int(now.timestamp()),
            "nbf": int((now - TOKEN_BACKDATING).timestamp()),
            "exp": int((now + lifetime).timestamp()),
            "jti": identifier,
            "aid": agent,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA")

    def redeem(self, token: str, now: datetime) -> Grant:
        """What the token allows; it allows nothing afterwards.

        Raises:
            EnrolmentRefused: forged, expired, not valid yet, used before, or without a claim.
        """
        claims = self._verified(token)
        seconds = int(now.timestamp())
        if seconds >= claims["exp"]:
            raise EnrolmentRefused("the token is expired")
        if seconds < claims["nbf"]:
            raise EnrolmentRefused("the token is not valid yet")
        tenant, agent = claims.get("ten"), claims.get("aid")
        if not isinstance(tenant, str) or not valid_tenant(tenant):
            raise EnrolmentRefused("the token names no tenant")
        if not isinstance(agent, str) or not (agent == ANY_AGENT or _is_uuid(agent)):
            raise EnrolmentRefused("the token does not say which agent it is for; issue another")
        for identifier, end in list(self.redeemed.items()):
            if end + REMEMBERED.total_seconds() <= seconds:
                del self.redeemed[identifier]
        if claims["jti"] in self.redeemed:
            raise EnrolmentRefused("the token was used before")
        if len(self.redeemed) >= MAX_REDEEMED:
            raise EnrolmentRefused("too many tokens were used; try again later")
        self.redeemed[claims["jti"]] = claims["exp"]
        return Grant(tenant, agent)

    def _verified(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["EdDSA"],
                issuer=ISSUER,
                audience=AUDIENCE,
                options={
                    "require": ["exp", "nbf", "iat", "jti", "iss", "aud"],
                    # The clock is an argument here: both are checked by the caller.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError as error:
            raise EnrolmentRefused(f"the token is not good: {type(error).__name__}") from None
        if not all(isinstance(claims[name], int) for name in ("exp", "nbf")) or not (
            isinstance(claims["jti"], str) and claims["jti"]
        ):
            raise EnrolmentRefused("the token is not good: malformed claims")
        return claims


def renewal(certificate: x509.Certificate) -> datetime:
    """When to renew it for the first time."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * RENEW_AFTER


class Rotation:
    """When to try to renew a certificate: at `renewal`, then every minute until it worked."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self.next_attempt = renewal(certificate)

    def failed(self, now: datetime) -> None:
        """An attempt failed."""
        self.next_attempt = now + RENEW_AGAIN

    def renewed(self, certificate: x509.Certificate) -> None:
        """It worked."""
        self.next_attempt = renewal(certificate)

    def due(self, now: datetime) -> bool:
        """True when it is time."""
        return now >= self.next_attempt
