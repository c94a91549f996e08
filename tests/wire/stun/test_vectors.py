"""Every STUN message that was recorded of five servers and their clients, and those of the RFCs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from wire.stun import attribute as a
from wire.stun import integrity, message
from wire.stun.address import decode_address, decode_xor
from wire.stun.attribute import FINGERPRINT, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256
from wire.stun.errors import StunError
from wire.stun.message import encode, parse


class Vector(NamedTuple):
    """One line of the file."""

    name: str
    raw: bytes
    key: bytes
    integrity: str
    fingerprint: str
    padding: str
    types: list[int]


def _vectors() -> list[Vector]:
    lines = (Path(__file__).parent / "messages.txt").read_text().splitlines()[1:]
    vectors = []
    for line in lines:
        name, raw, key, signed, printed, padding, types = line.split()
        vectors.append(
            Vector(
                name,
                bytes.fromhex(raw),
                bytes.fromhex(key) if key != "-" else b"",
                signed,
                printed,
                padding,
                [int(one, 16) for one in types.split(",")] if types != "-" else [],
            )
        )
    return vectors


VECTORS = {one.name: one for one in _vectors()}
COVERING = {MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, FINGERPRINT}
#: Its length field is larger than the message: erratum 6268.
BROKEN = "rfc-vectors/rfc8489-b.1-as-printed"


def test_every_message_is_read_and_built_again() -> None:
    for vector in VECTORS.values():
        if vector.name == BROKEN:
            continue
        read = parse(vector.raw)
        first = min((n for n, one in enumerate(vector.types) if one in COVERING), default=99)
        assert [one for one, _ in read.attributes] == vector.types[:first], vector.name
        if vector.fingerprint != "-":
            assert read.fingerprint_is_wrong == (vector.fingerprint != "valid"), vector.name
        if not vector.key:
            continue
        assert read.verify(vector.key) == (vector.integrity == "valid"), vector.name
        assert not read.verify(b"another" + vector.key), vector.name
        if vector.padding == "-" and not set(vector.types[first + 1 :]) - {FINGERPRINT}:
            built = encode(
                read.method, read.kind, read.transaction_id, read.attributes, key=vector.key,
                sha256=read.has_sha256, fingerprint=read.has_fingerprint,
            )  # fmt: skip
            assert built == vector.raw, vector.name
    assert len(VECTORS) > 1000


def test_the_message_that_the_rfc_misprints_is_refused() -> None:
    with pytest.raises(StunError, match="announced"):
        parse(VECTORS[BROKEN].raw)


def test_the_rfc_sample_with_sha256() -> None:
    read = parse(VECTORS["rfc-vectors/rfc8489-b.1-corrected"].raw)
    key = integrity.long_term_key("マトリックス", "example.org", "TheMatrIX", integrity.SHA256)
    assert read.has_sha256
    assert read.verify(key)
    assert read.get(a.USERHASH) == integrity.userhash("マトリックス", "example.org")


@pytest.mark.parametrize(
    "name, kind, expected",
    [
        ("rfc-vectors/rfc5769-2.2-response-v4", a.XOR_MAPPED_ADDRESS, ("192.0.2.1", 32853)),
        (
            "rfc-vectors/rfc5769-2.3-response-v6",
            a.XOR_MAPPED_ADDRESS,
            ("2001:db8:1234:5678:11:2233:4455:6677", 32853),
        ),
    ],
)
def test_addresses(name: str, kind: int, expected: tuple[str, int]) -> None:
    read = parse(VECTORS[name].raw)
    value = read.get(kind)
    assert value is not None
    assert decode_xor(value, read.transaction_id) == expected


def test_errors_and_alternate_servers_of_the_constructed_samples() -> None:
    unknown = parse(VECTORS["constructed-rfc8489-8656/unknown-attributes"].raw)
    value = unknown.get(a.ERROR_CODE)
    assert value is not None
    assert a.parse_error(value)[0] == 420
    alternate = parse(VECTORS["constructed-rfc8489-8656/try-alternate"].raw)
    server = alternate.get(a.ALTERNATE_SERVER)
    assert server is not None
    assert decode_address(server)[1] > 0
    unreachable = VECTORS[
        "constructed-rfc8489-8656/icmp-data-indication-v4-port-unreachable-layout-8-8"
    ]
    assert parse(unreachable.raw).get(a.ICMP) == a.icmp(3, 3)[1]
    partial = parse(VECTORS["constructed-rfc8489-8656/additional-family-partial"].raw)
    assert partial.get(a.ADDRESS_ERROR_CODE) == a.address_error_code(2, 440)[1]


@pytest.mark.parametrize(
    "name, realm, password, md5, sha256, digest",
    [
        (
            "alice", "example.org", "wonder-land", "f11c3cbd834adb607aa2443607ea1acb",
            "04bb27873a8f9989f66ba17b2ef40f65899d2a18341ed8e95487c1169958a799",
            "435b7933096a304d3c734cfb833ec9075bd47ab1c0160321aed31c06a8c7009e",
        ),
        (
            "マトリックス", "example.org", "TheMatrIX", "e8ca7ad59d5eb0518e312911d2dab2a9",
            "dd295a613b9058c3c23d6dc7165bda072304d989c9d0af3a8c7e184b4f9bb4a1",
            "4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704",
        ),
    ],
)  # fmt: skip
def test_keys(name: str, realm: str, password: str, md5: str, sha256: str, digest: str) -> None:
    assert integrity.long_term_key(name, realm, password).hex() == md5
    assert integrity.long_term_key(name, realm, password, integrity.SHA256).hex() == sha256
    assert integrity.userhash(name, realm).hex() == digest


def test_what_stands_behind_the_signature_does_not_count() -> None:
    signed = encode(
        message.ALLOCATE, message.REQUEST, bytes(12), ((a.USERNAME, b"alice"),), key=b"key"
    )
    longer = signed[:2] + (len(signed) - 20 + 8).to_bytes(2, "big") + signed[4:]
    read = parse(longer + b"\x00\x0d\x00\x04\x00\x00\x00\x01")
    assert read.get(a.LIFETIME) is None
    assert read.verify(b"key")
