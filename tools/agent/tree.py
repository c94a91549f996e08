"""The actor tree of an agent.

::

    /                one_for_one
    ├─ bridges       dynamic: one bridge per local connection
    ├─ link          RelayLink
    ├─ listeners     one ServiceListener per consumed service; or the TransparentListener
    ├─ dns           DnsServer, when services are intercepted
    └─ expiry        ExpiryWatch
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.observe.expiry import ExpiryWatch
from actors.runtime import Backoff, ChildSpec, DynamicSupervisor, Intensity, Supervisor, escape_id
from actors.transport.addresses import address_text
from tools.agent.certificates import dates
from tools.agent.dns_answers import DnsAnswers
from tools.agent.dns_server import DnsServer
from tools.agent.relay_link import RelayLink
from tools.agent.service_listener import ServiceListener
from tools.agent.settings import AgentSettings
from tools.agent.stream_table import StreamTable
from tools.agent.transparent_listener import TransparentListener
from tools.agent.virtual_addresses import VirtualAddresses

#: Local connections at a time.
MAX_BRIDGES = 10_000


def agent_children(settings: AgentSettings, base: str = "") -> list[ChildSpec]:
    """The children of an agent's supervisor; `base` is that supervisor's path, "" for the root."""
    budget = Intensity(restarts=30, period=30.0)
    # Streams outlive the link: its next incarnation finds them here.
    table = StreamTable()
    listeners = [
        ChildSpec(
            escape_id(f"{mapping.service}:{address_text(mapping.host, mapping.port)}"),
            lambda mapping=mapping: ServiceListener(  # type: ignore[misc]
                settings, mapping, f"{base}/link", f"{base}/bridges", table
            ),
            backoff=Backoff(base=0.2, cap=5.0),
        )
        for mapping in settings.consume
    ]
    interception = _interception(settings, base, table)
    listeners += interception[:1]
    return [
        ChildSpec("bridges", lambda: DynamicSupervisor(max_children=MAX_BRIDGES)),
        ChildSpec("link", lambda: RelayLink(settings, f"{base}/bridges", table)),
        ChildSpec("listeners", lambda: Supervisor(listeners, intensity=budget)),
        *interception[1:],
        ChildSpec("expiry", lambda: ExpiryWatch(lambda: dates(settings))),
    ]


def _interception(settings: AgentSettings, base: str, table: StreamTable) -> list[ChildSpec]:
    """The listener and, when it is wanted, the DNS server; nothing without interception."""
    transparent, dns = settings.transparent_listen, settings.dns_listen
    if transparent is None:
        return []
    addresses = VirtualAddresses(settings.intercept, settings.virtual_network)
    specs = [
        ChildSpec(
            "transparent",
            lambda: TransparentListener(
                settings, transparent, addresses, f"{base}/link", f"{base}/bridges", table
            ),
            backoff=Backoff(base=0.2, cap=5.0),
        )
    ]
    if dns is not None and settings.dns_suffix:
        answers, bound = DnsAnswers(addresses, settings.dns_suffix), list[int]()
        specs.append(
            ChildSpec(
                "dns",
                lambda: DnsServer(answers, dns, bound),
                backoff=Backoff(base=0.2, cap=5.0),
            )
        )
    return specs


def agent_root(settings: AgentSettings, extra: Sequence[ChildSpec] = ()) -> Supervisor:
    """The root supervisor of an agent process."""
    return Supervisor(
        [*agent_children(settings), *extra], intensity=Intensity(restarts=30, period=30.0)
    )
