"""QUIC transport: endpoint, connections, streams over an exchangeable engine."""

from __future__ import annotations

from actors.transport.connection import DialFailed
from actors.transport.quic.endpoint import EndpointStatistics, QuicEndpoint
from actors.transport.quic.settings import QuicSettings

__all__ = ["DialFailed", "EndpointStatistics", "QuicEndpoint", "QuicSettings"]
