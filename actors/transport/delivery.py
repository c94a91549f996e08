"""The receiving half of a stream: what arrived is delivered, or held until somebody listens.

Base of the streams of every transport. What arrives before `start()`, or while paused, is held;
flow control bounds it to the stream window, because credit is given only by `consume`.
"""

from __future__ import annotations

from abc import abstractmethod

from actors.transport.stream import CloseReason, Stream

#: What is held lies in pieces of about this size, so that crumbs cost no more than bytes.
_PIECE = 4096


class DeliveredStream(Stream):
    """The receiving half of a stream: what arrived is delivered, or held until somebody listens.
    The transport calls the `take_` methods.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running = False
        self._held: list[bytes] = []
        self._held_end: str = ""  # "", "eof" or "reset"
        self._held_code = 0
        self._consumed = 0
        self._read_closed = False
        self._write_closed = False
        self._stopped = False
        self._lost: CloseReason | None = None

    @abstractmethod
    def _unwanted(self) -> None:
        """Something arrived, or ended, that is not delivered any more."""

    def start(self) -> None:
        """Deliver what was held, then whatever comes."""
        self._running = True
        if self._lost is not None:
            lost, callback = self._lost, self.on_lost
            self.forget_callbacks()
            callback(lost)
            return
        while self._running and self._held:
            self.on_data(self._held.pop(0))
        if self._running and not self._held and self._held_end:
            end, self._held_end = self._held_end, ""
            if end == "eof":
                self.on_eof()
            else:
                self.on_reset(self._held_code)

    def pause(self) -> None:
        """Hold from now on."""
        self._running = False

    def unread(self) -> tuple[list[bytes], bool]:
        held, self._held = self._held, []
        return held, self._held_end == "eof"

    def _stop(self) -> None:
        """Nothing more is delivered."""
        self._stopped = True
        self._held.clear()
        self._held_end = ""

    @property
    def unconsumed(self) -> int:
        return 0 if self._stopped else max(0, self.bytes_in - self._consumed)

    @property
    def read_closed(self) -> bool:
        return self._read_closed or self._stopped or self._lost is not None

    @property
    def write_closed(self) -> bool:
        return self._write_closed or self._lost is not None

    # Called by the transport.

    def data_received(self, data: bytes, *, end: bool) -> None:
        """In-order bytes arrived."""
        self.bytes_in += len(data)
        if end:
            self._read_closed = True
        if self._stopped:
            self._unwanted()
            return
        if not self._running or self._held:
            if data:
                self._hold(data)
            if end:
                self._held_end = "eof"
            return
        if data:
            self.on_data(data)
        if end:
            self._deliver_eof()

    def _hold(self, data: bytes) -> None:
        held = self._held
        if held and len(held[-1]) + len(data) <= _PIECE:
            held[-1] += data
        else:
            held.append(data)

    def _deliver_eof(self) -> None:
        """EOF now, or held when the callback for the last bytes paused the stream."""
        if self._running:
            self.on_eof()
        else:
            self._held_end = "eof"

    def take_reset(self, code: int) -> None:
        """The peer reset its half: what was held is void, and nobody need consume it."""
        self._read_closed = True
        self._held.clear()
        self._consumed = self.bytes_in
        self._unwanted()
        if self._stopped:
            return
        if self._running:
            self.on_reset(code)
        else:
            self._held_end, self._held_code = "reset", code

    def take_lost(self, reason: CloseReason) -> None:
        """The connection ended."""
        if self._lost is not None:
            return
        self._lost = reason
        if self._running:
            callback = self.on_lost
            self.forget_callbacks()
            callback(reason)
