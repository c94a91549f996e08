"""The client session: answers find their requests, cancelled ones are forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.admin.client import ClientSession
from wire.admin.errors import AdminError, BadLine
from wire.admin.messages import (
    Failed,
    Finished,
    Greeting,
    Part,
    decode_request,
    encode_failed,
    encode_finished,
    encode_greeting,
    encode_part,
)
from wire.errors import LocalError

GREETING = Greeting("node", 1, ("tree",))


def _greeted() -> ClientSession:
    session = ClientSession()
    assert session.receive(encode_greeting(GREETING)) == [GREETING]
    return session


def test_nothing_is_asked_before_the_greeting() -> None:
    with pytest.raises(LocalError):
        ClientSession().request("tree", {})


def test_a_request_gets_its_parts_and_its_result() -> None:
    session = _greeted()
    number, line = session.request("tree", {"path": "/"}, window=4)
    request = decode_request(line)
    assert (request.id, request.op, request.window) == (number, "tree", 4)
    data = encode_part(number, [{"path": "/"}]) + encode_finished(number, {"rows": 1})
    assert session.receive(data) == [Part(number, [{"path": "/"}]), Finished(number, {"rows": 1})]
    assert session.in_flight == 0
    assert session.receive(encode_part(number, [])) == []


def test_a_cancelled_request_is_forgotten() -> None:
    session = _greeted()
    number, _ = session.request("events", {})
    cancel = decode_request(session.cancel(number))
    assert cancel.op == "cancel"
    assert cancel.args == {"request": number}
    assert session.cancel(number) == b""
    assert session.credit(number, 1) == b""
    late = encode_part(number, [{}]) + encode_finished(number, {})
    assert session.receive(late + encode_finished(cancel.id, {"cancelled": True})) == []


def test_credit_names_its_request() -> None:
    session = _greeted()
    number, _ = session.request("events", {}, window=1)
    credit = decode_request(session.credit(number, 3))
    assert (credit.op, dict(credit.args)) == ("credit", {"request": number, "parts": 3})


def test_a_failure_of_the_connection_is_heard_before_the_greeting() -> None:
    session = ClientSession()
    assert session.receive(encode_failed(0, "busy", "16 clients")) == [
        Failed(0, "busy", "16 clients")
    ]


@pytest.mark.parametrize(
    "data",
    [
        encode_finished(1, {}),
        encode_greeting(Greeting("node", 1, (), version=2)),
        encode_greeting(GREETING) * 2,
        b'{"trunkline":"other","node":"n","pid":1,"version":1}\n',
        b"HTTP/1.1 400 Bad Request\n",
    ],
)
def test_something_else_on_the_socket_is_recognised(data: bytes) -> None:
    with pytest.raises(BadLine):
        ClientSession().receive(data)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_answers_or_a_protocol_error(data: bytes) -> None:
    session = _greeted()
    session.request("tree", {})
    text = "taken"
    try:
        session.receive(data)
    except AdminError as error:
        text = str(error)
    assert text
