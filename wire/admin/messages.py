"""The messages of the control protocol and their JSON lines.

One JSON object per line, UTF-8, orjson on both sides. Values that JSON has no word for (infinite
numbers become null, unknown objects their `str()`) never fail an answer.

==========  =========================================================  ===========
message     line                                                       sent by
==========  =========================================================  ===========
Greeting    {"trunkline":"control","version":1,"node","pid",           server, first
            "capabilities":[...]}
Request     {"id","op","args","window"?}                               client
Part        {"id","part":[...]}                                        server
Finished    {"id","ok":true,"result":{...}}                            server
Failed      {"id","ok":false,"error":{"code","message"}}               server
==========  =========================================================  ===========

Ids are chosen by the client, 1 to 2**53-1, unique among its requests in flight. Id 0 in a
`Failed` speaks of the connection, not of a request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import orjson

from wire.admin.errors import BadLine, ErrorCode
from wire.admin.limits import (
    MAX_ID,
    MAX_MESSAGE_CHARACTERS,
    MAX_OP_CHARACTERS,
    MAX_WINDOW,
    VERSION,
)

#: One JSON object: an actor's row, an event, a snapshot.
Row: TypeAlias = dict[str, object]

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
_MAGIC = "control"
#: Depth below which a value is replaced by its text when orjson refused the whole.
_PLAIN_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Greeting:
    """The server's first line. `capabilities` are the operations it knows, and flags."""

    node: str
    pid: int
    capabilities: tuple[str, ...] = ()
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `window` 0 means: no limit on parts in flight."""

    id: int
    op: str
    args: Mapping[str, object] = field(default_factory=dict)
    window: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a streamed answer."""

    id: int
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer of a request, after its parts."""

    id: int
    result: Row


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that was not done. `code` is a plain word so that newer servers can add some."""

    id: int
    code: str
    message: str


Answer: TypeAlias = Greeting | Part | Finished | Failed


# Encoding. All of these return one complete line with its newline.


def encode_greeting(greeting: Greeting) -> bytes:
    """The server's first line."""
    return _encode(
        {
            "trunkline": _MAGIC,
            "version": greeting.version,
            "node": greeting.node,
            "pid": greeting.pid,
            "capabilities": greeting.capabilities,
        }
    )


def encode_request(request: Request) -> bytes:
    """A client's request."""
    fields: dict[str, object] = {"id": request.id, "op": request.op, "args": request.args}
    if request.window:
        fields["window"] = request.window
    return _encode(fields)


def encode_part(request: int, rows: Sequence[Row]) -> bytes:
    """Some rows of a streamed answer."""
    return _encode({"id": request, "part": rows})


def encode_finished(request: int, result: Mapping[str, object]) -> bytes:
    """The final answer of a request."""
    return _encode({"id": request, "ok": True, "result": result})


def encode_failed(request: int, code: ErrorCode | str, message: str) -> bytes:
    """An error answer; a long message is cut."""
    text = message[:MAX_MESSAGE_CHARACTERS]
    return _encode({"id": request, "ok": False, "error": {"code": str(code), "message": text}})


def _encode(value: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(value, default=_plain_object, option=_OPTIONS)
    except TypeError:  # lone surrogates, integers over 64 bits, nesting too deep, a broken str()
        return orjson.dumps(_plain(value, 0), option=_OPTIONS)


def _plain_object(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        return [str(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    return str(value)


def _plain(value: object, depth: int) -> object:
    """The slow way: copy a value into something orjson always takes."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if depth < _PLAIN_DEPTH:
        if isinstance(value, Mapping):
            return {
                str(_plain(str(key), depth + 1)): _plain(item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_plain(item, depth + 1) for item in value]
    return f"<{type(value).__name__}>"


# Decoding.


def decode_request(line: bytes) -> Request:
    """Parse one line a client sent.

    Raises:
        BadLine: with the id it named, when that much could be read.
    """
    fields = _object(line)
    request = fields.get("id")
    if type(request) is not int or not 0 < request <= MAX_ID:
        raise BadLine(f"a request needs an id from 1 to {MAX_ID}")
    op = fields.get("op")
    if not isinstance(op, str) or not 0 < len(op) <= MAX_OP_CHARACTERS:
        raise BadLine("a request needs an op: the name of an operation", request)
    args = fields.get("args", {})
    if not isinstance(args, dict):
        raise BadLine("args must be an object", request)
    window = fields.get("window", 0)
    if type(window) is not int or not 0 <= window <= MAX_WINDOW:
        raise BadLine(f"window must be a number from 0 to {MAX_WINDOW}", request)
    return Request(request, op, args, window)


def decode_answer(line: bytes) -> Answer:
    """Parse one line a server sent.

    Raises:
        BadLine: not a line of this protocol.
    """
    fields = _object(line)
    if "trunkline" in fields:
        return _greeting(fields)
    request = fields.get("id")
    if type(request) is not int or not 0 <= request <= MAX_ID:
        raise BadLine("an answer without a legal id")
    rows = fields.get("part")
    if isinstance(rows, list):
        if not all(isinstance(row, dict) for row in rows):
            raise BadLine("a part must be a list of objects", request)
        return Part(request, rows)
    result = fields.get("result")
    if fields.get("ok") is True and isinstance(result, dict):
        return Finished(request, result)
    error = fields.get("error")
    if fields.get("ok") is False and isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        if isinstance(code, str) and isinstance(message, str):
            return Failed(request, code, message)
    raise BadLine("an answer is a part, a result or an error", request)


def _greeting(fields: dict[str, object]) -> Greeting:
    node, pid, version = fields.get("node"), fields.get("pid"), fields.get("version")
    capabilities = fields.get("capabilities", [])
    if fields["trunkline"] != _MAGIC or not isinstance(node, str):
        raise BadLine("not a control socket of trunkline")
    if type(pid) is not int or type(version) is not int or not isinstance(capabilities, list):
        raise BadLine("a greeting needs node, pid, version and capabilities")
    return Greeting(node, pid, tuple(str(item) for item in capabilities), version)


def _object(line: bytes) -> dict[str, object]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadLine(f"not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise BadLine(f"a line must be a JSON object, not {type(value).__name__}")
    return value
