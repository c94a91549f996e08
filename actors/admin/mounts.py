"""Mounted subtrees: how the control protocol sees into the processes this node owns.

An actor that owns an operating-system process attaches, at its own path, something that answers
control requests about the tree inside that process. The control server forwards requests about
places below such a path and renames the paths in the answers (wire/admin/paths.py), so that an
operator sees one tree. The place itself (`/node/echo`) is the process actor: requests that act
(`kill`, `suspend`, ...) at exactly that path stay in this process.

This module knows neither sockets nor processes. `actors/admin/child_link.py` has the mount that
speaks over a socketpair.

Example::

    link = self.own(ControlLink(self, sock), "control link")
    self.own(mounts.attach(self.path, link), "mount")
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from wire.admin.errors import ErrorCode
from wire.admin.messages import Row
from wire.admin.paths import ROOT, below


class ControlFailed(Exception):
    """A request was answered with an error.

    Attributes:
        code: an `ErrorCode` word, or a word a newer peer knows.
        message: for people.
    """

    def __init__(self, code: ErrorCode | str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = str(code)
        self.message = message


class MountCall(Protocol):
    """One request on its way: iterate its parts, then take its result."""

    def __aiter__(self) -> AsyncIterator[list[Row]]:
        """The parts in order; ends when the final answer came.

        Raises:
            ControlFailed: the answer was an error, or the link is gone (`unavailable`).
        """
        ...

    async def result(self) -> Row:
        """Skip what parts are left and give the final answer. Raises `ControlFailed`."""
        ...

    def cancel(self) -> None:
        """End it early; idempotent, harmless when it is over."""
        ...


class SubtreeMount(Protocol):
    """Answers control requests about a tree somewhere else. Paths are that tree's own."""

    def call(self, op: str, args: Mapping[str, object]) -> MountCall:
        """Begin a request; never waits. A dead link shows when the call is awaited."""
        ...


class MountTable:
    """Which paths of this node lead into another process.

    Bound: one entry per process actor; whoever starts those bounds them.
    """

    def __init__(self) -> None:
        self._mounts: dict[str, SubtreeMount] = {}

    def attach(self, path: str, mount: SubtreeMount) -> Attachment:
        """Mount a tree at an actor's path. The actor owns the result and loses it at its end.

        A second attachment at the same path takes the place of the first.
        """
        self._mounts[path] = mount
        return Attachment(self, path, mount)

    def at(self, path: str) -> SubtreeMount | None:
        """The mount at exactly this path."""
        return self._mounts.get(path)

    def find(self, path: str) -> tuple[str, SubtreeMount] | None:
        """The mount at or above `path`, with its own path; None when the place is local."""
        if not self._mounts:
            return None
        while path and path != ROOT:
            mount = self._mounts.get(path)
            if mount is not None:
                return path, mount
            path = path.rpartition("/")[0]
        return None

    def under(self, path: str) -> list[tuple[str, SubtreeMount]]:
        """Every mount at or below `path`, in order of attachment."""
        return [(place, mount) for place, mount in self._mounts.items() if below(place, path)]

    def _detach(self, path: str, mount: SubtreeMount) -> None:
        if self._mounts.get(path) is mount:
            del self._mounts[path]


class Attachment:
    """An owned entry of a `MountTable`."""

    __slots__ = ("_mount", "_path", "_table")

    def __init__(self, table: MountTable, path: str, mount: SubtreeMount) -> None:
        self._table = table
        self._path = path
        self._mount = mount

    def abort(self) -> None:
        """Take the entry out, unless a later one took its place; idempotent."""
        self._table._detach(self._path, self._mount)
