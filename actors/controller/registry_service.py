"""Registry and Fleet of the served controller: providers, relays, and the time.

Source: protocol sheet ORP 4.1 (Registry), 4.2, 4.3; 6.2 R19, R20, R29.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from actors.control.backend import Backend, Registration, Relay, ServiceRecord, Withdrawal
from actors.control.limits import MAX_SERVICE_NAME
from actors.control.remote.codec import (
    HEARTBEATS,
    MAX_RESOLVED,
    REGIONS,
    SERVICES,
    provider_message,
    service_id,
)
from actors.control.store.fleet_requests import FindRelays
from actors.control.store.requests import (
    DeregisterAgents,
    DeregisterStale,
    FindProviders,
    RegisterServices,
    UpsertRelay,
)
from actors.controller.dispatch import Call, Streamed, Unary, Writer
from actors.controller.limits import MAX_RELAY_TEXT, MAX_TEXT, MAX_WATCHED_NAMES
from actors.controller.request_checks import bad_request, required
from actors.controller.state import ProviderChange
from actors.controller.watches import Watches
from wire.orp import control_pb2, fleet_pb2

#: A region that fits into metadata; any other is not told.
_REGION: Final = re.compile(r"[A-Za-z0-9._-]{0,63}")


class RegistryService:
    """Registry and Fleet of the served controller: providers, relays, and the time.

    Args:
        store: where it is kept.
        watches: who is told of changes.
        admit: raises `Refused` when there are too many watches.
        wall_ms: wall-clock milliseconds.
    """

    def __init__(
        self,
        store: Backend,
        watches: Watches[ProviderChange],
        *,
        admit: Callable[[], None],
        wall_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._watches = watches
        self._admit = admit
        self._wall_ms = wall_ms

    @property
    def unary(self) -> Mapping[str, Unary]:
        """The unary methods."""
        return {
            "Registry/RegisterService": self.register,
            "Registry/DeregisterAgent": self.deregister,
            "Registry/Resolve": self.resolve,
            "Registry/UpsertRelay": self.upsert_relay,
            "Fleet/WithdrawStale": self.withdraw_stale,
            "Fleet/Clock": self.clock,
            "Fleet/ListRelays": self.list_relays,
        }

    @property
    def streamed(self) -> Mapping[str, Streamed]:
        """The streams."""
        return {"Registry/Watch": self.watch}

    async def register(
        self, call: Call, request: control_pb2.RegisterServiceRequest
    ) -> control_pb2.RegisterServiceResponse:
        """Publish one service of one agent."""
        tenant = required("tenant", request.tenant)
        name = required("service_name", request.service_name, most=MAX_SERVICE_NAME)
        agent_uri = required("agent_uri", request.agent_uri)
        relay_id = required("relay_id", request.relay_id, most=MAX_RELAY_TEXT)
        if len(request.local_addr) > MAX_TEXT:
            raise bad_request("local_addr is too long")
        call.speak_for(relay_id)
        registration = Registration(
            tenant, name, agent_uri, relay_id, request.local_addr, self._wall_ms()
        )
        (problem,) = await self._store.ask(RegisterServices([registration]))
        if problem:
            raise bad_request(problem)
        return control_pb2.RegisterServiceResponse(service_id=service_id(tenant, name))

    async def deregister(
        self, call: Call, request: control_pb2.DeregisterAgentRequest
    ) -> control_pb2.DeregisterAgentResponse:
        """Withdraw every service of an agent at one relay."""
        withdrawal = Withdrawal(
            required("tenant", request.tenant),
            required("agent_uri", request.agent_uri),
            required("relay_id", request.relay_id, most=MAX_RELAY_TEXT),
        )
        call.speak_for(withdrawal.relay_id)
        await self._store.ask(DeregisterAgents([withdrawal]))
        return control_pb2.DeregisterAgentResponse()

    async def resolve(
        self, call: Call, request: control_pb2.ResolveRequest
    ) -> control_pb2.ResolveResponse:
        """Providers, those of the caller's region first, then the newest. None is no error."""
        name = (required("tenant", request.tenant), required("service_name", request.service_name))
        (rows,) = await self._store.ask(
            FindProviders([name], self._store.alive_since(self._wall_ms()))
        )
        ranked = sorted(rows, key=_nearness(request.caller_region))[:MAX_RESOLVED]
        regions = [
            row.relay_region if _REGION.fullmatch(row.relay_region) else "" for row in ranked
        ]
        if any(regions):
            call.trailing[REGIONS] = ",".join(regions)
        return control_pb2.ResolveResponse(providers=[provider_message(row) for row in ranked])

    async def upsert_relay(
        self, call: Call, request: control_pb2.UpsertRelayRequest
    ) -> control_pb2.UpsertRelayResponse:
        """Announce a relay, or renew its heartbeat."""
        relay = Relay(
            required("id", request.id, most=MAX_RELAY_TEXT),
            request.region,
            required("endpoint", request.endpoint, most=MAX_RELAY_TEXT),
        )
        if len(relay.region) > MAX_RELAY_TEXT:
            raise bad_request("region is too long")
        call.speak_for(relay.id)
        counted = await self._store.ask(
            UpsertRelay(relay, self._wall_ms(), heartbeats=call.metadata.get(HEARTBEATS) == "1")
        )
        call.trailing[SERVICES] = str(counted)
        return control_pb2.UpsertRelayResponse()

    async def watch(self, call: Call, request: control_pb2.WatchRequest, writer: Writer) -> None:
        """Live changes; no snapshot."""
        del call
        if len(request.service_names) > MAX_WATCHED_NAMES:
            raise bad_request(f"at most {MAX_WATCHED_NAMES} service names")
        tenant, names = request.tenant, frozenset(request.service_names)

        def wanted(change: ProviderChange) -> bool:
            return tenant in ("", change.tenant) and (not names or change.name in names)

        self._admit()
        watch = self._watches.open(wanted)
        try:
            await writer.begin()
            while True:
                await writer.send((await watch.get()).event)
        finally:
            self._watches.close(watch)

    async def withdraw_stale(
        self, call: Call, request: fleet_pb2.WithdrawStaleRequest
    ) -> fleet_pb2.WithdrawStaleResponse:
        """Withdraw what an earlier life of a relay published."""
        relay_id = required("relay_id", request.relay_id, most=MAX_RELAY_TEXT)
        call.speak_for(relay_id)
        gone = len(await self._store.ask(DeregisterStale(relay_id, request.before_unix_ms)))
        return fleet_pb2.WithdrawStaleResponse(services=gone)

    async def clock(self, call: Call, request: fleet_pb2.ClockRequest) -> fleet_pb2.ClockResponse:
        """This controller's wall clock."""
        del call, request
        return fleet_pb2.ClockResponse(unix_ms=self._wall_ms())

    async def list_relays(
        self, call: Call, request: fleet_pb2.ListRelaysRequest
    ) -> fleet_pb2.ListRelaysResponse:
        """The relays that announced themselves."""
        del call, request
        rows = await self._store.ask(FindRelays())
        relays = [fleet_pb2.Relay(id=r.id, region=r.region, endpoint=r.endpoint) for r in rows]
        return fleet_pb2.ListRelaysResponse(relays=relays)


def _nearness(region: str) -> Callable[[ServiceRecord], tuple[object, ...]]:
    def key(row: ServiceRecord) -> tuple[object, ...]:
        far = bool(region) and row.relay_region != region
        return (far, -row.updated_ms, row.agent_uri, row.relay_id)

    return key
