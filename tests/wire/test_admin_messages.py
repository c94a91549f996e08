"""Messages survive the wire; whatever arrives is a message or a refusal, nothing else."""

from __future__ import annotations

import datetime
import json
import math
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.admin.errors import AdminError, BadLine
from wire.admin.limits import MAX_ID, MAX_MESSAGE_CHARACTERS, MAX_WINDOW
from wire.admin.messages import (
    Failed,
    Finished,
    Greeting,
    Part,
    Request,
    decode_answer,
    decode_request,
    encode_failed,
    encode_finished,
    encode_greeting,
    encode_part,
    encode_request,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SCALAR = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | TEXT
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(TEXT, VALUE, max_size=5)
IDS = st.integers(1, MAX_ID)


@given(IDS, st.text("abcdefgh_", min_size=1, max_size=64), OBJECT, st.integers(0, MAX_WINDOW))
def test_requests_round_trip(number: int, op: str, args: dict[str, Any], window: int) -> None:
    request = Request(number, op, args, window)
    line = encode_request(request)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert decode_request(line) == request


@given(IDS, st.lists(OBJECT, max_size=4), OBJECT, TEXT)
def test_answers_round_trip(number: int, rows: list[Any], result: Any, text: str) -> None:
    assert decode_answer(encode_part(number, rows)) == Part(number, rows)
    assert decode_answer(encode_finished(number, result)) == Finished(number, result)
    assert decode_answer(encode_failed(number, "busy", text)) == Failed(number, "busy", text)


def test_the_greeting_round_trips() -> None:
    greeting = Greeting("node", 42, ("kill", "tree"))
    line = encode_greeting(greeting)
    assert json.loads(line) == {
        "trunkline": "control",
        "version": 1,
        "node": "node",
        "pid": 42,
        "capabilities": ["kill", "tree"],
    }
    assert decode_answer(line) == greeting


@given(st.binary(max_size=200) | VALUE.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_lines_are_messages_or_refusals(line: bytes) -> None:
    for decode in (decode_request, decode_answer):
        text = ""
        try:
            decode(line)
        except BadLine as error:
            text = str(error)
        assert len(text) < 400


@pytest.mark.parametrize(
    "line,words",
    [
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object, not list"),
        (b'{"op":"tree"}', "id from 1"),
        (b'{"id":true,"op":"tree"}', "id from 1"),
        (b'{"id":0,"op":"tree"}', "id from 1"),
        (b'{"id":1}', "needs an op"),
        (b'{"id":1,"op":"' + b"x" * 65 + b'"}', "needs an op"),
        (b'{"id":1,"op":"tree","args":[]}', "args must be an object"),
        (b'{"id":1,"op":"tree","window":-1}', "window"),
        (b"[" * 2000, "not JSON"),
    ],
)
def test_a_refusal_says_what_is_wrong(line: bytes, words: str) -> None:
    with pytest.raises(BadLine, match=words.replace("[", r"\[")):
        decode_request(line)


def test_a_refusal_names_the_request_it_could_read() -> None:
    with pytest.raises(BadLine) as caught:
        decode_request(b'{"id":7,"op":5}')
    assert caught.value.request == 7


class _Broken:
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    "value,expected",
    [
        (math.inf, None),
        (float("nan"), None),
        (2**80, str(2**80)),
        ("\ud800", "?"),
        ({1: "a"}, {"1": "a"}),
        ((1, 2), [1, 2]),
        (frozenset({"x"}), ["x"]),
        (deque([1]), [1]),
        (b"secret", "<6 bytes>"),
        (datetime.timedelta(seconds=1), "0:00:01"),
        (_Broken(), "<_Broken>"),
        ({"deep": {"number": 2**70}}, {"deep": {"number": str(2**70)}}),
    ],
)
def test_every_value_an_actor_may_describe_fits(value: object, expected: object) -> None:
    answer = decode_answer(encode_finished(1, {"value": value}))
    assert isinstance(answer, Finished)
    assert answer.result["value"] == expected


def test_bottomless_values_end() -> None:
    loop: list[object] = []
    loop.append(loop)
    answer = decode_answer(encode_finished(1, {"value": loop}))
    assert isinstance(answer, Finished)


def test_a_long_message_is_cut() -> None:
    answer = decode_answer(encode_failed(1, "internal", "x" * 5000))
    assert isinstance(answer, Failed)
    assert len(answer.message) == MAX_MESSAGE_CHARACTERS


def test_errors_name_their_word() -> None:
    error: AdminError = BadLine("detail")
    assert (error.reason, error.label) == ("bad_request", "bad_request")
