"""Audit of the served controller: decisions of all its relays in one log.

Texts that are too long are cut, not refused: a relay would offer the same record for ever.

Source: protocol sheet ORP 4.1 (Audit), 4.2; 6.2 R30.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import grpc

from actors.control.backend import AuditFilter, Backend
from actors.control.limits import MAX_AUDIT_ROWS
from actors.control.messages import AuditRecord, Unavailable
from actors.control.operator_messages import QueryAudit
from actors.control.remote.codec import audit_message, audit_of
from actors.control.store.requests import AppendAudit
from actors.controller.dispatch import Call, Streamed, Unary, Writer
from actors.controller.limits import CALL_SECONDS, MAX_BATCH, MAX_TEXT
from actors.controller.request_checks import Refused, bad_request, required
from actors.runtime import ActorRef, ReplyError, RuntimeFault
from wire.orp import control_pb2, fleet_pb2


class AuditService:
    """Audit of the served controller: decisions of all its relays in one log.

    Args:
        store: where it is kept.
        audit: the audit actor of this daemon; its own records are part of every answer.
        wall_ms: wall-clock milliseconds.
    """

    def __init__(self, store: Backend, audit: ActorRef, *, wall_ms: Callable[[], int]) -> None:
        self._store = store
        self._audit = audit
        self._wall_ms = wall_ms

    @property
    def unary(self) -> Mapping[str, Unary]:
        """The unary methods."""
        return {"Audit/Record": self.record, "Fleet/RecordBatch": self.record_batch}

    @property
    def streamed(self) -> Mapping[str, Streamed]:
        """The streams."""
        return {"Audit/Query": self.query}

    async def record(
        self, call: Call, request: control_pb2.RecordAuditRequest
    ) -> control_pb2.RecordAuditResponse:
        """Append one decision."""
        del call
        if not request.HasField("event"):
            raise bad_request("event is required")
        await self._store.ask(AppendAudit([self._record(request.event)]))
        return control_pb2.RecordAuditResponse()

    async def record_batch(
        self, call: Call, request: fleet_pb2.RecordBatchRequest
    ) -> fleet_pb2.RecordBatchResponse:
        """Append all, or none."""
        del call
        if len(request.events) > MAX_BATCH:
            raise bad_request(f"{len(request.events)} events, at most {MAX_BATCH} are allowed")
        if request.events:
            await self._store.ask(AppendAudit([self._record(event) for event in request.events]))
        return fleet_pb2.RecordBatchResponse()

    def _record(self, event: control_pb2.AuditEvent) -> AuditRecord:
        record = audit_of(event)
        return replace(
            record,
            at=record.at or self._wall_ms(),
            tenant=record.tenant[:MAX_TEXT],
            caller=record.caller[:MAX_TEXT],
            target=record.target[:MAX_TEXT],
            method=record.method[:MAX_TEXT],
            reason=record.reason[:MAX_TEXT],
            stream_id=record.stream_id[:MAX_TEXT],
        )

    async def query(
        self, call: Call, request: control_pb2.QueryAuditRequest, writer: Writer
    ) -> None:
        """Matching decisions, newest first; no limit means `MAX_AUDIT_ROWS`."""
        del call
        wanted = AuditFilter(
            tenant=required("tenant", request.tenant),
            caller=request.caller,
            target=request.target,
            since_ms=request.since_unix_ms,
            limit=request.limit if 0 < request.limit < MAX_AUDIT_ROWS else MAX_AUDIT_ROWS,
        )
        try:
            records = await self._audit.ask(QueryAudit(wanted), timeout=CALL_SECONDS)
        except ReplyError as refused:
            why = refused.refusal
            text = why.why if isinstance(why, Unavailable) else str(why)
            raise Refused(grpc.StatusCode.UNAVAILABLE, text) from None
        except RuntimeFault as fault:
            raise Refused(grpc.StatusCode.UNAVAILABLE, str(fault)) from None
        for record in records:
            await writer.send(audit_message(record))
