"""`Engine` over the packet core: its events in our words, and our calls in its."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.engine import (
    Address,
    CidIssued,
    CidRetired,
    Closed,
    Drained,
    Event,
    Finished,
    PathStatistics,
    Reset,
    StopSending,
    StreamCredit,
)
from actors.transport.quic.native_engine.datagram_frames import DatagramFrames
from actors.transport.quic.native_engine.gathering import Gathering
from actors.transport.quic.native_engine.packets import PacketNumberLost
from actors.transport.quic.native_engine.path_search import LONG_HEADER
from actors.transport.quic.native_engine.tls import VERSION_1
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

_INTERNAL_ERROR = 1
_PROTOCOL_VIOLATION = 0x0A
_FLOW_CONTROL_ERROR = 3
_STREAM_FRAME = 8
_PADDING_FRAME = 0
#: Packets under one AEAD key before a key update; the limit of AES-GCM is 2^23 (RFC 9001 6.6).
KEY_UPDATE_PACKETS = 1 << 22
#: Longest reason phrase: a CONNECTION_CLOSE has to fit into the smallest datagram.
MAX_REASON_BYTES = 512
#: The core's words for a frame that does not fit.
NO_ROOM = "packet builder capacity exhausted"
_DATA_AND_ADDRESS = itemgetter(0, 1)


class NativeEngine(DatagramFrames):
    """`Engine` over qh3's packet core.

    Args:
        settings: limits and timers.
        identity: what we present.
        alpn: protocols offered or accepted.
        client: our side.
        peer_policy: who shows a certificate.
        server_name: SNI of a client.
        original_destination_cid: what the client chose first; made up by a client without it.
        retry_source_cid: servers: our id in the Retry packet, when there was one.
        reset_token: servers: the stateless reset token of a connection id of ours.
    """

    name = "native"

    def __init__(
        self,
        settings: QuicSettings,
        identity: TlsIdentity,
        alpn: tuple[str, ...],
        *,
        client: bool,
        peer_policy: PeerPolicy = PeerPolicy.MUTUAL,
        server_name: str | None = None,
        original_destination_cid: bytes | None = None,
        retry_source_cid: bytes | None = None,
        reset_token: Callable[[bytes], bytes] | None = None,
    ) -> None:
        super().__init__(
            settings,
            identity,
            alpn,
            client=client,
            peer_policy=peer_policy,
            server_name=server_name,
            original_destination_cid=original_destination_cid,
            retry_source_cid=retry_source_cid,
            reset_token=reset_token,
        )
        self._pings = 0
        self._key_packets = 0
        #: Streams whose receive half brought its FIN or RESET.
        self._receive_ended: set[int] = set()
        #: Streams with bytes that the core has not sent yet.
        self._in_core: dict[int, None] = {}
        self._gathering = Gathering()
        #: Name of the address that something came from last.
        self._sender: Address | None = None

    @property
    def peer_address(self) -> Address | None:
        """Where datagrams go now."""
        if self._core is None or self._addresses is None:
            return None
        return self._addresses.real(self._core.active_path[2])

    @property
    def round_trip(self) -> float:
        """Smoothed RTT."""
        return 0.0 if self._core is None else self._core.smoothed_rtt or 0.0

    @property
    def path(self) -> PathStatistics:
        """The path as congestion control sees it."""
        core = self._core
        if core is None:
            return PathStatistics(0, 0, 0)
        return PathStatistics(core.congestion_window, core.bytes_in_flight, core.loss_total)

    @property
    def terminated(self) -> bool:
        """True once nothing will be sent or received any more."""
        return self._terminated

    @property
    def held(self) -> bool:
        """True while the connection's limit keeps events in the core."""
        return self._flow.held

    # Datagrams.

    def receive(self, data: bytes, address: Address, now: float) -> None:
        """Take one datagram."""
        if self._search is not None:
            self._hear_in_search(data, address, now, len(data))
        elif self._established:
            if self._swamped(len(data)):
                return
            name = self._name(address, now)
            self._core.receive_datagram(data, name, now)
            self._heard(name, len(data), now)
        else:
            self._receive_first(data, address, now)

    def receive_many(self, datagrams: Sequence[bytes], address: Address, now: float) -> None:
        """Take datagrams of one sender, oldest first."""
        if self._established and self._search is None:
            size = sum(map(len, datagrams))
            if self._swamped(size):
                return
            name = self._name(address, now)
            self._core.receive_many_datagrams(list(datagrams), name, now)
            self._heard(name, size, now)
            return
        for data in datagrams:
            self.receive(data, address, now)

    def receive_segments(self, buffer: bytes, size: int, address: Address, now: float) -> None:
        """Take datagrams of one sender that lie in one buffer, `size` bytes each but the last."""
        if self._established and self._search is None:
            if self._swamped(len(buffer)):
                return
            name = self._name(address, now)
            self._core.receive_gro_buffer(buffer, size, name, now)
            self._heard(name, len(buffer), now)
            return
        for start in range(0, len(buffer), size):
            self.receive(buffer[start : start + size], address, now)

    def _heard(self, name: Address, count: int, now: float) -> None:
        """Events stay in the core until they are asked for: what comes together is one `Data`."""
        if name != self._sender:
            self._sender = name
            self._pump()  # the core may say that it is a new address
        if self._challenge is not None:
            self._challenge.heard(name, count, now)
        if self._farewell is not None:
            self._farewell.heard()

    def take_stateless_reset(self, data: bytes, address: Address, now: float) -> bool:
        """The core compares tokens itself."""
        if not self._established or self._terminated:
            return False
        self._core.receive_datagram(data, self._name(address, now), now)
        self._pump()
        return self._terminated

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Datagrams to send."""
        if self._core is None or self._terminated:
            return []
        if self._search is not None:
            searching: list[tuple[bytes, Address]] = []
            try:
                searching = self._transmit_in_search(now)
            except PacketNumberLost as error:
                self._packets_lost(error)
            if self._search is not None:
                return self._really(searching)
        core = self._core
        # Consumption may have ended a hold: the core's credit leaves with these datagrams.
        self._pump()
        result: list[tuple[bytes, Address]] = []
        # First what the core has: acknowledgements, repetitions, the rest of the last round.
        self._poll(now, result)
        self._sending.acknowledged(core)
        held = self._flow.held  # then news of limits are held back, too: let the core apply them
        while not self._sending.idle and (held or not self._in_core) and not self._closed_reported:
            fed = self._sending.feed(core, trust_limits=not held)
            if not fed:
                break
            self._in_core.update(dict.fromkeys(fed))
            self._poll(now, result)
        if result and self._first_flight:
            result = self._without_bare_probes(result)
        if result:
            self._count(result)
            self._watch(result, now)
        if self._packets is not None:
            self._add_own_packets(result, now)
        if self._farewell is not None:
            # First: a server that can read both shall see the code of the application.
            result[:0] = self._farewell.take()
        if self._succeeded and not self._closed_reported:
            result = [sent for sent in result if sent[0][0] >= LONG_HEADER]
        return self._really(result)

    def _really(self, datagrams: list[tuple[bytes, Address]]) -> list[tuple[bytes, Address]]:
        """With the addresses that the core's names stand for."""
        addresses = self._addresses
        if addresses is None or not addresses.renamed:
            return datagrams
        return [(data, addresses.real(name)) for data, name in datagrams]

    def _poll(self, now: float, result: list[tuple[bytes, Address]]) -> None:
        """Every datagram the core may send now, and what that means for the backlog."""
        core = self._core
        try:
            # Without a line of Python per datagram; what came before an error is kept.
            result.extend(map(_DATA_AND_ADDRESS, iter(partial(core.poll_transmit, now), None)))
        except RuntimeError as error:
            # The next frame is larger than an address may be sent that is not validated: it waits.
            if str(error) != NO_ROOM:
                raise
        except ValueError as error:
            # A stream ended under a reserved frame: the core lost track.
            self.close(_INTERNAL_ERROR, str(error), application=False)
            return
        in_core = self._in_core
        if not in_core:
            return
        # One question for all streams, in the usual case that nothing is left.
        empty = not core.get_send_buffer_size()
        for stream_id in list(in_core):
            count = self._sending.sent(core, stream_id, empty=empty)
            if count:
                self._events.append(Drained(stream_id, count))
            if empty or not self._sending.in_core(stream_id):
                del in_core[stream_id]

    def _watch(self, result: list[tuple[bytes, Address]], now: float) -> None:
        """End the connection when what is sent has no effect; the close leaves with the rest."""
        if self._closed_reported:
            return
        missing = self._effect.missing(self._core, [len(data) for data, _ in result], now)
        if missing is not None:
            self.close(*missing, application=False)
            self._poll(now, result)

    def _count(self, datagrams: list[tuple[bytes, Address]]) -> None:
        self._datagrams_sent += len(datagrams)
        self._key_packets += len(datagrams)
        if self._key_packets >= KEY_UPDATE_PACKETS:
            try:
                self._core.request_key_update()
            except (RuntimeError, ValueError):
                return  # the last update is not acknowledged yet: asked again next time
            self._key_packets = 0

    def next_timer(self) -> float | None:
        """When to call `handle_timer`."""
        if self._core is None or self._terminated:
            return None
        timer, repeat = self._core.get_timer(), self._flow.next_timer()
        if self._search is not None:
            repeat = self._search.wakes_at
        if timer is None or (repeat is not None and repeat < timer[1]):
            return repeat
        when: float = timer[1]
        return when

    def handle_timer(self, now: float) -> None:
        """The time came."""
        if self._core is not None and not self._terminated:
            timer = self._core.get_timer()
            if timer is not None and timer[1] <= now:
                self._core.handle_timer(now)
                if self._core.pto_count:
                    self._check_packets()
            self._flow.handle_timer(now)
            self._pump_in_search(now)
            self._pump()

    def ping(self) -> None:
        """Queue a PING."""
        if self._core is not None and not self._closed_reported and self._search is None:
            self._pings += 1
            self._core.send_ping(self._pings)

    def close(self, code: int, text: str, *, application: bool) -> None:
        """Queue a CONNECTION_CLOSE."""
        if self._closed_reported:
            return
        self._search = None
        if self._core is None:
            self._terminated = True
        else:
            frame = None if application else _PADDING_FRAME
            self._close_core(code, frame, text.encode()[:MAX_REASON_BYTES])
        self._report_closed(Closed(code, application, text, peer=False, idle=False))

    # Events.

    def events(self) -> list[Event]:
        """What happened since the last call."""
        if self._established and self._search is None:
            self._pump()
        self._gathering.settle()
        result, self._events, self._datagrams = self._events, [], []
        return result

    def _pump(self) -> None:
        """Take events out of the core while the limits allow it."""
        flow, core = self._flow, self._core
        next_event, gathering = core.next_event, self._gathering
        room, arrived, ended = flow.room, dict[int, int](), list[int]()
        while self._search is None and (room >= 0 or core.state != "connected"):
            native = next_event()
            if native is None:
                break
            if native[0] == "stream_data":
                if self._closed_reported:
                    continue
                _, stream_id, data, end = native
                size = len(data)
                room -= size
                arrived[stream_id] = arrived.get(stream_id, 0) + size
                if end:
                    ended.append(stream_id)
                if event := gathering.take(stream_id, data, size, end=end):
                    self._events.append(event)
            elif native[0] == "datagram":
                self._take_datagram(native[1])
            else:
                self._account(arrived, ended)
                self._take(native)
                room = flow.room
        self._account(arrived, ended)

    def _account(self, arrived: dict[int, int], ended: list[int]) -> None:
        """Count what was taken out of the core, by stream, and empty both."""
        for stream_id, count in arrived.items():
            if not self._flow.received(stream_id, count):
                self._refuse_excess()
                break
        for stream_id in ended:
            self._receive_ended.add(stream_id)
            self._flow.ended(stream_id)
        arrived.clear()
        ended.clear()

    def _refuse_excess(self) -> None:
        """The peer sent beyond a stream's limit."""
        text = "more than the stream's limit"
        self._close_core(_FLOW_CONTROL_ERROR, _STREAM_FRAME, text.encode())
        self._report_closed(Closed(_FLOW_CONTROL_ERROR, False, text, peer=False, idle=False))

    def _take(self, native: tuple[Any, ...]) -> None:
        kind = native[0]
        if kind == "crypto_data":
            self._take_crypto(native[3])
        elif kind == "handshake_done":
            self._confirmed = True
            self._core.handshake_confirmed()
        elif kind == "stream_finished":
            self._events.append(Finished(native[1]))
        elif kind == "peer_closed":
            text = native[4].decode("utf-8", "replace")
            self._report_closed(Closed(native[2], native[1], text, peer=True, idle=False))
        elif kind == "protocol_error":
            self._report_closed(Closed(native[1], False, native[3], peer=False, idle=False))
        elif kind == "connection_terminated":
            self._take_termination(native[1], native[3])
        elif self._closed_reported:
            return
        elif kind == "stream_reset":
            # A RESET after everything was delivered changes nothing (RFC 9000 section 3.2).
            if native[1] not in self._receive_ended:
                self._receive_ended.add(native[1])
                self._flow.ended(native[1])
                self._events.append(Reset(native[1], native[2]))
        elif kind == "stop_sending":
            self._sending.drop(native[1])
            self._in_core.pop(native[1], None)
            self._events.append(StopSending(native[1], native[2]))
        elif kind == "streams_available":
            if not native[1]:
                self._events.append(StreamCredit())
        elif kind == "stream_credit":
            self._sending.stream_credit(native[1], native[2])
        elif kind == "connection_credit":
            self._sending.connection_credit(native[1])
        elif kind == "peer_blocked":
            if native[1] is not None:
                self._flow.asked(native[1])
        elif kind == "path_validated":
            # What was sent on the old path is not probed for; an acknowledgement from the new one
            # lets the core find it lost.
            self._proven()
            self.ping()
        elif kind == "peer_migration":
            self._moved()
        elif kind == "connection_id_issued" and not self._succeeded:
            self._events.append(CidIssued(native[1]))
        elif kind == "connection_id_retired":
            self._events.append(CidRetired(native[1]))
        elif kind == "version_negotiation" and VERSION_1 not in native[1]:
            self._terminated = True
            text = "Could not find a common protocol version"
            self._report_closed(Closed(_INTERNAL_ERROR, False, text, peer=False, idle=False))

    def _take_termination(self, code: int, reason: bytes) -> None:
        """The core is through: the closing period ended, nothing was heard, or a reset came."""
        self._terminated = True
        if code == _INTERNAL_ERROR and reason == b"Idle timeout":
            self._report_closed(Closed(0, False, "", peer=False, idle=True))
        else:
            self._report_closed(Closed(code, False, "stateless reset", peer=True, idle=False))

    # Streams.

    @property
    def streams_allowed(self) -> int:
        return 0 if self._core is None else int(self._core.stream_limits[0])

    def open_stream(self) -> int | None:
        """A new stream, unless the peer's limit is reached."""
        if self._core is None or self._closed_reported:
            return None
        limits = self._core.stream_limits
        if limits[2] >= limits[0]:
            return None
        stream_id: int | None = self._tell("open_stream", False)  # not unidirectional
        return stream_id

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, end: bool) -> None:
        """Queue bytes."""
        if self._closed_reported:
            return
        if self._core.can_send_stream(stream_id):
            self._sending.write(stream_id, data, end=end)

    def reset(self, stream_id: int, code: int) -> None:
        """Reset our sending half."""
        self._sending.drop(stream_id)
        self._in_core.pop(stream_id, None)
        if self._closed_reported:
            return
        try:
            self._tell("reset_stream", stream_id, code)
        except ValueError:
            return  # both halves are finished

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop."""
        if self._closed_reported or stream_id in self._receive_ended:
            return
        try:
            self._tell("stop_sending", stream_id, code)
        except ValueError:
            return  # both halves are finished

    def consume(self, stream_id: int, count: int) -> bool:
        """Move the stream's limit, and the connection's; announced with the next `transmit`."""
        flow = self._flow
        held = flow.held
        flow.consumed(stream_id, count)
        return flow.due or (held and not flow.held)

    def release_credit(self, stream_id: int) -> None:
        """The receive half is closed: what it holds counts no more."""
        self._flow.release_credit(stream_id)

    def forget(self, stream_id: int) -> None:
        """Both halves are finished: drop our book-keeping."""
        self._flow.forget(stream_id)
        self._sending.drop(stream_id)
        self._in_core.pop(stream_id, None)
        self._receive_ended.discard(stream_id)

    def backlog(self, stream_id: int) -> int:
        """Bytes that were not sent for the first time yet."""
        return self._sending.backlog(stream_id)
