"""Making a UDP socket fit for batches: family, buffers, non-blocking, close-on-exec.

Knows nothing of event loops and datagrams. Source: docs/decisions/0013 for who owns sockets;
socket(7), ipv6(7).
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from actors.transport.addresses import bind_error, to_bind

#: Kernel buffer asked for in each direction, bytes. A burst of batches must fit while the loop is
#: busy elsewhere. Without CAP_NET_ADMIN the kernel clamps it to net.core.[rw]mem_max.
BUFFER_BYTES: Final = 4 * 1024 * 1024

#: Linux names that the socket module lacks: set the buffer beyond the clamp, where permitted.
_FORCE: Final = {socket.SO_RCVBUF: 33, socket.SO_SNDBUF: 32}


#: Do not fragment, and do not believe ICMP either: Linux names that the socket module lacks.
_MTU_DISCOVER: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),
}
_PROBE: Final = 3


def bind_udp(
    host: str,
    port: int,
    *,
    reuse_port: bool = False,
    whole: bool = False,
    only_ipv6: bool = False,
) -> socket.socket:
    """A bound, non-blocking UDP socket with large buffers; the caller closes it.

    An IPv6 socket bound to the wildcard takes IPv4 as well (peers appear as ``::ffff:a.b.c.d``),
    unless `only_ipv6`.

    Args:
        host: IP literal, with its zone if it is link-local; see `addresses.to_bind`.
        port: 0 takes a free one.
        reuse_port: several sockets share the address, the kernel spreads the flows.
        whole: datagrams travel in one piece or not at all, where the system can do that.

    Raises:
        OSError: the address cannot be bound.
    """
    family, address = to_bind(host, port)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_ipv6 or host != "::"))
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if whole and sys.platform == "linux":
            sock.setsockopt(*_MTU_DISCOVER[socket.AF_INET], _PROBE)
            if family == socket.AF_INET6:
                sock.setsockopt(*_MTU_DISCOVER[socket.AF_INET6], _PROBE)
        for option in _FORCE:
            _enlarge(sock, option)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise bind_error(error, host, port, "UDP") from None
    return sock


def _enlarge(sock: socket.socket, option: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _FORCE[option], BUFFER_BYTES)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
