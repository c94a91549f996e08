"""A controller as the sheet has it, and no more: for tests of what a relay makes of one.

No Fleet service, no metadata, one provider per name, plain errors, no headers before the first
event of a watch, an empty snapshot for no tenant.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from wire.orp import control_pb2 as pb

PACKAGE = "outrelay.control.v1"


@dataclass(slots=True)
class Reference:
    """Its tables."""

    relays: dict[str, pb.UpsertRelayRequest] = field(default_factory=dict)
    services: dict[tuple[str, str], pb.Provider] = field(default_factory=dict)
    rules: dict[str, pb.PolicyRule] = field(default_factory=dict)
    audit: list[pb.AuditEvent] = field(default_factory=list)
    watchers: list[asyncio.Queue[Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    port: int = 0

    async def register(self, request: Any, context: Any) -> Any:
        self.calls.append("register")
        if request.service_name == "refused":
            await context.abort(grpc.StatusCode.UNKNOWN, "boom")
        name = (request.tenant, request.service_name)
        identifier = f"{request.tenant}/{request.service_name}"
        self.services[name] = pb.Provider(
            service_id=identifier,
            agent_uri=request.agent_uri,
            relay_id=request.relay_id,
            local_addr=request.local_addr,
            updated_at_unix_ms=int(time.time() * 1000),
        )
        self._tell(pb.EVENT_KIND_REGISTER, name, self.services[name])
        return pb.RegisterServiceResponse(service_id=identifier)

    async def deregister(self, request: Any, context: Any) -> Any:
        for name, provider in list(self.services.items()):
            if (provider.agent_uri, provider.relay_id) == (request.agent_uri, request.relay_id):
                self._tell(pb.EVENT_KIND_DEREGISTER, name, self.services.pop(name))
        return pb.DeregisterAgentResponse()

    def _tell(self, kind: Any, name: tuple[str, str], provider: pb.Provider) -> None:
        for queue in self.watchers:
            queue.put_nowait(pb.WatchEvent(kind=kind, provider=provider, service_name=name[1]))

    async def resolve(self, request: Any, context: Any) -> Any:
        self.calls.append("resolve")
        provider = self.services.get((request.tenant, request.service_name))
        if provider is None:
            return pb.ResolveResponse()
        answer = pb.Provider()
        answer.CopyFrom(provider)
        relay = self.relays.get(provider.relay_id)
        answer.relay_endpoint = relay.endpoint if relay else ""
        return pb.ResolveResponse(providers=[answer])

    async def upsert(self, request: Any, context: Any) -> Any:
        self.relays[request.id] = request
        return pb.UpsertRelayResponse()

    async def watch(self, request: Any, context: Any) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.watchers.append(queue)
        try:
            while True:
                await context.write(await queue.get())
        finally:
            self.watchers.remove(queue)

    async def watch_rules(self, request: Any, context: Any) -> None:
        for rule in self.rules.values():
            if rule.tenant == request.tenant:
                await context.write(
                    pb.PolicyEvent(kind=pb.PolicyEvent.POLICY_KIND_ADDED, rule=rule)
                )
        await context.write(pb.PolicyEvent(kind=pb.PolicyEvent.POLICY_KIND_SNAPSHOT_END))
        await asyncio.Event().wait()

    async def record(self, request: Any, context: Any) -> Any:
        self.audit.append(request.event)
        return pb.RecordAuditResponse()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        server = grpc.aio.server()
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler

        def made(kind: Any, handler: Any, request: Any) -> Any:
            return kind(
                handler,
                request_deserializer=request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )

        services = {
            "Registry": {
                "RegisterService": made(unary, self.register, pb.RegisterServiceRequest),
                "DeregisterAgent": made(unary, self.deregister, pb.DeregisterAgentRequest),
                "Resolve": made(unary, self.resolve, pb.ResolveRequest),
                "UpsertRelay": made(unary, self.upsert, pb.UpsertRelayRequest),
                "Watch": made(stream, self.watch, pb.WatchRequest),
            },
            "Policy": {"Watch": made(stream, self.watch_rules, pb.WatchPoliciesRequest)},
            "Audit": {"Record": made(unary, self.record, pb.RecordAuditRequest)},
        }
        for name, handlers in services.items():
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"{PACKAGE}.{name}", handlers),)
            )
        self.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)
