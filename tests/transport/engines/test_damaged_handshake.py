"""A handshake among copies of its own datagrams that are damaged, replayed and mixed up.

Whoever can read the network can send such; none of it may raise, stop the handshake it imitates or
make the server send more than three times what came before the address is validated.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import PkiFixture
from tests.transport.engines.rig import OURS, join
from tests.transport.engines.virtual_link import SERVER, Link, Side

VERSION_AT = 1
CID_AT = 6


#: Makes a copy of a datagram, of an earlier one, and of a number.
Damage = Callable[[bytes, bytes, int], bytes]


def truncated(data: bytes, _: bytes, at: int) -> bytes:
    return data[: at % (len(data) + 1)]


def replayed(_: bytes, earlier: bytes, __: int) -> bytes:
    return earlier


def coalesced(data: bytes, earlier: bytes, at: int) -> bytes:
    """One behind the other, in either order."""
    return (data + earlier if at % 2 else earlier + data)[:65_000]


def other_version(data: bytes, _: bytes, at: int) -> bytes:
    return data[:VERSION_AT] + (at & 0xFFFFFFFF).to_bytes(4, "big") + data[VERSION_AT + 4 :]


def other_cid(data: bytes, _: bytes, at: int) -> bytes:
    return data[:CID_AT] + bytes([at & 0xFF]) * 8 + data[CID_AT + 8 :]


def flipped(data: bytes, _: bytes, at: int) -> bytes:
    at %= max(1, 8 * len(data))
    changed = bytearray(data)
    if changed:
        changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def stretched(data: bytes, _: bytes, at: int) -> bytes:
    return data + bytes(at % 2000)


def other_type(data: bytes, _: bytes, at: int) -> bytes:
    return bytes([at & 0xFF]) + data[1:]


DAMAGES = (
    truncated,
    replayed,
    coalesced,
    other_version,
    other_cid,
    flipped,
    stretched,
    other_type,
)
PLAN = st.lists(st.tuples(st.sampled_from(DAMAGES), st.integers(0, 1 << 40)), max_size=6)


@pytest.mark.parametrize("client, server", OURS)
@settings(max_examples=60, deadline=None)
@given(plans=st.lists(PLAN, min_size=1, max_size=8))
def test_a_handshake_among_damaged_copies(
    pki: PkiFixture,
    client: str,
    server: str,
    plans: list[list[tuple[Damage, int]]],
) -> None:
    link = join(pki, client, server)
    earlier: dict[bool, list[bytes]] = {True: [b""], False: [b""]}
    turn = 0
    came, sent = sum(map(len, link.on_the_way)), 0

    def meddle(side: Side, data: bytes) -> None:
        nonlocal turn, came, sent
        of_client = side is link.client
        if not of_client:
            sent += len(data)
            if not link.client.datagrams_in:
                assert sent <= 3 * came
        other = link.server if of_client else link.client
        for damage, at in plans[turn % len(plans)]:
            copy = damage(data, earlier[of_client][at % len(earlier[of_client])], at)
            came += len(copy) if of_client else 0
            if other is link.server or other.datagrams_in:
                other.engine.receive(copy, side.address, link.now)
                other.take()
        turn += 1
        earlier[of_client].append(data)
        came += len(data) if of_client else 0

    link.on_send = meddle
    link.run(lambda: all(side.established or side.closed for side in link.sides), 60)
    link.on_send = None
    # Damage that is authentic (a replay, a datagram cut between two packets) changes nothing; what
    # anybody can forge before there are keys may end a handshake (RFC 9000 section 21.2), cleanly.
    if all(side.established and not side.closed for side in link.sides):
        _serves(link)


def _serves(link: Link) -> None:
    link.server.echo = True
    stream_id = link.client.engine.open_stream()
    assert stream_id is not None
    link.client.engine.write(stream_id, b"hello", end=True)
    link.run(lambda: stream_id in link.client.ended, 30)
    assert link.client.bytes_of(stream_id) == b"hello"
    assert link.client.address != SERVER


@pytest.mark.parametrize("client, server", OURS)
@pytest.mark.parametrize("damage", [replayed, truncated, coalesced], ids=lambda one: one.__name__)
def test_copies_that_are_authentic_stop_nothing(
    pki: PkiFixture, client: str, server: str, damage: Damage
) -> None:
    test = test_a_handshake_among_damaged_copies.hypothesis.inner_test
    test(pki, client, server, [[(damage, 1), (damage, 30), (damage, 700)]])
