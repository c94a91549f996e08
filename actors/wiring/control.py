"""The control room and the served controller, from settings."""

from __future__ import annotations

from actors.control.backend import BackendSpec
from actors.control.controller_identity import ClientTls
from actors.control.limits import FORGET_SECONDS
from actors.control.remote.backend import grpc_backend
from actors.control.remote.controller_link import LinkSettings
from actors.control.retention import Retention
from actors.control.store.embedded import embedded_backend
from actors.controller.grpc_server import ServerTls
from actors.controller.port import Port
from actors.controller.server import ServerSettings
from actors.controller.tree import controller_spec
from actors.observe.meters import Meters
from actors.runtime import ChildSpec
from actors.transport.revocation import Revocations
from actors.wiring.certificates import check_served
from config.schema import Settings


def backend(settings: Settings, database: str, meters: Meters | None = None) -> BackendSpec:
    """Who keeps registry, rules and audit log: this daemon, or a controller over gRPC."""

    control = settings.control
    if control.backend == "embedded":
        audit = control.audit
        kept = Retention(
            audit.max_age_seconds, audit.max_kept_events, audit.max_kept_bytes, FORGET_SECONDS
        )
        return embedded_backend(
            database,
            relay_alive_seconds=control.relay_alive_seconds,
            retention=kept,
            meters=meters,
        )

    tls = control.tls
    client = None
    if tls.certificate is not None and tls.key is not None and tls.ca is not None:
        client = ClientTls(
            tls.certificate, tls.key, tls.ca, tls.server_name, require_relay=tls.require_relay
        )
    return grpc_backend(
        LinkSettings(
            str(control.address),
            region=settings.node.region,
            tenants=tuple(settings.edge.tenants),
            tls=client,
            known_services=control.max_known_services,
        )
    )


def served(settings: Settings, port: Port, revocations: Revocations) -> list[ChildSpec]:
    """The embedded controller for others; nothing unless it is wanted."""
    serve, tls = settings.control.serve, settings.control.serve.tls
    if not serve.enabled:
        return []

    server = None
    if tls.certificate is not None and tls.key is not None and tls.ca is not None:
        server = ServerTls(tls.certificate, tls.key, tls.ca, check_served)
    return [
        controller_spec(
            port,
            ServerSettings(
                tls=server,
                operators=frozenset(serve.operators),
                watch_queue=serve.max_watch_queue,
                max_watches=serve.max_watches,
                revocations=revocations,
            ),
            relay_alive_seconds=settings.control.relay_alive_seconds,
            silent_too=serve.expire_silent_relays,
        )
    ]
