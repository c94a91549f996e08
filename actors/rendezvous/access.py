"""Clients with tokens, and what each may do; a TOML file.

::

    [[client]]
    name = "laptop"
    token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    ports = ["8000-8999", "2222"]       # also for ports it does not ask for
    max_services = 4
    bytes_per_second = 1000000          # of all its services together, both directions
    visitors = ["10.0.0.0/8"]

The file has hashes only. A token is random, so one hash of it is enough.

Source: protocol sheet rendezvous 5.6 rows 4, 5, 11.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from actors.transport.tcp.proxied import Network
from actors.transport.tcp.pump import Throttle

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_RANGE: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
#: Clients in one file.
MAX_CLIENTS: Final = 100_000


class AccessError(Exception):
    """The file cannot be used; the text says where and why, and has nothing of a token."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who a service belongs to.

    Attributes:
        name: of the client; empty: nobody proved anything.
        ports: what its services may have; None: whatever the door gives.
        max_services: registered at a time; 0: as the settings say.
        visitors: networks its users may come from; empty: from anywhere.
        bytes_per_second: of all its services together; 0: no limit.
    """

    name: str = ""
    ports: frozenset[int] | None = None
    max_services: int = 0
    visitors: tuple[Network, ...] = ()
    bytes_per_second: float = 0.0


NOBODY: Final = Client()


class Access:
    """Clients with tokens, and what each may do; a TOML file.

    Args:
        path: of the file; None: nobody has a token.

    Raises:
        AccessError: it cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._clients: dict[bytes, Client] = {}
        #: By client; kept over a reload, so that a limit holds.
        self._throttles: dict[str, Throttle] = {}
        self.load()

    def __len__(self) -> int:
        return len(self._clients)

    def load(self) -> None:
        """Read the file; when it cannot be used everything is as it was.

        Raises:
            AccessError: it cannot.
        """
        if self._path is None:
            return
        try:
            text = self._path.read_text("utf-8")
            parsed = tomllib.loads(text)
        except (OSError, UnicodeDecodeError) as error:
            raise AccessError(f"{self._path}: cannot read: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise AccessError(f"{self._path}: no TOML: {error}") from None
        self._clients = _clients_of(parsed, self._path)
        for client in self._clients.values():
            throttle = self._throttles.get(client.name)
            if throttle is not None:
                throttle.rate = client.bytes_per_second

    def client_of(self, token: str) -> Client | None:
        """Whose token this is; None: nobody's."""
        # What is compared are hashes, of which nobody can choose any part.
        return self._clients.get(hashlib.sha256(token.encode()).digest())

    def client_named(self, name: str) -> Client:
        """A client that proved its name otherwise; what the file says of it, or nothing."""
        return next((one for one in self._clients.values() if one.name == name), Client(name))

    def throttle_of(self, client: Client) -> Throttle | None:
        """The limit that all services of a client share; None: it has none."""
        if not client.bytes_per_second:
            return None
        if client.name not in self._throttles:
            self._throttles[client.name] = Throttle(client.bytes_per_second)
        return self._throttles[client.name]


def _clients_of(parsed: dict[str, Any], path: Path) -> dict[bytes, Client]:
    unknown = set(parsed) - {"client"}
    rows = parsed.get("client", [])
    if unknown or not isinstance(rows, list):
        raise AccessError(f"{path}: only [[client]] tables, not {sorted(unknown)}")
    if len(rows) > MAX_CLIENTS:
        raise AccessError(f"{path}: {len(rows)} clients, at most {MAX_CLIENTS}")
    found: dict[bytes, Client] = {}
    names: set[str] = set()
    for number, row in enumerate(rows, 1):
        try:
            digest, client = _client_of(row)
            if digest in found or client.name in names:
                raise ValueError("the name or token of another client")
        except (ValueError, TypeError) as error:
            raise AccessError(f"{path}: client {number}: {error}") from None
        found[digest] = client
        names.add(client.name)
    return found


_KEYS: Final = frozenset(
    ("name", "token_sha256", "ports", "max_services", "visitors", "bytes_per_second")
)


def _client_of(row: Any) -> tuple[bytes, Client]:
    if not isinstance(row, dict) or set(row) - _KEYS:
        raise ValueError(f"its keys are {', '.join(sorted(_KEYS))}")
    name, digest = row.get("name"), row.get("token_sha256")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("name: letters, digits, . _ -, at most 63")
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise ValueError("token_sha256: 64 hex digits in lower case")
    ranges = row.get("ports")
    return bytes.fromhex(digest), Client(
        name,
        None if ranges is None else frozenset(port for one in ranges for port in _ports(one)),
        _count(row, "max_services"),
        tuple(ip_network(one) for one in row.get("visitors", ())),
        float(_count(row, "bytes_per_second")),
    )


def _ports(text: object) -> range:
    match = _RANGE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("ports: texts such as 8000-8999 or 2222")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"ports: {text} is none")
    return range(first, last + 1)


def _count(row: dict[str, Any], key: str) -> int:
    value = row.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{key}: a whole number, 0 or more")
    return value
