"""What a link asks a controller, one method per request of the control actors.

Chooses between the sheet's methods and those of this project's controllers, which batch. Knows no
actor: the two functions given carry the calls.

Source: protocol sheet ORP 4.1, 4.2; 6.2 R15, R20, R30.
"""

from __future__ import annotations

import re
import time
from asyncio import TaskGroup
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from actors.control.backend import (
    AuditFilter,
    BackendError,
    DuplicateRule,
    Registration,
    Relay,
    Withdrawal,
    Withdrawn,
)
from actors.control.limits import (
    LOOKUP_RPC_SECONDS,
    MAX_AUDIT_ROWS,
    RPC_SECONDS,
    RPC_WIDTH,
)
from actors.control.messages import AuditRecord
from actors.control.policy.rule import Rule
from actors.control.registry.provider_cache import Name, Rows
from actors.control.remote.channel import ControllerRefused, MethodUnknown
from actors.control.remote.codec import (
    HEARTBEATS,
    REGIONS,
    SERVICES,
    audit_message,
    audit_of,
    record_of,
    rule_message,
)
from wire.orp import control_pb2, fleet_pb2

T = TypeVar("T")
#: (method, request, response class, timeout=, metadata=) -> (answer, trailing metadata)
Call = Callable[..., Awaitable[Any]]
#: (method, request, response class, timeout=) -> messages
Stream = Callable[..., AsyncGenerator[Any, None]]


async def each(items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do `work` for every item, at most `RPC_WIDTH` at a time.

    The first `BackendError` is raised after those under way have ended; the others do not begin.
    """
    if len(items) == 1:
        await work(items[0])
        return
    left = iter(items)
    errors: list[BackendError] = []

    async def worker() -> None:
        for item in left:
            if errors:
                return
            try:
                await work(item)
            except BackendError as error:
                errors.append(error)

    async with TaskGroup() as group:
        for _ in range(min(RPC_WIDTH, len(items))):
            group.create_task(worker())
    if errors:
        raise errors[0]


class ControllerCalls:
    """What a link asks a controller, one method per request of the control actors. Every method
    raises `BackendError`.

    Args:
        call: one unary RPC.
        stream: one server stream.
    """

    def __init__(self, call: Call, stream: Stream) -> None:
        self._call = call
        self._stream = stream
        #: False once the controller turned out not to have the methods of this project.
        self._fleet = True

    async def upsert_relay(self, relay: Relay) -> int | None:
        """Announce this relay, with the promise to repeat it.

        How many services the controller has of it; None from one of the sheet, which does not say.
        """
        request = control_pb2.UpsertRelayRequest(
            id=relay.id, region=relay.region, endpoint=relay.endpoint
        )
        _, trailing = await self._call(
            "Registry/UpsertRelay",
            request,
            control_pb2.UpsertRelayResponse,
            timeout=RPC_SECONDS,
            metadata={HEARTBEATS: "1"},
        )
        self._fleet = True  # it may have been replaced by a newer one
        counted = trailing.get(SERVICES, "")
        return int(counted) if re.fullmatch(r"[0-9]{1,15}", counted) else None

    async def register_services(self, registrations: Sequence[Registration]) -> tuple[str, ...]:
        """Publish. Per service: an error text, empty when stored."""
        problems: dict[int, str] = {}

        async def one(place: int) -> None:
            each_one = registrations[place]
            request = control_pb2.RegisterServiceRequest(
                tenant=each_one.tenant,
                service_name=each_one.name,
                agent_uri=each_one.agent_uri,
                relay_id=each_one.relay_id,
                local_addr=each_one.local_address,
            )
            try:
                await self._call(
                    "Registry/RegisterService",
                    request,
                    control_pb2.RegisterServiceResponse,
                    timeout=RPC_SECONDS,
                )
            except ControllerRefused as refused:
                problems[place] = str(refused)

        await each(range(len(registrations)), one)
        return tuple(problems.get(place, "") for place in range(len(registrations)))

    async def deregister_agents(self, agents: Sequence[Withdrawal]) -> tuple[Withdrawn, ...]:
        """Withdraw everything of these agents. Which services that were is not told."""

        async def one(agent: Withdrawal) -> None:
            request = control_pb2.DeregisterAgentRequest(
                tenant=agent.tenant, agent_uri=agent.agent_uri, relay_id=agent.relay_id
            )
            await self._call(
                "Registry/DeregisterAgent",
                request,
                control_pb2.DeregisterAgentResponse,
                timeout=RPC_SECONDS,
            )

        await each(agents, one)
        return ()

    async def deregister_stale(self, relay_id: str, before_ms: int) -> tuple[Withdrawn, ...]:
        """Withdraw what this relay published before a time of this process's wall clock.

        A controller of the sheet has no way to ask for that; its rows stay (R19).
        """
        if not self._fleet:
            return ()
        try:
            clock, _ = await self._call(
                "Fleet/Clock",
                fleet_pb2.ClockRequest(),
                fleet_pb2.ClockResponse,
                timeout=RPC_SECONDS,
            )
            # The controller's clock was read before this line, so its clock is ahead of ours by
            # at least this much: what was published after `before_ms` is never withdrawn.
            ahead_ms = clock.unix_ms - int(time.time() * 1000)
            request = fleet_pb2.WithdrawStaleRequest(
                relay_id=relay_id, before_unix_ms=before_ms + ahead_ms
            )
            await self._call(
                "Fleet/WithdrawStale",
                request,
                fleet_pb2.WithdrawStaleResponse,
                timeout=RPC_SECONDS,
            )
        except MethodUnknown:
            self._fleet = False
        return ()

    async def relays(self) -> tuple[Relay, ...]:
        """The relays that announced themselves; none from a controller of the sheet."""
        if not self._fleet:
            return ()
        try:
            answer, _ = await self._call(
                "Fleet/ListRelays",
                fleet_pb2.ListRelaysRequest(),
                fleet_pb2.ListRelaysResponse,
                timeout=RPC_SECONDS,
            )
        except MethodUnknown:
            return ()  # the other methods may be known all the same
        return tuple(Relay(one.id, one.region, one.endpoint) for one in answer.relays)

    async def resolve(self, name: Name, region: str) -> Rows:
        """Providers of one service, those in `region` first."""
        tenant, service = name
        request = control_pb2.ResolveRequest(
            tenant=tenant, service_name=service, caller_region=region
        )
        answer, trailing = await self._call(
            "Registry/Resolve",
            request,
            control_pb2.ResolveResponse,
            timeout=LOOKUP_RPC_SECONDS,
        )
        regions = trailing.get(REGIONS, "").split(",")
        regions += [""] * len(answer.providers)
        return tuple(
            record_of(provider, tenant, service, place)
            for provider, place in zip(answer.providers, regions, strict=False)
        )

    async def add_rule(self, rule: Rule) -> str:
        """Add a rule. Answer: its id."""
        try:
            answer, _ = await self._call(
                "Policy/AddPolicy",
                control_pb2.AddPolicyRequest(rule=rule_message(rule)),
                control_pb2.AddPolicyResponse,
                timeout=RPC_SECONDS,
            )
        except ControllerRefused as refused:
            if refused.code == "ALREADY_EXISTS":
                raise DuplicateRule(rule.id) from None
            raise
        return str(answer.id)

    async def remove_rule(self, tenant: str, rule_id: str) -> bool:
        """Remove a rule. False: there is none."""
        answer, _ = await self._call(
            "Policy/RemovePolicy",
            control_pb2.RemovePolicyRequest(tenant=tenant, id=rule_id),
            control_pb2.RemovePolicyResponse,
            timeout=RPC_SECONDS,
        )
        return bool(answer.removed)

    async def record_audit(self, records: Sequence[AuditRecord]) -> None:
        """Append records: as one batch, or one by one where that is all the controller has.

        One by one, some may be stored when this fails; tried again, those are stored twice.
        """
        if self._fleet:
            request = fleet_pb2.RecordBatchRequest(events=[audit_message(each) for each in records])
            try:
                await self._call(
                    "Fleet/RecordBatch",
                    request,
                    fleet_pb2.RecordBatchResponse,
                    timeout=RPC_SECONDS,
                )
            except MethodUnknown:
                self._fleet = False
            else:
                return

        async def one(record: AuditRecord) -> None:
            await self._call(
                "Audit/Record",
                control_pb2.RecordAuditRequest(event=audit_message(record)),
                control_pb2.RecordAuditResponse,
                timeout=RPC_SECONDS,
            )

        await each(records, one)

    async def query_audit(self, wanted: AuditFilter) -> tuple[AuditRecord, ...]:
        """Matching records, newest first."""
        limit = min(wanted.limit, MAX_AUDIT_ROWS) if wanted.limit > 0 else MAX_AUDIT_ROWS
        request = control_pb2.QueryAuditRequest(
            tenant=wanted.tenant,
            caller=wanted.caller,
            target=wanted.target,
            since_unix_ms=wanted.since_ms,
            limit=limit,
        )
        found: list[AuditRecord] = []
        stream = self._stream("Audit/Query", request, control_pb2.AuditEvent, timeout=RPC_SECONDS)
        async with aclosing(stream) as events:
            async for event in events:
                if len(found) < limit:
                    found.append(audit_of(event))
        return tuple(found)
