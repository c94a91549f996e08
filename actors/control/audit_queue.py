"""Audit records that wait for the store, shared fairly: who asks much loses its own, not others'.

Every tenant has a share of the bound, as many as there are tenants waiting, and within a tenant
every caller (or whoever had it asked) has one of its tenant's. A share that is not used is lent; it
is given back when its owner comes: then a record goes of whoever holds the most. Records leave in
turn, one of each caller of each tenant, so that one record among thousands of a flood is stored
with the next batch.

A batch that is being stored counts as waiting, and is not given up for others.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from actors.control.messages import AuditRecord


def _payer(record: AuditRecord) -> str:
    """Whose share a record takes."""
    return record.asker or record.caller


class _Tenant:
    """What one tenant has waiting, by caller; none of the queues is empty."""

    __slots__ = ("callers", "size")

    def __init__(self) -> None:
        self.callers: OrderedDict[str, deque[AuditRecord]] = OrderedDict()
        self.size = 0

    def put(self, record: AuditRecord) -> None:
        caller = _payer(record)
        queue = self.callers.get(caller)
        if queue is None:
            queue = self.callers[caller] = deque()
        queue.append(record)
        self.size += 1

    def holds(self, caller: str) -> int:
        return len(self.callers.get(caller, ()))

    def take(self) -> AuditRecord:
        """The oldest of the caller whose turn it is."""
        caller, queue = next(iter(self.callers.items()))
        record = queue.popleft()
        self.size -= 1
        if queue:
            self.callers.move_to_end(caller)
        else:
            del self.callers[caller]
        return record

    def drop(self, caller: str) -> AuditRecord:
        """The newest of this caller."""
        queue = self.callers[caller]
        record = queue.pop()
        self.size -= 1
        if not queue:
            del self.callers[caller]
        return record


class AuditQueue:
    """Audit records that wait for the store, shared fairly: who asks much loses its own, not
    others'.

    Args:
        most: records in all, those of the batch included.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._batch: list[AuditRecord] = []
        self._size = 0  # without the batch

    def __len__(self) -> int:
        return self._size + len(self._batch)

    def put(self, record: AuditRecord) -> AuditRecord | None:
        """Let it wait. Answer: the record that is lost for it, which may be itself."""
        if len(self) < self._most:
            self._add(record)
            return None
        name = record.tenant
        tenant = self._tenants.get(name)
        # Who holds its share already loses one of its own: no search among the others.
        shares = len(self._tenants) + (tenant is None)
        if tenant is None or tenant.size * shares < self._size:
            name = max(self._tenants, key=lambda one: self._tenants[one].size, default="")
        victim = self._tenants.get(name)
        if victim is None or not victim.size:
            return record  # all there is is being stored
        if name == record.tenant:
            payer = _payer(record)
            shares = len(victim.callers) + (payer not in victim.callers)
            if victim.holds(payer) * shares >= victim.size:
                return record
        caller = max(victim.callers, key=victim.holds)
        lost = victim.drop(caller)
        self._size -= 1
        if not victim.size:
            del self._tenants[name]
        self._add(record)
        return lost

    def _add(self, record: AuditRecord) -> None:
        tenant = self._tenants.get(record.tenant)
        if tenant is None:
            tenant = self._tenants[record.tenant] = _Tenant()
        tenant.put(record)
        self._size += 1

    def batch(self, most: int) -> tuple[AuditRecord, ...]:
        """The records to store next, at most so many; the same ones until `stored`."""
        while len(self._batch) < most and self._tenants:
            self._batch.append(self._take())
        return tuple(self._batch)

    def _take(self) -> AuditRecord:
        name, tenant = next(iter(self._tenants.items()))
        record = tenant.take()
        self._size -= 1
        if tenant.size:
            self._tenants.move_to_end(name)
        else:
            del self._tenants[name]
        return record

    def stored(self) -> None:
        """The batch is done with, well or not."""
        self._batch.clear()

    def drain(self) -> Iterator[AuditRecord]:
        """Take everything out, the batch first."""
        while self._batch:
            yield self._batch.pop(0)
        while self._tenants:
            yield self._take()

    def waiting(self) -> dict[str, int]:
        """Records by tenant, those of the batch not counted."""
        return {name: tenant.size for name, tenant in self._tenants.items()}
