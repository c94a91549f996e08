"""Names for the peer's addresses towards the packet core.

The core validates an address that is new to it and moves there; to an address it has seen it never
goes back, so a peer whose NAT mapping returns would be lost. A way back therefore gets a new name,
and is validated like any other. An address is its own name the first time. The core keeps four
paths per connection and forgets none: there can be three moves.
"""

from __future__ import annotations

from actors.transport.quic.engine import Address

#: Silence of the current address before an earlier address counts as a way back to it; before that
#: its packets were merely overtaken.
RETURN_SILENCE_SECONDS = 1.0


class PeerAddresses:
    """The addresses of one connection's peer: at most as many as the core has paths."""

    __slots__ = ("_candidate", "_current", "_heard", "_name", "_names", "_real", "_ways_back")

    def __init__(self, address: Address, now: float) -> None:
        self._current = self._name = address
        self._heard = now
        self._names: dict[Address, Address] = {address: address}
        self._real: dict[Address, Address] = {}
        self._ways_back = 0
        #: What was named last, and when: nothing is kept of it before it was authentic.
        self._candidate = (address, address, now)

    def name(self, address: Address, now: float) -> Address:
        """What the core is told about the source of a datagram; anybody may have sent it."""
        if address == self._current:
            self._heard = now
            return self._name
        known = self._names.get(address)
        if known is not None and now - self._heard < RETURN_SILENCE_SECONDS:
            return known
        name = address
        if known is not None:
            number = self._ways_back + 1
            name = ("::", number, 0, 0) if ":" in address[0] else ("0.0.0.0", number)
            self._real[name] = address
        self._candidate = address, name, now
        return name

    def moved(self) -> Address:
        """What came from the address named last was authentic. Returns its name."""
        address, name, now = self._candidate
        if name != address:
            self._ways_back += 1
        self._names[address] = name
        self._current, self._name, self._heard = address, name, now
        return name

    @property
    def renamed(self) -> bool:
        """True when a name is not the address."""
        return bool(self._real)

    def real(self, name: Address) -> Address:
        """Where a datagram of the core really goes."""
        return self._real.get(name, name)
