"""A UDP socket that puts the same bytes in front of every datagram it sends.

For carriers that address a flow by a prefix on the way out and deliver bare datagrams. Costs one
copy per datagram sent; nothing on the way in.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.transport.addresses import Address
from actors.transport.udp.udp_socket import Datagram, UdpSocket


class PrefixedSocket(UdpSocket):
    """A UDP socket that puts the same bytes in front of every datagram it sends.

    Attributes:
        prefix: put in front of whatever `send` and `send_segments` are given.
    """

    prefix: bytes = b""

    def send(self, datagram: Datagram, address: Address) -> int:
        """Like `UdpSocket.send`, with the prefix."""
        return super().send(b"".join((self.prefix, datagram)), address)

    def send_segments(
        self, segments: Sequence[Datagram], segment_size: int, address: Address
    ) -> int:
        """Like `UdpSocket.send_segments`, with the prefix."""
        prefix = self.prefix
        prefixed = [b"".join((prefix, segment)) for segment in segments]
        return super().send_segments(prefixed, segment_size + len(prefix), address)

    def send_bare(self, datagram: Datagram, address: Address) -> int:
        """Send one datagram as it is."""
        return super().send(datagram, address)
