"""DATAGRAM frames of the native engine (RFC 9221).

The packet core keeps what it is given until a packet has room for it, and hands out what came in
one queue with the bytes of streams. So it is given only what may leave at once; and while a stalled
reader of a stream holds that queue (`flow`), what comes beyond what streams are allowed is not
taken, as if the network had lost it: these frames have no credit that could stop a peer.
"""

from __future__ import annotations

from typing import Any, Final

from actors.transport.quic.engine import Datagrams
from actors.transport.quic.native_engine.own_packets import OwnPackets
from actors.transport.quic.packet_size import frame_payload

#: Heard during a hold, beyond twice the connection window, which streams may fill.
HELD_BYTES: Final = 1024 * 1024


class DatagramFrames(OwnPackets):
    """The part of `NativeEngine` that has to do with them; see there for the arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Those since the last `events`; the same list as in the event.
        self._datagrams: list[bytes] = []
        self._heard_held = 0

    @property
    def largest_datagram(self) -> int:
        """See `Engine`; larger sizes that the core of a client finds are not used."""
        return frame_payload(
            self._sending.datagram, len(self._cids.peers or b""), self._datagram_frame
        )

    @property
    def datagram_room(self) -> int:
        if not self._established or self._search is not None or self._closed_reported:
            return 0
        room: int = self._core.congestion_window - self._core.bytes_in_flight
        return max(0, room)

    def send_datagram(self, data: bytes) -> None:
        self._core.send_datagram(data)

    def _take_datagram(self, data: bytes) -> None:
        if self._closed_reported:
            return
        if not self._datagrams:
            self._events.append(Datagrams(self._datagrams))
        self._datagrams.append(data)

    def _swamped(self, count: int) -> bool:
        """True when `count` bytes more are too many to keep."""
        if not self._flow.held:
            self._heard_held = 0
            return False
        if not self._settings.max_datagram_frame:
            return False  # streams have limits
        self._heard_held += count
        return self._heard_held > 2 * self._settings.connection_window + HELD_BYTES
