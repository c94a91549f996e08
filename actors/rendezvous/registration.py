"""The subtree of one service.

::

    multiplex-1235~7   one_for_one; ends with its service
    ├─ users           dynamic: one UserPair per user that is served
    ├─ service         MultiplexService, PoolService or EventService
    └─ port            PortListener

The service is the significant child: its end, however it came, is the end of the subtree, of the
port and of the users. A port or a pair that crashes costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.event_service import EventService
from actors.rendezvous.multiplex_service import MultiplexService
from actors.rendezvous.pool_service import PoolService
from actors.rendezvous.port_listener import PortListener
from actors.rendezvous.service import Service
from actors.rendezvous.service_actor import ServiceActor
from actors.runtime import Backoff, ChildSpec, DynamicSupervisor, Intensity, Restart, Supervisor
from wire.rendezvous.line import Protocol

ACTORS: dict[Protocol, Callable[[RendezvousContext, Service], ServiceActor]] = {
    Protocol.MULTIPLEX: MultiplexService,
    Protocol.POOL: PoolService,
    Protocol.EVENT: EventService,
}


class Registration(Supervisor):
    """The subtree of one service. Owns what the service counts for, and its port."""

    def __init__(self, door: RendezvousContext, service: Service) -> None:
        self._door = door
        self._service = service
        actor = ACTORS[service.protocol]
        super().__init__(
            [
                ChildSpec("users", lambda: DynamicSupervisor(max_children=door.settings.max_users)),
                ChildSpec(
                    "service",
                    lambda: actor(door, service),
                    restart=Restart.TEMPORARY,
                    significant=True,
                    shutdown=2.0,
                ),
                ChildSpec(
                    "port",
                    lambda: PortListener(door, service),
                    backoff=Backoff(base=0.02, cap=0.5, stable_after=5.0),
                ),
            ],
            intensity=Intensity(restarts=10, period=10.0),
            auto_shutdown=True,
        )

    def init(self) -> None:
        """The service is there."""
        super().init()
        door, service = self._door, self._service
        door.services[service.id] = service
        users = f"{self.path}/users"
        service.users = lambda: self.system.ref(users)
        self.own(_Record(door, service), "record")


class _Record:
    """What outlives the service's actors, as a resource."""

    __slots__ = ("_door", "_service")

    def __init__(self, door: RendezvousContext, service: Service) -> None:
        self._door = door
        self._service = service

    def abort(self) -> None:
        """The service is gone; idempotent."""
        door, service = self._door, self._service
        if door.services.get(service.id) is service:
            del door.services[service.id]
        service.abort()
