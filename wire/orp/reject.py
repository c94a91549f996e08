"""STREAM_REJECT codes and reasons (sheet 2.5): the only place that spells them.

Reasons are wire data; peers and tests compare them. A deadline that runs out has no reason of its
own and uses the one of the step that failed: resolve 404, opening the provider's stream (which
includes waiting for stream credit) 502, the provider's answer 503.

After a reject the sender finishes its write side.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from wire.orp.limits import MAX_REASON_BYTES
from wire.orp.messages import StreamReject


class RejectCode(IntEnum):
    """Every code in use."""

    DENIED = 403
    NOT_FOUND = 404
    COLLISION = 409
    BAD_GATEWAY = 502
    UNAVAILABLE = 503


# Reasons inside `denied` and `denied_callee` when no rule decided.
NO_MATCHING_RULE: Final = "no matching rule"
NO_POLICY_SNAPSHOT: Final = "no policy snapshot"

# --------------------------------------------------------------------------- relay to consumer

#: No provider, the provider is not connected here, or the registry did not answer.
SERVICE_NOT_FOUND: Final = StreamReject(RejectCode.NOT_FOUND, "service not found")
#: The stream id belongs to another (consumer, provider) pair.
STREAM_ID_COLLISION: Final = StreamReject(RejectCode.COLLISION, "stream id collision")
#: The provider is on another relay and we have no way there.
INTER_RELAY_UNAVAILABLE: Final = StreamReject(
    RejectCode.BAD_GATEWAY, "inter-relay forwarding unavailable"
)
#: The stream to the provider could not be opened or INCOMING_STREAM not written.
PROVIDER_STREAM_OPEN_FAILED: Final = StreamReject(
    RejectCode.BAD_GATEWAY, "provider stream open failed"
)
#: Forward mode: the provider disappeared before its ALLOC_GRANTED.
FORWARD_PROVIDER_UNAVAILABLE: Final = StreamReject(
    RejectCode.BAD_GATEWAY, "forward: provider control channel unavailable"
)
#: Policy demands forward mode, and this relay cannot serve it (sheet 6.3 F6: never a splice).
FORWARD_UNAVAILABLE: Final = StreamReject(RejectCode.BAD_GATEWAY, "forward plane unavailable")
#: The provider's relay could not be reached.
PEER_RELAY_UNREACHABLE: Final = StreamReject(RejectCode.BAD_GATEWAY, "peer relay unreachable")
#: The provider's relay refused or failed.
PEER_RELAY_FORWARD_FAILED: Final = StreamReject(RejectCode.BAD_GATEWAY, "peer relay forward failed")

#: The registry could not answer (sheet 6.2 R21): the service may well exist.
REGISTRY_UNAVAILABLE: Final = StreamReject(RejectCode.UNAVAILABLE, "registry unavailable")
#: The relay drains or is at a limit.
RELAY_UNAVAILABLE: Final = StreamReject(RejectCode.UNAVAILABLE, "relay unavailable")

# --------------------------------------------------- relay to consumer, and relay to peer relay

#: The provider did not answer, or refused without a reason; see `provider_rejected`.
PROVIDER_REJECTED: Final = StreamReject(RejectCode.UNAVAILABLE, "provider rejected")

# ------------------------------------------------------------------------- relay to peer relay

#: The service of a forwarded stream is not connected here.
NO_LOCAL_PROVIDER: Final = StreamReject(
    RejectCode.UNAVAILABLE, "no local provider for forwarded stream"
)
#: INCOMING_STREAM of a forwarded stream could not be opened.
PROVIDER_OPEN_FAILED: Final = StreamReject(RejectCode.BAD_GATEWAY, "provider open failed")

# ------------------------------------------------------------------------------ agent to relay

#: This agent does not expose the service.
NO_HANDLER: Final = StreamReject(RejectCode.NOT_FOUND, "no handler")


def denied(rule: str) -> StreamReject:
    """Caller-side policy said no; `rule` is the matching rule's id or a text from above."""
    return StreamReject(RejectCode.DENIED, _bounded(f"denied: {rule}"))


def denied_callee(rule: str) -> StreamReject:
    """Callee-side policy said no; `rule` as in `denied`."""
    return StreamReject(RejectCode.DENIED, _bounded(f"denied (callee): {rule}"))


def relay_unavailable(why: str) -> StreamReject:
    """Relay to consumer: `RELAY_UNAVAILABLE`, and what keeps the relay from it."""
    return StreamReject(RELAY_UNAVAILABLE.code, _bounded(f"{RELAY_UNAVAILABLE.reason}: {why}"))


def provider_rejected(reason: str) -> StreamReject:
    """Relay to consumer: the provider refused; its own words say why, its code is not passed on."""
    if not reason:
        return PROVIDER_REJECTED
    return StreamReject(PROVIDER_REJECTED.code, _bounded(f"{PROVIDER_REJECTED.reason}: {reason}"))


def backend_dial_failed(error: str) -> StreamReject:
    """Agent to relay: the service's backend could not be dialled; `error` is the dial error."""
    return StreamReject(RejectCode.BAD_GATEWAY, _bounded(error))


# Cut to the wire limit without splitting a character; unencodable characters become "?".
def _bounded(reason: str) -> str:
    encoded = reason.encode(errors="replace")
    return encoded[:MAX_REASON_BYTES].decode(errors="ignore")
