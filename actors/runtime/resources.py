"""Ownership: what an actor acquired is released when it ends, in reverse order, synchronously.

A resource is anything with `abort()`: a socket, a stream, a route, a task, a pump. `abort()`
must not wait and must be idempotent; what it raises is collected and reported, and never
stops the release of the others.

Source: docs/runtime.md section 6.
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable


@runtime_checkable
class Resource(Protocol):
    """Something an actor owns."""

    def abort(self) -> None:
        """Release now, synchronously; idempotent."""
        ...


class ResourceSet:
    """The resources of one incarnation, in the order they were acquired.

    Bound: none of its own; each owner bounds what it acquires.
    """

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: dict[int, tuple[Resource, str]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def add(self, resource: Resource, kind: str) -> None:
        """Take ownership. `kind` is the word shown in the inspector."""
        self._items[id(resource)] = (resource, kind)

    def discard(self, resource: Resource) -> None:
        """Give ownership up without releasing."""
        self._items.pop(id(resource), None)

    def kinds(self) -> dict[str, int]:
        """How many of each kind are owned."""
        counts: dict[str, int] = {}
        for _, kind in self._items.values():
            counts[kind] = counts.get(kind, 0) + 1
        return counts

    def traffic(self) -> tuple[int, int]:
        """Sum of `bytes_in` and `bytes_out` over the resources that count them."""
        received = sent = 0
        for resource, _ in self._items.values():
            received += getattr(resource, "bytes_in", 0)
            sent += getattr(resource, "bytes_out", 0)
        return received, sent

    def release(self) -> list[Exception]:
        """Abort everything, last acquired first. Returns what went wrong."""
        errors: list[Exception] = []
        while self._items:
            _, (resource, _) = self._items.popitem()
            try:
                resource.abort()
            except Exception as exc:  # noqa: BLE001  # a broken abort must not keep the others
                exc.__traceback__ = None
                errors.append(exc)
        return errors


#: Shared by all actors that own nothing; never added to.
NO_RESOURCES: Final = ResourceSet()
