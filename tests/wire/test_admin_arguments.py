"""Arguments are taken exactly as declared; every refusal names the argument and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.admin.arguments import Arguments
from wire.admin.errors import BadArguments

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def test_declared_arguments_are_taken() -> None:
    args = Arguments(
        {
            "path": "//edge///agents/",
            "depth": 3,
            "rate": 2,
            "all": True,
            "sort": "mailbox",
            "open": {"/": 0, "/edge": 100},
        }
    )
    assert args.path() == "/edge/agents"
    assert args.integer("depth", least=0, most=9) == 3
    assert args.number("rate", least=0.5, most=9) == 2.0
    assert args.flag("all") is True
    assert args.choice("sort", None, {"mailbox", "age"}) == "mailbox"
    assert args.offsets("open", most=5) == {"/": 0, "/edge": 100}
    args.finish()


def test_defaults_and_absent_values() -> None:
    args = Arguments({"depth": None})
    assert args.path(default="/") == "/"
    assert args.text("filter", "", most=5) == ""
    assert args.optional_integer("depth", least=0, most=9) is None
    assert args.flag("all") is False
    assert args.offsets("open", most=5) == {}
    args.finish()


REFUSED: list[tuple[dict[str, object], Callable[[Arguments], object], str]] = [
    ({}, lambda a: a.path(), "path is missing"),
    ({"path": "edge"}, lambda a: a.path(), "path must begin with /"),
    ({"path": 5}, lambda a: a.path(), "path must be text, not int"),
    ({"path": "/" * 5000}, lambda a: a.path(), "limit 4096"),
    ({"n": "5"}, lambda a: a.integer("n", least=1, most=5), "n must be a whole number"),
    ({"n": True}, lambda a: a.integer("n", least=1, most=5), "n must be a whole number"),
    ({"n": 6}, lambda a: a.integer("n", least=1, most=5), "n is 6, allowed are 1 to 5"),
    ({"n": 0.1}, lambda a: a.number("n", least=1, most=5), "n is 0.1, allowed are 1 to 5"),
    ({"n": "x"}, lambda a: a.number("n", least=1, most=5), "n must be a number"),
    ({"f": 1}, lambda a: a.flag("f"), "f must be true or false"),
    ({"c": "z"}, lambda a: a.choice("c", None, {"x", "y"}), "c must be one of: x, y"),
    ({"o": {"/": -1}}, lambda a: a.offsets("o", most=2), "offset from 0"),
    ({"o": {"x": 1}}, lambda a: a.offsets("o", most=2), "absolute paths"),
    ({"o": []}, lambda a: a.offsets("o", most=2), "object of at most 2"),
    ({"colour": 1}, lambda a: a.finish(), "unknown argument: colour"),
]


@pytest.mark.parametrize("values,take,words", REFUSED)
def test_a_refusal_names_argument_and_range(
    values: dict[str, object], take: Callable[[Arguments], object], words: str
) -> None:
    with pytest.raises(BadArguments, match=words):
        take(Arguments(values))


@given(st.dictionaries(st.sampled_from(["path", "n", "x", "f", "c", "o"]), JSON))
def test_any_json_is_taken_or_refused(values: dict[str, object]) -> None:
    values = json.loads(json.dumps(values))
    takes: list[Callable[[Arguments], object]] = [
        lambda a: a.path(),
        lambda a: a.integer("n", 1, least=0, most=10),
        lambda a: a.number("x", 1.0, least=0, most=10),
        lambda a: a.flag("f"),
        lambda a: a.choice("c", "x", {"x"}),
        lambda a: a.offsets("o", most=3),
        lambda a: a.finish(),
    ]
    for take in takes:
        text = ""
        try:
            take(Arguments(values))
        except BadArguments as error:
            text = str(error)
        assert len(text) < 500
