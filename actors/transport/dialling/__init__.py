"""From a host and a port to a connection: names are lists of addresses, tried staggered.

One way for everything that dials: agents and relays by QUIC and TCP, providers their targets.
"""

from actors.transport.dialling.attempts import first_to_connect
from actors.transport.dialling.names import resolve
from actors.transport.dialling.tcp import connect_tcp, connect_to

__all__ = ["connect_tcp", "connect_to", "first_to_connect", "resolve"]
