from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peer.vectors import cases, payload_of, peers_of
from wire.peer import messages
from wire.peer.errors import BadMessage, BadToken, NotEncodable
from wire.peer.limits import MAX_IDS, MAX_IDS_DATAGRAM
from wire.peer.messages import (
    CLOSE,
    FROM_CLIENT,
    FROM_RELAY,
    HEALTH_CHECK,
    Auth,
    MessageType,
    decode_auth_response,
    decode_first,
    decode_peers,
    encode_auth,
    encode_auth_response,
    encode_peers,
    encode_transport,
    id_text,
    message_type,
    peer_id,
    transport_peer,
)
from wire.peer.token import check_token, key_of, make_token

IN_2026 = 1_795_000_000
KINDS = {
    "subscribe": MessageType.SUBSCRIBE,
    "unsubscribe": MessageType.UNSUBSCRIBE,
    "peers online": MessageType.PEERS_ONLINE,
    "peers went offline": MessageType.PEERS_WENT_OFFLINE,
}


def named(topic: str) -> list[Any]:
    return [pytest.param(case, id=str(case["name"])) for case in cases(topic)]


@pytest.mark.parametrize("case", named("messages"))
def test_transport_messages_are_those_of_the_originals(case: dict[str, Any]) -> None:
    given_ = case["inputs"]
    peer = peer_id(given_.get("destination") or given_["source"])
    made = encode_transport(peer, payload_of(given_))
    assert made.hex() == case["hex"]
    assert transport_peer(memoryview(made)) == peer


@pytest.mark.parametrize("case", named("peer_id"))
def test_ids_and_their_text(case: dict[str, Any]) -> None:
    peer = peer_id(case["inputs"]["name"])
    assert peer.hex() == case["hex"]
    assert id_text(peer) == case["text"]


@pytest.mark.parametrize("case", named("types"))
def test_versions_and_types(case: dict[str, Any]) -> None:
    message = bytes.fromhex(case.get("hex", ""))
    if case["name"].startswith("version check"):
        if case["name"].endswith("0103"):
            assert message_type(message) == 3
        else:
            with pytest.raises(BadMessage):
                message_type(message)
        return
    kind = message_type(message)
    assert (kind in FROM_CLIENT) == case["valid_from_client"]
    assert (kind in FROM_RELAY) == case["valid_from_server"]


@pytest.mark.parametrize("case", named("peer_state"))
def test_lists_of_peers(case: dict[str, Any]) -> None:
    if "len" in case["inputs"]:
        message = bytes.fromhex(case["hex"]).ljust(case["inputs"]["len"], b"\0")
        if case["accepted"]:
            assert len(decode_peers(message)) == case["count"]
        else:
            with pytest.raises(BadMessage):
                decode_peers(message)
        return
    kind, peers = KINDS[case["name"].rpartition(" ")[0]], peers_of(case["inputs"]["peers"])
    if case["encoder_refuses"]:
        with pytest.raises(NotEncodable):
            encode_peers(kind, peers)
        return
    made = encode_peers(kind, peers)
    assert [message.hex() for message in made] == case["messages_hex"]
    assert [peer for message in made for peer in decode_peers(message)] == peers


def test_lists_for_datagrams_are_shorter() -> None:
    made = encode_peers(MessageType.PEERS_ONLINE, [peer_id("x")] * 70, MAX_IDS_DATAGRAM)
    assert [len(decode_peers(one)) for one in made] == [32, 32, 6]
    assert max(map(len, made)) <= 1195
    assert MAX_IDS == 244


@pytest.mark.parametrize("case", named("health_close"))
def test_messages_of_two_bytes(case: dict[str, Any]) -> None:
    assert {"healthcheck": HEALTH_CHECK, "close": CLOSE}[case["name"]].hex() == case["hex"]


@pytest.mark.parametrize("case", named("auth_messages"))
def test_auth_and_its_answer(case: dict[str, Any]) -> None:
    given_ = case["inputs"]
    if "peer" in given_:
        token = make_token(key_of(given_["secret"]), given_["payload"].encode())
        auth = Auth(peer_id(given_["peer"]), token)
        if case.get("encoder_refuses"):
            with pytest.raises(NotEncodable):
                encode_auth(auth)
            return
        made = encode_auth(auth)
        assert made.hex() == case["hex"]
        assert decode_first(made) == auth
    elif "url" in given_ or "url_len" in given_:
        url = given_.get("url") or "x" * given_["url_len"]
        if case.get("encoder_refuses"):
            with pytest.raises(NotEncodable):
                encode_auth_response(url)
            return
        made = encode_auth_response(url)
        assert made.hex() == case["hex"]
        assert decode_auth_response(made) == url
    elif case["accepted"]:
        assert decode_auth_response(bytes.fromhex(case["hex"])) == case["url"]
    else:
        with pytest.raises(BadMessage):
            decode_auth_response(bytes.fromhex(case["hex"]))


@pytest.mark.parametrize("case", named("tokens_v2"))
def test_tokens(case: dict[str, Any]) -> None:
    given_ = case["inputs"]
    token, key = bytes.fromhex(case["hex"]), key_of(given_["secret"])
    if "payload" in given_:
        assert key.hex() == case["key_hex"]
        assert make_token(key, given_["payload"].encode()) == token
    if case.get("valid_in_2026", case.get("accepted")):
        assert check_token(token, [key_of("old"), key], IN_2026) > IN_2026
        with pytest.raises(BadToken):
            check_token(token, [key_of("another")], IN_2026)
    else:
        with pytest.raises(BadToken):
            check_token(token, [key], IN_2026)


def test_a_token_is_good_up_to_its_last_second() -> None:
    token = make_token(key_of("s"), b"1000000000")
    assert check_token(token, [key_of("s")], 1_000_000_000) == 1_000_000_000
    with pytest.raises(BadToken) as caught:
        check_token(token, [key_of("s")], 1_000_000_000.5)
    assert caught.value.label == "expired"


@pytest.mark.parametrize("case", named("hello_v1"))
def test_old_clients_are_told_apart(case: dict[str, Any]) -> None:
    if "hex" not in case:
        return  # which IDs one of the originals accepts by accident
    if case["direction"] == "c2s":
        with pytest.raises(BadMessage) as caught:
            decode_first(bytes.fromhex(case["hex"]))
        assert caught.value.label == "legacy_hello"
    else:
        assert message_type(bytes.fromhex(case["hex"])) == MessageType.HELLO_RESPONSE


@given(st.binary(max_size=300), st.booleans())
def test_no_message_does_more_than_be_refused(data: bytes, headed: bool) -> None:
    message = (b"\x01\x06" + messages.MAGIC + data) if headed else data
    for decode in (message_type, decode_first, decode_peers, transport_peer, decode_auth_response):
        try:
            decode(message)
        except BadMessage:
            pass


@given(st.binary(max_size=200))
def test_no_token_does_more_than_be_refused(data: bytes) -> None:
    for token in (data, b"\x01" + data, make_token(key_of("s"), data)):
        try:
            check_token(token, [key_of("s")], 0)
        except BadToken:
            pass


@given(st.lists(st.binary(min_size=36, max_size=36), min_size=1, max_size=600))
def test_lists_come_back(peers: list[bytes]) -> None:
    made = encode_peers(MessageType.SUBSCRIBE, peers)
    assert [peer for message in made for peer in decode_peers(memoryview(message))] == peers
