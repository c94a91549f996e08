"""Keeps the record of all allocations: expires them, watches their actors, answers operators.

The record itself is in the door's context and outlives this actor as well. Each allocation's actor
is monitored. One that is restarted says so; one whose place is gone is started again, and when that
cannot be, the record ends and the client hears 437.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from actors.runtime import Actor, ActorRef, ChildRefused, Down, MailboxSpec, handles
from actors.turn.messages import Arm, Close, Started

if TYPE_CHECKING:
    from actors.turn.context import TurnContext

#: Deadlines that expire before other work gets a turn.
BATCH: Final = 256
#: Starts of an allocation that its supervisor had given up or lost, and seconds until the
#: supervisor is asked again when it is away itself.
MAX_REVIVALS: Final = 3
REVIVE_PAUSE: Final = 0.02


class _Due:
    __slots__ = ()


class _Rotate:
    __slots__ = ()


class _Adopt:
    """Watch those that were there before this incarnation."""

    __slots__ = ()


class _Revive:
    """The supervisor may be back."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class AllocationRegistry(Actor):
    mailbox = MailboxSpec(bound=100_000)

    def __init__(self, door: TurnContext) -> None:
        self._door = door
        self._watched: dict[int, int] = {}  # monitor token: allocation number
        self._tokens: dict[int, int] = {}
        self._revivals: dict[int, int] = {}

    def init(self) -> None:
        """Wait for what expires."""
        self._door.armed = None
        self._door.arm()
        self.ref.tell(_Adopt())
        self.start_timer(self._door.settings.nonce_lifetime, _Rotate(), "rotate")

    def describe(self) -> dict[str, object]:
        """Figures of the door."""
        door = self._door
        return {
            "allocations": len(door.dispatcher.allocations),
            "deadlines": len(door.dispatcher.deadlines),
            "relayed_sockets": door.ports.open,
            "restarts_of_allocations": door.restarted,
            "bind_failures": dict(door.ports.failures),
            "events": dict(door.events),
        }

    @handles(Arm)
    def _arm(self, _: Arm) -> None:
        due = self._door.armed
        if due is not None:
            self.start_timer(max(0.0, due - self.now()), _Due(), "due")

    @handles(_Due)
    def _due(self, _: _Due) -> None:
        door = self._door
        door.armed = None
        door.dispatcher.deadlines.run(self.now(), BATCH)
        door.arm()

    @handles(_Rotate)
    def _rotate(self, _: _Rotate) -> None:
        self._door.nonces.rotate(os.urandom(32))
        self.start_timer(self._door.settings.nonce_lifetime, _Rotate(), "rotate")

    @handles(Started)
    def _started(self, message: Started) -> None:
        self._door.started += 1
        self._watch(message.number)

    @handles(_Adopt)
    def _adopt(self, _: _Adopt) -> None:
        for number in self._door.dispatcher.allocations:
            if number not in self._tokens:
                self._watch(number)

    def _watch(self, number: int) -> None:
        if number in self._tokens or number not in self._door.dispatcher.allocations:
            return
        ref = self._ref(number)
        if ref is None:
            self._revive(number)
            return
        token = self.monitor(ref)
        self._watched[token] = number
        self._tokens[number] = token

    def _ref(self, number: int) -> ActorRef | None:
        place = self._door.place("allocations").path
        return self.system.ref(f"{place}/{number}")

    @handles(Down)
    def _down(self, down: Down) -> None:
        number = self._watched.pop(down.token, None)
        if number is None:
            return
        del self._tokens[number]
        if number not in self._door.dispatcher.allocations:
            self._revivals.pop(number, None)
            return
        if self._ref(number) is None:
            self._revive(number)
        else:
            self._door.restarted += 1
            self._watch(number)

    def _revive(self, number: int) -> None:
        """Nobody restarts it: we do, or it is over."""
        record = self._door.dispatcher.allocations.get(number)
        if record is None or number in self._tokens:
            return
        revivals = self._revivals.get(number, 0)
        if revivals >= MAX_REVIVALS:
            self._door.dispatcher.close(record, "failed")
            del self._revivals[number]
            return
        try:
            self._door.start(record)
        except ChildRefused:  # the supervisor of all of them is away; the lifetime is the limit
            self.start_timer(REVIVE_PAUSE, _Revive(number))
        else:
            self._revivals[number] = revivals + 1
            self._door.restarted += 1

    @handles(_Revive)
    def _revive_again(self, message: _Revive) -> None:
        self._revive(message.number)

    @handles(Close)
    def _close(self, message: Close) -> bool:
        record = self._door.dispatcher.allocations.get(message.number)
        if record is None:
            return False
        self._door.dispatcher.close(record, "closed by an operator")
        return True
