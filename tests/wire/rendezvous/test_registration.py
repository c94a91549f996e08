"""What a service says and hears."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.rendezvous.handshake import Asked, Handshake, Join, Register
from wire.rendezvous.line import BadLine, Protocol
from wire.rendezvous.options import Options
from wire.rendezvous.registration import (
    Answer,
    Denied,
    Registered,
    Registration,
    UserWaits,
    joining,
)

PLAIN = Options()
NAMED = Options(name="a", token="t")


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("options", [PLAIN, NAMED])
def test_the_relay_understands_the_greeting(protocol: Protocol, options: Options) -> None:
    events = Handshake().receive(Registration(protocol, options).greeting())
    assert events[-1] == Register(protocol)
    assert events[:-1] == ([Asked(options)] if options.wanted else [])


def test_who_proved_who_it_is_does_so_again_when_it_joins() -> None:
    handshake = Handshake()
    events = handshake.receive(joining(Protocol.POOL, "0123456789", NAMED) + b"banner")
    assert events == [Asked(Options(token="t")), Join(Protocol.POOL, "0123456789")]
    assert handshake.rest == b"banner"
    assert joining(Protocol.EVENT, "0123456789", PLAIN) == b"event\n0123456789\n"


@pytest.mark.parametrize(
    "protocol,options,data,expected,rest",
    [
        (Protocol.MULTIPLEX, PLAIN, b"1235\n\0\1", [Registered("1235")], b"\0\1"),
        (Protocol.MULTIPLEX, PLAIN, b"word\n", [Registered("word")], b""),
        (Protocol.MULTIPLEX, NAMED, b"ok\n1235\n", [Registered("1235")], b""),
        (Protocol.MULTIPLEX, NAMED, b"error no\n1\n", [Denied("no")], b"1\n"),
        (Protocol.MULTIPLEX, NAMED, b"ok\nerror full\n", [Denied("full")], b""),
        (Protocol.POOL, PLAIN, b"1\n0A1B2C3D4E\nhi", [Registered("1", "0A1B2C3D4E")], b"hi"),
        (
            Protocol.EVENT,
            PLAIN,
            b"1\n0A1B2C3D4E\nFFFFFFFFFF\n",
            [Registered("1"), UserWaits("0A1B2C3D4E"), UserWaits("FFFFFFFFFF")],
            b"",
        ),
    ],
)
def test_the_answers_of_a_relay(
    protocol: Protocol, options: Options, data: bytes, expected: list[Answer], rest: bytes
) -> None:
    whole, bytewise = Registration(protocol, options), Registration(protocol, options)
    assert whole.receive(data) == expected
    assert whole.rest == rest
    heard: list[Answer] = []
    for i in range(len(data)):
        heard += bytewise.receive(data[i : i + 1])
    assert heard == expected


@given(st.sampled_from(Protocol), st.sampled_from([PLAIN, NAMED]), st.binary(max_size=600))
def test_a_relay_may_say_anything(protocol: Protocol, options: Options, data: bytes) -> None:
    registration = Registration(protocol, options)
    try:
        registration.receive(data)
    except BadLine:
        pass
