"""AuditActor: every policy decision is stored at least once, or counted as lost.

Records are collected in a bounded queue and written in batches by a linked task; whoever tells a
record never waits. A failing store is asked again a few times with growing pauses, then the batch
is given up. When the queue is full, who holds most of it loses records (`AuditQueue`).

What is lost is a dead letter of type `AuditRecord` (why: `queue full`, `not stored`, or what the
runtime says when the tree stops): those counters belong to the system and outlive this actor. So
does the queue: an actor that is killed hands its records back to its own mailbox, which its place
keeps ("keep"); a batch that was being written then may be stored twice.

Source: protocol sheet ORP 4.4 (audit); docs/chaos.md 18.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count

from actors.control.audit_queue import AuditQueue
from actors.control.backend import AuditFilter, BackendError, BackendUnavailable, Connect
from actors.control.limits import (
    AUDIT_ATTEMPTS,
    AUDIT_BATCH,
    AUDIT_FLUSH_SECONDS,
    AUDIT_LINGER_SECONDS,
    AUDIT_PAUSE_CAP_SECONDS,
    AUDIT_PAUSE_SECONDS,
    AUDIT_QUEUE,
    MAX_OPERATOR_REQUESTS,
)
from actors.control.messages import AuditRecord, Unavailable
from actors.control.operator_messages import QueryAudit
from actors.control.store.requests import AppendAudit, FindAudit
from actors.observe.meters import Meters
from actors.runtime import (
    DEFERRED,
    Actor,
    ActorRef,
    Deferred,
    ExitReason,
    MailboxSpec,
    OwnedTask,
    Refusal,
    Reply,
    handles,
)

#: Tenants `describe` names, those that lost most.
SHOWN_TENANTS = 10


class _Flush:
    """The oldest record waited long enough for company."""

    __slots__ = ()


class _Stop:
    """Everything told before the stop was asked for is in the queue now."""

    __slots__ = ("incarnation", "reason")

    def __init__(self, reason: ExitReason, incarnation: int) -> None:
        self.reason = reason
        self.incarnation = incarnation


class _Held:
    """The records not yet stored; released, they go back to the mailbox of their place."""

    def __init__(
        self, place: ActorRef, most: int, lose: Callable[[AuditRecord, str], None]
    ) -> None:
        self._place = place
        self._lose = lose
        self.records = AuditQueue(most)

    def abort(self) -> None:
        """The incarnation ends: the next one gets them, or the dead letters do."""
        for record in self.records.drain():
            if not self._place.try_tell(record):
                self._lose(record, "queue full")


class AuditActor(Actor):
    """Every policy decision is stored at least once, or counted as lost.

    Args:
        connect: makes the backend.
        queue: records held for the store.
        linger: seconds the first record of a batch waits for company.
        attempts, pause: how often, and with which first pause in seconds, a batch is tried;
            0 attempts: until it is stored, only the bound of the queue loses records then.
        meters: what is counted, for operators.
    """

    # The real bound is `queue`; the mailbox only has to take the queue back at a restart. Who is
    # refused there counts the record as lost.
    mailbox = MailboxSpec(bound=65_536)

    def __init__(
        self,
        connect: Connect,
        *,
        queue: int = AUDIT_QUEUE,
        linger: float = AUDIT_LINGER_SECONDS,
        attempts: int = AUDIT_ATTEMPTS,
        pause: float = AUDIT_PAUSE_SECONDS,
        meters: Meters | None = None,
    ) -> None:
        meters = meters or Meters()
        self._counters = meters.counters
        self._lost_by_tenant = meters.family("audit_lost_total", "tenant")
        self._meters = meters
        self._connect = connect
        self._queue = queue
        self._linger = linger
        self._attempts = attempts
        self._first_pause = pause
        self._writer: OwnedTask | None = None
        self._stopping = asyncio.Event()
        #: Queries waiting for the records before them. Bound: MAX_OPERATOR_REQUESTS; refused.
        self._queries: deque[tuple[AuditFilter, Reply[tuple[AuditRecord, ...]]]] = deque()
        self._stored = 0
        self._retries = 0
        self._last_error = ""

    def init(self) -> None:
        """Connect to the backend."""
        self._backend = self._connect(self)
        held = _Held(self.ref, self._queue, self._lose)
        self._held = self.own(held, "audit records")
        self._meters.gauges["audit_queued"] = lambda: len(held.records)

    def on_stop(self, reason: ExitReason) -> bool:
        """Take in what was told before, then stop."""
        # A suspended actor would not come to it.
        last = _Stop(reason, self.incarnation)
        return self._cell.suspended or not self.ref.try_tell(last)

    @handles(_Stop)
    def _stop(self, message: _Stop) -> None:
        if message.incarnation == self.incarnation:  # the mailbox may outlive an incarnation
            self.stop(message.reason)

    async def terminate(self, reason: ExitReason) -> None:
        """Write what is left, within a deadline."""
        self._stopping.set()
        if reason.abnormal or not self._held.records:
            return
        self._write()
        if self._writer is not None:
            await asyncio.wait({self._writer.task}, timeout=AUDIT_FLUSH_SECONDS)

    def describe(self) -> dict[str, object]:
        """Counters; `lost` is that of the whole system's life, the others of this incarnation."""
        return {
            "queued": len(self._held.records),
            "queue": self._queue,
            "stored": self._stored,
            "lost": lost_records(self),
            "lost_by_tenant": dict(self._lost_by_tenant.most_common(SHOWN_TENANTS)),
            "retries": self._retries,
            "last_error": self._last_error,
        }

    @handles(AuditRecord)
    def _record(self, record: AuditRecord) -> None:
        records = self._held.records
        lost = records.put(record)
        if lost is not None:
            self._lose(lost, "queue full")
            return
        if len(records) >= AUDIT_BATCH:
            self._write()
        elif len(records) == 1:
            self.start_timer(self._linger, _Flush(), "flush")

    @handles(_Flush)
    def _flush(self, message: _Flush) -> None:
        self._write()

    @handles(QueryAudit)
    def _query(self, message: QueryAudit) -> Refusal | Deferred:
        if len(self._queries) >= MAX_OPERATOR_REQUESTS:
            return Refusal(Unavailable(f"{MAX_OPERATOR_REQUESTS} queries are waiting"))
        self._queries.append((message.wanted, self.defer()))
        self._write()
        return DEFERRED

    # The writer.

    def _write(self) -> None:
        if self._writer is None or self._writer.done:
            self._writer = self.spawn_task(self._run(), "audit writer")

    async def _run(self) -> None:
        while self._held.records or self._queries:
            settled = await self._store_batch()
            if not settled and self._stopping.is_set():
                return  # what is left goes to the next incarnation, or is counted
            # A query sees every record told before it, or the store fails anyway.
            if not settled or not self._held.records:
                await self._answer_queries()

    async def _store_batch(self) -> bool:
        """Store one batch, or give it up. False: it was not stored."""
        records = self._held.records
        batch = records.batch(AUDIT_BATCH)
        pause = self._first_pause
        for attempt in count(1):
            if not batch:
                return True
            try:
                await self._backend.ask(AppendAudit(batch))
            except BackendError as exc:
                self._last_error = str(exc)[:300]
                most = self._attempts
                if not most and not isinstance(exc, BackendUnavailable):
                    most = AUDIT_ATTEMPTS  # it does not want them: that will not pass
                if self._stopping.is_set() or attempt == most:
                    break
                self._retries += 1
                if not self._attempts:
                    await self._answer_queries()  # they would wait for a very long time
                try:
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
                except TimeoutError:
                    pass
                pause = min(pause * 2, AUDIT_PAUSE_CAP_SECONDS)
            else:
                self._last_error = ""
                self._stored += len(batch)
                self._counters["audit_events_total"] += len(batch)
                records.stored()
                return True
        if not self._stopping.is_set():
            self.log.error("{} audit records not stored: {}", len(batch), self._last_error)
            records.stored()
            for record in batch:
                self._lose(record, "not stored")
        return False

    async def _answer_queries(self) -> None:
        while self._queries:
            wanted, reply = self._queries.popleft()
            try:
                reply.send(await self._backend.ask(FindAudit(wanted)))
            except BackendError as exc:
                reply.send(Refusal(Unavailable(str(exc))))

    def _lose(self, record: AuditRecord, why: str) -> None:
        self._lost_by_tenant[record.tenant] += 1
        self.system.dead_letters.add("", self.path, record, why)


def lost_records(actor: Actor) -> int:
    """Decisions of this system that were neither stored nor are waiting to be."""
    letters = actor.system.dead_letters.by_type
    return sum(n for (name, _), n in letters.items() if name == AuditRecord.__name__)
