"""The HTTP request that opens a WebSocket, and its answer.

Answers are those of the Go libraries that clients know: status, headers and one sentence.

Source: RFC 6455 section 4.2; protocol sheet peer 1.2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import Final

#: Bytes of a request.
MAX_HEAD: Final = 8192
_END: Final = b"\r\n\r\n"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VIOLATION: Final = "WebSocket protocol violation: "


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is a WebSocket once `answer` was sent.

    Attributes:
        headers: of the request, names in lower case.
        rest: what came behind the request.
    """

    answer: bytes
    headers: dict[str, str] = field(repr=False)
    rest: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The connection is over once `answer` was sent.

    Attributes:
        status: of HTTP.
    """

    answer: bytes
    status: int


class Handshake:
    """The server's side of one request.

    Args:
        path: the only one there is.
        same_origin: browsers must come from our own host.
    """

    __slots__ = ("_held", "_path", "_same_origin")

    def __init__(self, path: str, *, same_origin: bool = False) -> None:
        self._path = path
        self._same_origin = same_origin
        self._held = b""

    def receive(self, data: bytes) -> Opened | Answered | None:
        """Bytes of the client; None: the request is not complete."""
        self._held += data
        head, end, rest = self._held.partition(_END)
        if not end:
            if len(self._held) > MAX_HEAD:
                return _answer(431, "Request Header Fields Too Large", "431 Too Large", close=True)
            return None
        request = _parse(head)
        if request is None:
            return _answer(400, "Bad Request", "400 Bad Request", close=True)
        return self._judge(*request, rest)

    def _judge(
        self, method: str, target: str, minor: int, headers: list[tuple[str, str]], rest: bytes
    ) -> Opened | Answered:
        found = dict(reversed(headers))
        if minor >= 1 and "host" not in found:
            text = "400 Bad Request: missing required Host header"
            return _answer(400, text[4:], text, close=True)
        path = target.partition("?")[0]
        if path != self._path:
            if path.startswith("//") and "/" + path.lstrip("/") == self._path:
                return _redirect(self._path)
            return _answer(404, "Not Found", "404 page not found\n")
        refusal = _refusal(method, minor, headers) or self._foreign(found)
        if refusal is not None:
            return refusal
        key = found["sec-websocket-key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        answer = (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + accept + _END
        )
        return Opened(answer, found, rest)

    def _foreign(self, headers: dict[str, str]) -> Answered | None:
        origin = headers.get("origin")
        if not self._same_origin or origin is None:
            return None
        host = origin.partition("://")[2]
        if not host:
            return _answer(403, "Forbidden", f'request Origin "{origin}" is not a valid URL\n')
        if host.lower() != headers["host"].lower():
            return _answer(403, "Forbidden", f'request Origin "{host}" is not authorized\n')
        return None


def _parse(head: bytes) -> tuple[str, str, int, list[tuple[str, str]]] | None:
    """Method, target, minor version and headers; None: it is no HTTP."""
    try:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
    except ValueError:
        return None
    if version not in ("HTTP/1.0", "HTTP/1.1") or not method.isalpha() or target[:1] != "/":
        return None
    headers: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in value:
            return None
        headers.append((name.lower(), value.strip()))
    if [name for name, _ in headers].count("host") > 1:
        return None
    return method, target, int(version[-1]), headers


def _tokens(headers: list[tuple[str, str]], name: str) -> list[str]:
    return [
        token.strip().lower() for key, value in headers if key == name for token in value.split(",")
    ]


def _refusal(method: str, minor: int, headers: list[tuple[str, str]]) -> Answered | None:
    if minor < 1:
        return _violation(426, "Upgrade Required", "the request must be at least HTTP/1.1")
    if "upgrade" not in _tokens(headers, "connection"):
        return _violation(426, "Upgrade Required", "no Connection: Upgrade", upgrade=True)
    if "websocket" not in _tokens(headers, "upgrade"):
        return _violation(426, "Upgrade Required", "no Upgrade: websocket", upgrade=True)
    if method != "GET":
        return _violation(405, "Method Not Allowed", "the request's method is not GET")
    if _tokens(headers, "sec-websocket-version") != ["13"]:
        text = "unsupported WebSocket protocol version (only 13 is supported)\n"
        return _answer(400, "Bad Request", text, ("Sec-WebSocket-Version: 13",))
    keys = [value for name, value in headers if name == "sec-websocket-key"]
    if len(keys) != 1:
        return _violation(400, "Bad Request", f"{len(keys)} Sec-WebSocket-Key headers, not one")
    try:
        size = len(base64.b64decode(keys[0], validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != 16:
        return _violation(400, "Bad Request", "Sec-WebSocket-Key must be 16 bytes in base64")
    return None


def _violation(status: int, phrase: str, text: str, *, upgrade: bool = False) -> Answered:
    extra = ("Connection: Upgrade", "Upgrade: websocket") if upgrade else ()
    return _answer(status, phrase, f"{_VIOLATION}{text}\n", extra)


def _redirect(path: str) -> Answered:
    body = f'<a href="{path}">Temporary Redirect</a>.\n\n'.encode()
    head = (
        "HTTP/1.1 307 Temporary Redirect\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Location: {path}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return Answered(head.encode() + body, 307)


def _answer(
    status: int, phrase: str, text: str, extra: tuple[str, ...] = (), *, close: bool = False
) -> Answered:
    body = text.encode("latin-1", "replace")
    lines = [f"HTTP/1.1 {status} {phrase}", "Content-Type: text/plain; charset=utf-8", *extra]
    lines.append("Connection: close" if close else "X-Content-Type-Options: nosniff")
    lines += [f"Content-Length: {len(body)}", "", ""]
    return Answered("\r\n".join(lines).encode("latin-1", "replace") + body, status)
