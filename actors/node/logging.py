"""Log set-up of one process: loguru to stderr, human or JSON, with secrets kept out.

`install` is called once by the process entry; `set_level` works at any time. Code logs through
`loguru.logger` and names its subject with `logger.bind(...)` or `logger.contextualize(...)`; the
fields `actor` (path), `agent_uri` and `stream_id` come first in every line. Standard-library
logging (asyncio, the QUIC library) is carried over into the same stream.

Every finished line passes `redact` before it is written, tracebacks included: PEM blocks, bearer
credentials, JSON web tokens and values of fields named like a secret never reach the stream.
loguru's `diagnose` (values of local variables in tracebacks) stays off for the same reason.
Writing to stderr is synchronous: a stalled reader of stderr stalls the process, so give it a
journal or a file.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from traceback import format_exception
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson
from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

#: What may be asked for.
LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: Fields that come first, in this order.
SCOPE_FIELDS: Final = ("actor", "agent_uri", "stream_id")
REDACTED: Final = "[redacted]"

#: Loggers of libraries that write per packet, and from which level on they are heard. At WARNING
#: aioquic says what a peer did wrong: once for each packet, so that any peer fills the log at will.
#: Who is turned away or loses its connection, and why, our own lines and counters tell.
QUIET_LOGGERS: Final = {
    "quic": logging.ERROR,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
}
#: Where the exceptions of libraries are from that say a peer wrote nonsense: anybody can cause
#: them at will, so they are no errors of ours and have no traceback. The peer is told (400).
PEERS_FAULTS: Final = ("aiohttp.http_exceptions",)

_SECRET_FIELD = re.compile(
    r"(?i)(?:^|[_.-])(?:token|secret|password|passwd|private_?key|credential|authorization|cookie)s?$"
)
_PEM = re.compile(
    r"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?(?:-----END \1-----|\Z)",
    re.DOTALL,
)
_BEARER = re.compile(r"(?i)\b(bearer|basic|digest)\s+[A-Za-z0-9._~+/=-]{8,}")
_JSON_WEB_TOKEN = re.compile(r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")
_ASSIGNMENT = re.compile(
    r"(?i)\b([a-z_-]*(?:token|secret|password|passwd|private_key)s?)(['\"]?\s*[=:]\s*)"
    r"(?!\[redacted\])(\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)"
)
#: Anything that could start a line of its own or steer a terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def redact(text: str) -> str:
    """Remove everything that looks like key material or a credential from a text."""
    text = _PEM.sub(lambda m: f"[redacted {m[1].lower()}]", text)
    text = _BEARER.sub(lambda m: f"{m[1]} {REDACTED}", text)
    text = _JSON_WEB_TOKEN.sub(REDACTED, text)
    return _ASSIGNMENT.sub(lambda m: f"{m[1]}{m[2]}{REDACTED}", text)


@dataclass(slots=True)
class _Installed:
    stream: TextIO
    format: str
    handler_id: int


_installed: _Installed | None = None


def install(level: str, format: str, stream: TextIO | None = None) -> None:
    """Send all logging of this process to one stream; replaces an earlier installation.

    Args:
        level: TRACE, DEBUG, INFO, WARNING, ERROR or CRITICAL.
        format: "human" or "json".
        stream: None means sys.stderr.

    Raises:
        ValueError: unknown level or format.
    """
    global _installed
    if format not in ("human", "json"):
        raise ValueError(f"log format {format!r}: use human or json")
    stream = sys.stderr if stream is None else stream
    severity = logger.level(level).no
    logger.remove()
    _installed = _Installed(stream, format, _add(stream, format, severity))
    bridge = _Bridge()
    logging.root.handlers[:] = [bridge]
    logging.root.setLevel(logging.NOTSET)
    logging.captureWarnings(True)
    _quiet_libraries(severity)


def set_level(level: str) -> None:
    """Change the least severe level written; takes effect with the next record.

    Raises:
        ValueError: unknown level.
        RuntimeError: `install` was not called.
    """
    if _installed is None:
        raise RuntimeError("logging is not installed")
    severity = logger.level(level).no
    # The new handler first: no record falls between the two.
    new = _add(_installed.stream, _installed.format, severity)
    logger.remove(_installed.handler_id)
    _installed.handler_id = new
    _quiet_libraries(severity)


def uninstall() -> None:
    """Undo `install`: standard logging has no handlers, loguru writes nowhere."""
    global _installed
    if _installed is None:
        return
    logger.remove(_installed.handler_id)
    _installed = None
    logging.root.handlers[:] = [h for h in logging.root.handlers if not isinstance(h, _Bridge)]
    logging.root.setLevel(logging.WARNING)
    logging.captureWarnings(False)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def _quiet_libraries(severity: int) -> None:
    # At TRACE everything is wanted, packets included.
    wanted = severity < logging.DEBUG
    for name, level in QUIET_LOGGERS.items():
        logging.getLogger(name).setLevel(logging.NOTSET if wanted else level)


def _add(stream: TextIO, format: str, severity: int) -> int:
    render = _json_line if format == "json" else _human_line

    def write(message: Message) -> None:
        try:
            stream.write(render(message.record))
            stream.flush()
        # Any failure here would make loguru print the raw record, secrets included.
        except Exception as error:  # noqa: BLE001 - the last frame; nobody above can log it
            _report_lost(stream, error)

    return logger.add(
        write, level=severity, format="{message}", backtrace=False, diagnose=False, catch=False
    )


def _report_lost(stream: TextIO, error: Exception) -> None:
    try:
        stream.write(f"log record lost: {type(error).__name__}\n")
        stream.flush()
    except (OSError, ValueError):
        pass  # stderr itself is gone or closed: there is no place left to say so


def _human_line(record: Record) -> str:
    fields = "".join(f" {name}={_plain(value)}" for name, value in _fields(record["extra"]).items())
    moment = record["time"].strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    text = redact(record["message"]).rstrip("\n")
    trace = redact(_trace(record))
    first, *more = text.split("\n")
    if trace:
        more += trace.rstrip("\n").split("\n")
    line = f"{moment} {record['level'].name:<8} {_one_line(first)}{fields}\n"
    # Continuation lines are indented, so no text of a peer looks like a record of its own.
    return line + "".join(f"    {_one_line(part)}\n" for part in more)


def _json_line(record: Record) -> str:
    entry: dict[str, Any] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": _encodable(redact(record["message"])),
        "logger": record["name"],
        **{k: v for k, v in _fields(record["extra"]).items() if k not in _OWN_FIELDS},
    }
    trace = _trace(record)
    if trace:
        exception = record["exception"]
        kind = exception.type if exception is not None else None
        entry["exception"] = kind.__name__ if kind is not None else "unknown"
        entry["traceback"] = _encodable(redact(trace))
    return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode() + "\n"


_OWN_FIELDS: Final = frozenset(("time", "level", "message", "logger", "exception", "traceback"))


def _fields(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Bound fields, scope first, secrets replaced; values are numbers, booleans, None or text."""
    names = [name for name in SCOPE_FIELDS if name in extra]
    names += [name for name in extra if name not in SCOPE_FIELDS]
    return {name: _field_value(name, extra[name]) for name in names}


def _field_value(name: str, value: Any) -> Any:
    if _SECRET_FIELD.search(name):
        return REDACTED
    # JSON readers keep 53 bits only; 64-bit ids travel as text.
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"[{len(value)} bytes]"
    return _encodable(redact(str(value)))


def _encodable(text: str) -> str:
    """Lone surrogates (from undecodable file names, for example) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> str:
    text = _one_line(str(value))
    return f'"{text}"' if " " in text or not text else text


def _one_line(text: str) -> str:
    """Control characters escaped: a peer's text cannot forge a line or steer a terminal."""
    escaped = _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), text)
    return _encodable(escaped)


def _trace(record: Record) -> str:
    exception = record["exception"]
    if exception is None or exception.value is None:
        return ""
    return "".join(format_exception(exception.type, exception.value, exception.traceback))


class _Bridge(logging.Handler):
    """Carries standard-library records over into loguru with their level, place and exception."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        exception = record.exc_info
        if exception and type(exception[1]).__module__ in PEERS_FAULTS:
            level, exception = "DEBUG", None
        frame: FrameType | None = inspect.currentframe()
        depth = 0
        while frame is not None and (depth == 0 or frame.f_code.co_filename in _LOGGING_FILES):
            frame = frame.f_back
            depth += 1
        logger.opt(depth=depth, exception=exception).bind(library=record.name).log(
            level, "{}", record.getMessage()
        )


_LOGGING_FILES: Final = frozenset((logging.__file__, warnings.__file__))
