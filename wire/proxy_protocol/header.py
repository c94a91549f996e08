"""What the header says, and its two written forms.

Version 2 is 12 bytes of signature, version and command (0x20 LOCAL, 0x21 PROXY), family and
protocol (0x11 TCP over IPv4, 0x21 over IPv6), a 16-bit length, and so many bytes: source address,
destination address, source port, destination port, then extensions as type, length and value.

Source: the PROXY protocol, sections 2.1 and 2.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple, TypeAlias

from wire.errors import LocalError, PeerError

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
VERSION_1: Final = b"PROXY "
#: Bytes of a version 1 header with its CRLF, at most.
MAX_TEXT: Final = 107
#: Bytes of a version 2 header behind its first 16, at most: addresses and a few extensions.
MAX_BODY: Final = 4096
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6 = 0x11, 0x21
_PORTS: Final = struct.Struct("!HH")

IpAddress: TypeAlias = IPv4Address | IPv6Address


class HeaderError(PeerError):
    """There is no header where one must be, or a broken one; `label` says which."""

    def __init__(self, label: str) -> None:
        super().__init__(f"PROXY header: {label}", code=0, reason=label, label=label)


class End(NamedTuple):
    """An address and a port."""

    host: IpAddress
    port: int


@dataclass(frozen=True, slots=True)
class Header:
    """One header.

    Attributes:
        source: whom the connection is from; None: the proxy itself (LOCAL), or it does not know.
        destination: what was connected to; None with `source`.
    """

    source: End | None = None
    destination: End | None = None


def header_of(source: tuple[str, int], destination: tuple[str, int]) -> Header:
    """From socket addresses; IPv4-mapped ones are written as IPv4.

    Raises:
        LocalError: one is no IP address.
    """
    try:
        ends = [End(_plain(ip_address(host.partition("%")[0])), port) for host, port in
                (source, destination)]  # fmt: skip
    except ValueError:
        raise LocalError("no IP address") from None
    if len({end.host.version for end in ends}) == 2:
        ends = [End(_wide(end.host), end.port) for end in ends]
    return Header(*ends)


def _plain(host: IpAddress) -> IpAddress:
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return mapped or host


def _wide(host: IpAddress) -> IPv6Address:
    return host if isinstance(host, IPv6Address) else IPv6Address(f"::ffff:{host}")


def encode(header: Header, version: int) -> bytes:
    """The header as bytes.

    Raises:
        LocalError: no version of this protocol.
    """
    if version == 1:
        return _text(header)
    if version == 2:
        return _binary(header)
    raise LocalError(f"PROXY version {version}")


def _text(header: Header) -> bytes:
    source, destination = header.source, header.destination
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    family = f"TCP{source.host.version if source.host.version == 4 else 6}"
    line = f"PROXY {family} {source.host} {destination.host} {source.port} {destination.port}\r\n"
    return line.encode()


def _binary(header: Header) -> bytes:
    source, destination = header.source, header.destination
    if source is None or destination is None:
        return SIGNATURE + bytes((LOCAL, 0, 0, 0))
    family = TCP4 if source.host.version == 4 else TCP6
    body = source.host.packed + destination.host.packed
    body += _PORTS.pack(source.port, destination.port)
    return SIGNATURE + bytes((PROXY, family)) + len(body).to_bytes(2, "big") + body


def text_header(line: bytes) -> Header:
    """Read version 1, without its CRLF.

    Raises:
        HeaderError: it is none.
    """
    try:
        words = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise HeaderError("not_text") from None
    if words[:2] == ["PROXY", "UNKNOWN"]:
        return Header()
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in ("TCP4", "TCP6"):
        raise HeaderError("bad_words")
    try:
        hosts = [ip_address(word) for word in words[2:4]]
    except ValueError:
        raise HeaderError("bad_address") from None
    if any(host.version != int(words[1][3]) for host in hosts):
        raise HeaderError("bad_address")
    ports = [_port(word) for word in words[4:]]
    return Header(End(hosts[0], ports[0]), End(hosts[1], ports[1]))


def _port(word: str) -> int:
    plain = word.isascii() and word.isdigit() and len(word) <= 5 and str(int(word)) == word
    if not plain or int(word) > 65535:
        raise HeaderError("bad_port")
    return int(word)


def binary_header(command: int, family: int, body: bytes) -> Header:
    """Read version 2 behind its signature. What carries no TCP addresses says nothing.

    Raises:
        HeaderError: an unknown command, or too few bytes.
    """
    if command == LOCAL:
        return Header()
    if command != PROXY:
        raise HeaderError("bad_command")
    size = {TCP4: 4, TCP6: 16}.get(family)
    if size is None:
        return Header()
    if len(body) < 2 * size + 4:
        raise HeaderError("too_short")
    source, destination = (ip_address(body[i : i + size]) for i in (0, size))
    ports = _PORTS.unpack_from(body, 2 * size)
    return Header(End(source, ports[0]), End(destination, ports[1]))
