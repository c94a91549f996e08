"""The demo of several relays on one host: a controller, and relays in processes of their own.

The daemon itself runs the controller, served over gRPC on loopback, and no relay; each relay is a
process child below `/node`. Their settings are the daemon's, with another id, address, certificate
and the controller instead of the embedded store.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.admin.mounts import MountTable
from actors.controller.port import Port
from actors.node.demo import fixed_port
from actors.node.process import ProcessSpec, process_child
from actors.pki.dev_pki import LeafFiles, ensure_dev_pki
from actors.runtime import ActorSystem, ChildSpec
from actors.wiring.certificates import load_relay_identity
from actors.wiring.composition import Composition, load_doors
from config.endpoint import Endpoint
from config.schema import Settings

#: Relays of the demo.
RELAYS = ("r1", "r2")


@dataclass(frozen=True, slots=True)
class RelayPlan:
    """One relay process: plain, picklable values."""

    settings: Settings
    certificate: str
    key: str
    ca: str
    policy_files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the daemon runs.

    Attributes:
        controller: its own settings.
        port: where it serves the controller.
        relays: by id.
    """

    controller: Settings
    port: Port
    relays: dict[str, RelayPlan]

    @property
    def addresses(self) -> list[tuple[str, tuple[str, int]]]:
        """Ids and addresses of the relays."""
        return [
            (name, (plan.settings.edge.listen[0].host, plan.settings.edge.listen[0].port))
            for name, plan in self.relays.items()
        ]

    def children(self, mounts: MountTable) -> list[ChildSpec]:
        """The processes."""

        def child(number: int, plan: RelayPlan) -> ChildSpec:
            name, log = f"relay-{number}", plan.settings.log
            spec = ProcessSpec(name, "actors.wiring.cluster:relay", (plan,), log.level, log.format)
            drain = plan.settings.node.drain_deadline_seconds
            return process_child(name, lambda: spec, mounts, drain=drain)

        return [child(number, plan) for number, plan in enumerate(self.relays.values(), 1)]


def plan_cluster(settings: Settings, pki_directory: Path, policy_files: Sequence[Path]) -> Cluster:
    """Fix addresses and certificates of a controller and its relays."""
    control, edge, tenant = settings.control, settings.edge, settings.demo.tenant
    served = fixed_port((control.serve.listen.host, 0), "control.serve.listen")
    controller = settings.model_copy(
        update={
            "control": control.model_copy(
                update={"serve": control.serve.model_copy(update={"enabled": True})}
            ),
            "node": settings.node.model_copy(update={"id": "controller"}),  # of no relay
        }
    )
    pki = {name: ensure_dev_pki(pki_directory, tenant=tenant, relay_id=name) for name in RELAYS}
    relays = {}
    for number, (name, made) in enumerate(pki.items()):
        leaf: LeafFiles = made.relay
        wanted = edge.listen[number] if number < len(edge.listen) else Endpoint("127.0.0.1", 0)
        address = Endpoint(
            *fixed_port((wanted.host, wanted.port), "edge.listen", socket.SOCK_DGRAM)
        )
        changed = {
            "node": settings.node.model_copy(update={"id": name}),
            "edge": edge.model_copy(
                update={
                    "listen": (address,),
                    "advertise": None,
                    "relays": edge.relays.model_copy(update={"accept": RELAYS}),
                }
            ),
            "control": control.model_copy(update={"backend": "grpc", "address": Endpoint(*served)}),
        }
        relays[name] = RelayPlan(
            settings.model_copy(update=changed),
            str(leaf.certificate),
            str(leaf.key),
            str(made.ca_certificate),
            tuple(policy_files),
        )
    return Cluster(controller, Port(*served), relays)


def relay(plan: RelayPlan) -> RelayTree:
    """What one relay process runs: the same as a daemon of its own."""
    return RelayTree(plan)


class RelayTree:
    """The tree of one relay process of a cluster: the `WorkerTree` of `actors.node.worker`.

    Raises:
        TlsMaterialError, OSError: the certificate cannot be used.
    """

    def __init__(self, plan: RelayPlan) -> None:
        settings = plan.settings
        served = settings.control.serve.listen
        self.drain_seconds = settings.node.drain_deadline_seconds
        self._node = Composition(
            settings,
            load_doors(type(settings)),
            identity=load_relay_identity(
                Path(plan.certificate), Path(plan.key), Path(plan.ca), dials=True
            ),
            database="",
            policy_files=plan.policy_files,
            port=Port(served.host, served.port),
        )

    def children(self, system: ActorSystem) -> list[ChildSpec]:
        """The subtrees."""
        return self._node.children(system)

    async def drain(self) -> None:
        await self._node.drain()

    def abort(self) -> None:
        """Release what outlives the tree."""
        self._node.abort()
