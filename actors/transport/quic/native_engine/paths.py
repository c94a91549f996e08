"""Names for the peer's addresses towards the packet core.

The core validates an address that is new to it and moves there; to an address it has seen it never
goes back, so a peer whose NAT mapping returns would be lost. A way back therefore gets a new name,
and is validated like any other. An address is its own name the first time.

The core keeps four paths per connection and forgets none: there can be three moves.
"""

from __future__ import annotations

from actors.transport.quic.engine import Address

#: Silence of the current address before an earlier address counts as a way back to it; before that
#: its packets were merely overtaken.
RETURN_SILENCE_SECONDS = 1.0


class PeerAddresses:
    """The addresses of one connection's peer."""

    __slots__ = ("_current", "_heard", "_name", "_names", "_real")

    def __init__(self, address: Address, now: float) -> None:
        self._current = self._name = address
        self._heard = now
        self._names: dict[Address, Address] = {address: address}
        self._real: dict[Address, Address] = {}

    def name(self, address: Address, now: float) -> Address:
        """What the core is told about the source of a datagram."""
        if address == self._current:
            self._heard = now
            return self._name
        known = self._names.get(address)
        if known is not None and now - self._heard < RETURN_SILENCE_SECONDS:
            return known
        name = address
        if known is not None:
            number = len(self._real) + 1
            name = ("::", number, 0, 0) if ":" in address[0] else ("0.0.0.0", number)
            self._real[name] = address
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
