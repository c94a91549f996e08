"""A client that came by TCP or TLS: one connection, at most one allocation.

The connection ends and its allocation with it. What the client does not read waits up to
`stream_buffer` bytes; then data of peers is dropped and counted, as a wire would, and answers end
the connection. A stranger has a deadline: it must have an allocation by then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors.runtime import Actor, MailboxSpec, shutdown
from actors.transport.gate import Place
from wire.stun.errors import StunError
from wire.turn.allocation import Allocation as Record
from wire.turn.allocation import SocketAddress
from wire.turn.frames import Frames

if TYPE_CHECKING:
    from actors.turn.context import TurnContext
    from actors.turn.stream_listener import Arrived


class StreamEndpoint:
    """See `wire.turn.allocation.Endpoint`: one client."""

    stream = True

    def __init__(self, door: TurnContext, transport: asyncio.Transport) -> None:
        self.clients: dict[SocketAddress, Record] = {}
        self._door = door
        self._transport = transport

    def send(self, message: bytes, address: SocketAddress) -> int:
        """One frame, unless too much waits already."""
        transport = self._transport
        if transport.is_closing():
            return 0
        if transport.get_write_buffer_size() > self._door.settings.stream_buffer:
            self._door.events["stream_full"] += 1
            if not message[0] & 0x40 and message[1] & 0x10 == 0:
                transport.abort()  # an answer nobody reads
            return 0
        transport.write(message)
        return 1

    def send_segments(self, segments: list[bytes], size: int, address: SocketAddress) -> int:
        """Not used on streams; frames one by one."""
        return sum(self.send(one, address) for one in segments)

    def ended(self, record: Record, why: str) -> None:
        """A client whose allocation failed should know at once."""
        if why == "failed":
            self._transport.close()


class StreamClient(Actor, asyncio.Protocol):
    mailbox = MailboxSpec(bound=16)

    def __init__(self, door: TurnContext, arrived: Arrived) -> None:
        self._door = door
        self._arrived = arrived
        self._source: Any = arrived.address
        self._place: Place = arrived.place
        self._frames = Frames()
        self._allocated = False

    def init(self) -> None:
        """Take the connection over."""
        self._transport = self._arrived.transport
        self._endpoint = StreamEndpoint(self._door, self._transport)
        self._read = self.guard("client", self._received)
        self.own(self, "connection")
        self._place.give_way = self._transport.abort
        self._arrived.start(self)

    def describe(self) -> dict[str, object]:
        """Who, and what waits for it."""
        return {
            "client": f"{self._source[0]}:{self._source[1]}",
            "transport": "TLS" if self._arrived.tls else "TCP",
            "unsent_bytes": self._transport.get_write_buffer_size(),
            "allocations": [one.number for one in self._endpoint.clients.values()],
        }

    def abort(self) -> None:
        """The actor's resource: connection, place and allocation."""
        self._transport.abort()
        self._place.leave()
        for record in list(self._endpoint.clients.values()):
            self._door.dispatcher.close(record, "client closed")

    # asyncio.Protocol.

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        self._read(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self.stop(shutdown("closed by the client" if exc is None else "connection lost"))

    def _received(self, data: bytes) -> None:
        self._place.heard()
        try:
            if not self._allocated and (self._frames.rest or data)[0] & 0xC0:
                raise StunError("first_bits")  # channel data of nobody, such as an HTTP request
            frames = self._frames.receive(data)
        except StunError as error:
            self._door.events[f"stream_{error.label}"] += 1
            self._transport.close()
            return
        endpoint, source = self._endpoint, self._source
        for frame in frames:
            if self._transport.is_closing():
                return
            if frame[0] & 0xC0:
                record = endpoint.clients.get(source)
                if record is None or record.deliver is None:
                    self._door.events["data_no_allocation"] += 1
                else:
                    record.deliver(frame, len(frame))
                continue
            answer = self._door.receive(frame, endpoint, source)
            if answer is not None:
                endpoint.send(answer, source)
            if endpoint.clients and not self._allocated:
                self._allocated = True
                self._place.proved()
