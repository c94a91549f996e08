"""What the actors of all services share: the record, and what its end means.

The actor is the service: when it ends, its port is closed and its users are reset, because its
supervisor ends with it. A service that leaves in good order stops taking users first, and the actor
ends when the last of them is served.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from typing import Final

from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.joins import reset_end
from actors.rendezvous.service import Service, User
from actors.runtime import Actor, MailboxSpec, shutdown
from actors.transport.tcp.pump.reset import close_with_reset

#: Probes that a service does not answer until its connection is dead.
_PROBES: Final = 3


class Leave:
    """Take no users any more; end when the last one is served."""

    __slots__ = ()


class EndSocket:
    """A connection of a service as a resource."""

    __slots__ = ("sock",)

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def abort(self) -> None:
        """Reset it: the service sees that something went wrong; idempotent."""
        close_with_reset(self.sock)


def keep_alive(sock: socket.socket, seconds: float, deadline: float) -> None:
    """Let the kernel find out that the peer is gone.

    Args:
        seconds: of silence until it is asked.
        deadline: for an answer, or for bytes to be acknowledged.
    """
    every = max(1, round(deadline / _PROBES))
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(seconds))),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round((seconds + deadline) * 1000)),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    ):
        try:
            sock.setsockopt(level, option, value)
        except OSError:
            return  # it is gone already: reading tells


class _Callbacks:
    """What the record has of its actor, as a resource: nobody is given to a dead one."""

    __slots__ = ("_service",)

    def __init__(self, service: Service) -> None:
        self._service = service

    def abort(self) -> None:
        """Whoever comes from now on is told so; idempotent."""
        self._service.forget_actor()


class ServiceActor(Actor, ABC):
    mailbox = MailboxSpec(bound=64)

    def __init__(self, door: RendezvousContext, service: Service) -> None:
        self.door = door
        self.service = service
        self.leaving = ""

    def init(self) -> None:
        """Begin to serve."""
        service = self.service
        service.user_came = self.guard("user", self.user_came)
        service.pair_over = self.guard("pair", self.pair_over)
        service.waiting = self.waiting
        self.own(_Callbacks(service), "service")
        self.begin()

    def describe(self) -> dict[str, object]:
        """As operators see it."""
        return self.service.row(self.now()) | {"leaving": self.leaving}

    @abstractmethod
    def begin(self) -> None:
        """Take the registering connection over, and answer on it."""

    @abstractmethod
    def user_came(self, user: User) -> bool:
        """Serve a user, or let it wait. False: refused, and counted."""

    @abstractmethod
    def waiting(self) -> int:
        """Users that wait for a connection of the service."""

    def pair_over(self) -> None:
        """A pair of the service ended."""
        self._end_if_done()

    def leave(self, why: str, *, keep_port: bool = False) -> None:
        """Take no further users; end as soon as nobody is served.

        Args:
            keep_port: users that come are told, by the end of their connection.
        """
        if not self.leaving:
            self.leaving = why
            self.service.refusing = True
            if keep_port:
                self.service.refuse_users()
            else:
                self.service.lease.abort()
            self.left()
        self._end_if_done()

    def left(self) -> None:
        """The service leaves: who waits waits in vain."""

    def _end_if_done(self) -> None:
        if self.leaving and not self.service.pairs and not self.waiting():
            self.stop(shutdown(self.leaving))

    def say(self, sock: socket.socket, line: str) -> bool:
        """The first lines, which always fit the kernel's buffer; False: the service is gone."""
        try:
            sock.send(line.encode())
        except OSError:
            self.stop(shutdown("gone before it was answered"))
            return False
        return True

    def give_up(self, user: User, why: str) -> bool:
        """A user cannot be served."""
        self.door.refused[why] += 1
        user.abort()
        return False

    @staticmethod
    def reset(end: object) -> None:
        reset_end(end)  # type: ignore[arg-type]  # an end
