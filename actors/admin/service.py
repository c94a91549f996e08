"""The control socket: a Unix socket whose file permission is the authentication.

::

    ops
    ├─ clients        dynamic: one ControlClient per connection
    └─ control        ControlServer: owns the listening socket

Also `LinkServer`, which serves the same protocol to the parent of a child process.

Source: docs/decisions/0014, docs/runtime.md section 9.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final

from actors.admin import events, trace, tree_view, verbs, watch
from actors.admin.commands import Command, command_operation
from actors.admin.listener import ControlListener, ControlSocketBusy
from actors.admin.mounts import MountTable
from actors.admin.session import ControlService, ControlSession, Operation, Peer
from actors.files.lock import LockFile
from actors.runtime import (
    Actor,
    ActorSystem,
    Backoff,
    ChildRefused,
    ChildSpec,
    Down,
    DynamicSupervisor,
    Intensity,
    Restart,
    StartRefused,
    Supervisor,
    handles,
    naming,
    shutdown,
)
from actors.transport.gate import Place
from wire.admin.errors import ErrorCode
from wire.admin.limits import MAX_CLIENTS, MAX_IN_FLIGHT, MAX_IN_FLIGHT_LINK
from wire.admin.messages import encode_failed

#: Seconds a plain question, and a walk over the whole tree, may take.
PLAIN_SECONDS = 5.0
WALK_SECONDS = 60.0
#: The daemon's setting for the path.
CONTROL_SOCKET: Final = "node.control_socket"
_CREDENTIALS = struct.Struct("3i")


def operations() -> dict[str, Operation]:
    """Every operation of the protocol by name; None as deadline marks subscriptions."""
    return {
        "tree": Operation(tree_view.tree, WALK_SECONDS),
        "children": Operation(tree_view.children, WALK_SECONDS),
        "describe": Operation(tree_view.describe, PLAIN_SECONDS),
        "stats": Operation(tree_view.stats, WALK_SECONDS),
        "events": Operation(events.events, None),
        "dead_letters": Operation(events.dead_letters, PLAIN_SECONDS),
        "trace": Operation(trace.trace, None),
        "watch": Operation(watch.watch, None),
        **verbs.operations(),
    }


def control_service(
    system: ActorSystem, mounts: MountTable, commands: Mapping[str, Command] | None = None
) -> ControlService:
    """What a node serves, without guarded places yet; `commands` are those of other rooms."""
    more = {name: command_operation(command) for name, command in (commands or {}).items()}
    return ControlService(system, mounts, {**operations(), **more})


class ControlServer(Actor):
    """Owns the listening socket; hands connections to `clients`.

    Args:
        service: what is served.
        path: of the socket; see listener.py for its file.
        clients: path of the dynamic supervisor for the connections.
        lock: of the socket, when the process has it already.
        setting: where the path came from, for the sentence when it cannot be used.
    """

    def __init__(
        self,
        service: ControlService,
        path: Path,
        clients: str,
        lock: LockFile | None = None,
        setting: str = CONTROL_SOCKET,
    ) -> None:
        self._lock = lock
        self._setting = setting
        self._service = service
        self._path = path
        self._clients = clients
        self._accepted = 0
        self._refused: Counter[str] = Counter()
        # Connections whose actor has not begun yet, by the monitor of that actor.
        self._pending: dict[int, _Handover] = {}

    def init(self) -> None:
        """Bind, in the place of a socket file a dead process left.

        Raises:
            StartRefused: a live daemon answers there, the place is not safe, or cannot be bound.
        """
        try:
            with naming(self._setting):
                listener = ControlListener(self._path, self._lock)
        except ControlSocketBusy as busy:
            raise StartRefused(f"{self._setting}: {busy}") from None
        self._listener = self.own(listener, "control socket")
        self._listener.start(self._admit, self.guard, self.log.warning)
        for guarded in (self.path, self._clients):
            if guarded not in self._service.guarded:
                self._service.guarded.append(guarded)

    def describe(self) -> dict[str, object]:
        """Where it listens, and whom it turned away."""
        return {
            "socket": str(self._path),
            "accepted": self._accepted,
            "refused": dict(self._refused),
            "max_clients": MAX_CLIENTS,
        }

    def _admit(self, sock: socket.socket, _: object, place: Place) -> None:
        place.leave()  # the supervisor of the clients has the limit
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(raw)
        if uid not in (0, os.geteuid()):
            self._refuse(sock, "uid", ErrorCode.REFUSED, f"uid {uid} may not control this daemon")
            return
        clients = self.system.ref(self._clients)
        if clients is None:
            self._refuse(sock, "starting", ErrorCode.BUSY, "the control server is starting")
            return
        self._accepted += 1
        handover = self.own(_Handover(sock), "new connection")
        service, peer = self._service, Peer(f"operator uid={uid}")
        spec = ChildSpec(
            f"pid-{pid}~{self.incarnation}.{self._accepted}",
            lambda: ControlClient(service, handover, peer),
            restart=Restart.TEMPORARY,
            shutdown=1.0,
        )
        try:
            ref = self.system.start_child(clients, spec)
        except ChildRefused as refused:
            self.disown(handover)
            text = (
                f"{MAX_CLIENTS} control connections are open already"
                if refused.why == "full"
                else "the control server is stopping"
            )
            self._refuse(sock, refused.why, ErrorCode.BUSY, text)
            return
        self._pending[self.monitor(ref)] = handover

    def _refuse(self, sock: socket.socket, kind: str, code: ErrorCode, text: str) -> None:
        """Say why, as far as the socket takes it at once, and close."""
        self._refused[kind] += 1
        self._listener.refused(text)
        try:
            sock.send(encode_failed(0, code, text), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it did not wait for an answer
        sock.close()

    @handles(Down)
    def _down(self, down: Down) -> None:
        """A connection is over; when its actor never began, its socket is still ours."""
        handover = self._pending.pop(down.token, None)
        if handover is not None:
            self.disown(handover)
            handover.abort()


class _Handover:
    """A socket between the actor that accepted it and the actor that will own it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock: socket.socket | None = sock

    def take(self) -> socket.socket:
        """The new owner takes it. Raises `ConnectionAbortedError` when it was closed already."""
        sock, self._sock = self._sock, None
        if sock is None:
            raise ConnectionAbortedError("the connection was given up before it was taken")
        return sock

    def abort(self) -> None:
        """Close it unless it was taken; idempotent."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class ControlClient(Actor):
    """One control connection; ends with it."""

    in_flight: ClassVar[int] = MAX_IN_FLIGHT

    def __init__(self, service: ControlService, handover: _Handover, peer: Peer) -> None:
        self._service = service
        self._handover = handover
        self._peer = peer
        self._session: ControlSession | None = None

    def init(self) -> None:
        """Take the socket and greet."""
        self._session = ControlSession(
            self,
            self._handover.take(),
            self._service,
            self._peer,
            on_end=self._ended,
            in_flight=self.in_flight,
        )

    def describe(self) -> dict[str, object]:
        """Who it is, and what it asks at present."""
        session = self._session
        return {
            "peer": self._peer.initiator,
            "served": session.wire.served if session else 0,
            "refused": session.wire.refused if session else 0,
            "in_flight": {str(k): v for k, v in session.wire.in_flight.items()} if session else {},
        }

    def on_resource_failed(self, kind: str, error: Exception) -> bool:
        """A failed request costs the request, not the connection."""
        return self._session is not None and self._session.request_failed(kind, error)

    def _ended(self, reason: str) -> None:
        self.stop(shutdown(reason))


class LinkServer(ControlClient):
    """In a child process: serves its tree to the parent over the inherited socket.

    Requests arrive already authorised, with the operator's name as initiator.

    Args:
        on_lost: called once when the parent is gone or the link broke; not when this actor is
            stopped or killed.
    """

    in_flight: ClassVar[int] = MAX_IN_FLIGHT_LINK

    def __init__(
        self, service: ControlService, sock: socket.socket, on_lost: Callable[[], None]
    ) -> None:
        super().__init__(service, _Handover(sock), Peer("parent process", trusted=True))
        self._on_lost = on_lost

    def init(self) -> None:
        """Greet the parent."""
        super().init()
        if self.path not in self._service.guarded:
            self._service.guarded.append(self.path)

    def _ended(self, reason: str) -> None:
        self._on_lost()
        super()._ended(reason)


def ops_spec(
    service: ControlService,
    socket_path: Path,
    *,
    base: str = "/ops",
    lock: LockFile | None = None,
    setting: str = CONTROL_SOCKET,
) -> ChildSpec:
    """The subtree that serves operators; `lock` and `setting` as of `ControlServer`."""
    children = [
        ChildSpec("clients", lambda: DynamicSupervisor(max_children=MAX_CLIENTS)),
        ChildSpec(
            "control",
            lambda: ControlServer(service, socket_path, f"{base}/clients", lock, setting),
            backoff=Backoff(base=0.05, cap=2.0, stable_after=5.0),
        ),
    ]
    return ChildSpec(
        base.rpartition("/")[2],
        lambda: Supervisor(children, intensity=Intensity(restarts=30, period=30.0)),
    )


__all__ = [
    "ControlClient",
    "ControlServer",
    "ControlSocketBusy",
    "LinkServer",
    "control_service",
    "operations",
    "ops_spec",
]
