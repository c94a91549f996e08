"""The control socket: a Unix socket whose file permission is the authentication.

::

    ops
    ├─ control        ControlServer: owns the listening socket
    └─ clients        dynamic: one ControlClient per connection

Also `LinkServer`, which serves the same protocol to the parent of a child process.

Source: docs/decisions/0014, docs/runtime.md section 9.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from actors.node import admin_events, admin_trace, admin_tree, admin_verbs, admin_watch
from actors.node.admin_session import ControlService, ControlSession, Operation, Peer
from actors.node.mounts import MountTable
from actors.runtime import (
    Actor,
    ActorSystem,
    Backoff,
    ChildRefused,
    ChildSpec,
    DynamicSupervisor,
    Intensity,
    Restart,
    Supervisor,
    shutdown,
)

#: Control connections at a time; one more is closed at once.
MAX_CLIENTS = 16
#: Connections accepted per wake-up.
ACCEPT_BATCH = 16
#: Seconds a plain question, and a walk over the whole tree, may take.
PLAIN_SECONDS = 5.0
WALK_SECONDS = 60.0
_CREDENTIALS = struct.Struct("3i")


def operations() -> dict[str, Operation]:
    """Every operation of the protocol by name; None as deadline marks subscriptions."""
    return {
        "tree": Operation(admin_tree.tree, WALK_SECONDS),
        "children": Operation(admin_tree.children, WALK_SECONDS),
        "describe": Operation(admin_tree.describe, PLAIN_SECONDS),
        "stats": Operation(admin_tree.stats, WALK_SECONDS),
        "events": Operation(admin_events.events, None),
        "dead_letters": Operation(admin_events.dead_letters, PLAIN_SECONDS),
        "trace": Operation(admin_trace.trace, None),
        "watch": Operation(admin_watch.watch, None),
        **admin_verbs.operations(),
    }


def control_service(system: ActorSystem, mounts: MountTable) -> ControlService:
    """What a node serves, without guarded places yet."""
    return ControlService(system, mounts, operations())


class ControlSocketBusy(Exception):
    """Another live daemon answers on the socket."""


class ControlServer(Actor):
    """Owns the listening socket; hands connections to `clients`.

    Args:
        service: what is served.
        path: of the socket; its directory is made with mode 0700 when missing.
        clients: path of the dynamic supervisor for the connections.
    """

    def __init__(self, service: ControlService, path: Path, clients: str) -> None:
        self._service = service
        self._path = path
        self._clients = clients
        self._serial = 0
        self.refused = 0

    def init(self) -> None:
        """Bind, replacing a stale socket file.

        Raises:
            ControlSocketBusy: somebody answers there.
            OSError: the path cannot be bound.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._path.exists():
            self._remove_stale()
        listener = _Listener(self._path)
        self.own(listener, "control socket")
        loop = self.system.loop
        loop.add_reader(listener.sock, self.guard("control socket", self._accept), listener.sock)
        if self.path not in self._service.guarded:
            self._service.guarded.append(self.path)

    def describe(self) -> dict[str, object]:
        """Where it listens."""
        return {"socket": str(self._path), "accepted": self._serial, "refused": self.refused}

    def _remove_stale(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.5)
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink(missing_ok=True)
                return
            except OSError as error:
                raise ControlSocketBusy(f"{self._path}: {error.strerror or error}") from None
        raise ControlSocketBusy(f"{self._path}: another daemon answers here")

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        size = _CREDENTIALS.size
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        clients = self.system.ref(self._clients)
        if uid not in (0, os.getuid()) or clients is None:
            self.refused += 1
            logger.bind(actor=self.path).warning("control connection of uid {} refused", uid)
            sock.close()
            return
        self._serial += 1
        peer = Peer(f"operator uid={uid}")
        service = self._service
        spec = ChildSpec(
            f"pid-{pid}~{self._serial}",
            lambda: ControlClient(service, sock, peer),
            restart=Restart.TEMPORARY,
            shutdown=1.0,
        )
        try:
            self.system.start_child(clients, spec)
        except ChildRefused:
            self.refused += 1
            sock.close()


class _Listener:
    """The bound socket and its file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        old = os.umask(0o177)  # the file must never exist with wider permission
        try:
            self.sock.bind(str(path))
        except OSError:
            self.sock.close()
            raise
        finally:
            os.umask(old)
        self.sock.listen(MAX_CLIENTS)

    def abort(self) -> None:
        """Stop listening and remove the file."""
        if self.sock.fileno() >= 0:
            _remove_reader(self.sock)
            self.sock.close()
            self._path.unlink(missing_ok=True)


def _remove_reader(sock: socket.socket) -> None:
    asyncio.get_running_loop().remove_reader(sock)


class ControlClient(Actor):
    """One control connection."""

    def __init__(self, service: ControlService, sock: socket.socket, peer: Peer) -> None:
        self._service = service
        self._sock = sock
        self._peer = peer
        self._session: ControlSession | None = None

    def init(self) -> None:
        """Greet."""
        self._session = ControlSession(
            self, self._sock, self._service, self._peer, on_end=self._ended
        )

    def describe(self) -> dict[str, object]:
        """Who it is and what it asked."""
        session = self._session
        return {
            "peer": self._peer.initiator,
            "served": session.served if session else 0,
            "in_flight": {str(k): v for k, v in session.in_flight.items()} if session else {},
        }

    def on_resource_failed(self, kind: str, error: Exception) -> bool:
        """A failed request costs the request, not the connection."""
        return self._session is not None and self._session.request_failed(kind, error)

    def _ended(self, reason: str) -> None:
        self.stop(shutdown(reason))


class LinkServer(ControlClient):
    """In a child process: serves its tree to the parent over the inherited socket.

    Args:
        on_lost: called when the parent is gone.
    """

    def __init__(
        self, service: ControlService, sock: socket.socket, on_lost: Callable[[], None]
    ) -> None:
        super().__init__(service, sock, Peer("parent process", trusted=True))
        self._on_lost = on_lost

    def _ended(self, reason: str) -> None:
        self._on_lost()
        super()._ended(reason)


def ops_spec(service: ControlService, socket_path: Path, *, base: str = "/ops") -> ChildSpec:
    """The subtree that serves operators."""
    children = [
        ChildSpec("clients", lambda: DynamicSupervisor(max_children=MAX_CLIENTS)),
        ChildSpec(
            "control",
            lambda: ControlServer(service, socket_path, f"{base}/clients"),
            backoff=Backoff(base=0.05, cap=2.0, stable_after=5.0),
        ),
    ]
    return ChildSpec(
        base.rpartition("/")[2],
        lambda: Supervisor(children, intensity=Intensity(restarts=30, period=30.0)),
    )
