"""One local TCP connection and its stream, once both are there: the pump, and the end.

The openings of the two sides are `consumer_bridge` and `provider_bridge`.

Source: protocol sheet ORP 3.4.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from actors.runtime import Actor, MailboxSpec, handles, shutdown
from actors.transport.addresses import address_text, host_and_port
from actors.transport.stream import Stream
from actors.transport.tcp.pump import StreamPump
from actors.transport.tls import TlsIdentity
from tools.agent.forward_tunnel import ForwardTunnel
from tools.agent.forwarded import LINGER, Forwarded
from tools.agent.resumable import ResumableStream
from tools.agent.settings import AgentSettings
from tools.agent.stream_table import StreamTable
from wire.orp.close_codes import ResetCode
from wire.orp.messages import AllocGranted, StreamTerms


def _address(name: object) -> str:
    if not isinstance(name, tuple) or len(name) < 2:
        return ""
    return address_text(*host_and_port(name))


class _Linger:
    """Both directions of a tunnel are done, and the last acknowledgements had their time."""

    __slots__ = ()


class _RelayOver:
    """The relay's stream of a forward stream ended a while ago."""

    __slots__ = ()


class Bridge(Actor, ABC):
    """What both directions share: a socket, a stream, a pump."""

    mailbox = MailboxSpec(bound=16)
    handler_limit = 120.0
    #: Seconds a stream waits whose path was lost while it was opened; None: as any other.
    patience: float | None = None

    def __init__(self, settings: AgentSettings, table: StreamTable) -> None:
        self._settings = settings
        self._table = table
        self._stream: Stream | None = None
        self._sock: socket.socket | None = None
        self._pump: StreamPump | None = None
        self._service = ""
        self._stream_id = 0
        self._peer_uri = ""
        self._phase = "opening"
        self._local = ""
        self._remote = ""
        self._early = bytearray()  # delivered and not consumed: bounded by the stream window
        self._early_eof = False
        self._broken = False
        self._path_lost = False
        self._forwarded: Forwarded | None = None

    def describe(self) -> dict[str, object]:
        """Service, stream id, local socket and bytes."""
        pump, stream = self._pump, self._stream
        return {
            "phase": self._phase,
            "relay_mode": "splice" if self._forwarded is None else "forward",
            "service": self._service,
            "stream_id": f"{self._stream_id:016x}",
            "peer": self._peer_uri,
            "local_address": self._local,
            "local_peer": self._remote,
            "bytes_from_socket": pump.bytes_in if pump else 0,
            "bytes_to_socket": pump.bytes_out if pump else 0,
            "stream_bytes_in": stream.bytes_in if stream else 0,
            "stream_bytes_out": stream.bytes_out if stream else 0,
            "resumes": stream.resumes if isinstance(stream, ResumableStream) else 0,
            "parked": isinstance(stream, ResumableStream) and stream.parked,
        }

    def _take_socket(self, sock: socket.socket) -> bool:
        """False when the other end has reset it already."""
        self._sock = sock
        try:
            self._local = _address(sock.getsockname())
            self._remote = _address(sock.getpeername())
        except OSError:
            return False
        return True

    def _couple(self, first: Callable[[bytes], bool] | None = None) -> None:
        """Begin to pump.

        Args:
            first: see `StreamPump`.
        """
        assert self._sock is not None
        assert self._stream is not None
        self._phase = "bridged"
        if self._stream_id and self._forwarded is None:
            self._stream = ResumableStream(
                self._stream, self._stream_id, self._table, received=len(self._early)
            )
            self._stream.peer = self._peer_uri
            self._stream.terms = self._terms() if self._peer_uri else None
            if self._broken:
                self._stream.patience = self.patience
                self._stream.park()
        self._pump = StreamPump(
            self._sock,
            self._stream,
            on_end=self._ended,
            guard=self.guard,
            first=first,
            code=ResetCode.SOURCE_FAILED,
        )
        self.own(self._pump, "pump")
        self._pump.start(bytes(self._early), ended=self._early_eof)
        self._early.clear()

    @abstractmethod
    def _terms(self) -> StreamTerms:
        """What the stream was opened for; our own URI is left empty."""

    def _ended(self, why: str) -> None:
        self._phase = "ended"
        if why or self._forwarded is None or self._forwarded.tunnel.closed:
            self.stop(shutdown(why or "done"))
        else:
            self.start_timer(LINGER, _Linger())

    async def _tunnel(self, granted: AllocGranted, peer_uri: str) -> None:
        """From now on the stream is the tunnel's, and the relay's stream only tells of its life.

        Raises:
            TunnelFailed: it did not come up.
        """
        assert self._stream is not None
        settings, relay_stream = self._settings, self._stream
        self._phase = "opening the tunnel"
        identity = TlsIdentity.load(
            Path(settings.certificate), Path(settings.key), Path(settings.ca)
        )
        tunnel = ForwardTunnel(
            identity, granted, self.guard, peer_uri=peer_uri, provider=self._peer_uri
        )
        self._forwarded = self.own(
            Forwarded(relay_stream, tunnel, self._relay_over, self.guard), "tunnel"
        )
        relay_stream.consume(len(self._early))
        self._early.clear()
        self._early_eof = False
        self._stream = await tunnel.open()

    def _relay_over(self) -> None:
        """The other agent is done, or gone. Without tunnel: at once; else what came may finish."""
        if self._pump is None and self._forwarded is not None:
            self._forwarded.tunnel.abort()  # and `open` fails
        elif self._phase == "bridged":
            self.start_timer(2 * LINGER, _RelayOver())

    @handles(_Linger)
    def _lingered(self, _: _Linger) -> None:
        assert self._forwarded is not None
        self._forwarded.close()
        self.stop(shutdown("done"))

    @handles(_RelayOver)
    def _relay_is_over(self, _: _RelayOver) -> None:
        """Nothing passes the tunnel any more; what arrived completely still goes to the socket."""
        stream = self._stream
        if self._phase != "bridged" or stream is None:
            return
        if not (stream.read_closed and stream.write_closed and not stream.backlog):
            self.stop(shutdown("the other side ended"))
