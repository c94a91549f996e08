"""What was recorded between a Firezone relay and its portal, and what else a portal may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.phoenix.backoff import FIRST_DELAYS, Backoff
from wire.phoenix.endpoint import websocket_url
from wire.phoenix.session import PortalSession, Verdict

SECRET = "910f88a51fce5c71c2bcf90a3e531959047801b534610d87bbf94b6d9da3e7d0"
JOIN = '{"topic":"relay","event":"phx_join","payload":{"stamp_secret":"' + SECRET + '"},"ref":%d}'
BEAT = '{"topic":"phoenix","event":"heartbeat","payload":{},"ref":%d}'
OK = '{"event": "phx_reply", "payload": {"response": {}, "status": "ok"}, "ref": %s, "topic": "%s"}'
INIT = '{"event":"init","payload":{},"ref":null,"topic":"relay"}'


def _joined() -> PortalSession:
    session = PortalSession(SECRET, 0.0)
    assert session.begin() == JOIN % 0
    session.receive(OK % (0, "relay"), 0.1)
    session.receive(INIT, 0.1)
    assert session.joined
    assert session.initialised
    return session


def test_join_init_and_heartbeats() -> None:
    session = _joined()
    for n in (1, 2, 3, 4, 5):
        assert session.next() == 10.0 * n
        assert session.timeout(10.0 * n) == [BEAT % n]
        session.receive(OK % (n, "phoenix"), 10.0 * n)
    assert session.verdict is Verdict.GO_ON


def test_heartbeats_that_are_not_answered() -> None:
    session = _joined()
    assert [len(session.timeout(10.0 * n)) for n in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert session.verdict is Verdict.RECONNECT


def test_odd_messages_are_skipped_and_a_portal_that_forgot_us_is_joined_again() -> None:
    session = _joined()
    for text in (
        '{"event":"phx_error","payload":{},"ref":null,"topic":"relay"}',
        '{"event":"something_new","payload":{"a":1},"ref":null,"topic":"relay"}',
        "not json", "[]", "[" * 100_000, OK % ("null", "relay"), INIT,
    ):  # fmt: skip
        assert session.receive(text, 1.0) == []
    again = (
        '{"event":"phx_reply","payload":{"response":{"reason":"unmatched topic"},'
        '"status":"error"},"ref":99,"topic":"relay"}'
    )
    assert session.receive(again, 3.0) == [JOIN % 1]
    assert str(session) == "PortalSession(joined=False, go on)"
    session.receive(OK % (1, "relay"), 3.0)
    assert str(session) == "PortalSession(joined=True, go on)"
    session.receive('{"event":"phx_close","payload":{},"ref":null,"topic":"relay"}', 4.0)
    assert session.verdict is Verdict.RECONNECT


@pytest.mark.parametrize(
    "text",
    [
        '{"event": "phx_reply", "payload": {"status": "error", "response": '
        '{"reason": "unmatched topic"}}, "ref": 0, "topic": "relay"}',
        '{"event": "disconnect", "payload": {"reason": "token_expired"}, "ref": null, '
        '"topic": "relay"}',
    ],
)
def test_what_is_fatal(text: str) -> None:
    session = PortalSession(SECRET, 0.0)
    session.begin()
    session.receive(text, 0.0)
    assert session.verdict is Verdict.FATAL
    assert SECRET not in session.why + repr(session)


def test_a_join_that_is_not_answered() -> None:
    session = PortalSession(SECRET, 0.0)
    session.begin()
    assert session.next() == 5.0
    session.timeout(5.0)
    assert session.verdict is Verdict.RECONNECT


@given(st.text(max_size=100) | st.recursive(st.integers() | st.text(), st.lists).map(str))
def test_no_text_makes_it_fail(text: str) -> None:
    session = _joined()
    session.receive(text, 1.0)
    session.receive('{"event":"phx_reply","payload":%s,"ref":[1]}' % (text or "1"), 1.0)


@pytest.mark.parametrize(
    "api, url",
    [
        ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/relay/websocket?name=relay+one&ipv4=192.0.2.15&ipv6=2001%3Adb8%3A%3A15&port=3501"),
        ("https://api.example/base/path?x=1#y", "wss://api.example/base/path/relay/websocket?name=relay+one&ipv4=192.0.2.15&ipv6=2001%3Adb8%3A%3A15&port=3501"),
    ],
)  # fmt: skip
def test_where_the_portal_is_asked(api: str, url: str) -> None:
    assert (
        websocket_url(api, name="relay one", ipv4="192.0.2.15", ipv6="2001:db8::15", port=3501)
        == url
    )
    with pytest.raises(ValueError, match="must be"):
        websocket_url("ftp://x", name="", ipv4="", ipv6="", port=1)


def test_delays_grow_and_end() -> None:
    first = Backoff(100.0)
    assert [first.delay(0.5) for _ in range(FIRST_DELAYS)] == [1.0] * FIRST_DELAYS
    assert first.delay(0.5) is None
    later = Backoff(100.0)
    later.succeeded()
    assert later.delay(0.0) == 0.5
    assert later.delay(0.5) == 0.5 * 1.5 * 1.5
    assert later.delay(0.0, wanted=3.0) == 3.0
    later.succeeded()
    assert later.delay(0.0) == 0.5
    while later.delay(0.9) is not None:
        pass
