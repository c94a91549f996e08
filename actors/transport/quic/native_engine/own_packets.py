"""The packets that the native engine sends beside those of the core, and why.

Limits that consumption moved; a small packet when what the core repeats is larger than what every
path carries, as its acknowledgement shows that only they are lost; the proof of a new address, when
the core's only PATH_CHALLENGE was lost.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from actors.transport.quic.engine import Address
from actors.transport.quic.native_engine.challenge import Challenge, challenge_in
from actors.transport.quic.native_engine.effect import Effect
from actors.transport.quic.native_engine.flow import ReceiveFlow
from actors.transport.quic.native_engine.packets import PING, PacketNumberLost
from actors.transport.quic.native_engine.succession import CoreSuccession

_INTERNAL_ERROR = 1
_PROTOCOL_VIOLATION = 0x0A
#: Frames of one packet of stream credit: with everything else it fits into any datagram.
_CREDIT_BYTES = 1024
_LONG_HEADER = 0x80


class OwnPackets(CoreSuccession):
    """The part of `NativeEngine` that makes them; see there for the arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = self._settings
        self._flow = ReceiveFlow(settings.stream_window, settings.connection_window)
        self._effect = Effect(settings.max_datagram)
        #: While the core does not trust the address that the peer moved to.
        self._challenge: Challenge | None = None

    @abstractmethod
    def close(self, code: int, text: str, *, application: bool) -> None:
        """Queue a CONNECTION_CLOSE."""

    def _moved(self) -> None:
        """An authentic packet came from a new address: the core sends a challenge there."""
        assert self._addresses is not None
        self._challenge = Challenge(self._addresses.moved())

    def _proven(self) -> None:
        """The core trusts an address, and uses it."""
        if self._challenge is not None and self._core.active_path[2] == self._challenge.name:
            self._challenge = None

    def _add_own_packets(self, result: list[tuple[bytes, Address]], now: float) -> None:
        """Put packets of our own behind those of the core."""
        packets, core, flow, effect = self._packets, self._core, self._flow, self._effect
        assert packets is not None
        challenge = self._challenge
        try:
            if challenge is not None:
                self._watch_challenge(challenge, result, now)
            elif self._confirmed:  # there are no other keys
                if result:
                    packets.sent(result[-1][0], len(result))
            else:
                for datagram, _ in result:
                    if datagram[0] < _LONG_HEADER:
                        packets.sent(datagram, 1)
            packets.follow_phase(core.send_key_phase)
            due = flow.due or effect.repeats_large or (challenge is not None and challenge.due)
            if not due or not packets.ready or core.state != "connected":
                return
            address = core.active_path[2]
            if challenge is not None and challenge.due:
                result.append((packets.packet(challenge.frame, challenge.cid), challenge.name))
                challenge.sent(now, core.smoothed_rtt or 0.0)
            if effect.repeats_large:
                effect.repeats_large = False
                result.append((packets.packet(PING), address))
            while flow.due:
                frames = flow.frames(now, core.smoothed_rtt or 0.0, _CREDIT_BYTES)
                result.append((packets.packet(frames), address))
        except PacketNumberLost as error:
            self._packets_lost(error)

    def _watch_challenge(
        self, challenge: Challenge, result: list[tuple[bytes, Address]], now: float
    ) -> None:
        """Learn what the core sent to the address that is not proven."""
        packets, core = self._packets, self._core
        assert packets is not None
        for datagram, name in result:
            if datagram[0] < _LONG_HEADER:
                packets.sent(datagram, 1)
                if name == challenge.name:
                    packets.follow_phase(core.send_key_phase)
                    frame = challenge_in(packets.open_last())
                    if frame:
                        challenge.frame, challenge.cid = frame, packets.last_cid
                        challenge.sent(now, core.smoothed_rtt or 0.0)

    def _check_packets(self) -> None:
        """Nothing is acknowledged: are packets what they are believed to be?"""
        if self._packets is not None:
            try:
                self._packets.open_last()
            except PacketNumberLost as error:
                self._packets_lost(error)

    def _packets_lost(self, error: PacketNumberLost) -> None:
        if self._cids.peers == b"":
            # Nothing else makes packets that do not open, and the core does not refuse it.
            text = "a connection id of a client that has none"
            self.close(_PROTOCOL_VIOLATION, text, application=False)
        else:
            self.close(_INTERNAL_ERROR, f"packet number: {error}", application=False)
