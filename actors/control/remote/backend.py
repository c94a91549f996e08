"""The gRPC backend: a `ControllerLink` beside the other control actors.

Source: protocol sheet ORP 4.1; architecture section 4.
"""

from __future__ import annotations

from actors.control.actor_backend import ActorBackend
from actors.control.backend import BackendSpec, ControlBackend
from actors.control.remote.controller_link import ControllerLink, LinkSettings
from actors.control.store.fleet_requests import WatchLosses
from actors.runtime import Actor, ActorRef, Backoff, ChildSpec

#: The link's id below control.
LINK = "link"


def grpc_backend(
    settings: LinkSettings,
    *,
    backoff: Backoff = Backoff(base=0.05, cap=2.0, stable_after=5.0),  # noqa: B008  # frozen value
) -> BackendSpec:
    """The backend that asks a controller over gRPC.

    Audit records are tried until they are stored: only a full queue loses some, counted.
    """

    def connect(actor: Actor) -> ControlBackend:
        place = actor.path.rpartition("/")[0] + "/" + LINK
        link = actor.system.ref(place)
        if link is None:
            raise LookupError(f"{actor.path}: there is no {place}")
        return GrpcBackend(link)

    child = ChildSpec(LINK, lambda: ControllerLink(settings), backoff=backoff)
    return BackendSpec((child,), connect, audit_attempts=0)


class GrpcBackend(ActorBackend):
    """The typed way to a `ControllerLink`. Which relays are dead is the controller's matter."""

    confirms_late = True

    def __init__(self, link: ActorRef) -> None:
        super().__init__(link, relay_alive_seconds=0)
        self._link = link

    def watch_losses(self, watcher: ActorRef) -> None:
        self._link.try_tell(WatchLosses(watcher))
