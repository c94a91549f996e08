"""A small node with a control socket, for tests that speak to it as an operator's tool does."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.admin.child_link import ControlLink
from actors.admin.mounts import MountTable
from actors.admin.service import LinkServer, control_service, ops_spec
from actors.admin.session import ControlService, Operation
from actors.runtime import (
    Actor,
    ActorRef,
    ActorSystem,
    ChildSpec,
    DynamicSupervisor,
    Intensity,
    Restart,
    Supervisor,
    handles,
)
from tools.control_client import ControlClient


@dataclass(slots=True)
class Job:
    """Something to do."""

    number: int = 0


@dataclass(slots=True)
class Unknown:
    """No actor handles it."""


class Worker(Actor):
    """Counts jobs."""

    def __init__(self, name: str = "worker") -> None:
        self._name = name
        self._jobs = 0

    def describe(self) -> dict[str, object]:
        """What it counted."""
        return {"name": self._name, "jobs": self._jobs}

    @handles(Job)
    def _job(self, job: Job) -> None:
        self._jobs += 1


class ChildNode(Actor):
    """Stands where a process actor stands: owns the link to another node's tree."""

    def __init__(self, mounts: MountTable, sock: socket.socket) -> None:
        self._mounts = mounts
        self._sock = sock

    def init(self) -> None:
        """Mount the other node here."""
        link = ControlLink(self, self._sock)
        self.own(self._mounts.attach(self.path, link), "mount")


class Node:
    """A running node: `/app/one`, `/app/two`, `/pool`, `/ops`."""

    def __init__(self, directory: Path, operations: Mapping[str, Operation]) -> None:
        self.socket = directory / "control.sock"
        self.mounts = MountTable()
        self.system = ActorSystem("test", seed=1)
        service = control_service(self.system, self.mounts)
        self.service = ControlService(
            service.system, service.mounts, {**service.operations, **operations}
        )

    def tree(self) -> Supervisor:
        """The root."""
        app = [ChildSpec("one", lambda: Worker("one")), ChildSpec("two", lambda: Worker("two"))]
        return Supervisor(
            [
                ChildSpec("app", lambda: Supervisor(app, intensity=Intensity(100, 10.0))),
                ChildSpec("pool", lambda: DynamicSupervisor(intensity=Intensity(100, 10.0))),
                ops_spec(self.service, self.socket),
            ]
        )

    def ref(self, path: str) -> ActorRef:
        """The actor at `path`."""
        ref = self.system.ref(path)
        assert ref is not None, path
        return ref

    def add(self, *names: str, restart: Restart = Restart.TEMPORARY) -> None:
        """Workers below /pool."""
        pool = self.ref("/pool")
        for name in names:
            self.system.start_child(pool, ChildSpec(name, lambda: Worker("pool"), restart=restart))

    async def client(self) -> ControlClient:
        """A new connection."""
        return await ControlClient.connect(self.socket)

    async def lines(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection without our client: raw lines. The greeting is read."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket), limit=2**21)
        assert b'"trunkline":"control"' in await reader.readline()
        return reader, writer


@asynccontextmanager
async def node(operations: Mapping[str, Operation] | None = None) -> AsyncIterator[Node]:
    """A node in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="tl-"))
    try:
        one = Node(directory, operations or {})
        await one.system.start(one.tree)
        try:
            yield one
        finally:
            await one.system.stop()
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def mounted_child(parent: Node, name: str = "echo") -> AsyncIterator[ActorSystem]:
    """Another actor system in this loop, mounted at `/pool/<name>` of the parent node."""
    ours, theirs = socket.socketpair()
    child = ActorSystem(name, seed=2)
    mounts = MountTable()
    service = control_service(child, mounts)
    links = [ChildSpec("listen", Worker), ChildSpec("dial", Worker)]
    specs = [
        ChildSpec("links", lambda: Supervisor(links, intensity=Intensity(100, 10.0))),
        ChildSpec(
            "parent-link",
            lambda: LinkServer(service, theirs, lambda: None),
            restart=Restart.TEMPORARY,
        ),
    ]
    await child.start(lambda: Supervisor(specs))
    spec = ChildSpec(
        name,
        lambda: ChildNode(parent.mounts, ours),
        restart=Restart.TEMPORARY,
        kind="process",
    )
    ref = parent.system.start_child(parent.ref("/pool"), spec)
    await ref.started(timeout=5.0)
    link = parent.mounts.at(ref.path)
    assert isinstance(link, ControlLink)
    await link.greeted(timeout=5.0)
    try:
        yield child
    finally:
        await child.stop()
