"""Enrolment: requests, tokens, and what a certificate that came of them is good for (sheet 7.3)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from actors.pki.certificates import (
    KeyPair,
    agent_identity,
    create_ca,
    create_leaf,
    identity_of,
)
from actors.pki.dev_pki import LeafFiles
from actors.pki.enrolment import (
    ANY_AGENT,
    AUDIENCE,
    ISSUER,
    EnrolmentRefused,
    Grant,
    Rotation,
    Tokens,
    create_request,
    read_request,
    renewal,
    sign_request,
)
from actors.pki.files import pair_paths, private_pem, read_pair, write_new
from actors.transport.tls import CLIENT, verify_peer
from tests.conftest import PkiFixture, eventually, run
from tests.edge.rig import relay

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AGENT = "00000000-0000-0000-0000-000000000042"
IDENTITY = agent_identity("acme", UUID(AGENT))
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    return create_ca(NOW)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(ed25519.Ed25519PrivateKey.generate())


def test_a_request_becomes_a_certificate_for_its_own_key(ca: KeyPair) -> None:
    pem, key = create_request(IDENTITY)
    assert read_request(pem)[0] == IDENTITY
    leaf = sign_request(ca, pem, Grant("acme", AGENT), lifetime=DAY, now=NOW)
    assert leaf.public_key() == key.public_key()
    assert identity_of(leaf) == IDENTITY
    peer = verify_peer([leaf], [ca.certificate], purpose=CLIENT, now=NOW + timedelta(hours=1))
    assert peer.uri == IDENTITY


@pytest.mark.parametrize(
    "grant, said",
    [
        (Grant("other", ANY_AGENT), "agents of other"),
        (Grant("acme", "00000000-0000-0000-0000-000000000043"), "another agent"),
    ],
)
def test_a_grant_covers_its_own_agents_only(ca: KeyPair, grant: Grant, said: str) -> None:
    pem, _ = create_request(IDENTITY)
    with pytest.raises(EnrolmentRefused, match=said):
        sign_request(ca, pem, grant, lifetime=DAY, now=NOW)


def _request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *names: x509.GeneralName
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_requests_that_are_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    uri = x509.UniformResourceIdentifier(IDENTITY)
    tampered = bytearray(
        x509.load_pem_x509_csr(create_request(IDENTITY)[0]).public_bytes(Encoding.DER)
    )
    tampered[-1] ^= 1
    broken = x509.load_der_x509_csr(bytes(tampered)).public_bytes(Encoding.PEM)
    other_curve = ec.generate_private_key(ec.SECP384R1())
    for pem, said in (
        (b"", "not a certificate request"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "not a certificate request"),
        (broken, "own key"),
        (_request(key), "no identity"),
        (_request(key, x509.DNSName("localhost")), "other than one identity"),
        (_request(key, uri, x509.DNSName("example.com")), "other than one identity"),
        (_request(key, uri, uri), "other than one identity"),
        (_request(other_curve, uri), "P-256"),
        (_request(rsa.generate_private_key(65537, 2048), uri), "P-256"),
    ):
        with pytest.raises(EnrolmentRefused, match=said):
            read_request(pem)


def test_a_relay_cannot_be_enrolled_as_an_agent(ca: KeyPair) -> None:
    pem = _request(
        ec.generate_private_key(ec.SECP256R1()),
        x509.UniformResourceIdentifier("outrelay://acme/relay/r1"),
    )
    with pytest.raises(EnrolmentRefused):
        sign_request(ca, pem, Grant("acme", ANY_AGENT), lifetime=DAY, now=NOW)


def test_a_token_is_good_once_and_for_a_while(tokens: Tokens) -> None:
    token = tokens.issue("acme", NOW, agent=AGENT)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["iss"] == ISSUER
    assert claims["aud"] == [AUDIENCE]
    assert (claims["ten"], claims["aid"]) == ("acme", AGENT)
    assert claims["nbf"] == claims["iat"] - 1
    assert claims["exp"] == claims["iat"] + 600
    assert jwt.get_unverified_header(token)["alg"] == "EdDSA"
    later = NOW + timedelta(minutes=9, seconds=59)
    assert tokens.redeem(token, later) == Grant("acme", AGENT)
    with pytest.raises(EnrolmentRefused, match="used before"):
        tokens.redeem(token, later)
    expired = tokens.issue("acme", NOW, agent=ANY_AGENT)
    with pytest.raises(EnrolmentRefused, match="expired"):
        tokens.redeem(expired, NOW + timedelta(minutes=10))
    with pytest.raises(EnrolmentRefused, match="not valid yet"):
        tokens.redeem(tokens.issue("acme", NOW, agent=ANY_AGENT), NOW - timedelta(seconds=5))
    assert tokens.redeem(tokens.issue("acme", NOW, agent=ANY_AGENT), NOW) == Grant(
        "acme", ANY_AGENT
    )
    # What cannot be used any more need not be remembered.
    tokens.redeem(tokens.issue("acme", NOW + 2 * DAY, agent=ANY_AGENT), NOW + 2 * DAY)
    assert len(tokens.redeemed) == 1


@pytest.mark.parametrize("tenant", ["", "-acme", "Acme", "a/b", "x" * 64])
def test_bad_tenants(tokens: Tokens, tenant: str) -> None:
    with pytest.raises(ValueError, match="tenant"):
        tokens.issue(tenant, NOW, agent=ANY_AGENT)


def test_forged_tokens(tokens: Tokens) -> None:
    foreign = Tokens(ed25519.Ed25519PrivateKey.generate()).issue("acme", NOW, agent=ANY_AGENT)
    good = tokens.issue("acme", NOW, agent=ANY_AGENT)
    claims = jwt.decode(good, options={"verify_signature": False})
    key = tokens._key
    for token in (
        foreign,
        good[:-2],
        "",
        "a.b.c",
        jwt.encode(claims, "secret-secret-secret-secret-secret", algorithm="HS256"),
        jwt.encode({**claims, "aud": ["else"]}, key, algorithm="EdDSA"),
        jwt.encode({**claims, "iss": "else"}, key, algorithm="EdDSA"),
        jwt.encode({**claims, "exp": "soon"}, key, algorithm="EdDSA"),
        jwt.encode({**claims, "ten": "../etc"}, key, algorithm="EdDSA"),
        *(
            jwt.encode({k: v for k, v in claims.items() if k != name}, key, algorithm="EdDSA")
            for name in ("exp", "jti", "ten", "nbf")
        ),
    ):
        with pytest.raises(EnrolmentRefused):
            tokens.redeem(token, NOW)
    assert tokens.redeem(good, NOW) == Grant("acme", ANY_AGENT)


def test_a_token_that_does_not_say_whom_it_is_for_is_void(tokens: Tokens) -> None:
    """Such tokens were issued once, and let their holder take any name."""
    for agent in ("", "web", "*/x", AGENT.replace("-", ""), AGENT + "/x"):
        with pytest.raises(ValueError, match="agent"):
            tokens.issue("acme", NOW, agent=agent)
    claims = jwt.decode(tokens.issue("acme", NOW, agent=AGENT), options={"verify_signature": False})
    without = {name: claim for name, claim in claims.items() if name != "aid"}
    for old in (without, {**claims, "aid": ""}, {**claims, "aid": None}, {**claims, "aid": "web"}):
        token = jwt.encode(old, tokens._key, algorithm="EdDSA")
        with pytest.raises(EnrolmentRefused, match="which agent"):
            tokens.redeem(token, NOW)
    assert not tokens.redeemed


@pytest.mark.parametrize(
    "agent", ["web", "", "00000000000000000000000000000042", AGENT.upper() + "A"]
)
def test_a_token_for_any_agent_signs_uuids_only(ca: KeyPair, agent: str) -> None:
    identity = f"outrelay://acme/agent/{agent}"
    pem = _request(
        ec.generate_private_key(ec.SECP256R1()), x509.UniformResourceIdentifier(identity)
    )
    with pytest.raises(EnrolmentRefused, match="agents of acme"):
        sign_request(ca, pem, Grant("acme", ANY_AGENT), lifetime=DAY, now=NOW)


def test_a_clock_that_is_set_back_makes_no_used_token_good_again(tokens: Tokens) -> None:
    token = tokens.issue("acme", NOW, agent=AGENT)
    tokens.redeem(token, NOW)
    later = NOW + timedelta(hours=2)
    tokens.redeem(tokens.issue("acme", later, agent=AGENT), later)
    with pytest.raises(EnrolmentRefused, match="used before"):
        tokens.redeem(token, NOW + timedelta(minutes=1))


def test_rotation_is_due_at_seventy_per_cent_and_every_minute_until_it_worked(ca: KeyPair) -> None:
    leaf = create_leaf(ca, IDENTITY, lifetime=10 * DAY, now=NOW).certificate
    first = renewal(leaf)
    assert timedelta(days=6.9) < first - NOW < timedelta(days=7.1)
    rotation = Rotation(leaf)
    assert not rotation.due(first - timedelta(seconds=1))
    assert rotation.due(first)
    rotation.failed(first)
    assert not rotation.due(first + timedelta(seconds=59))
    assert rotation.due(first + timedelta(minutes=1))
    fresh = create_leaf(ca, IDENTITY, lifetime=10 * DAY, now=first).certificate
    rotation.renewed(fresh)
    assert not rotation.due(first + timedelta(days=6))


def test_who_enrolled_connects(pki: PkiFixture, tmp_path: Path) -> None:
    """Enrol, mutual TLS over QUIC, the first frames."""

    async def main() -> None:
        authority = read_pair(pair_paths(pki.dev.directory, "ca"))
        assert authority is not None
        tokens = Tokens(ed25519.Ed25519PrivateKey.generate())
        now = datetime.now(UTC)
        pem, key = create_request(IDENTITY)
        grant = tokens.redeem(tokens.issue("acme", now, agent=AGENT), now)
        leaf = sign_request(authority, pem, grant, lifetime=DAY, now=now)
        paths = pair_paths(tmp_path, "enrolled")
        paths.certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
        write_new(paths.key, private_pem(key), 0o600)
        async with relay(pki, tmp_path) as running:
            agent = running.agent(pki, LeafFiles(IDENTITY, paths.certificate, paths.key))
            await agent.connect(running.address, "web")
            await eventually(lambda: agent.ready)
            await asyncio.sleep(0)

    run(main())
