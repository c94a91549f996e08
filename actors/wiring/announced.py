"""The address by which other relays are told to reach this one."""

from __future__ import annotations

from ipaddress import ip_address

from loguru import logger

from config.endpoint import Endpoint
from config.schema import Settings


def announced(settings: Settings) -> Endpoint:
    """Where other relays are told to reach this one.

    What is set; else the first address we listen on that means something elsewhere.
    """
    edge = settings.edge
    if edge.advertise is not None:
        return edge.advertise
    for endpoint in edge.listen:
        if _is_reachable(endpoint.host):
            return endpoint
    if settings.control.backend != "embedded" or settings.control.serve.enabled:
        logger.warning(
            "other relays cannot reach this one at {}: set edge.advertise", edge.listen[0]
        )
    return edge.listen[0]


def _is_reachable(host: str) -> bool:
    """False for wildcards, and for addresses that hold on one link only."""
    try:
        ip = ip_address(host)
    except ValueError:
        return True  # a name
    return not ip.is_unspecified and not ip.is_link_local
