from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.orp.errors import EncodeError
from wire.orp.forward_datagram import encode_data, encode_registration, one_prefix, parse

allocations = st.integers(1, 2**32 - 1)

# Sheet 2.4.
REGISTRATION = bytes.fromhex("0000000000000001")
DATA = bytes.fromhex("000000026869")


def test_golden_registration() -> None:
    assert encode_registration(1) == REGISTRATION
    assert parse(memoryview(REGISTRATION)) == (1, None)


def test_golden_data() -> None:
    assert encode_data(2, b"hi") == DATA
    assert parse(memoryview(DATA)) == (2, memoryview(b"hi"))


@given(allocations, st.binary(max_size=100))
def test_round_trip(allocation: int, payload: bytes) -> None:
    data = encode_data(allocation, payload)
    assert parse(memoryview(data)) == (allocation, memoryview(payload))
    registration = encode_registration(allocation)
    assert parse(memoryview(registration + payload)) == (allocation, None)


@pytest.mark.parametrize("short", ["", "00", "000000", "00000000", "00000000000000"])
def test_a_short_datagram_is_dropped(short: str) -> None:
    assert parse(memoryview(bytes.fromhex(short))) is None


@given(st.binary(max_size=20))
def test_any_datagram_is_data_registration_or_dropped(datagram: bytes) -> None:
    parsed = parse(memoryview(datagram))
    if parsed is None:
        assert len(datagram) < 8
    elif parsed[1] is None:
        assert datagram[:4] == bytes(4)
    else:
        assert parsed[1] == datagram[4:]


@pytest.mark.parametrize("allocation", [-1, 0, 2**32])
def test_an_id_that_cannot_be_granted_is_refused(allocation: int) -> None:
    with pytest.raises(EncodeError, match="allocation"):
        encode_registration(allocation)
    with pytest.raises(EncodeError, match="allocation"):
        encode_data(allocation, b"")


@given(
    st.lists(st.tuples(allocations, st.binary(max_size=1)), min_size=1, max_size=8),
    st.integers(4, 40),
    st.integers(1, 40),
)
def test_one_prefix_means_every_datagram_of_the_run(
    heads: list[tuple[int, bytes]], size: int, last: int
) -> None:
    datagrams = [
        (identity.to_bytes(4, "big") + filler * size).ljust(size, b".")[:size]
        for identity, filler in heads
    ]
    datagrams[-1] = datagrams[-1][: min(last, size)]
    expected = len({datagram[:4] for datagram in datagrams}) == 1 and len(datagrams[-1]) >= 4
    assert one_prefix(memoryview(b"".join(datagrams)), size) is expected
