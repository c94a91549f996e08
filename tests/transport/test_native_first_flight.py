"""Initial keys, and packets that get another destination. Source: RFC 9001 appendix A.1."""

from __future__ import annotations

import os

import pytest
from aioquic.quic.crypto import CryptoPair
from qh3._hazmat import pull_quic_header

from actors.transport.quic.native_engine.first_flight import FirstFlight
from tests.transport.engines.test_first_flight import initial

CHOSEN = bytes.fromhex("8394c8f03e515708")
OURS = b"ourownid"
HELLO = b"\x06\0\x04\x01\0\0\0"


def test_the_keys_are_those_of_the_standard() -> None:
    receive, send = FirstFlight(CHOSEN, OURS).initial_keys()
    assert (receive.direction, send.direction) == ("receive", "send")
    assert receive.key.hex() == "1f369613dd76d5467730efcbe3b1a22d"
    assert receive.iv.hex() == "fa044b2f42a3fd3b46fb255c"
    assert receive.hp.hex() == "9f50449e04a0e810283a1e9933adedd2"
    assert send.key.hex() == "cf3a5331653c364c88f0f379b6067e37"
    assert send.iv.hex() == "0ac1493ca1905853b0bba03e"
    assert send.hp.hex() == "c206b8d9b9f0f37644430b490eeaa314"


@pytest.mark.parametrize("length", range(8, 21))
def test_nothing_but_the_destination_changes(length: int) -> None:
    chosen = os.urandom(length)
    flight = FirstFlight(chosen, OURS)
    pair = CryptoPair()
    pair.setup_initial(cid=chosen, is_client=False, version=1)
    for number in (0, 1, 7, 300, 2):
        packet = initial(chosen, b"theirs", HELLO, number)
        header = pull_quic_header(packet, 0, 8)
        result = flight.readdress(packet, header, first=number == 0)
        assert result is not None
        changed = pull_quic_header(result, 0, 8)
        assert changed[3:5] == (OURS, b"theirs")
        before = pair.decrypt_packet(packet, header[8], number)
        after = pair.decrypt_packet(result, changed[8], number)
        assert before[1:] == after[1:]


def test_what_is_not_for_the_chosen_id_is_left_alone_or_is_no_beginning() -> None:
    flight = FirstFlight(CHOSEN, OURS)
    for packet in (initial(OURS, b"", HELLO), b"\x41" + OURS + bytes(40)):
        header = pull_quic_header(packet, 0, 8)
        assert flight.readdress(packet, header, first=False) == packet
        assert flight.readdress(packet, header, first=True) is None
