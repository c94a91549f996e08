"""A registered service as everybody sees it who has to do with it: a record, no actor.

Its actors come and go below `services`; what outlives each of them is here, and goes when the last
of them does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.rendezvous.access import NOBODY, Client
from actors.rendezvous.joins import End, reset_end
from actors.rendezvous.ports import PortLease
from actors.runtime import ActorRef
from actors.transport.gate import Place
from actors.transport.quota import Ticket
from actors.transport.tcp.pump import Throttle
from actors.transport.tcp.pump.reset import close_with_reset
from wire.rendezvous.line import Protocol
from wire.rendezvous.options import Options


@dataclass(slots=True)
class User:
    """Somebody who came to a port.

    Attributes:
        sock: non-blocking.
        address: where from; what a trusted balancer said, if one did.
        place: among the users of the service.
        came: monotonic seconds.
        early: bytes that were read while it waited.
        ended: its end was read, too.
    """

    sock: socket.socket
    address: tuple[str, int]
    place: Place
    came: float
    early: bytes = field(default=b"", repr=False)
    ended: bool = False

    def abort(self) -> None:
        """Nobody serves it: it sees an error; idempotent."""
        self.place.leave()
        close_with_reset(self.sock)


def _turn_away(user: User) -> bool:
    """The service has no actor."""
    user.abort()
    return False


@dataclass(slots=True)
class Service:
    """A registered service as everybody sees it who has to do with it: a record, no actor.

    Attributes:
        id: of its place below `services`.
        protocol, options: what it asked for.
        client: who it belongs to.
        source: address it registered from.
        end: its registering connection, until its actor has it; `early`: bytes behind its lines.
        lease: its port.
        tickets: what it counts for, until it is gone.
        throttles: its own limit of bytes per second, and its client's.
        since: monotonic seconds.
        users: the supervisor of its pairs; set when it runs.
        user_came: takes a user; True when it did. Set by its actor.
        pair_over: told when a pair ended. Set by its actor.
        pairs: users that are served; `waiting`: users that wait for a connection of the service.
        refusing: it takes no further users.
        bytes_in, bytes_out: of pairs that are over, from users and to users.
        served: users so far.
    """

    id: str
    protocol: Protocol
    options: Options
    client: Client
    source: tuple[str, int]
    end: End | None
    early: bytes = field(repr=False)
    lease: PortLease
    tickets: list[Ticket]
    throttles: tuple[Throttle, ...]
    since: float
    users: Callable[[], ActorRef | None] = field(default=lambda: None, repr=False)
    user_came: Callable[[User], bool | None] = field(default=_turn_away, repr=False)
    pair_over: Callable[[], object] = field(default=lambda: None, repr=False)
    refuse_users: Callable[[], object] = field(default=lambda: None, repr=False)
    waiting: Callable[[], int] = field(default=lambda: 0, repr=False)
    pairs: int = 0
    refusing: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    served: int = 0

    def abort(self) -> None:
        """What it holds itself is given back; idempotent. Also when its actors never began."""
        self.lease.abort()
        while self.tickets:
            self.tickets.pop().abort()
        end, self.end = self.end, None
        if end is not None:
            reset_end(end)

    def __del__(self) -> None:
        self.abort()

    def forget_actor(self) -> None:
        """Its actor ended: it is called no more."""
        self.user_came = _turn_away
        self.pair_over = lambda: None
        self.waiting = lambda: 0

    @property
    def port(self) -> int:
        """Where its users come to."""
        return self.lease.port

    @property
    def title(self) -> str:
        """For people: its name, or its port."""
        return self.options.name or f"port-{self.port}"

    @property
    def authenticated(self) -> bool:
        """True when it proved who it belongs to."""
        return self.client is not NOBODY

    def row(self, now: float) -> dict[str, object]:
        """For operators; nothing secret."""
        return {
            "id": self.id,
            "protocol": self.protocol.value,
            "port": self.port,
            "name": self.options.name,
            "client": self.client.name,
            "source": self.source[0],
            "seconds": round(now - self.since, 1),
            "users": self.pairs,
            "waiting": self.waiting(),
            "served": self.served,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "refusing": self.refusing,
        }
