"""Messages between clients and the relay.

::

    0        1      2
    version  type   body

    Transport          36 peer ID, payload   destination on the way in, source on the way out
    Auth               4 magic, 36 peer ID, token
    AuthResponse       instance URL
    (Un)subscribe, PeersOnline, PeersWentOffline   any number of 36-byte peer IDs
    HealthCheck, Close nothing

Source: protocol sheet peer 2.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from wire.peer.errors import BadMessage, NotEncodable
from wire.peer.limits import (
    HEADER,
    ID,
    MAX_AUTH,
    MAX_AUTH_RESPONSE,
    MAX_IDS,
    MAX_MESSAGE,
    TRANSPORT,
)

VERSION: Final = 1
MAGIC: Final = bytes.fromhex("2112a442")
#: Before the token of an Auth message.
_AUTH: Final = HEADER + len(MAGIC) + ID


class MessageType(IntEnum):
    """Byte 1; 1 and 2 are of clients before 2024-09, and refused."""

    HELLO = 1
    HELLO_RESPONSE = 2
    TRANSPORT = 3
    CLOSE = 4
    HEALTH_CHECK = 5
    AUTH = 6
    AUTH_RESPONSE = 7
    SUBSCRIBE = 8
    UNSUBSCRIBE = 9
    PEERS_ONLINE = 10
    PEERS_WENT_OFFLINE = 11


#: What a client may say after its Auth; HELLO and AUTH are ignored there.
FROM_CLIENT: Final = frozenset({1, 3, 4, 5, 6, 8, 9})
#: What a relay may say.
FROM_RELAY: Final = frozenset({2, 3, 4, 5, 7, 10, 11})

HEALTH_CHECK: Final = bytes((VERSION, MessageType.HEALTH_CHECK))
CLOSE: Final = bytes((VERSION, MessageType.CLOSE))


class Auth(NamedTuple):
    """A client's first message.

    Attributes:
        peer: who it says it is.
        token: see `wire.peer.token`.
    """

    peer: bytes
    token: bytes


def peer_id(name: str) -> bytes:
    """The ID of a peer's name, which is its WireGuard public key in base64."""
    return b"sha-" + hashlib.sha256(name.encode()).digest()


def id_text(peer: bytes) -> str:
    """An ID for people: its first four bytes as they are, the rest in base64."""
    prefix = peer[:4].decode("ascii", "backslashreplace")
    if not prefix.isprintable():
        prefix = peer[:4].hex()
    return prefix + base64.b64encode(peer[4:]).decode()


def message_type(message: bytes | memoryview) -> int:
    """The type byte, of which nothing is known yet.

    Raises:
        BadMessage: no message, or of another version.
    """
    if len(message) < HEADER:
        raise BadMessage("short_message", f"a message of {len(message)} bytes")
    if message[0] != VERSION:
        raise BadMessage("bad_version", f"version {message[0]}")
    return message[1]


def decode_first(message: bytes | memoryview) -> Auth:
    """What a client begins with; bytes beyond `MAX_AUTH` are not looked at.

    Raises:
        BadMessage: anything but an Auth; `legacy_hello` is a client before 2024-09.
    """
    kind = message_type(message)
    if kind == MessageType.HELLO:
        raise BadMessage("legacy_hello", "a client older than 0.29.1")
    if kind != MessageType.AUTH:
        raise BadMessage("auth_expected", f"type {kind} before Auth")
    data = bytes(message[:MAX_AUTH])
    if len(data) < _AUTH:
        raise BadMessage("short_auth", f"an Auth of {len(data)} bytes, at least {_AUTH}")
    if data[HEADER : HEADER + len(MAGIC)] != MAGIC:
        raise BadMessage("bad_magic", "an Auth with another magic")
    return Auth(data[HEADER + len(MAGIC) : _AUTH], data[_AUTH:])


def encode_auth(auth: Auth) -> bytes:
    """A client's first message.

    Raises:
        NotEncodable: the ID has another length, or it is longer than `MAX_AUTH`.
    """
    _check_ids([auth.peer])
    message = bytes((VERSION, MessageType.AUTH)) + MAGIC + auth.peer + auth.token
    if len(message) > MAX_AUTH:
        raise NotEncodable(f"an Auth of {len(message)} bytes, at most {MAX_AUTH}")
    return message


def encode_auth_response(url: str) -> bytes:
    """The answer to a client that may come in.

    Raises:
        NotEncodable: no URL, or one that is too long.
    """
    message = bytes((VERSION, MessageType.AUTH_RESPONSE)) + url.encode()
    if not HEADER < len(message) <= MAX_AUTH_RESPONSE:
        raise NotEncodable(f"an AuthResponse of {len(message)} bytes")
    return message


def decode_auth_response(message: bytes) -> str:
    """The relay's instance URL.

    Raises:
        BadMessage: another message, or no URL.
    """
    if message_type(message) != MessageType.AUTH_RESPONSE or len(message) == HEADER:
        raise BadMessage("auth_response_expected", f"type {message[1]}")
    return message[HEADER:].decode("utf-8", "replace")


def encode_transport(peer: bytes, payload: bytes) -> bytes:
    """Payload to a destination, or from a source.

    Raises:
        NotEncodable: the ID has another length, or the payload does not fit.
    """
    _check_ids([peer])
    message = bytes((VERSION, MessageType.TRANSPORT)) + peer + payload
    if len(message) > MAX_MESSAGE:
        raise NotEncodable(f"a Transport of {len(message)} bytes, at most {MAX_MESSAGE}")
    return message


def transport_peer(message: bytes | memoryview) -> bytes:
    """The ID in a Transport message: its destination, or its source.

    Raises:
        BadMessage: it is shorter than that.
    """
    if len(message) < TRANSPORT:
        raise BadMessage("short_transport", f"a Transport of {len(message)} bytes")
    return bytes(message[HEADER:TRANSPORT])


def encode_peers(kind: MessageType, peers: Sequence[bytes], most: int = MAX_IDS) -> list[bytes]:
    """Messages that list these peers, each of at most so many.

    Raises:
        NotEncodable: there are none, or an ID has another length.
    """
    if not peers:
        raise NotEncodable("a list of no peers")
    _check_ids(peers)
    header = bytes((VERSION, kind))
    return [header + b"".join(peers[at : at + most]) for at in range(0, len(peers), most)]


def decode_peers(message: bytes | memoryview) -> list[bytes]:
    """The IDs of a list message; maybe none.

    Raises:
        BadMessage: its length is no whole number of IDs.
    """
    if len(message) < HEADER or (len(message) - HEADER) % ID:
        raise BadMessage("misaligned_list", f"a list of {len(message)} bytes")
    data = bytes(message)
    return [data[at : at + ID] for at in range(HEADER, len(data), ID)]


def _check_ids(peers: Iterable[bytes]) -> None:
    for peer in peers:
        if len(peer) != ID:
            raise NotEncodable(f"an ID of {len(peer)} bytes")
