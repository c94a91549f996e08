"""Certificates hold exactly what the sheet lists (orp 1.2), and verifiers accept them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from actors.pki.certificates import (
    CA_LIFETIME,
    KeyPair,
    agent_identity,
    create_ca,
    create_leaf,
    identity_of,
    relay_identity,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
AGENT = agent_identity("acme", UUID(int=2))


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    return create_ca(NOW)


def _common_name(certificate: x509.Certificate) -> object:
    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return attribute.value


def test_identities_have_the_form_of_the_sheet() -> None:
    assert AGENT == "outrelay://acme/agent/00000000-0000-0000-0000-000000000002"
    assert relay_identity("acme", "r1") == "outrelay://acme/relay/r1"


@pytest.mark.parametrize("name", ["", "-a", "Acme", "a.b", "a/b", "a" * 64, "a\n", "é"])
def test_illegal_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a-z, 0-9 and -"):
        agent_identity(name, UUID(int=1))
    with pytest.raises(ValueError, match="a-z, 0-9 and -"):
        relay_identity("acme", name)


def test_the_ca(ca: KeyPair) -> None:
    certificate = ca.certificate
    assert _common_name(certificate) == "outrelay-ca"
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=1)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=3650)
    extensions = {e.oid: e for e in certificate.extensions}
    constraints = extensions[x509.BasicConstraints.oid]
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = extensions[x509.KeyUsage.oid].value
    assert isinstance(usage, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.digital_signature) == (True, True)
    assert (usage.crl_sign, usage.key_encipherment) == (False, False)
    assert x509.ExtendedKeyUsage.oid not in extensions
    assert x509.SubjectAlternativeName.oid not in extensions
    certificate.verify_directly_issued_by(certificate)


def test_a_leaf(ca: KeyPair) -> None:
    leaf = create_leaf(ca, AGENT, lifetime=HOUR, now=NOW).certificate
    assert _common_name(leaf) == AGENT
    assert leaf.issuer == ca.certificate.subject
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=1)
    assert leaf.not_valid_after_utc == NOW + HOUR
    extensions = {e.oid: e for e in leaf.extensions}
    assert x509.BasicConstraints.oid not in extensions
    names = extensions[x509.SubjectAlternativeName.oid].value
    assert isinstance(names, x509.SubjectAlternativeName)
    assert list(names) == [x509.UniformResourceIdentifier(AGENT), x509.DNSName("localhost")]
    usages = extensions[x509.ExtendedKeyUsage.oid].value
    assert isinstance(usages, x509.ExtendedKeyUsage)
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    usage = extensions[x509.KeyUsage.oid].value
    assert isinstance(usage, x509.KeyUsage)
    assert (usage.digital_signature, usage.key_encipherment) == (True, True)
    assert not usage.key_cert_sign
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert identity_of(leaf) == AGENT


def test_keys_are_p256_in_pkcs8(ca: KeyPair) -> None:
    leaf = create_leaf(ca, AGENT, lifetime=HOUR, now=NOW)
    pem = leaf.key_pem()
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_serial_numbers_are_random_and_at_most_128_bits(ca: KeyPair) -> None:
    serials = {
        create_leaf(ca, AGENT, lifetime=HOUR, now=NOW).certificate.serial_number for _ in range(8)
    }
    assert len(serials) == 8
    assert all(0 < serial < 1 << 128 for serial in serials)


@pytest.mark.parametrize("length, whole", [(10, True), (11, False), (63, False)])
def test_long_tenants_get_a_short_common_name(ca: KeyPair, length: int, whole: bool) -> None:
    identity = agent_identity("t" * length, UUID(int=2))
    leaf = create_leaf(ca, identity, lifetime=HOUR, now=NOW).certificate
    expected = identity if whole else "00000000-0000-0000-0000-000000000002"
    assert _common_name(leaf) == expected
    assert identity_of(leaf) == identity


def test_a_leaf_does_not_outlive_its_ca(ca: KeyPair) -> None:
    late = NOW + CA_LIFETIME - HOUR
    leaf = create_leaf(ca, AGENT, lifetime=timedelta(days=30), now=late).certificate
    assert leaf.not_valid_after_utc == ca.certificate.not_valid_after_utc
    with pytest.raises(ValueError, match="the CA is valid until"):
        create_leaf(ca, AGENT, lifetime=HOUR, now=NOW + CA_LIFETIME)


@pytest.mark.parametrize("lifetime", [timedelta(0), -HOUR, CA_LIFETIME + HOUR])
def test_lifetimes_out_of_range_are_refused(ca: KeyPair, lifetime: timedelta) -> None:
    with pytest.raises(ValueError, match="lifetime must be"):
        create_leaf(ca, AGENT, lifetime=lifetime, now=NOW)


def test_a_strict_verifier_accepts_our_chain_and_no_other(ca: KeyPair) -> None:
    leaf = create_leaf(ca, AGENT, lifetime=HOUR, now=NOW).certificate
    policy = (
        PolicyBuilder()
        .time(NOW)
        .extension_policies(
            ca_policy=ExtensionPolicy.permit_all().require_present(
                x509.BasicConstraints, Criticality.CRITICAL, None
            ),
            ee_policy=ExtensionPolicy.permit_all().require_present(
                x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
            ),
        )
    )
    verified = policy.store(Store([ca.certificate])).build_client_verifier().verify(leaf, [])
    assert verified.chain == [leaf, ca.certificate]
    stranger = create_ca(NOW)
    with pytest.raises(VerificationError):
        policy.store(Store([stranger.certificate])).build_client_verifier().verify(leaf, [])


def test_the_identity_is_the_first_uri_and_may_be_missing(ca: KeyPair) -> None:
    assert identity_of(ca.certificate) is None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    uris = [x509.UniformResourceIdentifier("a://1"), x509.UniformResourceIdentifier("a://2")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + HOUR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("x"), *uris]), critical=False)
        .sign(key, hashes.SHA256())
    )
    assert identity_of(certificate) == "a://1"
