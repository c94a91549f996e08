"""The subtree of control, from plain values.

::

    control          rest_for_one
    ├─ store         the backend's actors (embedded: one StoreActor)
    ├─ registry      RegistryActor
    ├─ policy        PolicyActor
    └─ audit         AuditActor

Later children depend on earlier ones. Registry, policy and audit keep their mailboxes over a
restart, so that what doors ask meanwhile waits instead of failing; the pauses between restarts
stay below the second a new stream may wait (docs/chaos.md, 16).

Source: docs/architecture.md, "The tree".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actors.control.audit import AuditActor
from actors.control.backend import BackendSpec, Relay
from actors.control.limits import (
    AUDIT_QUEUE,
    CARRY_SECONDS,
    GRACE_SECONDS,
    HEARTBEAT_SECONDS,
)
from actors.control.messages import ControlPlane
from actors.control.policy.policy import PolicyActor
from actors.control.registry.registry import RegistryActor
from actors.observe.meters import Meters
from actors.runtime import (
    ActorSystem,
    Backoff,
    ChildSpec,
    Intensity,
    Strategy,
    Supervisor,
)

#: Pauses between restarts of one control actor.
BACKOFF = Backoff(base=0.02, cap=0.5, stable_after=5.0)
#: Restarts before control as a whole is given to its supervisor.
INTENSITY = Intensity(restarts=30, period=30.0)


def control_spec(
    backend: BackendSpec,
    *,
    relay_id: str,
    region: str = "",
    endpoint: str = "",
    policy_files: Sequence[Path] = (),
    enforce: bool = True,
    audit_queue: int = AUDIT_QUEUE,
    grace: float = GRACE_SECONDS,
    carry: float = CARRY_SECONDS,
    heartbeat: float = HEARTBEAT_SECONDS,
    child_id: str = "control",
    more: Sequence[ChildSpec] = (),
    meters: Meters | None = None,
) -> ChildSpec:
    """The supervised subtree.

    Args:
        backend: `embedded_backend(path)`, or another.
        relay_id, region, endpoint: this relay as other relays see it; endpoint is `host:port`.
        policy_files: TOML rule files, in this order.
        enforce: False allows every stream and records nothing.
        audit_queue: decisions held for the store.
        grace, carry, heartbeat: seconds, see `limits`.
        child_id: the subtree's place below its supervisor.
        more: further children, which depend on all of the above (the served controller).
        meters: what is counted, for operators.
    """
    relay = Relay(relay_id, region, endpoint)
    files = tuple(policy_files)

    def registry() -> RegistryActor:
        return RegistryActor(relay, backend.connect, grace=grace, carry=carry, heartbeat=heartbeat)

    def policy() -> PolicyActor:
        return PolicyActor(backend.connect, files, enforce=enforce, meters=meters)

    if meters is not None:
        meters.declare("audit_events_total", "policy_cache_hits", "policy_cache_misses")

    def audit() -> AuditActor:
        return AuditActor(
            backend.connect, queue=audit_queue, attempts=backend.audit_attempts, meters=meters
        )

    def control() -> Supervisor:
        return Supervisor(
            [
                *backend.children,
                ChildSpec("registry", registry, mailbox="keep", backoff=BACKOFF),
                ChildSpec("policy", policy, mailbox="keep", backoff=BACKOFF),
                ChildSpec("audit", audit, mailbox="keep", backoff=BACKOFF),
                *more,
            ],
            strategy=Strategy.REST_FOR_ONE,
            intensity=INTENSITY,
        )

    return ChildSpec(child_id, control, backoff=BACKOFF)


def control_plane(system: ActorSystem, base: str = "/control") -> ControlPlane:
    """References to the control actors below `base`; valid over their restarts.

    Raises:
        LookupError: there is no control subtree at that place.
    """
    refs = {name: system.ref(f"{base}/{name}") for name in ("registry", "policy", "audit")}
    registry, policy, audit = refs["registry"], refs["policy"], refs["audit"]
    if registry is None or policy is None or audit is None:
        missing = ", ".join(name for name, ref in refs.items() if ref is None)
        raise LookupError(f"no {missing} below {base}")
    return ControlPlane(registry, policy, audit)
