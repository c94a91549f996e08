"""The examples of the specification, both ways, and nonsense."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import LocalError
from wire.proxy_protocol.header import MAX_TEXT, SIGNATURE, End, Header, HeaderError, encode
from wire.proxy_protocol.header import header_of as of
from wire.proxy_protocol.parser import Parser, may_begin

HOSTS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PORTS = st.integers(0, 65535)
IPV4 = of(("192.168.0.1", 56324), ("192.168.0.11", 443))
#: The specification writes it so; it is no address.
LONGEST = b"PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"


def parsed(data: bytes) -> tuple[Header | None, bytes]:
    parser = Parser()
    return parser.receive(data), parser.rest


@pytest.mark.parametrize(
    "data,header",
    [
        (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", IPV4),
        (b"PROXY UNKNOWN\r\n", Header()),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Header()),
        (
            SIGNATURE + bytes.fromhex("2111000c c0a80001 c0a8000b dc04 01bb".replace(" ", "")),
            IPV4,
        ),
        # With an extension of 3 bytes, LOCAL with addresses, UDP, and a Unix socket's family.
        (SIGNATURE + bytes.fromhex("21110010c0a80001c0a8000bdc0401bb04000161"), IPV4),
        (SIGNATURE + bytes.fromhex("2011000cc0a80001c0a8000bdc0401bb"), Header()),
        (SIGNATURE + bytes.fromhex("2112000cc0a80001c0a8000bdc0401bb"), Header()),
        (SIGNATURE + bytes.fromhex("21310000"), Header()),
    ],
)
def test_both_versions_are_read_in_any_pieces(data: bytes, header: Header) -> None:
    assert parsed(data + b"GET /") == (header, b"GET /")
    parser = Parser()
    for i in range(len(data) - 1):
        assert parser.receive(data[i : i + 1]) is None
    assert parser.receive(data[-1:]) == header
    assert parser.rest == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY SCTP 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 \xff.2.3.4 1.2.3.4 1 2\r\n",
        LONGEST,
        b"PROXY " + b"x" * MAX_TEXT,
        SIGNATURE + bytes.fromhex("1111000cc0a80001c0a8000bdc0401bb"),
        SIGNATURE + bytes.fromhex("22110000"),
        SIGNATURE + bytes.fromhex("2111000bc0a80001c0a8000bdc0401"),
        SIGNATURE + bytes.fromhex("2111ffff"),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(HeaderError):
        parsed(data)


@given(HOSTS, PORTS, HOSTS, PORTS, st.sampled_from([1, 2]), st.binary(max_size=20))
def test_what_is_written_is_read(
    source: object, port: int, destination: object, its_port: int, version: int, rest: bytes
) -> None:
    header = of((str(source), port), (str(destination), its_port))
    assert header.source is not None
    assert header.destination is not None
    assert header.source.host.version == header.destination.host.version
    data = encode(header, version)
    if version == 1:
        assert len(data) <= MAX_TEXT
    assert parsed(data + rest) == (header, rest)


def test_mapped_addresses_are_ipv4() -> None:
    header = of(("::ffff:10.0.0.1", 1), ("10.0.0.2", 2))
    assert header == Header(End(ip_address("10.0.0.1"), 1), End(ip_address("10.0.0.2"), 2))
    with pytest.raises(LocalError):
        of(("", 1), ("10.0.0.2", 2))
    assert encode(Header(), 1) == b"PROXY UNKNOWN\r\n"
    assert parsed(encode(Header(), 2)) == (Header(), b"")


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=60).map(lambda b: SIGNATURE + b),
                 st.binary(max_size=150).map(lambda b: b"PROXY " + b)))  # fmt: skip
def test_nonsense_is_refused_or_waited_for(data: bytes) -> None:
    expected = heard(data)
    parser = Parser()
    for i in range(len(data)):
        try:
            header = parser.receive(data[i : i + 1])
        except HeaderError as error:
            outcome: object = error.label
            break
        if header is not None:
            outcome = header, parser.rest + data[i + 1 :]
            break
    else:
        outcome = None, data
    assert outcome == expected
    if data and may_begin(data) is False:
        assert expected == "no_header"


def heard(data: bytes) -> object:
    try:
        return parsed(data)
    except HeaderError as error:
        return error.label
