"""The actor that owns the forward plane's socket.

Killed or crashed, it is restarted and binds the same address; routes live on, because they belong
to the allocations (docs/decisions/0013). Packets of the gap wait in nobody's queue: they are lost.
"""

from __future__ import annotations

from actors.edge.forward.context import ForwardContext
from actors.edge.forward.route_table import RouteTable
from actors.runtime import Actor, naming
from actors.transport.addresses import address_text, host_and_port
from actors.transport.udp import UdpSocket, bind_udp


class _Attachment:
    """The table's use of a socket as a resource."""

    __slots__ = ("_table",)

    def __init__(self, table: RouteTable, sock: UdpSocket) -> None:
        self._table = table
        table.socket = sock
        table.address = sock.address

    def abort(self) -> None:
        """Send nothing any more; the socket's own abort closes it."""
        self._table.socket = None


class ForwardPlane(Actor):
    def __init__(self, place: ForwardContext) -> None:
        self._place = place

    def init(self) -> None:
        """Bind and begin to receive."""
        table = self._place.table
        host, port = self._place.settings.listen
        if port == 0 and table.address is not None:
            port = table.address[1]
        with naming("edge.forward.listen"):
            bound = bind_udp(host, port)
        sock = UdpSocket(bound, table.receive, guard=self.guard)
        self._socket = self.own(sock, "socket")
        self.own(_Attachment(table, sock), "attachment")
        statistics = sock.statistics()
        offload = [
            name
            for name, used in (
                ("UDP_GRO", statistics.receive_offload),
                ("UDP_SEGMENT", statistics.send_offload),
            )
            if used
        ]
        where = address_text(*host_and_port(sock.address))
        self.log.info("forwarding on {} ({})", where, ", ".join(offload) or "no offload")

    def describe(self) -> dict[str, object]:
        """Address, what the socket did, what was dropped and why."""
        table = self._place.table
        statistics = self._socket.statistics()
        return {
            "address": address_text(*host_and_port(table.address or ("", 0))),
            "routes": len(table.routes),
            "datagrams_in": statistics.datagrams_in,
            "datagrams_out": statistics.datagrams_out,
            "receive_calls": statistics.receive_calls,
            "send_calls": statistics.send_calls,
            "held": statistics.held,
            "dropped": statistics.dropped,
            "receive_offload": statistics.receive_offload,
            "send_offload": statistics.send_offload,
            "errors": statistics.errors,
            "counters": dict(table.counters),
        }
