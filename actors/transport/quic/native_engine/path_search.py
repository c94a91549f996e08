"""How large a server's datagrams may be: found out before its core sends the first of them.

The packet core searches on clients only, and a server's core keeps the size that it was made with.
So after the handshake, and before anything else, a server sends PINGs that are padded to the sizes
in question, and one that is not. The core of the handshake keeps account of them: it makes the
PINGs, whose packets are sealed again with padding and the same number, and it says which were
acknowledged. What it makes besides is not sent, and what the client sends is kept. When it is known
what arrives a core of that size takes over, with the keys, the next packet number, and what the
client sent meanwhile (`succession`).

That takes a round trip; where a size does not arrive, two and a half; where nothing arrives, about
a second. The search is not repeated: what is lost later is seen by `effect`.

Source: RFC 8899; RFC 9000 section 14.3.
"""

from __future__ import annotations

from typing import Any, Final

from actors.transport.quic.engine import Address
from actors.transport.quic.native_engine.packets import PacketMaker

#: Sizes that are tried, bytes of UDP payload: those of the core of a client.
SIZES: Final = (1350, 1452, 1472)
#: Rounds of probes: of a size while others arrive, and in all.
MAX_ANSWERED: Final = 2
MAX_ROUNDS: Final = 3
#: Longest wait for answers, in round trips, and what a client may wait before it answers, seconds.
ROUND_TRIPS: Final = 3
ACK_DELAY: Final = 0.025
#: What arrives so many round trips after others was overtaken, not lost; and seconds, at least.
OVERTAKEN: Final = 0.25
OVERTAKEN_SECONDS: Final = 0.005
#: Kept of the client meanwhile; overflow: the newest is dropped, and the client sends it again.
MAX_HELD: Final = 128
#: PINGs of others have smaller names.
_FIRST_PING: Final = 1 << 32
LONG_HEADER: Final = 0x80


class PathSearch:
    """The search of one connection.

    Args:
        core: that of the handshake, with all keys.
        packets: makes packets beside it.
        base: the size that every path carries.
        ceiling: largest size that may be tried.
    Attributes:
        size: the largest that arrived, so far.
        held: what the client sent, with its source.
        wakes_at: when `transmit` has something to do, or `settled` becomes true.
    """

    def __init__(self, core: Any, packets: PacketMaker, base: int, ceiling: int) -> None:
        self.size = base
        self.held: list[tuple[bytes, Address]] = []
        self.wakes_at = 0.0
        self._core = core
        self._packets = packets
        self._sizes = [size for size in SIZES if base < size <= ceiling]
        #: Size of the PINGs under way, by their names.
        self._pings: dict[int, int] = {}
        self._name = _FIRST_PING
        self._rounds = self._answered = 0
        self._answer = False

    def hold(self, data: bytes, source: Address) -> None:
        """The client sent this."""
        if len(self.held) < MAX_HELD:
            self.held.append((data, source))

    def acknowledged(self, name: int, now: float) -> None:
        """The PING of that name arrived."""
        size = self._pings.pop(name, None)
        if size is None:
            return
        self.size = max(self.size, size)
        self._sizes = [larger for larger in self._sizes if larger > self.size]
        if not self._answer:
            self._answer = True
            self._answered += 1
            wait = max(OVERTAKEN * (self._core.smoothed_rtt or 0.0), OVERTAKEN_SECONDS)
            self.wakes_at = min(self.wakes_at, now + wait)

    def stop(self) -> None:
        """What is known has to do."""
        self._sizes.clear()

    def settled(self, now: float) -> bool:
        """True when `size` is final."""
        if not self._sizes:
            return True
        over = self._answered >= MAX_ANSWERED or self._rounds >= MAX_ROUNDS
        return over and now >= self.wakes_at

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Datagrams to send: of the handshake, and probes.

        Raises:
            PacketNumberLost: see `PacketMaker`.
        """
        result: list[tuple[bytes, Address]] = []
        self._poll(result, now)
        if now < self.wakes_at:
            return result
        self._rounds += 1
        self._answer = False
        self.wakes_at = now + ROUND_TRIPS * (self._core.smoothed_rtt or 0.1) + ACK_DELAY
        for size in (0, *self._sizes):
            self._name += 1
            self._pings[self._name] = size
            self._core.send_ping(self._name)
            address = self._poll(result, now)
            if address is not None:
                result.append((self._packets.padded(size), address))
        return result

    def _poll(self, result: list[tuple[bytes, Address]], now: float) -> Address | None:
        """What the core has to send; where the last of its 1-RTT packets should have gone."""
        address = None
        while (datagram := self._core.poll_transmit(now)) is not None:
            if datagram[0][0] & LONG_HEADER:
                result.append((datagram[0], datagram[1]))
            else:
                address = datagram[1]
                self._packets.sent(datagram[0], 1)
        return address
