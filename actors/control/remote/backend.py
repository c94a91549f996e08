"""The gRPC backend: a `ControllerLink` beside the other control actors.

Source: protocol sheet ORP 4.1.
"""

from __future__ import annotations

from actors.control.backend import Backend, BackendSpec
from actors.control.remote.controller_link import ControllerLink, LinkSettings
from actors.runtime import Actor, Backoff, ChildSpec

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

    def connect(actor: Actor) -> Backend:
        place = actor.path.rpartition("/")[0] + "/" + LINK
        link = actor.system.ref(place)
        if link is None:
            raise LookupError(f"{actor.path}: there is no {place}")
        # Which relays are dead is the controller's matter.
        return Backend(link, relay_alive_seconds=0, confirms_late=True)

    child = ChildSpec(LINK, lambda: ControllerLink(settings), backoff=backoff)
    return BackendSpec((child,), connect, audit_attempts=0)
