"""Allocations as clients see them, on a clock of the test."""

from __future__ import annotations

import pytest

from tests.wire.stun.test_vectors import VECTORS
from tests.wire.turn.rig import CLIENT, PEER, REALM, UDP, MemoryEndpoint, Rig, channel, code, peer
from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.address import decode_address, decode_xor
from wire.stun.integrity import SHA256, long_term_key, userhash
from wire.stun.message import parse
from wire.turn.authentication import ALGORITHMS
from wire.turn.credentials import rest_password
from wire.turn.settings import TurnRules

OTHER = ("192.0.2.2", 41000)
#: RFC 8656: this many seconds.
DEFAULT = 600


def test_a_repeated_allocate_gets_the_same_answer_and_another_one_437() -> None:
    rig = Rig()
    first = rig.ask(stun.ALLOCATE, UDP, tid=b"t" * 12)
    again = rig.ask(stun.ALLOCATE, UDP, tid=b"t" * 12)
    assert first.raw == again.raw
    assert code(rig.ask(stun.ALLOCATE, UDP, tid=b"u" * 12)) == 437
    assert rig.host.open == 1


def test_lifetimes_have_a_floor_and_a_ceiling_and_end() -> None:
    rig = Rig()
    for wanted, granted in ((0, 600), (1, 600), (3600, 3600), (2**32 - 1, 3600)):
        client = ("192.0.2.1", 50_000 + wanted % 9999)
        answer = rig.ask(stun.ALLOCATE, UDP, a.lifetime(wanted), client=client)
        assert answer.number(a.LIFETIME, 4) == granted
    rig.advance(DEFAULT + 1)
    assert len(rig.dispatcher.allocations) == 2
    rig.advance(3600)
    assert rig.dispatcher.allocations == {}
    assert rig.host.open == 0


def test_a_refresh_moves_the_end_both_ways() -> None:
    rig = Rig()
    rig.allocate(a.lifetime(3600))
    rig.ask(stun.REFRESH, a.lifetime(600))
    rig.advance(601)
    assert code(rig.ask(stun.REFRESH)) == 437
    rig.allocate()
    rig.advance(599)
    rig.ask(stun.REFRESH)
    rig.advance(599)
    assert code(rig.ask(stun.REFRESH, a.lifetime(0))) == 0
    assert rig.host.ended[-1][1] == "deleted"
    assert code(rig.ask(stun.REFRESH, a.lifetime(0))) == 437


def test_permissions_last_300_seconds_and_traffic_does_not_refresh_them() -> None:
    rig = Rig()
    one = rig.allocate()
    rig.ask(stun.CREATE_PERMISSION, peer())
    rig.advance(299)
    one.from_peer(memoryview(b"hello"), 5, PEER)
    ((datagram, to),) = rig.endpoint.sent
    assert to == CLIENT
    indication = parse(datagram)
    assert indication.method == stun.DATA
    assert indication.get(a.DATA) == b"hello"
    value = indication.get(a.XOR_PEER_ADDRESS)
    assert value is not None
    assert decode_xor(value, indication.transaction_id) == PEER
    rig.advance(2)
    one.from_peer(memoryview(b"late"), 4, PEER)
    assert len(rig.endpoint.sent) == 1
    assert one.dropped == 1


def test_permissions_are_all_or_nothing() -> None:
    rig = Rig()
    one = rig.allocate()
    assert code(rig.ask(stun.CREATE_PERMISSION, peer(), peer(("10.0.0.1", 1)))) == 403
    assert one.permissions == {}


def test_a_channel_carries_data_rests_and_is_free_again() -> None:
    rig = Rig()
    one = rig.allocate(a.lifetime(3600))
    assert code(rig.ask(stun.CHANNEL_BIND, channel(0x4001), peer())) == 0
    one.from_peer(memoryview(b"hello"), 5, PEER)
    assert rig.endpoint.sent == [(b"\x40\x01\x00\x05hello", CLIENT)]
    one.from_peer(memoryview(b"aabbc"), 2, PEER)
    assert [raw for raw, _ in rig.endpoint.sent[1:]] == [
        b"\x40\x01\x00\x02aa", b"\x40\x01\x00\x02bb", b"\x40\x01\x00\x01c",
    ]  # fmt: skip
    rig.advance(601)
    assert one.channels == {}
    another = peer(("198.51.100.8", 3490))
    assert code(rig.ask(stun.CHANNEL_BIND, channel(0x4001), another)) == 400
    assert code(rig.ask(stun.CHANNEL_BIND, channel(0x4002), peer())) == 400
    assert code(rig.ask(stun.CHANNEL_BIND, channel(0x4001), peer())) == 0
    rig.advance(601)
    rig.advance(301)
    assert code(rig.ask(stun.CHANNEL_BIND, channel(0x4001), another)) == 0


def test_a_stream_client_gets_padded_channel_data() -> None:
    rig = Rig(stream=True)
    one = rig.allocate()
    rig.ask(stun.CHANNEL_BIND, channel(0x4001), peer())
    one.from_peer(memoryview(b"hello"), 5, PEER)
    assert rig.endpoint.sent == [(b"\x40\x01\x00\x05hello\0\0\0", CLIENT)]


@pytest.mark.parametrize("last", [0x4FFF, 0x7FFF])
def test_channel_numbers(last: int) -> None:
    rig = Rig(TurnRules(last_channel=last))
    rig.allocate()
    for number, fine in ((0x3FFF, False), (0x4000, True), (last, True), (last + 1, False)):
        address = peer(("198.51.100.9", 1000 + number % 60_000))
        assert (code(rig.ask(stun.CHANNEL_BIND, channel(number), address)) == 0) == fine


def test_send_indications_need_a_permission_and_data() -> None:
    rig = Rig()
    one = rig.allocate()
    sent: list[tuple[bytes, object, bool]] = []
    one.send_to = lambda data, to, whole: sent.append((data, to, whole))

    def send(*attributes: a.Attribute) -> None:
        assert rig.raw(stun.encode(stun.SEND, stun.INDICATION, bytes(12), attributes)) is None

    send(peer(), (a.DATA, b"early"))
    rig.ask(stun.CREATE_PERMISSION, peer())
    send(peer(), (a.DATA, b"hello"))
    send(peer(), (a.DATA, b""))
    send(peer())
    send((a.DATA, b"nobody"))
    send(peer(), (a.DATA, b"?"), (0x7777, b""))
    send(peer(), (a.DATA, b"whole"), (a.DONT_FRAGMENT, b""))
    assert sent == [(b"hello", PEER, False), (b"", PEER, False), (b"whole", PEER, True)]


def test_an_even_port_and_the_one_behind_it() -> None:
    rig = Rig()
    rig.allocate()
    answer = rig.ask(stun.ALLOCATE, UDP, (a.EVEN_PORT, b"\x80"), client=OTHER)
    token, value = answer.get(a.RESERVATION_TOKEN), answer.get(a.XOR_RELAYED_ADDRESS)
    assert token is not None
    assert value is not None
    port = decode_xor(value, answer.transaction_id)[1]
    assert port % 2 == 0
    again = rig.ask(stun.ALLOCATE, UDP, (a.RESERVATION_TOKEN, token), client=("192.0.2.2", 41001))
    value = again.get(a.XOR_RELAYED_ADDRESS)
    assert value is not None
    assert decode_xor(value, again.transaction_id)[1] == port + 1
    twice = rig.ask(stun.ALLOCATE, UDP, (a.RESERVATION_TOKEN, token), client=("192.0.2.2", 41002))
    assert code(twice) == 508


def test_a_reserved_port_that_nobody_wants_is_given_back() -> None:
    rig = Rig()
    rig.ask(stun.ALLOCATE, UDP, (a.EVEN_PORT, b"\x80"))
    assert rig.host.open == 2
    rig.advance(31)
    assert rig.host.open == 1


def test_two_families_and_one_of_them() -> None:
    both = (a.ADDITIONAL_ADDRESS_FAMILY, b"\x02\0\0\0")
    rig = Rig()
    answer = rig.ask(stun.ALLOCATE, UDP, both)
    assert len(answer.all(a.XOR_RELAYED_ADDRESS)) == 2
    assert (
        code(rig.ask(stun.REFRESH, a.lifetime(0), (a.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0"))) == 0
    )
    assert rig.host.open == 1
    rig.host.families = (1,)
    answer = rig.ask(stun.ALLOCATE, UDP, both, client=OTHER)
    assert len(answer.all(a.XOR_RELAYED_ADDRESS)) == 1
    assert answer.get(a.ADDRESS_ERROR_CODE) == a.address_error_code(2, 440)[1]
    only = (a.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")
    assert code(rig.ask(stun.ALLOCATE, UDP, only, client=("192.0.2.2", 41009))) == 440


def test_a_client_moves_with_its_ticket() -> None:
    rig = Rig()
    answer = rig.ask(stun.ALLOCATE, UDP, (a.MOBILITY_TICKET, b""))
    ticket = answer.get(a.MOBILITY_TICKET)
    assert ticket is not None
    one = rig.endpoint.clients[CLIENT]
    bogus = rig.ask(stun.REFRESH, (a.MOBILITY_TICKET, b"bogus"), client=OTHER)
    assert code(bogus) == 437
    stranger = rig.ask(stun.REFRESH, (a.MOBILITY_TICKET, ticket), client=OTHER, user="bob")
    assert code(stranger) == 441
    moved = rig.ask(stun.REFRESH, (a.MOBILITY_TICKET, ticket), client=OTHER)
    assert code(moved) == 0
    assert moved.get(a.MOBILITY_TICKET) not in (None, ticket)
    assert rig.endpoint.clients == {OTHER: one}
    assert code(rig.ask(stun.REFRESH, (a.MOBILITY_TICKET, ticket), client=CLIENT)) == 437
    off = Rig(TurnRules(mobility=False))
    assert code(off.ask(stun.ALLOCATE, UDP, (a.MOBILITY_TICKET, b""))) == 405


def test_quotas() -> None:
    rig = Rig(TurnRules(max_per_user=1, max_per_source=2, max_allocations=3))
    assert code(rig.ask(stun.ALLOCATE, UDP, client=("192.0.2.1", 1))) == 0
    assert code(rig.ask(stun.ALLOCATE, UDP, client=("192.0.2.1", 2))) == 486
    # A user of time-limited names is one user, whatever its name of the moment.
    for n, expected in ((1, 0), (2, 486)):
        name = f"{1_700_000_100 + n}:carol"
        answer = rig.ask(
            stun.ALLOCATE, UDP, client=("192.0.2.1", 10 + n), user=name,
            password=rest_password(b"south", name),
        )  # fmt: skip
        assert code(answer) == expected
    assert code(rig.ask(stun.ALLOCATE, UDP, client=("192.0.2.1", 3), user="bob")) == 486
    assert code(rig.ask(stun.ALLOCATE, UDP, client=("192.0.2.9", 3), user="bob")) == 0
    name = "1700000100:dave"
    full = rig.ask(
        stun.ALLOCATE, UDP, client=("192.0.2.10", 3), user=name,
        password=rest_password(b"north", name),
    )  # fmt: skip
    assert code(full) == 508
    for one in list(rig.dispatcher.allocations.values()):
        rig.dispatcher.close(one, "test")
    assert code(rig.ask(stun.ALLOCATE, UDP, client=("192.0.2.1", 2))) == 0


@pytest.mark.parametrize("until", ["99999999999999999999", str(2**64 - 1), "1", "-5", "", "x", "²"])
def test_absurd_expiries_are_refused(until: str) -> None:
    rig = Rig()
    name = f"{until}:alice"
    answer = rig.ask(stun.ALLOCATE, UDP, user=name, password=rest_password(b"north", name))
    assert code(answer) == 401


def test_a_full_range_is_508_and_leaves_nothing() -> None:
    rig = Rig()
    rig.host.failures = [508]
    assert code(rig.ask(stun.ALLOCATE, UDP)) == 508
    assert rig.endpoint.clients == {}
    assert code(rig.ask(stun.ALLOCATE, UDP)) == 0


def test_a_client_of_a_relay_that_drains_is_sent_elsewhere() -> None:
    rig = Rig(TurnRules(alternates=(("192.0.2.99", 3478),)))
    rig.allocate()
    rig.dispatcher.draining = True
    answer = rig.ask(stun.ALLOCATE, UDP, client=OTHER)
    assert code(answer) == 300
    value = answer.get(a.ALTERNATE_SERVER)
    assert value is not None
    assert decode_address(value) == ("192.0.2.99", 3478)
    assert code(rig.ask(stun.REFRESH)) == 0


def test_nonces_are_for_one_address_and_grow_stale() -> None:
    rig = Rig()
    assert code(rig.ask(stun.ALLOCATE, UDP, nonce=rig.nonce(OTHER))) == 438
    nonce = rig.nonce()
    rig.advance(601)
    stale = rig.ask(stun.ALLOCATE, UDP, nonce=nonce)
    assert code(stale) == 438
    fresh = stale.get(a.NONCE)
    assert fresh is not None
    assert code(rig.ask(stun.ALLOCATE, UDP, nonce=fresh)) == 0


def test_sha256_with_a_hashed_name() -> None:
    rig = Rig()
    key = long_term_key("alice", REALM, "wonder-land", SHA256)
    request = stun.encode(
        stun.ALLOCATE, stun.REQUEST, bytes(12),
        (
            UDP, (a.USERHASH, userhash("alice", REALM)), (a.REALM, REALM.encode()),
            (a.NONCE, rig.nonce()), (a.PASSWORD_ALGORITHMS, ALGORITHMS),
            (a.PASSWORD_ALGORITHM, b"\0\x02\0\0"),
        ),
        key=key, sha256=True,
    )  # fmt: skip
    answer = rig.raw(request)
    assert answer is not None
    assert code(answer) == 0
    assert answer.has_sha256
    assert answer.verify(key)


def test_the_better_algorithm_cannot_be_taken_out_of_the_offer() -> None:
    recorded = VECTORS["constructed-rfc8489-8656/sha256-bid-down-attack"]
    answer = Rig().raw(recorded.raw)
    assert answer is not None
    assert code(answer) == 400


def test_strangers_of_one_source_get_so_many_answers() -> None:
    rig = Rig(reply_rate=5)
    binding = stun.encode(stun.BINDING, stun.REQUEST, bytes(12), ())
    answers = [rig.raw(binding, ("192.0.2.1", port)) for port in range(1, 21)]
    assert sum(one is not None for one in answers) == 5
    assert rig.raw(binding, ("192.0.2.7", 1)) is not None
    rig.advance(1)
    assert rig.raw(binding) is not None


def test_an_answer_is_hardly_larger_than_the_question() -> None:
    rig = Rig()
    binding = stun.encode(stun.BINDING, stun.REQUEST, bytes(12), ())
    answer = rig.raw(binding)
    assert answer is not None
    assert len(answer.raw) == 32


def test_a_flood_of_strangers_leaves_no_state() -> None:
    rig = Rig()
    bare = stun.encode(stun.ALLOCATE, stun.REQUEST, bytes(12), (UDP,))
    for n in range(2000):
        rig.raw(bare, (f"192.0.{n >> 8}.{n & 255}", 4000))
    assert rig.dispatcher.allocations == {}
    assert rig.endpoint.clients == {}
    assert len(rig.dispatcher.deadlines) == 0


def test_deadlines_that_were_cancelled_do_not_pile_up() -> None:
    rig = Rig()
    for _ in range(3000):
        rig.dispatcher.close(rig.allocate(), "test")
    assert len(rig.dispatcher.deadlines) <= 1100


def test_one_allocation_per_user_where_that_is_wanted() -> None:
    rig = Rig(TurnRules(one_per_user=True))
    rig.allocate()
    rig.allocate(client=OTHER)
    assert list(rig.endpoint.clients) == [OTHER]
    assert rig.host.ended == [(1, "replaced")]


def test_endpoints_keep_their_clients_apart() -> None:
    rig = Rig()
    rig.allocate()
    rig.endpoint = MemoryEndpoint()
    rig.allocate()
    assert len(rig.dispatcher.allocations) == 2
