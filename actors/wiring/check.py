"""Everything a start would refuse, without a start: rules, certificates, doors, addresses, files.

Source of every judgement is what the start itself calls, so that both say the same.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from actors.control.policy.rules_toml import RulesError, load_rules
from actors.doors.door import DoorContext
from actors.observe.meters import Meters
from actors.runtime import ActorSystem, StartRefused, naming
from actors.transport.addresses import to_bind
from actors.transport.tls import TlsIdentity, TlsMaterialError
from actors.transport.udp.bind import bind_udp
from actors.wiring.certificates import configured_identity, door_identities
from actors.wiring.composition import load_doors, open_doors
from config.endpoint import Endpoint
from config.schema import Settings


async def problems(settings: Settings) -> list[str]:
    """A sentence for each thing that would keep a relay with these settings from its work."""
    found: list[str] = []
    try:
        load_rules(settings.control.policy.files, int(time.time() * 1000))
    except RulesError as error:
        found.append(str(error))
    try:
        identity = configured_identity(settings)
    except (TlsMaterialError, OSError) as error:
        found.append(str(error))
    else:
        # Without one of its own a relay has development certificates, made at the start.
        found += _doors(settings, identity or TlsIdentity.anonymous())
    for setting, udp, where in listens(settings):
        try:
            with naming(setting):
                _bindable(where, udp=udp)
        except StartRefused as refused:
            found.append(str(refused))
    return [*found, *_files(settings)]


def _doors(settings: Settings, identity: TlsIdentity) -> Iterator[str]:
    """What they read of their own: secrets, tokens, users."""
    unused = Meters()
    system = ActorSystem("check")

    def control() -> object:
        raise LookupError("a door that is looked at has not started")

    context = DoorContext(system, settings, identity, control, unused)  # type: ignore[arg-type]  # never called
    try:
        doors = open_doors(load_doors(type(settings)), context, door_identities(settings))
    except StartRefused as error:
        yield str(error)
        return
    for door in doors.values():
        door.abort()


def listens(settings: Settings) -> Iterator[tuple[str, bool, Endpoint]]:
    """Every address these settings listen on: setting, whether it is UDP, and address."""
    for name, room in settings:
        for key, udp in (("listen", name in ("edge", "turn")), ("listen_tcp", False),
                         ("listen_tls", False)):  # fmt: skip
            value = getattr(room, key, None)
            for one in (value,) if isinstance(value, Endpoint) else value or ():
                yield f"{name}.{key}", udp, one
    if settings.edge.forward.listen is not None:
        yield "edge.forward.listen", True, settings.edge.forward.listen
    if settings.control.serve.enabled:
        yield "control.serve.listen", False, settings.control.serve.listen


def _bindable(where: Endpoint, *, udp: bool) -> None:
    """One in use is no mistake: the daemon that these settings are of may be running."""
    try:
        bind_once(where, udp=udp)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise


def bind_once(where: Endpoint, *, udp: bool) -> None:
    """Bind it and let it go.

    Raises:
        OSError: it cannot be bound.
    """
    if udp:
        bind_udp(where.host, where.port).close()
        return
    family, address = to_bind(where.host, where.port)
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen(1)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{where} (TCP)") from None


def _files(settings: Settings) -> Iterator[str]:
    """Files that are written: each needs a directory that lets us."""
    written: tuple[tuple[str, Path | None], ...] = (
        ("metrics.dump", settings.metrics.dump),
        ("log.access_file", settings.log.access_file),
        ("node.tls.key_log", settings.node.tls.key_log),
    )
    for setting, path in written:
        if path is None:
            continue
        directory = path.absolute().parent
        if not directory.is_dir():
            yield f"{setting}: {path}: there is no directory {directory}: make it"
        elif not os.access(path if path.exists() else directory, os.W_OK):
            yield f"{setting}: {path}: Permission denied: it cannot be written"
