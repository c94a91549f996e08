"""An event service: it is told an id for each user, and answers it with a connection of its own.

Source: protocol sheet rendezvous 1.3, 1.7 rows 4 to 6.
"""

from __future__ import annotations

import socket
from typing import Final

from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.held import HeldSocket
from actors.rendezvous.joins import Joining
from actors.rendezvous.service import Service, User
from actors.rendezvous.service_actor import EndSocket, Leave, ServiceActor, keep_alive
from actors.rendezvous.user_pair import pair
from actors.runtime import handles
from actors.transport.quota import Ticket
from wire.rendezvous.event import Waiting
from wire.rendezvous.line import Protocol

#: What the service writes on its control connection is thrown away in pieces of this size.
_NOISE: Final = 16 * 1024


class _Due:
    """A user waited long enough."""

    __slots__ = ()


class _Waiter:
    """A user under an id."""

    __slots__ = ("held", "ticket", "user")

    def __init__(self, user: User, ticket: Ticket) -> None:
        self.user = user
        self.ticket = ticket
        self.held: HeldSocket | None = None

    def abort(self) -> None:
        """Nobody answered."""
        self.ticket.abort()
        if self.held is not None:
            self.held.abort()
        self.user.abort()


class EventService(ServiceActor):
    """An event service: it is told an id for each user, and answers it with a connection of its
    own. Owns the control connection and waiting users.
    """

    def __init__(self, door: RendezvousContext, service: Service) -> None:
        super().__init__(door, service)
        settings = door.settings
        self._users: Waiting[_Waiter] = Waiting(most=settings.max_waiting, wait=settings.user_wait)
        #: Ids the kernel has not taken; bound: those of the users that wait.
        self._unsent = b""

    def begin(self) -> None:
        """Answer, and watch the control connection."""
        self.own(_Waiters(self), "waiting")
        end, self.service.end = self.service.end, None
        assert isinstance(end, socket.socket)
        self._control = self.own(EndSocket(end), "control").sock
        self.service.early = b""  # nothing is ever read from there
        settings = self.door.settings
        keep_alive(end, settings.keepalive, settings.keepalive_deadline)
        if self.say(end, f"{self.service.port}\n"):
            loop = self.system.loop
            self.own(_Watched(self), "watch")
            self._writing = False
            loop.add_reader(end, self.guard("control", self._control_readable))

    def waiting(self) -> int:
        return len(self._users)

    # The control connection.

    def _control_readable(self) -> None:
        try:
            data = self._control.recv(_NOISE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._control_over("the control connection was reset")
            return
        if not data:
            self._control_over("the control connection ended")

    def _control_over(self, why: str) -> None:
        self.unwatch()
        self._control.close()
        for _, waiter in self._users.everybody():
            waiter.abort()
        self._users = Waiting(most=0, wait=0.0)
        self.leave(why)

    def unwatch(self) -> None:
        """The control connection is not looked at any more; idempotent."""
        if self._control.fileno() >= 0:
            self.system.loop.remove_reader(self._control)
            self.system.loop.remove_writer(self._control)

    def _tell(self, known: str) -> bool:
        self._unsent += f"{known}\n".encode()
        if not self._writing:
            self._flush()
        return not self.leaving

    def _flush(self) -> None:
        loop = self.system.loop
        try:
            self._unsent = self._unsent[self._control.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._control_over("the control connection was reset")
            return
        if bool(self._unsent) == self._writing:
            return
        self._writing = bool(self._unsent)
        if self._writing:
            loop.add_writer(self._control, self.guard("control", self._flush))
        else:
            loop.remove_writer(self._control)

    # Users.

    def user_came(self, user: User) -> bool:
        if self.leaving:
            return self.give_up(user, "service_leaves")
        now = self.now()
        known = ""

        def answered(joining: Joining) -> bool:
            return self._answered(known, joining)

        known, ticket = self.door.joins.new_id(Protocol.EVENT, self.guard("join", answered))
        waiter = _Waiter(user, ticket)
        if not self._users.user_came(known, waiter, now):
            ticket.abort()
            return self.give_up(user, "too_many_waiting")
        waiter.held = HeldSocket(
            user.sock, b"", lambda _, in_order: self._user_ended(known, in_order), self.guard
        )
        self._set_timer()
        return self._tell(known)

    def _answered(self, known: str, joining: Joining) -> bool:
        if joining.client != self.service.client.name:
            self.door.refused["join_of_another_client"] += 1
            return False
        waiter = self._users.answered(known)
        if waiter is None or waiter.held is None:
            return False
        waiter.ticket.abort()
        _, waiter.user.early, waiter.user.ended = waiter.held.take()
        if isinstance(joining.end, socket.socket):
            settings = self.door.settings
            keep_alive(joining.end, settings.keepalive, settings.keepalive_deadline)
        pair(self.door, self.service, waiter.user, joining.end, joining.early)
        self._set_timer()
        return True  # and if that did not go well both were reset

    def _user_ended(self, known: str, in_order: bool) -> None:
        """A reset: it does not wait any more. An end in order may be a request that is complete."""
        if in_order:
            return
        waiter = self._users.answered(known)
        if waiter is not None:
            self.door.events["users_left"] += 1
            waiter.abort()
            self._set_timer()

    # Time.

    def _set_timer(self) -> None:
        when = self._users.next_timer()
        if when is None:
            self.cancel_timer("due")
        else:
            self.start_timer(max(0.0, when - self.now()), _Due(), "due")

    @handles(_Due)
    def _due(self, _: _Due) -> None:
        for _known, waiter in self._users.expire(self.now()):
            self.door.refused["user_wait_over"] += 1
            waiter.abort()
        self._set_timer()
        self._end_if_done()

    @handles(Leave)
    def _leave(self, _: Leave) -> None:
        self.leave("drained")

    def release(self) -> None:
        """The actor ended: everybody who waits sees an error."""
        for _, waiter in self._users.everybody():
            waiter.abort()


class _Waiters:
    """Waiting users as one resource."""

    __slots__ = ("_service",)

    def __init__(self, service: EventService) -> None:
        self._service = service

    def abort(self) -> None:
        self._service.release()


class _Watched:
    """The control connection in the loop, as a resource."""

    __slots__ = ("_service",)

    def __init__(self, service: EventService) -> None:
        self._service = service

    def abort(self) -> None:
        self._service.unwatch()
