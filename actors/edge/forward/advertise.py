"""The address an agent is told to send to: never a wildcard (sheet 6.3 F1).

Agents need an IP literal and do not look names up. Asks the kernel for the local address towards an
agent; sends nothing.
"""

from __future__ import annotations

import socket

from actors.transport.addresses import Address, address_text

WILDCARDS = frozenset({"0.0.0.0", "::"})


def advertised(bound: Address, configured: tuple[str, int] | None, agent_ip: str) -> str | None:
    """The forward endpoint for one agent; None when there is no address towards it.

    In this order: what the operator configured (port 0: the bound one); the bound address, unless
    it is a wildcard; the address this machine has towards the agent.
    """
    if configured is not None:
        host, port = configured
        return address_text(host, port or bound[1])
    host = bound[0]
    if host not in WILDCARDS:
        return address_text(host, bound[1])
    if host == "0.0.0.0" and ":" in agent_ip:
        return None
    towards = _local_address(agent_ip)
    return None if towards is None else address_text(towards, bound[1])


def _local_address(agent_ip: str) -> str | None:
    family = socket.AF_INET6 if ":" in agent_ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect((agent_ip, 9))
            local: str = probe.getsockname()[0]
        except OSError:
            return None
    return None if local in WILDCARDS else local
