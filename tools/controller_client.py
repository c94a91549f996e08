"""A controller's policy and audit over gRPC, for the command line: blocking, one call at a time.

Rows have the fields of the control socket's answers, so both are printed by the same code.

Source: protocol sheet ORP 4.1, 4.2, 4.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from wire.admin.messages import Row
from wire.orp import control_pb2

#: Seconds a call about rules, and a query, may take.
POLICY_SECONDS: Final = 5.0
AUDIT_SECONDS: Final = 10.0
MAX_MESSAGE: Final = 32 * 1024 * 1024

_DECISIONS: Final = {"allow": control_pb2.DECISION_ALLOW, "deny": control_pb2.DECISION_DENY}
_P2P: Final = {
    "allowed": control_pb2.P2P_ALLOWED,
    "forbidden": control_pb2.P2P_FORBIDDEN,
    "required": control_pb2.P2P_REQUIRED,
}
_RELAY: Final = {
    "splice": control_pb2.RELAY_MODE_SPLICE,
    "forward": control_pb2.RELAY_MODE_FORWARD,
}


class ControllerError(Exception):
    """The controller refused, or did not answer."""


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """PEM files for TLS, and the DNS name the controller's certificate must have."""

    certificate: Path
    key: Path
    ca: Path
    server_name: str


class ControllerClient:
    """A channel to a controller; close it by leaving its `with` block.

    Args:
        address: `host:port`.
        files: None for plaintext.
    """

    def __init__(self, address: str, files: ClientFiles | None) -> None:
        options: list[tuple[str, object]] = [
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.enable_http_proxy", 0),
        ]
        if files is None:
            self._channel = grpc.insecure_channel(address, options=options)
            return
        try:
            credentials = grpc.ssl_channel_credentials(
                files.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
            )
        except OSError as error:
            raise ControllerError(f"{error.filename}: {error.strerror}") from None
        options.append(("grpc.ssl_target_name_override", files.server_name))
        self._channel = grpc.secure_channel(address, credentials, options=options)

    def __enter__(self) -> ControllerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def add(self, rule: Mapping[str, Any]) -> str:
        """Add a rule given as a row. Returns its id."""
        message = control_pb2.PolicyRule(
            id=rule["id"],
            tenant=rule["tenant"],
            caller_pattern=rule["caller"],
            target_pattern=rule["target"],
            method_pattern=rule["method"],
            decision=_DECISIONS[rule["decision"]],
            expires_unix_ms=rule["expires_ms"],
            p2p_mode=_P2P[rule["p2p_mode"]],
            relay_mode=_RELAY[rule["relay_mode"]],
        )
        request = control_pb2.AddPolicyRequest(rule=message)
        answer = self._call("Policy", "AddPolicy", request, control_pb2.AddPolicyResponse)
        return str(answer.id)

    def list(self, tenant: str) -> list[Row]:
        """The rules of a tenant, in the controller's order."""
        request = control_pb2.ListPoliciesRequest(tenant=tenant)
        answer = self._call("Policy", "ListPolicies", request, control_pb2.ListPoliciesResponse)
        return [_rule_row(rule) for rule in answer.rules]

    def remove(self, tenant: str, rule_id: str) -> bool:
        """Remove a rule. False: there is none."""
        request = control_pb2.RemovePolicyRequest(tenant=tenant, id=rule_id)
        answer = self._call("Policy", "RemovePolicy", request, control_pb2.RemovePolicyResponse)
        return bool(answer.removed)

    def audit(self, wanted: Mapping[str, Any]) -> Iterator[Row]:
        """Decisions, newest first."""
        request = control_pb2.QueryAuditRequest(
            tenant=wanted["tenant"],
            caller=wanted["caller"],
            target=wanted["target"],
            since_unix_ms=wanted["since_ms"],
            limit=wanted["limit"],
        )
        rpc = self._channel.unary_stream(
            "/outrelay.control.v1.Audit/Query",
            request_serializer=_serialize,
            response_deserializer=control_pb2.AuditEvent.FromString,
        )
        try:
            for event in rpc(request, timeout=AUDIT_SECONDS):
                yield _audit_row(event)
        except grpc.RpcError as error:
            raise _failure(error) from None

    def _call(self, service: str, method: str, request: Message, response: type[Message]) -> Any:
        rpc = self._channel.unary_unary(
            f"/outrelay.control.v1.{service}/{method}",
            request_serializer=_serialize,
            response_deserializer=response.FromString,
        )
        try:
            return rpc(request, timeout=POLICY_SECONDS)
        except grpc.RpcError as error:
            raise _failure(error) from None


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _failure(error: Any) -> ControllerError:
    return ControllerError(f"{error.code().name}: {error.details()}")


def _named(words: Mapping[str, int], number: int) -> str:
    return next((word for word, known in words.items() if known == number), str(number))


def _rule_row(rule: control_pb2.PolicyRule) -> Row:
    return {
        "id": rule.id,
        "tenant": rule.tenant,
        "caller": rule.caller_pattern,
        "target": rule.target_pattern,
        "method": rule.method_pattern,
        "decision": _named(_DECISIONS, rule.decision),
        "p2p_mode": _named(_P2P, rule.p2p_mode),
        "relay_mode": _named(_RELAY, rule.relay_mode),
        "expires_ms": rule.expires_unix_ms,
        "created_ms": rule.created_at_unix_ms,
        "source": "store",
    }


def _audit_row(event: control_pb2.AuditEvent) -> Row:
    return {
        "at_ms": event.ts_unix_ms,
        "tenant": event.tenant,
        "caller": event.caller,
        "target": event.target,
        "method": event.method,
        "decision": _named(_DECISIONS, event.decision),
        "reason": event.reason,
        "stream_id": event.stream_id,
    }
