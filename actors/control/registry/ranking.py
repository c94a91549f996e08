"""The order in which providers of a service are offered. Pure.

The caller's region first (when one is given), then the newest; ties in the order of agent URI and
relay id, so that the same rows always give the same answer.

Source: protocol sheet ORP 4.3; 6.2 R20.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.control.backend import Relay, ServiceRecord
from actors.control.messages import Provider, Resolution, Resolve
from actors.control.registry.agents import Agent, Service


def rank_providers(
    wanted: Resolve,
    relay: Relay,
    connected: Iterable[tuple[Agent, Service]],
    remote: Iterable[ServiceRecord],
) -> Resolution:
    """The answer to `wanted`: agents connected to this `relay`, and rows of other relays."""
    service_id = f"{wanted.tenant}/{wanted.service}"
    ranked = [
        (
            (relay.region != wanted.region, -service.updated_ms, agent.uri, relay.id),
            Provider(
                service_id=service_id,
                uri=agent.uri,
                relay_id=relay.id,
                relay_endpoint=relay.endpoint,
                local_address=service.local_address,
                connection=agent.connection,
            ),
        )
        for agent, service in connected
    ]
    ranked.extend(
        (
            (row.relay_region != wanted.region, -row.updated_ms, row.agent_uri, row.relay_id),
            Provider(
                service_id=service_id,
                uri=row.agent_uri,
                relay_id=row.relay_id,
                relay_endpoint=row.relay_endpoint,
                local_address=row.local_address,
                connection=None,
            ),
        )
        for row in remote
    )
    if not wanted.region:
        ranked = [((False, *key[1:]), provider) for key, provider in ranked]
    ranked.sort(key=lambda entry: entry[0])
    return Resolution(tuple(provider for _, provider in ranked))
