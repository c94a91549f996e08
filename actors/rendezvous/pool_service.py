"""A pool: the service brings connections in advance, each serves one user.

Source: protocol sheet rendezvous 1.3, 1.7 rows 6 to 10.
"""

from __future__ import annotations

import socket

from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.held import HeldSocket
from actors.rendezvous.joins import End, Joining
from actors.rendezvous.service import Service, User
from actors.rendezvous.service_actor import Leave, ServiceActor, keep_alive
from actors.rendezvous.user_pair import pair
from actors.runtime import handles, shutdown
from actors.transport.tcp.pump.reset import close_with_reset
from wire.rendezvous.line import Protocol
from wire.rendezvous.pool import Pool, Queued


class _Due:
    """A user waited long enough, or the pool was empty for long enough."""

    __slots__ = ()


class _Held:
    """An idle connection of the service, or a user that waits.

    Attributes:
        held: watches it; None while it does not wait.
    """

    __slots__ = ("early", "held", "sock")

    def __init__(self, sock: socket.socket, early: bytes) -> None:
        self.sock = sock
        self.early = early
        self.held: HeldSocket | None = None

    def take(self) -> tuple[bytes, bool]:
        """What it said, and whether it ended; it is watched no more."""
        if self.held is None:
            return self.early, False
        _, early, ended = self.held.take()
        return early, ended


class _Waiter(_Held):
    """A user that waits."""

    __slots__ = ("user",)

    def __init__(self, user: User) -> None:
        super().__init__(user.sock, b"")
        self.user = user


class PoolService(ServiceActor):
    """A pool: the service brings connections in advance, each serves one user. Owns idle members
    and waiting users.
    """

    def __init__(self, door: RendezvousContext, service: Service) -> None:
        super().__init__(door, service)
        settings = door.settings
        self._pool: Pool[_Held, _Waiter] = Pool(
            most_members=settings.max_members,
            most_users=settings.max_waiting,
            wait=settings.user_wait,
            grace=settings.pool_grace,
            now=door.clock(),
        )

    def begin(self) -> None:
        """The registering connection is the first member."""
        self.own(_Everybody(self), "waiting")
        known, ticket = self.door.joins.new_id(Protocol.POOL, self.guard("join", self._join))
        self.own(ticket, "id")
        end, self.service.end = self.service.end, None
        assert isinstance(end, socket.socket)
        early, self.service.early = self.service.early, b""
        if self.say(end, f"{self.service.port}\n{known}\n"):
            self._member(end, early)
        else:
            close_with_reset(end)
        self._set_timer()

    def waiting(self) -> int:
        return self._pool.users

    def describe(self) -> dict[str, object]:
        """As operators see it."""
        return super().describe() | {"members": self._pool.members}

    # Members.

    def _join(self, joining: Joining) -> bool:
        if joining.client != self.service.client.name or self.leaving == "drained":
            self.door.refused["join_of_another_client"] += 1
            return False
        return self._member(joining.end, joining.early)

    def _member(self, end: End, early: bytes) -> bool:
        assert isinstance(end, socket.socket)
        settings = self.door.settings
        keep_alive(end, settings.keepalive, settings.keepalive_deadline)
        member = _Held(end, early)
        came = self._pool.member_came(member)
        if came is Queued.REFUSED:
            self.door.refused["pool_full"] += 1
            return False
        if came is Queued.WAITS:
            member.held = HeldSocket(end, early, self._member_ended, self.guard)
        else:
            self._pair(came, member)
        return True

    def _member_ended(self, held: HeldSocket, _in_order: bool) -> None:
        """It went while it was idle: nobody is ever given it."""
        self.door.events["pool_members_lost"] += 1
        close_with_reset(held.sock)
        for member in self._pool.everybody()[0]:
            if member.held is held:
                self._pool.member_left(member, self.now())
        self._set_timer()

    # Users.

    def user_came(self, user: User) -> bool:
        waiter = _Waiter(user)
        served = self._pool.user_came(waiter, self.now())
        if served is Queued.REFUSED:
            return self.give_up(user, "too_many_waiting")
        if served is Queued.WAITS:
            waiter.held = HeldSocket(user.sock, b"", self._user_ended, self.guard)
            self._set_timer()
        else:
            self._pair(waiter, served)
        return True

    def _pair(self, waiter: _Waiter, member: _Held) -> None:
        early, _ = member.take()
        waiter.user.early, waiter.user.ended = waiter.take()
        if not pair(self.door, self.service, waiter.user, member.sock, early):
            self._pool.pair_over(self.now())
        self._set_timer()

    def _user_ended(self, held: HeldSocket, in_order: bool) -> None:
        """A reset: it does not wait any more. An end in order may be a request that is complete."""
        if in_order:
            return
        for waiter in self._pool.everybody()[1]:
            if waiter.held is held:
                self._pool.user_left(waiter)
                self.door.events["users_left"] += 1
                waiter.user.abort()

    def pair_over(self) -> None:
        self._pool.pair_over(self.now())
        self._set_timer()
        super().pair_over()

    def left(self) -> None:
        for member in self._pool.everybody()[0]:
            self._pool.member_left(member, self.now())
            member.take()
            member.sock.close()

    # Time.

    def _set_timer(self) -> None:
        when = self._pool.next_timer()
        if when is None:
            self.cancel_timer("due")
        else:
            self.start_timer(max(0.0, when - self.now()), _Due(), "due")

    @handles(_Due)
    def _due(self, _: _Due) -> None:
        now = self.now()
        for waiter in self._pool.expire(now):
            waiter.take()
            self.give_up(waiter.user, "user_wait_over")
        if self._pool.gone(now):
            self.stop(shutdown("the pool has no members"))
        else:
            self._set_timer()
        self._end_if_done()

    @handles(Leave)
    def _leave(self, _: Leave) -> None:
        self.leave("drained")

    def release(self) -> None:
        """The actor ended: everybody who is here sees an error."""
        members, waiters = self._pool.everybody()
        for member in members:
            member.take()
            close_with_reset(member.sock)
        for waiter in waiters:
            waiter.take()
            waiter.user.abort()


class _Everybody:
    """Idle members and waiting users as one resource."""

    __slots__ = ("_service",)

    def __init__(self, service: PoolService) -> None:
        self._service = service

    def abort(self) -> None:
        self._service.release()
