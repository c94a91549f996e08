"""One user and the connection, or the stream, of the service that serves it.

The actor couples the two ends once; from then on bytes move in the callbacks of the pump. However
it ends, what was not finished is reset on both sides.

Source: protocol sheet rendezvous 3.2.
"""

from __future__ import annotations

import socket

from actors.rendezvous.account import UserAccount
from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.joins import End
from actors.rendezvous.service import Service, User
from actors.runtime import Actor, ChildRefused, ChildSpec, MailboxSpec, Restart, shutdown
from actors.transport.stream import Stream
from actors.transport.tcp.pump import SocketPair, StreamPump
from actors.transport.tcp.pump.reset import close_with_reset
from actors.transport.tcp.tls_transport import TlsTransport
from wire.errors import LocalError
from wire.proxy_protocol.header import encode, header_of


class UserPair(Actor):
    """One user and the connection, or the stream, of the service that serves it.

    Args:
        end: of the service; taken over, like the user's socket.
        early: bytes of the service that were read before.
    """

    mailbox = MailboxSpec(bound=4)

    def __init__(
        self, door: RendezvousContext, service: Service, user: User, end: End, early: bytes
    ) -> None:
        self._door = door
        self._service = service
        self._user = user
        self._end = end
        self._early = early
        self._account: UserAccount | None = None

    def init(self) -> None:
        """Couple."""
        door, user, service = self._door, self._user, self._service
        account = self._account = self.own(UserAccount(door, service, user), "account")
        front = _front(service, user) + user.early
        early, self._early, user.early = self._early, b"", b""
        limits, throttles = door.settings.quiet, service.throttles
        pump: SocketPair | StreamPump
        if isinstance(self._end, Stream):
            pump = StreamPump(
                user.sock,
                self._end,
                on_end=self._ended,
                guard=self.guard,
                code=0,
                limits=limits,
                throttles=throttles,
            )
            account.carrier = self.own(pump, "pump")
            if front:
                self._end.write(front)
            pump.start(early)
        else:
            assert isinstance(self._end, socket.socket)
            pump = SocketPair(
                user.sock,
                self._end,
                pipes=door.pipes,
                on_end=self._ended,
                guard=self.guard,
                limits=limits,
                throttles=throttles,
            )
            account.carrier = self.own(pump, "pump")
            pump.start(first=front, second=early, first_ended=user.ended)

    def describe(self) -> dict[str, object]:
        """Who, and how much."""
        carrier = None if self._account is None else self._account.carrier
        return {
            "service": self._service.title,
            "user": self._user.address[0],
            "bytes_in": 0 if carrier is None else carrier.bytes_in,
            "bytes_out": 0 if carrier is None else carrier.bytes_out,
        }

    def _ended(self, why: str) -> None:
        assert self._account is not None
        self._account.outcome = "failed" if why else "finished"
        self._account.detail = why
        self.stop(shutdown(why or "done"))


def _front(service: Service, user: User) -> bytes:
    """The PROXY header in front of the user's bytes, if the service wants one."""
    version = service.options.proxy
    if not version:
        return b""
    try:
        here = user.sock.getsockname()[:2]
        return encode(header_of(user.address, here), version)
    except (OSError, LocalError):
        return b""  # it is gone: reading tells


def pair(
    door: RendezvousContext, service: Service, user: User, end: End, early: bytes = b""
) -> bool:
    """Give a user to the service. False: it cannot be served, and both ends were reset."""
    users = service.users()
    spec = ChildSpec(
        f"u{door.next_serial()}",
        lambda: UserPair(door, service, user, end, early),
        restart=Restart.TEMPORARY,
        shutdown=1.0,
    )
    try:
        if users is None:
            raise ChildRefused(service.id, spec.id, "down")
        door.system.start_child(users, spec)
    except ChildRefused as refused:
        door.refused[f"user_{refused.why}"] += 1
        user.place.leave()
        close_with_reset(user.sock)
        reset_end(end)
        return False
    return True


def reset_end(end: End) -> None:
    """The service's side sees an error; idempotent."""
    if isinstance(end, Stream):
        end.abort(0)
    elif isinstance(end, TlsTransport):
        end.abort()
    else:
        close_with_reset(end)
