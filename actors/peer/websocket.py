"""A client over WebSocket, with and without TLS: from the first byte to the last.

What arrives in one read is handed over as one list; what is delivered to a client during it leaves
in one call of the kernel.

Source: protocol sheet peer 1.2, 9 W2, W20, W23.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from actors.peer.arrival import admit
from actors.peer.context import PeerContext
from actors.peer.outbox import Outbox
from actors.transport.addresses import address_text
from actors.transport.gate import Place
from actors.transport.tcp.proxied import is_within
from actors.transport.tcp.tls_transport import TlsTransport
from wire.peer.limits import MAX_IDS, MAX_MESSAGE, TRANSPORT
from wire.websocket.frames import (
    Broken,
    Closed,
    FrameReader,
    Ping,
    binary_header,
    close,
    close_because,
    pong,
)
from wire.websocket.handshake import Answered, Handshake

PATH: Final = "/relay"
#: Messages a client may send before its actor runs.
MAX_EARLY: Final = 256
_HEADERS: Final = tuple(binary_header(size) for size in range(2048))


class WebSocketClient(asyncio.Protocol):
    """A client over WebSocket; see `Client`, and `HandshakeOwner` for TLS."""

    transport = "ws"
    most_ids = MAX_IDS

    __slots__ = (
        "_admitted",
        "_batch",
        "_closing",
        "_door",
        "_early",
        "_handshake",
        "_host",
        "_lost",
        "_outbox",
        "_paused",
        "_place",
        "_reader",
        "_received",
        "_stalled",
        "_transport",
        "source",
    )  # fmt: skip

    def __init__(self, door: PeerContext, place: Place, address: tuple[str, int]) -> None:
        self.source = address_text(*address)
        self._host = address[0]
        self._door = door
        self._place: Place | None = place
        self._transport: asyncio.Transport | None = None
        self._handshake: Handshake | None = Handshake(PATH, same_origin=door.settings.same_origin)
        self._reader = FrameReader(MAX_MESSAGE)
        self._admitted = False
        self._early: list[bytes] = []
        self._received: Callable[[list[bytes]], object] | None = None
        self._lost: Callable[[str], object] | None = None
        self._batch: list[bytes | memoryview] = []
        self._outbox: Outbox | None = None
        self._paused = False
        self._closing = False
        self._stalled: asyncio.TimerHandle | None = None
        place.give_way = self.abort

    # The transport's.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.lingering.discard(self._transport)
        self._transport = None
        self._over("lost" if exc is None else "reset")

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._handshake is not None:
            if self._place is not None:
                self._place.heard()
            opened = self._upgraded(data)
            if opened is None:
                return
            data = opened
        messages: list[bytes] = []
        for event in self._reader.receive(data):
            if type(event) is bytes:
                messages.append(event)
                continue
            if messages:
                self._take(messages)
                messages = []
            if self._transport is None:
                return
            if isinstance(event, Ping):
                self._write(pong(event.payload))
            elif isinstance(event, Closed):
                self._write(close(event.payload))
                self._end("closed_by_peer")
            elif isinstance(event, Broken):
                self._door.events[f"websocket_{event.reason.replace(' ', '_')}"] += 1
                if event.code:
                    self._write(close_because(event.code, event.reason))
                self._end("bad_frame")
        if messages:
            self._take(messages)

    def pause_writing(self) -> None:
        self._paused = True
        if self._outbox is None:
            settings = self._door.settings
            self._outbox = Outbox(settings.queue_bytes, settings.queue_messages)
        if self._stalled is None:
            self._stalled = self._door.system.loop.call_later(
                self._door.settings.write_deadline, self._stall
            )

    def resume_writing(self) -> None:
        self._paused = False
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        while self._outbox and not self._paused and self._transport is not None:
            self._transport.writelines(self._outbox.take())

    # The handshakes.

    def handshake_heard(self) -> None:
        if self._place is not None:
            self._place.heard()

    def handshake_done(self, transport: TlsTransport) -> None:
        transport.start(self)

    def handshake_failed(self, why: str) -> None:
        self._door.events[f"tls_failed_{why}"] += 1
        self._over("tls")

    def _upgraded(self, data: bytes) -> bytes | None:
        """What follows the request; None: nothing yet, or never."""
        assert self._handshake is not None
        outcome = self._handshake.receive(data)
        if outcome is None:
            return None
        self._write(outcome.answer)
        self._handshake = None
        if isinstance(outcome, Answered):
            self._door.events[f"http_{outcome.status}"] += 1
            self._end("http")
            return None
        self._believe(outcome.headers)
        return outcome.rest

    def _believe(self, headers: dict[str, str]) -> None:
        """Where a trusted proxy says that the client is from; only literal addresses."""
        host, port = headers.get("x-real-ip"), headers.get("x-real-port")
        if host and port and is_within(self._host, self._door.settings.trusted_proxies):
            try:
                text = address_text(str(ip_address(host)), int(port))
            except ValueError:
                self._door.events["bad_real_ip"] += 1
            else:
                self.source = text

    # Messages.

    def _take(self, messages: list[bytes]) -> None:
        if self._received is not None:
            self._received(messages)
            return
        if not self._admitted:
            if not admit(self._door, self, messages[0]):
                self._end("auth")
                return
            self._admitted = True
            if self._place is not None:
                self._place.leave()
                self._place = None
            messages = messages[1:]
        self._early += messages
        if len(self._early) > MAX_EARLY:
            self._door.events["early_overflow"] += 1
            self._end("early_overflow")

    def begin(
        self, received: Callable[[list[bytes]], object], lost: Callable[[str], object]
    ) -> None:
        if self._transport is None or self._closing:
            lost("lost")
            return
        self._received, self._lost = received, lost
        if self._early:
            early, self._early = self._early, []
            received(early)

    def send(self, message: bytes) -> None:
        self._write(binary_header(len(message)) + message)

    def deliver(self, sender: bytes, message: bytes) -> str:
        size = len(message)
        header = _HEADERS[size] if size < 2048 else binary_header(size)
        if self._paused:
            outbox = self._outbox
            if outbox is None or not outbox.has_room(size):
                return "queue_full"
            outbox.add(header + sender + message[TRANSPORT:])
            return ""
        if self._closing:
            return "closing"
        batch = self._batch
        if not batch:
            self._door.dirty.append(self)
        batch.append(header + sender)
        batch.append(memoryview(message)[TRANSPORT:])
        return ""

    def flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            if self._transport is not None:
                self._transport.writelines(batch)

    @property
    def queued(self) -> int:
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return waiting + (self._outbox.bytes if self._outbox is not None else 0)

    def _write(self, frame: bytes) -> None:
        if self._transport is None or self._closing:
            return
        self.flush()
        if not self._paused:
            self._transport.write(frame)
        elif self._outbox is not None and not self._outbox.put_control(frame):
            self._stall()

    # The end.

    def _stall(self) -> None:
        self._door.events["write_stalled"] += 1
        self._over("stalled")
        self.abort()

    def _end(self, why: str) -> None:
        self.close()
        self._over(why)

    def _over(self, why: str) -> None:
        """Whoever had it is told; nothing waits any more."""
        self._closing = True
        self._received = None
        self._early.clear()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if self._outbox is not None:
            self._outbox.clear()
        place, self._place = self._place, None
        if place is not None:
            place.leave()
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(why)

    def close(self) -> None:
        if not self._closing:
            self.flush()
            self._closing = True
            if self._transport is not None:
                self._door.lingering.add(self._transport)
                self._transport.close()

    def abort(self) -> None:
        self._lost = None
        if self._transport is not None and self._transport not in self._door.lingering:
            self._transport.abort()
        self._over("aborted")
