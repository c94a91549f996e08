"""One relay, whatever runs it: control, the doors, and what operators see of them.

The daemon, the relays of `--demo=cluster` and worker processes are made of this, so that a door has
drain, reload, metrics and an access log in each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from loguru import logger

from actors.admin.commands import Command
from actors.control.tree import control_plane, control_spec
from actors.controller.port import Port
from actors.doors.door import Commanded, Door, DoorContext, DoorKind, Listening
from actors.observe.meters import Meters
from actors.observe.system_meters import watch_system
from actors.observe.tree import observe_spec
from actors.runtime import ActorSystem, ChildSpec, StartRefused
from actors.runtime.cell import Cell
from actors.transport.key_log import KeyLog
from actors.transport.quic.engines import EngineUnavailable, select
from actors.transport.tls import TlsIdentity, TlsMaterialError
from actors.wiring.announced import announced
from actors.wiring.certificate_watch import Watched, certificate_watch, tell_reloaded
from actors.wiring.certificates import controller_certificates, door_identities
from actors.wiring.client_certificate import MAX_SHOWN, judge_client
from actors.wiring.control import backend, served
from actors.wiring.observe import observe_settings, readiness
from actors.wiring.views import Views
from config.fields import door_modules
from config.schema import Settings
from wire.admin.arguments import Arguments
from wire.admin.messages import Row


def load_doors(schema: type[Settings]) -> list[DoorKind]:
    """The doors of a daemon with such settings, in the order of the schema."""
    return [import_module(module).DOOR for module in door_modules(schema).values()]


def open_doors(
    kinds: Sequence[DoorKind], context: DoorContext, shown: Mapping[str, TlsIdentity]
) -> dict[str, Door]:
    """The doors that settings open, by name; none of them has started.

    Args:
        shown: certificates that doors show instead of the context's, by name.

    Raises:
        StartRefused: a file of a door cannot be used.
    """
    doors: dict[str, Door] = {}
    try:
        for kind in kinds:
            door = kind.open(replace(context, identity=shown.get(kind.name, context.identity)))
            if door is not None:
                doors[kind.name] = door
    except OSError as error:
        for door in doors.values():
            door.abort()
        raise StartRefused(str(error)) from None
    return doors


def open_key_log(settings: Settings) -> KeyLog | None:
    """The TLS key log, if settings name one.

    Raises:
        OSError: it cannot be written, or others may read it.
    """
    path = settings.node.tls.key_log
    if path is None:
        return None
    logger.warning("TLS secrets are written to {}: whoever reads it reads all traffic", path)
    return KeyLog(path)


def _load_engine(settings: Settings) -> None:
    """Import and try the QUIC engine now: it takes half a second, which would hold up the loop."""
    try:
        select(settings.edge.quic_engine)
    except EngineUnavailable as error:
        wanted = settings.edge.quic_engine
        raise StartRefused(f"edge.quic_engine: {wanted}: {error}; use auto") from None


class Composition:
    """One relay, whatever runs it: control, the doors, and what operators see of them.

    Args:
        kinds: the doors to open; none for a node that serves a controller only.
        database: of the embedded store; not used with a controller elsewhere.
        policy_files: rules.
        port: where the controller is served, if settings want it.
        revocations: a revocation list that may be missing, unless settings name one.

    Raises:
        OSError: the key log cannot be written, or a door's key is not ours alone.
        TlsMaterialError: the certificate of a door cannot be used.
        StartRefused: the QUIC engine that settings name does not work here.
    """

    def __init__(
        self,
        settings: Settings,
        kinds: Sequence[DoorKind],
        *,
        identity: TlsIdentity,
        database: str,
        policy_files: Sequence[Path],
        port: Port,
        revocations: Path | None = None,
    ) -> None:
        self._settings = settings
        self._kinds = kinds
        self._identity = identity
        #: Where the CAs of the identity say what they took back, unless settings say it.
        self._revocations = revocations
        #: Instead of it, by door.
        self._shown = door_identities(settings, identity.authorities, identity.revocations)
        self._controllers = controller_certificates(settings)
        self._database = database
        self._policy_files = list(policy_files)
        self._port = port
        self._key_log = open_key_log(settings)
        if kinds:
            _load_engine(settings)
        self._system: ActorSystem | None = None
        self._metrics_port: list[int] = []
        self._meters = Meters()
        #: What is open, by name; filled by `children`.
        self.doors: dict[str, Door] = {}

    def children(self, system: ActorSystem) -> list[ChildSpec]:
        """The subtrees: control, one per open door, observe."""
        self._system = system
        settings = self._settings
        node, control = settings.node, settings.control
        observed = observe_settings(settings)
        watch_system(self._meters, system)
        context = DoorContext(
            system,
            settings,
            self._identity,
            lambda: control_plane(system),
            self._meters,
            "/observe/access" if observed.access_log else "",
            self._key_log,
            lambda: self._settings,
        )
        self.doors |= open_doors(self._kinds, context, self._shown)
        return [
            control_spec(
                backend(settings, self._database, self._meters),
                relay_id=node.id,
                region=node.region,
                endpoint=str(announced(settings)) if "edge" in self.doors else "",
                policy_files=self._policy_files,
                enforce=control.policy.enforce,
                audit_queue=control.audit.max_queued_events,
                more=served(settings, self._port, self._identity.revocations),
                meters=self._meters,
            ),
            *(door.spec() for door in self.doors.values()),
            certificate_watch(self._watched, self._meters),
            observe_spec(
                self._meters,
                readiness(system, self.doors),
                observed,
                bound=self._metrics_port,
            ),
        ]

    def _watched(self) -> Watched:
        path = self._settings.node.tls.revocations
        return Watched(
            self._identity, self._shown, path or self._revocations, path is None, self._controllers
        )

    def listening(self) -> list[Listening]:
        """The bound addresses of all doors."""
        return [
            place
            for door in self.doors.values()
            for place in door.listening()
            if place.address is not None
        ]

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are shown; None while they are not."""
        listen = self._settings.metrics.listen
        if listen is None or not self._metrics_port:
            return None
        return listen.host, self._metrics_port[0]

    def commands(self) -> Mapping[str, Command]:
        """What operators may ask about the doors."""
        found: dict[str, Command] = {
            "doors": self._doors_command,
            **Views(self.doors).commands(),
            "certificate_judge": self._certificate_command,
        }
        for door in self.doors.values():
            if isinstance(door, Commanded):
                found |= door.commands()
        return found

    async def _certificate_command(self, args: Arguments, _initiator: str) -> tuple[list[Row], Row]:
        """args: chain, PEM. Result: what a handshake with it would come to, see `judge_client`."""
        chain = args.text("chain", most=MAX_SHOWN)
        args.finish()
        return [], judge_client(chain, self._identity)

    async def _doors_command(self, args: Arguments, _initiator: str) -> tuple[list[Row], Row]:
        """`trunkline ctl doors`. No args. A row a door: name, draining, listening, carriers."""
        args.finish()
        rows: list[Row] = [
            {
                "door": name,
                "draining": door.draining,
                "listening": [
                    {
                        "transport": place.transport,
                        "path": place.path,
                        "address": None if place.address is None else list(place.address),
                    }
                    for place in door.listening()
                ],
                "connections": list(door.carriers.connections),
                "pairs": list(door.carriers.pairs),
            }
            for name, door in self.doors.items()
        ]
        return rows, {"doors": len(rows)}

    async def drain(self) -> None:
        """All doors at once: none waits for another one's streams before it stops accepting."""
        left = self._carried()
        if left:
            logger.info("waiting for {}", left)
        try:
            async with asyncio.TaskGroup() as group:
                for door in self.doors.values():
                    group.create_task(door.drain())
        except asyncio.CancelledError:
            left = self._carried()
            if left:
                logger.warning("not done in time, and cut: {}", left)
            raise

    def _carried(self) -> str:
        """How many streams each door has, in words; empty: none."""
        counts = {
            name: sum(
                len(cell.children or ()) for cell in map(self._find, door.carriers.pairs) if cell
            )
            for name, door in self.doors.items()
        }
        return ", ".join(f"{count} streams of {name}" for name, count in counts.items() if count)

    def _find(self, path: str) -> Cell | None:
        return None if self._system is None else self._system.find(path)

    def reload(self, settings: Settings, identity: TlsIdentity) -> str:
        """What was read and judged is used from now on.

        Returns what doors could not read again of their own files; empty: nothing.
        """
        # One object for good: connections of before wait for what it says.
        revocations = self._identity.revocations
        revocations.use(identity.revocations.listed)
        identity = replace(identity, revocations=revocations)
        self._settings, self._identity = settings, identity
        try:
            self._shown = door_identities(settings, identity.authorities, revocations)
            self._controllers = controller_certificates(settings)
        except (TlsMaterialError, OSError) as error:  # it was judged a moment ago
            logger.error("{}; that door goes on showing what it has", error)
        problems = [
            door.reload(self._shown.get(name, identity)) for name, door in self.doors.items()
        ]
        if self._system is not None:
            tell_reloaded(self._system.ref("/certificates"))
        return "; ".join(filter(None, problems))

    def abort(self) -> None:
        """Release what outlives the tree."""
        for door in self.doors.values():
            door.abort()
        if self._key_log is not None:
            self._key_log.close()
            self._key_log = None
