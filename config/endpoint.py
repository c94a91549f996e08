"""A host and port as one value, written `host:port` or `[ipv6]:port`.

Knows the text form only: no name resolution, no sockets. Host names are allowed and resolved by
whoever binds or dials. Port 0 means "any free port" and is legal for addresses we bind.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import NamedTuple

MAX_HOST_LENGTH = 253  # RFC 1035 section 2.3.4, without the trailing dot


class Endpoint(NamedTuple):
    """Where to bind or dial; `str()` gives the text `parse_endpoint` reads."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Read `host:port`, `1.2.3.4:port` or `[::1]:port`.

    Raises:
        ValueError: the text has no port, an empty host, a port outside 0..65535 or an IPv6
            address without brackets. The message names the rule that was broken.
    """
    host, colon, port_text = text.strip().rpartition(":")
    if not colon:
        raise ValueError("expected host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            IPv6Address(host)
        except ValueError:
            raise ValueError("the brackets must hold an IPv6 address") from None
    elif ":" in host:
        raise ValueError("an IPv6 address needs brackets: [::1]:7443")
    if not host or len(host) > MAX_HOST_LENGTH or any(c.isspace() or c in "/@[]" for c in host):
        raise ValueError("the host is empty or not a name or address")
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
        raise ValueError("the port must be a number from 0 to 65535")
    return Endpoint(host, int(port_text))
