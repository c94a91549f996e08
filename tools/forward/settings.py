"""What is forwarded where to; from flags, or from a TOML file with several services.

::

    to = ["relay.example:1234"]         # for services that have none of their own

    [[service]]
    name = "redis"
    local = ["127.0.0.1:6379"]
    protocol = "multiplex"
    token_file = "token"
    port = 16379
    proxy_protocol = "v2"
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from config.endpoint import Endpoint, parse_endpoint
from wire.errors import PeerError
from wire.rendezvous.line import Protocol
from wire.rendezvous.options import Options, options_of

#: The window our own relays are asked for when an option is sent anyway, bytes.
WINDOW: Final = 1024 * 1024
PROXY_VERSIONS: Final = {"": 0, "v1": 1, "v2": 2}


class SettingsRefused(Exception):
    """A flag or file that cannot be used; the text says which, and has nothing of a token."""


@dataclass(frozen=True, slots=True)
class RelayTls:
    """Files of TLS, read for every connection, so that a new certificate is used at once.

    Attributes:
        ca: authorities that the relay's certificate must chain to.
        server_name: that it must name; empty: the relay's host.
        certificate, key: of ours, for relays that ask for one; empty: none.
    """

    ca: str
    server_name: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class ForwardedService:
    """One local server.

    Attributes:
        title: for logs, and the key by which a reload compares.
        relays: tried in turn.
        locals: users are spread over them.
        protocol, options: as the relay is asked.
        idle: members a pool keeps, connections that wait for users.
        check_seconds: between two looks whether the local server takes connections; 0: none.
        tls: how the relay is met; None: in clear text.
    """

    title: str
    relays: tuple[Endpoint, ...]
    locals: tuple[Endpoint, ...]
    protocol: Protocol = Protocol.MULTIPLEX
    options: Options = Options()  # noqa: RUF009  # frozen value
    idle: int = 4
    check_seconds: float = 0.0
    tls: RelayTls | None = None


def service_of(
    *,
    to: tuple[str, ...],
    local: tuple[str, ...],
    protocol: str = "multiplex",
    name: str = "",
    token_file: str = "",
    port: int = 0,
    proxy_protocol: str = "",
    visitors: tuple[str, ...] = (),
    idle: int = 4,
    check_seconds: float = 0.0,
    tls_ca: str = "",
    tls_server_name: str = "",
    tls_cert: str = "",
    tls_key: str = "",
) -> ForwardedService:
    """From the texts of flags or a file.

    Raises:
        SettingsRefused: one of them cannot be used.
    """
    if not to or not local:
        raise SettingsRefused("a service needs at least one relay (to) and one local server")
    try:
        relays = tuple(parse_endpoint(text) for text in to)
        locals_ = tuple(parse_endpoint(text) for text in local)
        word = Protocol(protocol)
        version = PROXY_VERSIONS[proxy_protocol]
    except KeyError:
        raise SettingsRefused(f"proxy_protocol is v1 or v2, not {proxy_protocol!r}") from None
    except ValueError as error:
        raise SettingsRefused(str(error)) from None
    asks = name or token_file or port or version or visitors
    token = read_token(Path(token_file)) if token_file else ""
    try:
        draft = Options(name, token, port, version, WINDOW if asks else 0)
        line = draft.line()[:-1]
        if visitors:
            line += b" visitors=" + ",".join(visitors).encode("ascii", "replace")
        options = options_of(line) if asks else draft
    except PeerError:
        raise SettingsRefused(
            "name: letters, digits, . _ -; visitors: networks such as 10.0.0.0/8"
        ) from None
    tls = RelayTls(tls_ca, tls_server_name, tls_cert, tls_key) if tls_ca else None
    if tls is None and (tls_server_name or tls_cert or tls_key):
        raise SettingsRefused("TLS needs tls_ca: whom the relay's certificate must chain to")
    if tls is not None and word is not Protocol.MULTIPLEX:
        raise SettingsRefused("TLS is for the protocol multiplex")
    title = name or f"{locals_[0]} by {word.value}"
    return ForwardedService(title, relays, locals_, word, options, max(1, idle), check_seconds, tls)


def read_token(path: Path) -> str:
    """A token, the first line of a file that others cannot read.

    Raises:
        SettingsRefused: it cannot be used.
    """
    try:
        if os.stat(path).st_mode & 0o077:
            raise SettingsRefused(f"{path}: others may read it: chmod 600")
        lines = path.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsRefused(f"{path}: {getattr(error, 'strerror', 'no text')}") from None
    if not lines:
        raise SettingsRefused(f"{path}: it is empty")
    return lines[0]


_KEYS: Final[dict[str, type]] = {
    "to": list, "local": list, "protocol": str, "name": str, "token_file": str, "port": int,
    "proxy_protocol": str, "visitors": list, "idle": int, "check_seconds": float,
    "tls_ca": str, "tls_server_name": str,
    "tls_cert": str, "tls_key": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ForwardSettings:
    """Everything; `path` is read again by SIGHUP.

    Attributes:
        services: by title.
    """

    services: dict[str, ForwardedService] = field(default_factory=dict)
    path: Path | None = None


def load(path: Path) -> ForwardSettings:
    """The settings of a file.

    Raises:
        SettingsRefused: it cannot be used.
    """
    try:
        parsed = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsRefused(f"{path}: {error}") from None
    shared = parsed.pop("to", [])
    rows = parsed.pop("service", [])
    if parsed or not isinstance(rows, list) or not rows:
        raise SettingsRefused(f"{path}: `to` and [[service]] tables, nothing else")
    services: dict[str, ForwardedService] = {}
    for number, row in enumerate(rows, 1):
        try:
            service = service_of(**_arguments({"to": shared} | row, path.parent))
        except SettingsRefused as refused:
            raise SettingsRefused(f"{path}: service {number}: {refused}") from None
        if service.title in services:
            raise SettingsRefused(f"{path}: service {number}: {service.title} is there already")
        services[service.title] = service
    return ForwardSettings(services, path)


def _arguments(row: dict[str, Any], directory: Path) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for key, value in row.items():
        kind: type | None = _KEYS.get(key)
        if kind is float and isinstance(value, int):
            value = float(value)
        if kind is None or not isinstance(value, kind):
            raise SettingsRefused(f"{key}: unknown, or not what belongs there")
        arguments[key] = tuple(str(one) for one in value) if isinstance(value, list) else value
    for key in ("token_file", "tls_ca", "tls_cert", "tls_key"):
        if arguments.get(key):
            arguments[key] = str(directory / arguments[key])
    return arguments
