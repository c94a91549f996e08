"""The second core of a server's connection: as large in its datagrams as the path carries.

See `path_search`. Between the two cores the connection is established, and nothing of its streams
is known: neither does the peer hear of them, nor the user.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from actors.transport.quic.engine import Address
from actors.transport.quic.native_engine.core import apply_parameters, install_keys, open_core
from actors.transport.quic.native_engine.handshake import (
    APPLICATION_SPACE,
    INITIAL_EPOCH,
    NativeHandshake,
)
from actors.transport.quic.native_engine.path_search import PathSearch
from actors.transport.quic.native_engine.paths import PeerAddresses

#: Events of the first core that end the search. Like all of its events they come again with the
#: second, behind what came before them.
_ENDS = frozenset({"crypto_data", "peer_closed", "protocol_error"})
#: States of a core that takes no orders any more.
_OVER = frozenset({"closing", "draining", "terminated"})


class CoreSuccession(NativeHandshake):
    """The part of `NativeEngine` between the handshake and the streams."""

    def _begin_search(self) -> None:
        settings, packets = self._settings, self._packets
        assert self._parameters is not None
        assert packets is not None
        largest = self._parameters.max_udp_payload_size or settings.max_probed
        ceiling = min(settings.max_probed, largest)
        self._search = PathSearch(self._core, packets, settings.max_datagram, ceiling)

    def _tell(self, name: str, *arguments: object) -> Any:
        """Call a method of the core, and of its successor; nothing (None) once it closes.

        Raises:
            ValueError: the core's.
        """
        if self._core.state in _OVER:
            return None  # for what came from the peer; the event has not been asked for yet
        if self._succeeded:
            self._told.append((name, arguments))
        return getattr(self._core, name)(*arguments)

    def _hear_in_search(
        self, packet: bytes, address: Address, now: float, datagram_bytes: int
    ) -> None:
        search = self._search
        assert search is not None
        search.hold(packet, address)
        self._core.receive_datagram(packet, self._name(address, now), now, datagram_bytes)
        self._pump_in_search(now)

    def _pump_in_search(self, now: float) -> None:
        while self._search is not None and (native := self._core.next_event()) is not None:
            if native[0] == "ping_acknowledged":
                self._search.acknowledged(native[1], now)
            elif native[0] in _ENDS:
                self._search.stop()
            elif native[0] == "connection_terminated":
                self._take(native)

    def _transmit_in_search(self, now: float) -> list[tuple[bytes, Address]]:
        """Datagrams to send; another core goes on when the search is over."""
        search = self._search
        assert search is not None
        if not search.settled(now):
            return search.transmit(now)
        self._search, self._succeeded = None, False
        self._succeed(search, now)
        return []

    def _succeed(self, search: PathSearch, now: float) -> None:
        first, packets, parameters = self._core, self._packets, self._parameters
        assert self._addresses is not None
        assert packets is not None
        assert parameters is not None
        address = self._addresses.real(first.active_path[2])
        self._addresses = PeerAddresses(address, now)
        core = open_core(
            replace(self._settings, max_datagram=search.size),
            self._cids,
            self._cids.peers or b"",
            address,
            now,
            client=False,
            validated=True,
            round_trip=first.smoothed_rtt,
        )
        for keys in self._one_rtt:
            install_keys(core, keys)
        self._one_rtt.clear()
        core.discard_keys(INITIAL_EPOCH)
        apply_parameters(core, parameters)
        packets.serve(partial(core.restore_send_packet_number, APPLICATION_SPACE))
        core.handshake_complete()
        self._core = core
        self._sending.datagram = search.size
        for name, arguments in self._told:
            with suppress(ValueError):  # as the first core was told: both halves are finished
                getattr(core, name)(*arguments)
        self._told.clear()
        for packet, source in search.held:
            core.receive_datagram(packet, self._name(source, now), now)
