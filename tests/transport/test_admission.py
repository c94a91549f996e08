"""Datagrams of strangers: what they get, and what they cost."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.transport.quic.admission import (
    INITIALS_PER_SECOND,
    RESETS_PER_SECOND,
    Accepted,
    Admission,
    long_header_cid,
)
from actors.transport.quic.rate_limit import RateLimit
from actors.transport.quic.settings import QuicSettings
from actors.transport.quic.stateless_reset import LONGEST, SMALLEST, ResetKey

HERE = ("192.0.2.7", 4433)
KEY = ResetKey(b"k" * 32)


def admission(**limits: int) -> tuple[Admission, Counter[str]]:
    counters: Counter[str] = Counter()
    made = Admission(QuicSettings(**limits), counters, KEY)  # type: ignore[arg-type]  # all ints
    made.accepting = True
    return made, counters


def client(address: tuple[str, int] = HERE) -> tuple[QuicConnection, bytes]:
    """A stock client and its first datagram."""
    quic = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["orp/1"]))
    quic.connect(address, now=0.0)
    return quic, quic.datagrams_to_send(now=0.0)[0][0]


def test_an_initial_is_accepted_with_the_id_the_client_chose() -> None:
    made, counters = admission()
    _, first = client()
    verdict = made.judge(first, HERE, 1.0)
    assert verdict == Accepted(long_header_cid(first) or b"", None, "192.0.2.7")
    assert not counters


def test_above_the_threshold_a_client_proves_its_address_and_then_gets_in() -> None:
    made, counters = admission(retry_above=1)
    made.gate.enter("198.51.100.1", 0.0)
    quic, first = client()
    retry = made.judge(first, HERE, 1.0)
    assert isinstance(retry, bytes)
    assert len(retry) < len(first)
    assert pull_quic_header(Buffer(data=retry)).packet_type is QuicPacketType.RETRY
    quic.receive_datagram(retry, HERE, now=1.0)
    second = quic.datagrams_to_send(now=1.0)[0][0]
    verdict = made.judge(second, HERE, 1.1)
    assert isinstance(verdict, Accepted)
    assert verdict.original_cid == long_header_cid(first)
    assert verdict.retry_cid == long_header_cid(second)
    # The same token from elsewhere, or later, proves nothing.
    assert made.judge(second, ("192.0.2.8", 4433), 1.1) is None
    assert made.judge(second, HERE, 1.1 + 3600) is None
    assert counters == {"retry": 1, "drop_bad_token": 2}


def test_handshakes_in_progress_of_one_source_are_limited() -> None:
    made, counters = admission(max_pending_per_source=2)
    places = [made.gate.enter("192.0.2.7", 0.0) for _ in range(2)]
    _, first = client()
    assert made.judge(first, HERE, 1.0) is None
    assert counters == {"drop_source_limit": 1}
    assert places[0] is not None
    places[0].leave()
    assert isinstance(made.judge(first, HERE, 1.0), Accepted)


def test_another_version_is_negotiated_and_a_negotiation_is_never_answered() -> None:
    made, counters = admission()
    _, first = client()
    other = first[:1] + b"\x1a\x2a\x3a\x4a" + first[5:]
    answer = made.judge(other, HERE, 1.0)
    assert isinstance(answer, bytes)
    header = pull_quic_header(Buffer(data=answer))
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert header.supported_versions == [1]
    padded = answer + bytes(1200)
    assert made.judge(padded, HERE, 1.0) is None
    assert counters["version_negotiation"] == 1


def test_short_initials_and_short_ids_are_dropped() -> None:
    made, counters = admission()
    _, first = client()
    assert made.judge(first[:1199], HERE, 1.0) is None
    short_id = first[:5] + b"\x04" + first[6:10] + first[14:] + bytes(4)
    assert made.judge(short_id, HERE, 1.0) is None
    assert counters["drop_short_initial"] == 1
    assert sum(counters.values()) == 2


def test_a_draining_endpoint_takes_nobody() -> None:
    made, counters = admission()
    made.accepting = False
    _, first = client()
    assert made.judge(first, HERE, 1.0) is None
    assert counters == {"drop_not_accepting": 1}


def test_initials_are_looked_at_no_faster_than_declared() -> None:
    made, counters = admission(max_pending=0)
    _, first = client()
    for _ in range(INITIALS_PER_SECOND + 500):
        made.judge(first, HERE, 1.0)
    assert counters["drop_initial_rate"] == 500
    assert counters["drop_pending_limit"] == INITIALS_PER_SECOND
    made.judge(first, HERE, 2.5)
    assert counters["drop_pending_limit"] == INITIALS_PER_SECOND + 1


def test_a_packet_of_a_lost_connection_is_answered_by_its_token() -> None:
    made, counters = admission()
    cid = b"12345678"
    packet = b"\x41" + cid + os.urandom(60)
    answer = made.judge(packet, HERE, 1.0)
    assert isinstance(answer, bytes)
    assert SMALLEST <= len(answer) < len(packet)
    assert answer.endswith(KEY.token(cid))
    assert answer[0] & 0xC0 == 0x40
    # Two endpoints that know nothing of each other's connections do not answer for ever.
    length = len(packet)
    for _ in range(100):
        back = KEY.packet(cid, length)
        if back is None:
            break
        assert len(back) < length
        length = len(back)
    else:
        pytest.fail("resets never end")
    for _ in range(RESETS_PER_SECOND + 50):
        made.judge(packet, HERE, 1.0)
    assert counters["stateless_reset"] == RESETS_PER_SECOND
    assert counters["drop_unknown_cid"] == RESETS_PER_SECOND + 51


def test_reset_tokens_belong_to_key_and_id() -> None:
    assert KEY.token(b"a") == ResetKey(b"k" * 32).token(b"a")
    assert KEY.token(b"a") != KEY.token(b"b")
    assert KEY.token(b"a") != ResetKey(b"l" * 32).token(b"a")
    packet = KEY.packet(b"a", 4000)
    assert packet is not None
    assert len(packet) == LONGEST


def test_a_rate_limit_refills_with_time() -> None:
    limit = RateLimit(10)
    assert [limit.take(100.0) for _ in range(11)] == [True] * 10 + [False]
    assert limit.take(100.101)
    assert not limit.take(100.101)
    assert [limit.take(200.0) for _ in range(11)] == [True] * 10 + [False]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=64),
        st.binary(min_size=1200, max_size=1400),
        st.builds(lambda tail: b"\xc0\x00\x00\x00\x01" + tail, st.binary(min_size=1195)),
    )
)
def test_arbitrary_bytes_never_raise_and_never_amplify(datagram: bytes) -> None:
    made, _ = admission(retry_above=0)
    verdict = made.judge(datagram, HERE, 1.0)
    if isinstance(verdict, bytes):
        assert len(verdict) < len(datagram)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_initials_never_raise(data: st.DataObject) -> None:
    made, _ = admission(retry_above=data.draw(st.integers(0, 1)))
    _, first = client()
    damaged = bytearray(first)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    made.judge(bytes(damaged[:cut]), HERE, 1.0)
    made.judge(bytes(damaged), HERE, 1.0)
