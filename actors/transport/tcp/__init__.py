"""Streams over TCP: TLS 1.3 with client certificates, and one yamux session per connection."""

from __future__ import annotations

from actors.transport.tcp.settings import TcpSettings
from actors.transport.tcp.tcp_endpoint import TcpEndpoint, TcpStatistics
from wire.yamux.unread_budget import UnreadBudget

__all__ = ["TcpEndpoint", "TcpSettings", "TcpStatistics", "UnreadBudget"]
