"""What one agent process is told: plain, picklable values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mapping:
    """A service and an address: the target it is provided from, or where it is listened for."""

    service: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """One agent.

    Attributes:
        certificate, key, ca: PEM paths.
        relays: (host, port), in order of preference.
        relays_tcp: the same over TCP, for networks that let no UDP through; tried when no relay
            answers by QUIC, and left again as soon as one does.
        relay_ids: of the relays that may answer there, as in their certificates; empty: any relay.
        provide, consume: services.
        uri: own identity; empty: the certificate's first URI SAN.
        intercept: services that are reached by virtual addresses.
        transparent_listen: where redirected connections arrive; None: nothing is intercepted.
        dns_listen, dns_suffix: where virtual addresses are asked for, and below which name.
        virtual_network: where they are taken from.
        p2p_listen: UDP address at which other agents may reach us; None: streams stay on relays.
        p2p_advertise: the same as seen from outside.
        p2p_after, p2p_budget: seconds until a stream is moved, and for the attempt.
        control_socket: path of a Unix socket for `trunkline ctl`; empty: none.
        metrics_listen: where metrics, health and readiness are shown; None: nowhere.
        server_name: DNS name every relay's certificate must have.
        dial_timeout: seconds for one relay's handshake.
        open_timeout: seconds a local connection waits for its stream (relay loss included).
        relay_patience: seconds without a relay until local connections are ended at once.
        target_timeout: seconds to connect to the local target.
        resume_window: seconds from the loss of a stream's path until it is given up.
        return_after, return_cap: seconds on TCP until QUIC is tried again; the pause doubles.
        backoff, backoff_cap: seconds between rounds of dialling all relays; the first is at once.
    """

    certificate: str
    key: str
    ca: str
    relays: tuple[tuple[str, int], ...]
    provide: tuple[Mapping, ...] = ()
    consume: tuple[Mapping, ...] = ()
    relays_tcp: tuple[tuple[str, int], ...] = ()
    relay_ids: tuple[str, ...] = ()
    intercept: tuple[str, ...] = ()
    transparent_listen: tuple[str, int] | None = None
    dns_listen: tuple[str, int] | None = None
    dns_suffix: str = ""
    virtual_network: str = "100.64.0.0/10"
    p2p_listen: tuple[str, int] | None = None
    p2p_advertise: tuple[str, int] | None = None
    p2p_after: float = 1.0
    p2p_budget: float = 5.0
    control_socket: str = ""
    metrics_listen: tuple[str, int] | None = None
    uri: str = ""
    server_name: str = "localhost"
    dial_timeout: float = 5.0
    open_timeout: float = 20.0
    relay_patience: float = 8.0
    target_timeout: float = 10.0
    resume_window: float = 30.0
    backoff: float = 1.0
    backoff_cap: float = 30.0
    return_after: float = 15.0
    return_cap: float = 240.0
