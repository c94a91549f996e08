"""Between the records of this room and the messages of the controller's gRPC interface. Pure.

Used by both ends: the link to a remote controller and the served controller. Method names come
from the descriptors of the generated code, so a method cannot be spelled wrong.

What the interface leaves open is decided towards refusal: an unknown decision or relay mode of a
rule denies, an unknown p2p mode forbids.

Source: protocol sheet ORP 4.1, 4.2; 6.2 R23.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from actors.control.backend import Registration, ServiceRecord, Withdrawn
from actors.control.messages import AuditRecord, P2PMode, RelayMode
from actors.control.policy.rule import Effect, Rule
from wire.orp import control_pb2, fleet_pb2

#: Metadata of UpsertRelay: this relay repeats it; one that stops is dead (R19).
HEARTBEATS: Final = "trunkline-heartbeats"
#: Metadata of an UpsertRelay answer: how many services the controller has of this relay.
SERVICES: Final = "trunkline-services"
#: Metadata of a Resolve answer: the region of each provider, in order, separated by commas.
REGIONS: Final = "trunkline-regions"
#: Metadata of a Watch answer, sent once nothing can be missed any more.
WATCHING: Final = "trunkline-watching"
#: Providers of one Resolve answer; their regions must fit into 8 KiB of metadata.
MAX_RESOLVED: Final = 64


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its path on the wire, `service/name` for tables and logs, its message classes."""

    path: str
    short: str
    request: type[Message]
    response: type[Message]
    streams: bool


def _methods(*files: FileDescriptor) -> dict[str, Method]:
    found: dict[str, Method] = {}
    for file in files:
        for service in file.services_by_name.values():
            for method in service.methods:
                short = f"{service.name}/{method.name}"
                found[short] = Method(
                    path=f"/{service.full_name}/{method.name}",
                    short=short,
                    request=GetMessageClass(method.input_type),
                    response=GetMessageClass(method.output_type),
                    streams=bool(method.server_streaming),
                )
    return found


#: Every RPC by `service/name`.
METHODS: Final = _methods(control_pb2.DESCRIPTOR, fleet_pb2.DESCRIPTOR)

# Rules.

_EFFECTS: Final = {
    Effect.ALLOW: control_pb2.DECISION_ALLOW,
    Effect.DENY: control_pb2.DECISION_DENY,
    Effect.UNSPECIFIED: control_pb2.DECISION_UNSPECIFIED,
}
_EFFECT_OF: Final = {int(number): effect for effect, number in _EFFECTS.items()}
_P2P: Final = {
    P2PMode.ALLOWED: control_pb2.P2P_ALLOWED,
    P2PMode.FORBIDDEN: control_pb2.P2P_FORBIDDEN,
    P2PMode.REQUIRED: control_pb2.P2P_REQUIRED,
}
_P2P_OF: Final = {int(number): mode for mode, number in _P2P.items()}
_RELAY: Final = {
    RelayMode.SPLICE: control_pb2.RELAY_MODE_SPLICE,
    RelayMode.FORWARD: control_pb2.RELAY_MODE_FORWARD,
}
_RELAY_OF: Final = {int(number): mode for mode, number in _RELAY.items()}


def rule_message(rule: Rule) -> control_pb2.PolicyRule:
    """A rule as sent."""
    return control_pb2.PolicyRule(
        id=rule.id,
        tenant=rule.tenant,
        caller_pattern=rule.caller,
        target_pattern=rule.target,
        method_pattern=rule.method,
        decision=_EFFECTS[rule.effect],
        expires_unix_ms=rule.expires_ms,
        created_at_unix_ms=rule.created_ms,
        p2p_mode=_P2P[rule.p2p_mode],
        relay_mode=_RELAY[rule.relay_mode],
    )


def rule_of(message: control_pb2.PolicyRule) -> Rule:
    """A rule as received; see the module docstring for values nobody knows."""
    relay_mode = _RELAY_OF.get(int(message.relay_mode))
    effect = _EFFECT_OF.get(int(message.decision), Effect.UNSPECIFIED)
    return Rule(
        id=message.id,
        tenant=message.tenant,
        caller=message.caller_pattern,
        target=message.target_pattern,
        method=message.method_pattern,
        effect=effect if relay_mode is not None else Effect.UNSPECIFIED,
        expires_ms=message.expires_unix_ms,
        created_ms=message.created_at_unix_ms,
        p2p_mode=_P2P_OF.get(int(message.p2p_mode), P2PMode.FORBIDDEN),
        relay_mode=relay_mode or RelayMode.SPLICE,
    )


# Providers.


def service_id(tenant: str, name: str) -> str:
    """What the sheet calls a service id."""
    return f"{tenant}/{name}"


def provider_message(record: ServiceRecord) -> control_pb2.Provider:
    """A provider as sent."""
    return control_pb2.Provider(
        service_id=service_id(record.tenant, record.name),
        agent_uri=record.agent_uri,
        relay_id=record.relay_id,
        local_addr=record.local_address,
        updated_at_unix_ms=record.updated_ms,
        relay_endpoint=record.relay_endpoint,
    )


def record_of(
    message: control_pb2.Provider, tenant: str, name: str, relay_region: str
) -> ServiceRecord:
    """A provider as received."""
    return ServiceRecord(
        tenant=tenant,
        name=name,
        agent_uri=message.agent_uri,
        relay_id=message.relay_id,
        relay_region=relay_region,
        relay_endpoint=message.relay_endpoint,
        local_address=message.local_addr,
        updated_ms=message.updated_at_unix_ms,
    )


def change_message(change: Registration | Withdrawn, relay_endpoint: str) -> control_pb2.WatchEvent:
    """A change of the registry as sent."""
    provider = control_pb2.Provider(
        service_id=service_id(change.tenant, change.name),
        agent_uri=change.agent_uri,
        relay_id=change.relay_id,
        relay_endpoint=relay_endpoint,
    )
    kind = control_pb2.EVENT_KIND_DEREGISTER
    if isinstance(change, Registration):
        kind = control_pb2.EVENT_KIND_REGISTER
        provider.local_addr = change.local_address
        provider.updated_at_unix_ms = change.updated_ms
    return control_pb2.WatchEvent(kind=kind, provider=provider, service_name=change.name)


def tenant_of(message: control_pb2.WatchEvent) -> str:
    """Whose service an event is about; empty when it does not say."""
    identifier = message.provider.service_id
    end = len(identifier) - len(message.service_name) - 1
    if end <= 0 or identifier[end:] != "/" + message.service_name:
        return ""
    return identifier[:end]


# Audit.


def audit_message(record: AuditRecord) -> control_pb2.AuditEvent:
    """A decision as sent; what a peer said may not be text at all."""
    return control_pb2.AuditEvent(
        ts_unix_ms=record.at,
        tenant=_text(record.tenant),
        caller=_text(record.caller),
        target=_text(record.target),
        method=_text(record.method),
        decision=control_pb2.DECISION_ALLOW if record.allow else control_pb2.DECISION_DENY,
        reason=_text(record.reason),
        stream_id=record.stream_id,
    )


def audit_of(message: control_pb2.AuditEvent) -> AuditRecord:
    """A decision as received."""
    return AuditRecord(
        at=message.ts_unix_ms,
        tenant=message.tenant,
        caller=message.caller,
        target=message.target,
        method=message.method,
        allow=message.decision == control_pb2.DECISION_ALLOW,
        reason=message.reason,
        stream_id=message.stream_id,
    )


def _text(text: str) -> str:
    return text if text.isascii() else text.encode(errors="replace").decode()
