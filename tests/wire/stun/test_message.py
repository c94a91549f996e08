"""Reading never fails but with `StunError`, and what was built is read as it was meant."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tests.wire.stun.test_vectors import VECTORS
from wire.stun import message
from wire.stun.address import decode_xor, encode_xor
from wire.stun.errors import BadValue, StunError
from wire.stun.message import encode, parse

ATTRIBUTES = st.lists(
    st.tuples(
        st.integers(0, 0xFFFF).filter(lambda one: one not in (0x0008, 0x001C, 0x8028)),
        st.binary(max_size=40),
    ),
    max_size=20,
)
KINDS = st.sampled_from([message.REQUEST, message.INDICATION, message.SUCCESS, message.ERROR])


@given(
    method=st.integers(0, 0xFFF),
    kind=KINDS,
    identity=st.binary(min_size=12, max_size=12),
    attributes=ATTRIBUTES,
    key=st.none() | st.binary(min_size=1, max_size=32),
    sha256=st.booleans(),
    fingerprint=st.booleans(),
)
def test_what_is_built_is_read(
    method: int,
    kind: int,
    identity: bytes,
    attributes: list[tuple[int, bytes]],
    key: bytes | None,
    sha256: bool,
    fingerprint: bool,
) -> None:
    raw = encode(
        method, kind, identity, attributes, key=key, sha256=sha256, fingerprint=fingerprint
    )
    read = parse(raw)
    assert (read.method, read.kind, read.transaction_id) == (method, kind, identity)
    assert read.attributes == attributes
    assert read.has_integrity == (key is not None)
    assert read.has_fingerprint == fingerprint
    assert not read.fingerprint_is_wrong
    if key is not None:
        assert read.verify(key)
        assert not read.verify(key + b"x")


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read(data: bytes) -> None:
    try:
        parse(data)
    except StunError:
        pass


@given(st.ip_addresses(), st.integers(0, 65535), st.binary(min_size=12, max_size=12))
def test_addresses_come_back(address: object, port: int, identity: bytes) -> None:
    value = encode_xor(str(address), port, identity)
    assert decode_xor(value, identity) == (str(address), port)


def mutate(raw: bytes, dice: random.Random) -> bytes:
    """Something that was a message once."""
    data = bytearray(raw)
    for _ in range(dice.randrange(1, 5)):
        what = dice.randrange(5)
        at = dice.randrange(len(data) or 1)
        if what == 0 and data:
            data[at] = dice.randrange(256)
        elif what == 1:
            del data[at : at + dice.randrange(8)]
        elif what == 2:
            data[at:at] = dice.randbytes(dice.randrange(8))
        elif what == 3 and len(data) >= 4:
            data[2:4] = (len(data) - 20 & 0xFFFF).to_bytes(2, "big")
        elif data:
            data[at] ^= 1 << dice.randrange(8)
    return bytes(data)


def test_mutated_messages_are_refused_or_read() -> None:
    dice = random.Random(5389)
    samples = [one.raw for one in VECTORS.values()]
    for _ in range(20_000):
        try:
            read = parse(mutate(dice.choice(samples), dice))
            read.verify(b"key")
            for kind, value in read.attributes:
                read.number(kind, 4) if len(value) == 4 else None
                decode_xor(value, read.transaction_id)
        except (StunError, BadValue):
            pass
