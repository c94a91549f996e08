"""host:port texts: round trip and refusals."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.endpoint import Endpoint, parse_endpoint

_HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-z][a-z0-9.-]{0,60}", fullmatch=True),
)


@given(host=_HOSTS, port=st.integers(0, 65535))
def test_text_form_round_trips(host: str, port: int) -> None:
    endpoint = Endpoint(host, port)
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text, said",
    [
        ("7443", "expected host:port"),
        ("localhost", "expected host:port"),
        ("", "expected host:port"),
        (":7443", "host is empty"),
        ("a b:1", "host is empty or not a name"),
        ("user@host:1", "host is empty or not a name"),
        ("::1:7443", "needs brackets"),
        ("[fe80::zz]:1", "must hold an IPv6 address"),
        ("[127.0.0.1]:1", "must hold an IPv6 address"),
        ("h:65536", "0 to 65535"),
        ("h:-1", "0 to 65535"),
        ("h:٣", "0 to 65535"),
        ("h:", "0 to 65535"),
        (f"{'h' * 254}:1", "host is empty or not a name"),
    ],
)
def test_refusals_name_the_rule(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_endpoint(text)


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except ValueError:
        return
    assert 0 <= endpoint.port <= 65535
    if ":" in endpoint.host:
        IPv6Address(endpoint.host)
