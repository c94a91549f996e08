"""What doors tell the access log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One stream.

    Attributes:
        time: end, seconds since the epoch.
        stream_id: 16 hex digits.
        relay: where it was seen.
        tenant, consumer, provider, service, method: who and what; provider may be empty.
        outcome: finished, failed, or "rejected CODE reason".
        detail: why it failed; one of few texts.
        mode: splice or forward.
        seconds: from OPEN_STREAM to the end.
        bytes_up, bytes_down: application bytes from the consumer and from the provider.
        returns: how often an agent came back for it.
    """

    time: float
    stream_id: str
    relay: str
    tenant: str
    consumer: str
    provider: str
    service: str
    method: str
    outcome: str
    detail: str
    mode: str
    seconds: float
    bytes_up: int
    bytes_down: int
    returns: int
