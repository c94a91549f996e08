"""The line in front of the others that only our own relays understand.

`relay/1 key=value ...` with percent-escapes in the values, answered by `ok` or `error REASON`; then
the usual lines follow. A relay of the reference ends when it reads it, so it is sent only where the
user of the forwarder asked for something that needs it. What we do not know is refused rather than
ignored: a list of visitors that is not looked at would open what should be closed.

Source: protocol sheet rendezvous 1.8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias
from urllib.parse import quote, unquote

from wire.rendezvous.limits import MAX_NAME, MAX_NETWORKS, MAX_OPTIONS_LINE
from wire.rendezvous.line import BadLine

#: What such a line begins with.
PREFIX: Final = b"relay/1 "
OK: Final = "ok"
ERROR: Final = "error "
#: Plain characters of a value.
_PLAIN: Final = "-._~:/,"
_NAME: Final = re.compile(rf"[a-zA-Z0-9][a-zA-Z0-9._-]{{0,{MAX_NAME - 1}}}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,256}")
#: Largest window of a stream that may be asked for, bytes.
MAX_WINDOW: Final = 16 * 1024 * 1024

Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Options:
    """What a service wants beside a port.

    Attributes:
        name: of the service; its port is kept for it while it is away. Empty: it has none.
        token: proves who asks. Never in a repr.
        port: the one it wants; 0: any.
        proxy: version of the PROXY header in front of each user's bytes; 0: none.
        window: receive window of the streams the service opens to us and we to it, bytes; 0: ours.
        visitors: networks users may come from; empty: from anywhere.
    """

    name: str = ""
    token: str = field(default="", repr=False)
    port: int = 0
    proxy: int = 0
    window: int = 0
    visitors: tuple[Network, ...] = ()

    def line(self) -> bytes:
        """As it is sent, LF included."""
        texts = {
            "name": self.name,
            "token": self.token,
            "port": str(self.port or ""),
            "proxy": f"v{self.proxy}" if self.proxy else "",
            "window": str(self.window or ""),
            "visitors": ",".join(map(str, self.visitors)),
        }
        pairs = [f"{key}={quote(text, safe=_PLAIN)}" for key, text in texts.items() if text]
        return PREFIX + " ".join(pairs).encode() + b"\n"

    @property
    def wanted(self) -> bool:
        """False when everything is as a relay of the reference does it."""
        return self != Options()


_KEYS: Final = frozenset(one.name for one in fields(Options))


def options_of(line: bytes) -> Options:
    """Read such a line, without its LF.

    Raises:
        BadLine: `bad_options`.
    """
    found: dict[str, str] = {}
    try:
        if len(line) >= MAX_OPTIONS_LINE:
            raise ValueError("too long")
        for pair in line[len(PREFIX) :].decode("ascii").split():
            key, equals, text = pair.partition("=")
            if not equals or key not in _KEYS or key in found:
                raise ValueError("no option of ours, or twice")
            found[key] = unquote(text, errors="strict")
        return Options(
            name=_matching(_NAME, found.get("name", "")),
            token=_matching(_TOKEN, found.get("token", "")),
            port=_number(found.get("port", ""), 65535),
            proxy={"": 0, "v1": 1, "v2": 2}[found.get("proxy", "")],
            window=_number(found.get("window", ""), MAX_WINDOW),
            visitors=networks_of(found.get("visitors", "")),
        )
    except (ValueError, KeyError):
        raise BadLine("bad_options") from None


def networks_of(text: str) -> tuple[Network, ...]:
    """Networks between commas.

    Raises:
        ValueError: one is none, or there are too many.
    """
    parts = [part for part in text.split(",") if part]
    if len(parts) > MAX_NETWORKS:
        raise ValueError(f"more than {MAX_NETWORKS} networks")
    return tuple(ip_network(part) for part in parts)


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if text and not pattern.fullmatch(text):
        raise ValueError("not allowed there")
    return text


def _number(text: str, most: int) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > most:
        raise ValueError("no number, or too large")
    return int(text)
