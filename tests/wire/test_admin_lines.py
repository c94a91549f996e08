"""Lines are found whatever the chunks, and a line over the limit is never collected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.admin.errors import ErrorCode, LineTooLong
from wire.admin.lines import LineReader

LINE = st.binary(max_size=40).filter(lambda line: b"\n" not in line)


def _feed(reader: LineReader, data: bytes, cuts: list[int]) -> list[bytes]:
    lines: list[bytes] = []
    start = 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        lines += reader.receive(data[start:cut])
        start = cut
    return lines + reader.receive(memoryview(data)[start:])


@given(st.lists(LINE, max_size=20), st.lists(st.integers(0, 2000), max_size=30))
def test_any_split_gives_the_same_lines(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    wanted = [stripped for line in lines if (stripped := line.strip(b"\r \t"))]
    assert _feed(LineReader(64), data, cuts) == wanted
    assert _feed(LineReader(64), data, list(range(len(data)))) == wanted


def test_an_unfinished_line_waits_for_its_end() -> None:
    reader = LineReader(9)
    assert reader.receive(b"12345") == []
    assert reader.pending == 5
    assert reader.receive(b"678\r\n9") == [b"12345678"]
    assert reader.pending == 1


@given(st.integers(0, 300), st.integers(1, 100))
def test_the_bound_holds_for_finished_and_unfinished_lines(length: int, chunk: int) -> None:
    limit = 100
    data = b"x" * length + b"\n"
    reader = LineReader(limit)
    seen: list[bytes] = []
    try:
        for start in range(0, len(data), chunk):
            seen += reader.receive(data[start : start + chunk])
            assert reader.pending <= limit
    except LineTooLong as error:
        refusal = error
    else:
        assert length <= limit
        assert seen == ([b"x" * length] if length else [])
        return
    assert length > limit
    assert refusal.word is ErrorCode.TOO_LARGE
    assert str(limit) in str(refusal)


@pytest.mark.parametrize("length", [100, 101])
def test_the_exact_limit(length: int) -> None:
    reader = LineReader(100)
    if length > 100:
        with pytest.raises(LineTooLong):
            reader.receive(b"x" * length + b"\n")
    else:
        assert reader.receive(b"x" * length + b"\n") == [b"x" * length]
