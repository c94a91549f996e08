"""The relay's side of the first lines of a connection, from any pieces its bytes come in.

`receive` takes bytes until the handshake is over; what follows the last line is `rest` and belongs
to the data phase. The end of the peer's data ends a line as its LF does.

Source: protocol sheet rendezvous 1.2, 1.3, 1.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from wire.rendezvous.limits import MAX_LINE, MAX_OPTIONS_LINE
from wire.rendezvous.line import BadLine, Protocol, id_of, protocol_of
from wire.rendezvous.options import PREFIX, Options, options_of


@dataclass(frozen=True, slots=True)
class Asked:
    """The line with options came; it wants an answer, and more lines follow."""

    options: Options


@dataclass(frozen=True, slots=True)
class Register:
    """A service wants a port."""

    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Join:
    """One more connection of a service that is there: a pool's member, or an event's answer."""

    protocol: Protocol
    id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """It is none of ours: to be closed.

    Attributes:
        reason: one of few words; `closed`: it ended without a word.
    """

    reason: str


Event: TypeAlias = Asked | Register | Join | Refused


class Handshake:
    """The relay's side of the first lines of a connection, from any pieces its bytes come in.

    Attributes:
        options: what the peer wants beside.
        done: nothing more is parsed.
    """

    __slots__ = ("_held", "_protocol", "done", "options")

    def __init__(self) -> None:
        self.options: Options | None = None
        self.done = False
        self._held = bytearray()
        self._protocol: Protocol | None = None

    def receive(self, data: bytes) -> list[Event]:
        """Bytes of the peer. `Register`, `Join` and `Refused` end the handshake."""
        self._held += data
        events: list[Event] = []
        while not self.done:
            end = self._held.find(b"\n")
            most = self._most
            if end < 0 and len(self._held) < most:
                break
            if not 0 <= end < most:
                self._over(Refused("line_too_long"), events)
                break
            line = bytes(self._held[:end])
            del self._held[: end + 1]
            self._line(line, events)
        return events

    def receive_eof(self) -> list[Event]:
        """The peer sends no more."""
        events: list[Event] = []
        if self.done:
            return events
        line = bytes(self._held)
        self._held.clear()
        if line or self._protocol is not None:
            self._line(line, events)
        if not self.done:
            self._over(Refused("closed"), events)
        return events

    @property
    def rest(self) -> bytes:
        """What came behind the last line."""
        return bytes(self._held)

    @property
    def _most(self) -> int:
        """Bytes the present line may have, its LF included."""
        may_ask = self._protocol is None and self.options is None
        begins = may_ask and self._held.startswith(PREFIX)
        return MAX_OPTIONS_LINE if begins else MAX_LINE

    def _line(self, line: bytes, events: list[Event]) -> None:
        try:
            if self._protocol is not None:
                known = id_of(line)
                protocol = self._protocol
                self._over(Register(protocol) if known is None else Join(protocol, known), events)
            elif self.options is None and line.startswith(PREFIX):
                self.options = options_of(line)
                events.append(Asked(self.options))
            else:
                self._protocol = protocol_of(line)
                if self._protocol is Protocol.MULTIPLEX:
                    self._over(Register(self._protocol), events)
        except BadLine as bad:
            self._over(Refused(bad.label), events)

    def _over(self, event: Event, events: list[Event]) -> None:
        self.done = True
        events.append(event)
