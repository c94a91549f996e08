"""One user and the connection, or the stream, of the service that serves it.

The actor couples the two ends once; from then on bytes move in the callbacks of the pump. However
it ends, what was not finished is reset on both sides.

Source: protocol sheet rendezvous 3.2.
"""

from __future__ import annotations

import socket

from actors.rendezvous.account import UserAccount
from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.joins import End, reset_end
from actors.rendezvous.service import Service, User
from actors.runtime import Actor, ChildRefused, ChildSpec, MailboxSpec, Restart, shutdown
from actors.transport.stream import Stream
from actors.transport.tcp.pump import SocketPair, StreamPump
from wire.errors import LocalError
from wire.proxy_protocol.header import encode, header_of


class _Ends:
    """Both ends until the actor has them. One that is killed before it began has no `init`, and
    owns nothing: then they are reset when nobody keeps them any more.
    """

    __slots__ = ("_end", "_user")

    def __init__(self, user: User, end: End) -> None:
        self._user: User | None = user
        self._end: End | None = end

    def take(self) -> tuple[User, End]:
        """They are somebody else's now."""
        user, end = self._user, self._end
        self._user = self._end = None
        assert user is not None
        assert end is not None
        return user, end

    def abort(self) -> None:
        """Both see an error; idempotent."""
        user, end = self._user, self._end
        self._user = self._end = None
        if user is not None:
            user.abort()
        if end is not None:
            reset_end(end)

    def __del__(self) -> None:
        self.abort()


class UserPair(Actor):
    """One user and the connection, or the stream, of the service that serves it.

    Args:
        ends: the user and the service's end.
        early: bytes of the service that were read before.
    """

    mailbox = MailboxSpec(bound=4)

    def __init__(
        self, door: RendezvousContext, service: Service, ends: _Ends, early: bytes
    ) -> None:
        self._door = door
        self._service = service
        self._ends = ends
        self._early = early
        self._host = ""
        self._account: UserAccount | None = None

    def init(self) -> None:
        """Couple."""
        door, service = self._door, self._service
        user, end = self._ends.take()
        self._host = user.address[0]
        account = self._account = self.own(
            UserAccount(door, service, user, self.ref.path), "account"
        )
        front = _front(service, user) + user.early
        early, self._early, user.early = self._early, b"", b""
        limits, throttles = door.settings.quiet, service.throttles
        pump: SocketPair | StreamPump
        if isinstance(end, Stream):
            pump = StreamPump(
                user.sock,
                end,
                on_end=self._ended,
                guard=self.guard,
                code=0,
                limits=limits,
                throttles=throttles,
            )
            account.carrier = self.own(pump, "pump")
            if front:
                end.write(front)
            pump.start(early)
        else:
            assert isinstance(end, socket.socket)
            pump = SocketPair(
                user.sock,
                end,
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
            "user": self._host,
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
    users, ends = service.users(), _Ends(user, end)
    spec = ChildSpec(
        f"u{door.next_serial()}",
        lambda: UserPair(door, service, ends, early),
        restart=Restart.TEMPORARY,
        shutdown=1.0,
    )
    try:
        if users is None:
            raise ChildRefused(service.id, spec.id, "down")
        door.system.start_child(users, spec)
    except ChildRefused as refused:
        door.refused[f"user_{refused.why}"] += 1
        ends.abort()
        return False
    return True
