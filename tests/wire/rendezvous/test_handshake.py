"""What a relay reads in the first lines; the table is that of the sheet, 1.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.rendezvous.handshake import Asked, Event, Handshake, Join, Refused, Register
from wire.rendezvous.limits import MAX_LINE, MAX_OPTIONS_LINE
from wire.rendezvous.line import Protocol
from wire.rendezvous.options import Options, networks_of

MULTIPLEX = Register(Protocol.MULTIPLEX)
ID = "0A1B2C3D4E"

#: Bytes, whether the peer then ends, what it comes to, and what belongs to the data phase.
CASES: list[tuple[bytes, bool, Event | None, bytes]] = [
    (b"multiplex\n", False, MULTIPLEX, b""),
    (b"multiplex\r\n", False, MULTIPLEX, b""),
    (b"  \tmultiplex  \n", False, MULTIPLEX, b""),
    (b"multiplex\t\r\n", False, MULTIPLEX, b""),
    (b"multiplex\r\r\n", False, MULTIPLEX, b""),
    ("multiplex\v\u00a0\n".encode(), False, MULTIPLEX, b""),
    (b"multiplex", True, MULTIPLEX, b""),
    (b"multiplex\n\n", False, MULTIPLEX, b"\n"),
    (b"multiplex\n\0\1\0\1", False, MULTIPLEX, b"\0\1\0\1"),
    (b"pool\nnew\n", False, Register(Protocol.POOL), b""),
    (b"pool  \nnew\nSSH-2.0", False, Register(Protocol.POOL), b"SSH-2.0"),
    (b"event\r\nnew\r\n", False, Register(Protocol.EVENT), b""),
    (b"pool\nnew", True, Register(Protocol.POOL), b""),
    (b"event\n" + ID.encode() + b"\nhello", False, Join(Protocol.EVENT, ID), b"hello"),
    (b"pool\n " + ID.encode() + b" \n", False, Join(Protocol.POOL, ID), b""),
    (b"multiplex", False, None, b"multiplex"),
    (b"pool\n", False, None, b""),
    (b"\n", False, Refused("empty"), b""),
    (b"\r\n", False, Refused("empty"), b""),
    (b"", True, Refused("closed"), b""),
    (b"  ", True, Refused("empty"), b""),
    (b"multiplex x\n", False, Refused("several_words"), b""),
    (b"GET / HTTP/1.1\r\n", False, Refused("several_words"), b""),
    (b"MULTIPLEX\n", False, Refused("unknown_word"), b""),
    (b"bogus\n", False, Refused("unknown_word"), b""),
    (b"mul\0tiplex\n", False, Refused("unknown_word"), b""),
    (b"\xef\xbb\xbfmultiplex\n", False, Refused("unknown_word"), b""),
    (b"\xff\xfe\n", False, Refused("unknown_word"), b""),
    (b"pool\n\n", False, Refused("empty"), b""),
    (b"pool\nnew x\n", False, Refused("several_words"), b""),
    (b"pool\nNEW\n", False, Refused("not_an_id"), b""),
    (b"event\n" + ID.lower().encode() + b"\n", False, Refused("not_an_id"), b""),
    (b"event\n", True, Refused("empty"), b""),
    (b"x" * (MAX_LINE - 1) + b"\n", False, Refused("unknown_word"), b""),
    (b"x" * MAX_LINE, False, Refused("line_too_long"), b"x" * MAX_LINE),
    (b"pool\n" + b"x" * MAX_LINE, False, Refused("line_too_long"), b"x" * MAX_LINE),
    (b"relay/1 hue=blue\n", False, Refused("bad_options"), b""),
    (b"relay/1 name=a name=b\n", False, Refused("bad_options"), b""),
    (b"relay/1 port=65536\n", False, Refused("bad_options"), b""),
    (b"relay/1 port=\xc2\xb2\n", False, Refused("bad_options"), b""),
    (b"relay/1 visitors=10.0.0.1/8\n", False, Refused("bad_options"), b""),
    (b"relay/2 name=a\n", False, Refused("several_words"), b""),
]


@pytest.mark.parametrize("data,ended,expected,rest", CASES)
@pytest.mark.parametrize("whole", [True, False])
def test_the_lines_of_the_sheet(
    data: bytes, ended: bool, expected: Event | None, rest: bytes, whole: bool
) -> None:
    handshake = Handshake()
    events: list[Event] = []
    for piece in [data] if whole else [data[i : i + 1] for i in range(len(data))]:
        if handshake.done:
            break
        events += handshake.receive(piece)
    if ended and not handshake.done:
        events += handshake.receive_eof()
    assert events == ([] if expected is None else [expected])
    if whole:
        assert handshake.rest == rest


def test_options_come_first_and_are_answered_before_the_rest() -> None:
    options = Options(
        name="web-1",
        token="s3cret%&=!",
        port=8080,
        proxy=2,
        window=1 << 20,
        visitors=networks_of("10.0.0.0/8,2001:db8::/32"),
    )
    handshake = Handshake()
    asked, registered = handshake.receive(options.line() + b"multiplex\nrest")
    assert asked == Asked(options)
    assert registered == MULTIPLEX
    assert handshake.rest == b"rest"
    assert "s3cret" not in repr(asked)


def test_a_line_with_options_comes_once_and_is_bounded() -> None:
    line = Options(name="a").line()
    assert Handshake().receive(line + line)[-1] == Refused("several_words")
    assert Handshake().receive(b"relay/1 name=" + b"a" * MAX_OPTIONS_LINE) == [
        Refused("line_too_long")
    ]


WORDS = st.lists(
    st.sampled_from(
        [b"multiplex", b"pool", b"event", b"new", b"relay/1 ", b"name=a", b"\n", b"\r\n", b" ",
         ID.encode(), b"\xff", b"\0", b"token=%zz", b"x" * 200]
    ),
    max_size=12,
).map(b"".join)  # fmt: skip


@given(st.one_of(WORDS, st.binary(max_size=3000)), st.lists(st.integers(1, 300), max_size=8))
def test_pieces_make_no_difference_and_nothing_is_kept_beyond_a_line(
    data: bytes, cuts: list[int]
) -> None:
    whole = Handshake()
    expected = whole.receive(data) + whole.receive_eof()
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    pieces.append(data[at:])
    cutting = Handshake()
    events: list[Event] = []
    rest = b""
    for piece in pieces:
        if cutting.done:
            rest += piece
            continue
        events += cutting.receive(piece)
        if not cutting.done:
            assert len(cutting.rest) < MAX_OPTIONS_LINE
    events += cutting.receive_eof()
    assert events == expected
    if not isinstance(events[-1], Refused):
        assert cutting.rest + rest == whole.rest
