"""What a process says before its settings are known, or beside its log, in the form of the log.

Whoever asks for JSON reads standard output and standard error by program: there is nothing else on
them, whatever goes wrong.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from loguru import logger

from actors.node.logging import install

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

#: Variables that say in which form the log is wanted.
_VARIABLES: Final = ("TRUNKLINE_LOG__FORMAT", "TRUNKLINE_AGENT_LOG_FORMAT")
_FLAGS: Final = ("--log-format", "log_format", "log.format")


def json_wanted(
    arguments: Sequence[str], environ: Mapping[str, str] | None = None, file: Path | None = None
) -> bool:
    """Whether a command line, the environment or a settings file asks for a log in JSON.

    None of them has been judged yet: it is looked for, and what cannot be read says nothing.
    """
    environ = os.environ if environ is None else environ
    for word, following in itertools.pairwise([*arguments, ""]):
        name, equals, value = word.rpartition("=")
        if (name if equals else word) in _FLAGS:
            return (value if equals else following) == "json"
    named = [environ[name] for name in _VARIABLES if environ.get(name)]
    return "json" in named or (not named and file is not None and _file_says(file) == "json")


def _file_says(file: Path) -> object:
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    log = table.get("log")
    return log.get("format") if isinstance(log, dict) else table.get("log_format")


def say(text: str, *, as_json: bool, level: str = "ERROR") -> None:
    """Each line of a text to standard error: as it is, or as records of the log."""
    if not as_json:
        sys.stderr.write(f"{text}\n")
        return
    install("INFO", "json")
    for line in text.splitlines():
        logger.log(level, "{}", line)


class _Refusal(Protocol):
    exit_code: int

    def format_message(self) -> str: ...


def run_in_json(run: Callable[[], object], refused: type[Exception]) -> NoReturn:
    """Run a command line, which raises `refused` for wrong usage, and end the process.

    Args:
        run: returns the exit code, or nothing.
        refused: has `format_message` and `exit_code`.
    """
    try:
        code = run()
    except refused as error:
        refusal: _Refusal = error  # type: ignore[assignment]  # as its caller says
        say(refusal.format_message(), as_json=True)
        sys.exit(refusal.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def log_the_uncaught() -> None:
    """What nobody caught goes to the log like everything else, secrets left out, and not beside it.

    Call it once, after the log was installed: for the main thread, other threads and finalizers.
    """

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            logger.info("interrupted")
        else:
            logger.opt(exception=(kind, error, trace)).critical("not caught: {}", kind.__name__)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    def unraisable(args: UnraisableHookArgs) -> None:
        if args.exc_value is not None:
            uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
