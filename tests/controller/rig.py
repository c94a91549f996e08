"""Relays that share one controller over real gRPC: control subtrees as daemons have them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from actors.control.controller_identity import ClientTls
from actors.control.messages import Decide, Decision
from actors.control.operator_messages import AddRule
from actors.control.policy.rule import Effect, Rule
from actors.control.remote.backend import grpc_backend
from actors.control.remote.codec import METHODS
from actors.control.remote.controller_link import LinkSettings
from actors.controller.port import Port
from actors.controller.server import ServerSettings
from actors.controller.tree import controller_spec
from tests.conftest import eventually
from tests.control.rig import Rig, running
from wire.orp import control_pb2

M = TypeVar("M", bound=Message)
HOST = "127.0.0.1"


def free_port() -> Port:
    """A port nobody listens on, so that relays may start before their controller."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return Port(HOST, taken.getsockname()[1])


@dataclass(slots=True)
class Controller:
    """A controller that tests stop and start again at the same address, with the same rows."""

    database: Path
    port: Port = field(default_factory=free_port)
    settings: ServerSettings = field(default_factory=ServerSettings)
    relay_alive_seconds: float = 120.0
    silent_too: bool = False

    @property
    def address(self) -> str:
        return str(self.port)

    @asynccontextmanager
    async def run(self, **settings: Any) -> AsyncIterator[Rig]:
        """Its control subtree; itself a relay with the id `c`."""
        served = controller_spec(
            self.port,
            self.settings,
            relay_alive_seconds=self.relay_alive_seconds,
            silent_too=self.silent_too,
        )
        options = {"relay_id": "c", "region": "eu", "endpoint": "192.0.2.9:7443"} | settings
        async with running(self.database, more=(served,), **options) as rig:
            await eventually(lambda: server(rig).get("listening"), what="the controller listens")
            yield rig

    @asynccontextmanager
    async def relay(
        self,
        relay_id: str,
        *,
        region: str = "eu",
        tenants: tuple[str, ...] = (),
        tls: ClientTls | None = None,
        **settings: Any,
    ) -> AsyncIterator[Rig]:
        """Another relay that uses this controller."""
        link = LinkSettings(
            self.address,
            region=region,
            tenants=tenants,
            tls=tls,
            watch_pause=0.01,
            watch_pause_cap=0.2,
        )
        options = {"endpoint": f"192.0.2.1:{len(relay_id)}"} | settings
        async with running(
            backend=grpc_backend(link), relay_id=relay_id, region=region, **options
        ) as rig:
            yield rig


def server(rig: Rig) -> Mapping[str, Any]:
    """The live `describe()` of the served controller."""
    return rig.describe("controller/server")


def link(rig: Rig) -> Mapping[str, Any]:
    """The live `describe()` of a relay's link."""
    return rig.describe("link")


async def watching(*rigs: Rig) -> None:
    """Wait until these relays hear of changes and have the rules."""

    def ready() -> bool:
        told = [link(rig) for rig in rigs]
        return all(one["watching"] and not one["tenants_without_rules"] for one in told)

    await eventually(ready, timeout=10, what="the links watch")


def allow(rule_id: str, target: str = "*", *, tenant: str = "acme", **more: Any) -> Rule:
    return Rule(rule_id, tenant, "*", target, effect=Effect.ALLOW, **more)


async def add_rule(rig: Rig, rule: Rule) -> str:
    return await rig.policy.ask(AddRule(rule), timeout=5.0)


async def decide(rig: Rig, target: str, *, tenant: str = "acme") -> Decision:
    return await rig.policy.ask(Decide(tenant, "caller", target), timeout=5.0)


class Client:
    """A foreign caller: the sheet's methods on a bare channel."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    async def call(
        self,
        name: str,
        request: Message,
        *,
        timeout: float = 5.0,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        method = METHODS[name]
        rpc = self._channel.unary_unary(
            method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.response.FromString,
        )
        return await rpc(request, timeout=timeout, metadata=tuple((metadata or {}).items()))

    def stream(self, name: str, request: Message, *, timeout: float = 10.0) -> Any:
        method = METHODS[name]
        rpc = self._channel.unary_stream(
            method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.response.FromString,
        )
        return rpc(request, timeout=timeout)

    async def status(self, name: str, request: Message) -> str:
        """The status of a call, `OK` or an error's name."""
        try:
            if METHODS[name].streams:
                async for _ in self.stream(name, request, timeout=5.0):
                    break
            else:
                await self.call(name, request)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"

    async def register(
        self, name: str, agent: str = "u1", relay: str = "r1", *, tenant: str = "acme"
    ) -> None:
        request = control_pb2.RegisterServiceRequest(
            tenant=tenant, service_name=name, agent_uri=agent, relay_id=relay, local_addr="l:1"
        )
        answer = await self.call("Registry/RegisterService", request)
        assert answer.service_id == f"{tenant}/{name}"

    async def upsert(self, relay: str, *, region: str = "", heartbeats: bool = False) -> None:
        request = control_pb2.UpsertRelayRequest(
            id=relay, region=region, endpoint=f"{relay}.example:7443"
        )
        metadata = {"trunkline-heartbeats": "1"} if heartbeats else None
        await self.call("Registry/UpsertRelay", request, metadata=metadata)

    async def resolve(self, name: str, *, region: str = "", tenant: str = "acme") -> list[str]:
        """`agent@relay` of each provider, in order."""
        request = control_pb2.ResolveRequest(tenant=tenant, service_name=name, caller_region=region)
        answer = await self.call("Registry/Resolve", request)
        return [f"{one.agent_uri}@{one.relay_id}" for one in answer.providers]


@asynccontextmanager
async def client(
    address: str, credentials: Any = None, options: Sequence[tuple[str, Any]] = ()
) -> AsyncIterator[Client]:
    """A foreign caller's channel."""
    options = [
        *options,
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.ssl_target_name_override", "localhost"),
        ("grpc.max_reconnect_backoff_ms", 200),
    ]
    if credentials is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, credentials, options=options)
    async with channel:
        yield Client(channel)
