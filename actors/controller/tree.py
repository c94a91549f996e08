"""The subtree of the served controller, from plain values.

::

    controller     one_for_one, below control and after its store
    ├─ server      ControllerServer: the gRPC listener
    └─ expiry      ExpiryActor: withdraws what dead relays published

Source: protocol sheet ORP 4; 6.2 R19.
"""

from __future__ import annotations

from actors.control.limits import RELAY_ALIVE_SECONDS
from actors.control.store.embedded import STORE
from actors.controller.expiry import ExpiryActor
from actors.controller.port import Port
from actors.controller.server import ControllerServer, ServerSettings
from actors.runtime import Backoff, ChildSpec, Intensity, Supervisor

#: Pauses between restarts of the server: its port may need a moment.
BACKOFF = Backoff(base=0.05, cap=2.0, stable_after=5.0)
INTENSITY = Intensity(restarts=30, period=30.0)


def controller_spec(
    port: Port,
    settings: ServerSettings,
    *,
    relay_alive_seconds: float = RELAY_ALIVE_SECONDS,
    silent_too: bool = False,
    control: str = "/control",
    child_id: str = "controller",
) -> ChildSpec:
    """The subtree, to be given to `control_spec` as one of `more`.

    Args:
        port: where to listen; it tells the port taken.
        settings: TLS, roles and limits.
        relay_alive_seconds: a relay without a heartbeat for so long is dead.
        silent_too: also one that never said it repeats its announcement.
        control: path of the control subtree with an embedded backend.
        child_id: the subtree's place below it.
    """
    store, audit = f"{control}/{STORE}", f"{control}/audit"

    def server() -> ControllerServer:
        return ControllerServer(port, settings, store=store, audit=audit)

    def expiry() -> ExpiryActor:
        return ExpiryActor(alive=relay_alive_seconds, silent_too=silent_too, store=store)

    def controller() -> Supervisor:
        return Supervisor(
            [
                ChildSpec("server", server, shutdown=10.0, backoff=BACKOFF),
                ChildSpec("expiry", expiry),
            ],
            intensity=INTENSITY,
        )

    return ChildSpec(child_id, controller)
