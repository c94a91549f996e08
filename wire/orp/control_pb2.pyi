from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_KIND_UNSPECIFIED: _ClassVar[EventKind]
    EVENT_KIND_REGISTER: _ClassVar[EventKind]
    EVENT_KIND_DEREGISTER: _ClassVar[EventKind]

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_ALLOW: _ClassVar[Decision]
    DECISION_DENY: _ClassVar[Decision]

class P2PMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    P2P_ALLOWED: _ClassVar[P2PMode]
    P2P_FORBIDDEN: _ClassVar[P2PMode]
    P2P_REQUIRED: _ClassVar[P2PMode]

class RelayMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELAY_MODE_SPLICE: _ClassVar[RelayMode]
    RELAY_MODE_FORWARD: _ClassVar[RelayMode]
EVENT_KIND_UNSPECIFIED: EventKind
EVENT_KIND_REGISTER: EventKind
EVENT_KIND_DEREGISTER: EventKind
DECISION_UNSPECIFIED: Decision
DECISION_ALLOW: Decision
DECISION_DENY: Decision
P2P_ALLOWED: P2PMode
P2P_FORBIDDEN: P2PMode
P2P_REQUIRED: P2PMode
RELAY_MODE_SPLICE: RelayMode
RELAY_MODE_FORWARD: RelayMode

class RegisterServiceRequest(_message.Message):
    __slots__ = ("tenant", "service_name", "agent_uri", "relay_id", "local_addr")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_URI_FIELD_NUMBER: _ClassVar[int]
    RELAY_ID_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADDR_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    service_name: str
    agent_uri: str
    relay_id: str
    local_addr: str
    def __init__(self, tenant: _Optional[str] = ..., service_name: _Optional[str] = ..., agent_uri: _Optional[str] = ..., relay_id: _Optional[str] = ..., local_addr: _Optional[str] = ...) -> None: ...

class RegisterServiceResponse(_message.Message):
    __slots__ = ("service_id",)
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    service_id: str
    def __init__(self, service_id: _Optional[str] = ...) -> None: ...

class DeregisterAgentRequest(_message.Message):
    __slots__ = ("tenant", "agent_uri", "relay_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    AGENT_URI_FIELD_NUMBER: _ClassVar[int]
    RELAY_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    agent_uri: str
    relay_id: str
    def __init__(self, tenant: _Optional[str] = ..., agent_uri: _Optional[str] = ..., relay_id: _Optional[str] = ...) -> None: ...

class DeregisterAgentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("tenant", "service_name", "caller_region")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    CALLER_REGION_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    service_name: str
    caller_region: str
    def __init__(self, tenant: _Optional[str] = ..., service_name: _Optional[str] = ..., caller_region: _Optional[str] = ...) -> None: ...

class Provider(_message.Message):
    __slots__ = ("service_id", "agent_uri", "relay_id", "local_addr", "updated_at_unix_ms", "relay_endpoint")
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_URI_FIELD_NUMBER: _ClassVar[int]
    RELAY_ID_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADDR_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    RELAY_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    service_id: str
    agent_uri: str
    relay_id: str
    local_addr: str
    updated_at_unix_ms: int
    relay_endpoint: str
    def __init__(self, service_id: _Optional[str] = ..., agent_uri: _Optional[str] = ..., relay_id: _Optional[str] = ..., local_addr: _Optional[str] = ..., updated_at_unix_ms: _Optional[int] = ..., relay_endpoint: _Optional[str] = ...) -> None: ...

class ResolveResponse(_message.Message):
    __slots__ = ("providers",)
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    providers: _containers.RepeatedCompositeFieldContainer[Provider]
    def __init__(self, providers: _Optional[_Iterable[_Union[Provider, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("tenant", "service_names")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAMES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    service_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant: _Optional[str] = ..., service_names: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("kind", "provider", "service_name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    kind: EventKind
    provider: Provider
    service_name: str
    def __init__(self, kind: _Optional[_Union[EventKind, str]] = ..., provider: _Optional[_Union[Provider, _Mapping]] = ..., service_name: _Optional[str] = ...) -> None: ...

class UpsertRelayRequest(_message.Message):
    __slots__ = ("id", "region", "endpoint")
    ID_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    id: str
    region: str
    endpoint: str
    def __init__(self, id: _Optional[str] = ..., region: _Optional[str] = ..., endpoint: _Optional[str] = ...) -> None: ...

class UpsertRelayResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PolicyRule(_message.Message):
    __slots__ = ("id", "tenant", "caller_pattern", "target_pattern", "method_pattern", "decision", "expires_unix_ms", "created_at_unix_ms", "p2p_mode", "relay_mode")
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CALLER_PATTERN_FIELD_NUMBER: _ClassVar[int]
    TARGET_PATTERN_FIELD_NUMBER: _ClassVar[int]
    METHOD_PATTERN_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    P2P_MODE_FIELD_NUMBER: _ClassVar[int]
    RELAY_MODE_FIELD_NUMBER: _ClassVar[int]
    id: str
    tenant: str
    caller_pattern: str
    target_pattern: str
    method_pattern: str
    decision: Decision
    expires_unix_ms: int
    created_at_unix_ms: int
    p2p_mode: P2PMode
    relay_mode: RelayMode
    def __init__(self, id: _Optional[str] = ..., tenant: _Optional[str] = ..., caller_pattern: _Optional[str] = ..., target_pattern: _Optional[str] = ..., method_pattern: _Optional[str] = ..., decision: _Optional[_Union[Decision, str]] = ..., expires_unix_ms: _Optional[int] = ..., created_at_unix_ms: _Optional[int] = ..., p2p_mode: _Optional[_Union[P2PMode, str]] = ..., relay_mode: _Optional[_Union[RelayMode, str]] = ...) -> None: ...

class AddPolicyRequest(_message.Message):
    __slots__ = ("rule",)
    RULE_FIELD_NUMBER: _ClassVar[int]
    rule: PolicyRule
    def __init__(self, rule: _Optional[_Union[PolicyRule, _Mapping]] = ...) -> None: ...

class AddPolicyResponse(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RemovePolicyRequest(_message.Message):
    __slots__ = ("tenant", "id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    id: str
    def __init__(self, tenant: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class RemovePolicyResponse(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: bool
    def __init__(self, removed: _Optional[bool] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("rules",)
    RULES_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[PolicyRule]
    def __init__(self, rules: _Optional[_Iterable[_Union[PolicyRule, _Mapping]]] = ...) -> None: ...

class WatchPoliciesRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class PolicyEvent(_message.Message):
    __slots__ = ("kind", "rule", "removed_id")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        POLICY_KIND_UNSPECIFIED: _ClassVar[PolicyEvent.Kind]
        POLICY_KIND_ADDED: _ClassVar[PolicyEvent.Kind]
        POLICY_KIND_REMOVED: _ClassVar[PolicyEvent.Kind]
        POLICY_KIND_SNAPSHOT_END: _ClassVar[PolicyEvent.Kind]
    POLICY_KIND_UNSPECIFIED: PolicyEvent.Kind
    POLICY_KIND_ADDED: PolicyEvent.Kind
    POLICY_KIND_REMOVED: PolicyEvent.Kind
    POLICY_KIND_SNAPSHOT_END: PolicyEvent.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REMOVED_ID_FIELD_NUMBER: _ClassVar[int]
    kind: PolicyEvent.Kind
    rule: PolicyRule
    removed_id: str
    def __init__(self, kind: _Optional[_Union[PolicyEvent.Kind, str]] = ..., rule: _Optional[_Union[PolicyRule, _Mapping]] = ..., removed_id: _Optional[str] = ...) -> None: ...

class AuditEvent(_message.Message):
    __slots__ = ("ts_unix_ms", "tenant", "caller", "target", "method", "decision", "reason", "stream_id")
    TS_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    ts_unix_ms: int
    tenant: str
    caller: str
    target: str
    method: str
    decision: Decision
    reason: str
    stream_id: str
    def __init__(self, ts_unix_ms: _Optional[int] = ..., tenant: _Optional[str] = ..., caller: _Optional[str] = ..., target: _Optional[str] = ..., method: _Optional[str] = ..., decision: _Optional[_Union[Decision, str]] = ..., reason: _Optional[str] = ..., stream_id: _Optional[str] = ...) -> None: ...

class RecordAuditRequest(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: AuditEvent
    def __init__(self, event: _Optional[_Union[AuditEvent, _Mapping]] = ...) -> None: ...

class RecordAuditResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QueryAuditRequest(_message.Message):
    __slots__ = ("tenant", "caller", "target", "since_unix_ms", "limit")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    caller: str
    target: str
    since_unix_ms: int
    limit: int
    def __init__(self, tenant: _Optional[str] = ..., caller: _Optional[str] = ..., target: _Optional[str] = ..., since_unix_ms: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...
