"""Which waiting pool or user an id stands for.

Ids are secrets of 40 bits in clear text. They are kept as keyed hashes: neither the time a lookup
takes nor a dump of the table tells anything about one.

Source: protocol sheet rendezvous 1.3, 1.7 row 17.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

from actors.transport.quota import Ticket
from actors.transport.stream import Stream
from actors.transport.tcp.pump.reset import close_with_reset
from actors.transport.tcp.tls_transport import TlsTransport
from wire.rendezvous.line import Protocol

#: A connection of a service: a socket, TLS over one, or a stream.
End: TypeAlias = "socket.socket | TlsTransport | Stream"


def reset_end(end: End) -> None:
    """The service's side sees an error; idempotent."""
    if isinstance(end, Stream):
        end.abort(0)
    elif isinstance(end, TlsTransport):
        end.abort()
    else:
        close_with_reset(end)


@dataclass(slots=True)
class Joining:
    """A connection that named an id.

    Attributes:
        end: the connection; whoever takes it owns it.
        early: what came behind its lines.
        client: who it proved to be; empty: nobody.
    """

    end: End
    early: bytes = field(repr=False)
    client: str


#: Takes a connection; True when it did.
Take: TypeAlias = Callable[[Joining], bool | None]


class JoinTable:
    """Which waiting pool or user an id stands for. Bound: waiting users and pools, which have
    bounds of their own.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._takers: dict[bytes, Take] = {}

    def new_id(self, protocol: Protocol, take: Take) -> tuple[str, Ticket]:
        """A fresh id, good until the ticket is given back."""
        while True:
            known = secrets.token_hex(5).upper()
            digest = self._digest(protocol, known)
            if digest not in self._takers:
                break
        self._takers[digest] = take
        return known, Ticket(lambda: self._takers.pop(digest, None))

    def join(self, protocol: Protocol, known: str, joining: Joining) -> bool:
        """Give a connection to whoever issued the id. False: nobody did, or it is not wanted."""
        take = self._takers.get(self._digest(protocol, known))
        return take is not None and bool(take(joining))

    def _digest(self, protocol: Protocol, known: str) -> bytes:
        text = f"{protocol.value} {known}".encode()
        return blake2b(text, key=self._key, digest_size=16).digest()


def same(one: str, other: str) -> bool:
    """Comparison of secrets, in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())
