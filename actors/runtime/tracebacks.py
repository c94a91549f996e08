"""Tracebacks as text, cheap enough for a supervisor that restarts thousands of actors.

The standard formatter checks every source file on disk for every traceback. This one reads a
source file once, drops the runtime's own outermost frames, and caps what it writes, so a report
has a bounded size and a crash costs tens of microseconds. It never raises: an exception whose
`__str__` is broken must not hide the failure it reports.

Source: docs/runtime.md section 5.
"""

from __future__ import annotations

import functools
import linecache
import os
from types import CodeType, TracebackType
from typing import Final

#: Frames written per exception: the outermost and the innermost ones.
OUTER_FRAMES: Final = 6
INNER_FRAMES: Final = 18
#: Places in the code whose lines are kept: what crashes in a loop crashes at the same place.
PLACES: Final = 512
#: Exceptions written of one chain of causes, and members of one exception group.
MAX_CHAIN: Final = 4
MAX_MEMBERS: Final = 8
#: Characters of one exception's message, and of the whole text.
MAX_MESSAGE: Final = 1000
MAX_TEXT: Final = 8000

_OWN_FILES = os.path.dirname(__file__) + os.sep
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def one_line(exc: BaseException, limit: int = 300) -> str:
    """`ExceptionType: first line of its message`, at most `limit` characters."""
    message = _message(exc)
    name = type(exc).__name__
    return (f"{name}: {message.splitlines()[0]}" if message.strip() else name)[:limit]


def format_failure(exc: BaseException) -> str:
    """The exception, its causes and their frames as text, at most `MAX_TEXT` characters."""
    parts: list[str] = []
    if exc.__cause__ is None and (exc.__context__ is None or exc.__suppress_context__):
        _write(exc, parts, "")
    else:
        _write_chain(exc, parts)
    text = "".join(parts)
    if len(text) <= MAX_TEXT:
        return text
    return f"... {len(text) - MAX_TEXT} characters left out ...\n{text[-MAX_TEXT:]}"


def _write_chain(exc: BaseException, parts: list[str]) -> None:
    chain: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen and len(chain) < MAX_CHAIN:
        seen.add(id(current))
        if current.__cause__ is not None:
            chain.append((current, _CAUSE))
            current = current.__cause__
        else:
            chain.append((current, _CONTEXT))
            current = None if current.__suppress_context__ else current.__context__
    for index in range(len(chain) - 1, -1, -1):
        link, joint = chain[index]
        if index < len(chain) - 1:
            parts.append(joint)
        _write(link, parts, "")


def drop_frames(exc: BaseException) -> None:
    """Clear the tracebacks of an exception and of everything it refers to.

    A traceback pins every frame it passed through, with their buffers and connections.
    """
    exc.__traceback__ = None
    if (
        exc.__cause__ is None
        and exc.__context__ is None
        and not isinstance(exc, BaseExceptionGroup)
    ):
        return
    pending: list[BaseException | None] = [exc]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = None
        pending.append(current.__cause__)
        pending.append(current.__context__)
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)


def _message(exc: BaseException) -> str:
    try:
        return str(exc)[:MAX_MESSAGE]
    except Exception:  # noqa: BLE001  # somebody's broken __str__
        return "<its __str__ failed>"


def _write(exc: BaseException, parts: list[str], indent: str) -> None:
    trace = exc.__traceback__
    while (
        trace is not None
        and trace.tb_next is not None
        and trace.tb_frame.f_code.co_filename.startswith(_OWN_FILES)
    ):
        trace = trace.tb_next
    if trace is not None:
        parts.append(f"{indent}Traceback (most recent call last):\n")
        _write_frames(trace, parts, indent)
    kind = type(exc)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    message = _message(exc)
    parts.append(f"{indent}{name}: {message}\n" if message else f"{indent}{name}\n")
    notes = getattr(exc, "__notes__", None)
    if isinstance(notes, list):
        texts = [note[:MAX_MESSAGE] for note in notes[:MAX_MEMBERS] if isinstance(note, str)]
        parts.extend(f"{indent}{text}\n" for text in texts)
    if isinstance(exc, BaseExceptionGroup) and len(indent) < 8:
        for member in exc.exceptions[:MAX_MEMBERS]:
            _write(member, parts, f"{indent}    ")
        if len(exc.exceptions) > MAX_MEMBERS:
            parts.append(f"{indent}    and {len(exc.exceptions) - MAX_MEMBERS} more\n")


def _write_frames(trace: TracebackType, parts: list[str], indent: str) -> None:
    places: list[tuple[CodeType, int]] = []
    current: TracebackType | None = trace
    while current is not None:
        places.append((current.tb_frame.f_code, current.tb_lineno))
        current = current.tb_next
    skipped = len(places) - OUTER_FRAMES - INNER_FRAMES
    for index, (code, line) in enumerate(places):
        if skipped > 0 and OUTER_FRAMES <= index < OUTER_FRAMES + skipped:
            if index == OUTER_FRAMES:
                parts.append(f"{indent}  ... {skipped} frames left out ...\n")
            continue
        parts.append(_frame(code, line, indent))


@functools.lru_cache(maxsize=PLACES)
def _frame(code: CodeType, line: int, indent: str) -> str:
    text = f'{indent}  File "{code.co_filename}", line {line}, in {code.co_qualname}\n'
    source = linecache.getline(code.co_filename, line).strip()
    return f"{text}{indent}    {source}\n" if source else text
