"""The server's side of the control protocol, in front of the client's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.admin.client import ClientSession
from wire.admin.errors import AnswerTooLarge, ErrorCode
from wire.admin.limits import MAX_LINE_BYTES, MAX_PART_ROWS
from wire.admin.messages import Answer, Failed, Finished, Greeting, Part, Row
from wire.admin.server import Asked, Broken, Granted, ServerSession, Withdrawn


class Both:
    """A client and a server, and what passes between them."""

    def __init__(self, in_flight: int = 3) -> None:
        self.client = ClientSession()
        self.server = ServerSession(Greeting("node", 1), ("watch", "tree"), in_flight=in_flight)
        self.answers()

    def answers(self) -> list[Answer]:
        """What the server says, as the client takes it."""
        return self.client.receive(self.server.data_to_send())


def test_a_request_is_asked_once_and_ends_once() -> None:
    both = Both()
    number, line = both.client.request("tree", {"path": "/"})
    (asked,) = both.server.receive(line)
    assert isinstance(asked, Asked)
    assert (asked.request.op, asked.request.args) == ("tree", {"path": "/"})
    assert both.server.in_flight == {number: "tree"}
    both.server.finish(number, {"n": 1})
    both.server.fail(number, ErrorCode.INTERNAL, "too late")
    assert both.answers() == [Finished(number, {"n": 1})]
    assert both.server.in_flight == {}


def test_a_window_is_used_up_by_parts_and_granted_again() -> None:
    both = Both()
    number, line = both.client.request("watch", {}, window=1)
    both.server.receive(line)
    (part,) = both.server.parts(number, [{"a": 1}])
    assert both.server.may_send(number)
    both.server.part(number, part)
    assert not both.server.may_send(number)
    assert both.server.receive(both.client.credit(number, 2)) == [Granted(number)]
    assert both.server.may_send(number)
    assert both.answers() == [Part(number, [{"a": 1}])]


def test_what_is_withdrawn_is_answered_and_nothing_more_is_said_of_it() -> None:
    both = Both()
    number, line = both.client.request("watch", {})
    both.server.receive(line)
    assert both.server.receive(both.client.cancel(number)) == [Withdrawn(number)]
    said = both.server.data_to_send()
    assert said.count(b'"cancelled":true') == 2
    both.server.part(number, b"late\n")
    both.server.finish(number, {})
    assert both.server.data_to_send() == b""


def test_what_cannot_be_served_is_refused_and_the_rest_goes_on() -> None:
    both = Both(in_flight=1)
    _, first = both.client.request("tree", {})
    _, crowded = both.client.request("tree", {})
    _, unknown = both.client.request("dance", {})
    events = both.server.receive(first + crowded + unknown + b"not JSON\n")
    assert [type(event) for event in events] == [Asked]
    assert [one.code for one in both.answers() if isinstance(one, Failed)] == [
        ErrorCode.BUSY,
        ErrorCode.BAD_REQUEST,
        ErrorCode.BAD_REQUEST,
    ]
    assert (both.server.served, both.server.refused) == (1, 3)


def test_an_endless_line_ends_the_connection_with_a_word() -> None:
    both = Both()
    (broken,) = both.server.receive(b"x" * (MAX_LINE_BYTES + 1))
    assert isinstance(broken, Broken)
    (failed,) = both.answers()
    assert isinstance(failed, Failed)
    assert (failed.id, failed.code) == (0, ErrorCode.TOO_LARGE)


@given(sizes=st.lists(st.sampled_from([1, 1000, MAX_LINE_BYTES // 3]), max_size=12))
def test_rows_arrive_whole_and_in_order_in_lines_that_are_not_too_long(sizes: list[int]) -> None:
    both = Both()
    number, line = both.client.request("tree", {})
    both.server.receive(line)
    rows: list[Row] = [{"n": n, "text": "x" * size} for n, size in enumerate(sizes)]
    arrived: list[Row] = []
    for part in both.server.parts(number, rows):
        assert len(part) <= MAX_LINE_BYTES
        both.server.part(number, part)
        for answer in both.answers():
            assert isinstance(answer, Part)
            assert len(answer.rows) <= MAX_PART_ROWS
            arrived += answer.rows
    assert arrived == rows


def test_a_row_that_no_line_can_carry_and_such_a_result_are_errors() -> None:
    both = Both()
    number, line = both.client.request("tree", {})
    both.server.receive(line)
    with pytest.raises(AnswerTooLarge):
        list(both.server.parts(number, [{"text": "x" * MAX_LINE_BYTES}]))
    both.server.finish(number, {"text": "x" * MAX_LINE_BYTES})
    (failed,) = both.answers()
    assert isinstance(failed, Failed)
    assert failed.code == ErrorCode.TOO_LARGE
