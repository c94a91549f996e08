"""The actor tree of a forwarder.

::

    /               one_for_one
    ├─ bridges      dynamic: one UserBridge per user
    └─ services     dynamic: one ServiceLink per service
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from loguru import logger

from actors.node.daemon import Daemon, ExitCode, Hooks, ReloadOutcome
from actors.runtime import (
    ActorSystem,
    Backoff,
    ChildSpec,
    DynamicSupervisor,
    Intensity,
    Restart,
    Supervisor,
    escape_id,
)
from actors.transport.tcp.pump import PipePool
from tools.forward.service_link import Drain, ServiceLink
from tools.forward.settings import ForwardedService, ForwardSettings, SettingsRefused, load

#: Users at a time.
MAX_USERS: Final = 10_000
MAX_SERVICES: Final = 1024
_LOOK_SECONDS: Final = 0.05

Announce = Callable[[ForwardedService, str], object]


class Forwarder:
    """What a forwarder process is made of; outlives its tree.

    Args:
        settings: what is forwarded.
        announce: prints where a service can be reached.
    """

    def __init__(self, settings: ForwardSettings, announce: Announce) -> None:
        self._settings = settings
        self._announce = announce
        self._pipes = PipePool()
        self._serial = 0
        #: Ids of the places of the services, by title.
        self._places: dict[str, str] = {}

    def root(self) -> Supervisor:
        """The root supervisor."""
        return Supervisor(
            [
                ChildSpec("bridges", lambda: DynamicSupervisor(max_children=MAX_USERS)),
                ChildSpec("services", lambda: _Services(self)),
            ],
            intensity=Intensity(restarts=30, period=30.0),
        )

    def start(self, system: ActorSystem, titles: list[str] | None = None) -> None:
        """Forward these services, or all; their supervisor runs."""
        services = system.ref("/services")
        assert services is not None
        for title in titles if titles is not None else self._settings.services:
            service = self._settings.services[title]
            self._serial += 1
            place = self._places[title] = escape_id(f"{title}~{self._serial}")
            system.start_child(
                services,
                ChildSpec(
                    place,
                    lambda service=service: ServiceLink(  # type: ignore[misc]
                        service, "/bridges", self._pipes, self._announce
                    ),
                    restart=Restart.TRANSIENT,
                    backoff=Backoff(base=0.5, cap=20.0),
                ),
            )

    async def reload(self, system: ActorSystem) -> ReloadOutcome:
        """The file again: what changed begins anew, the rest does not notice."""
        old = self._settings
        if old.path is None:
            return ReloadOutcome(True, "there is no file to read again")
        try:
            new = load(old.path)
        except SettingsRefused as refused:
            logger.error("reload refused: {}", refused)
            return ReloadOutcome(False, str(refused))
        changed = [t for t, one in new.services.items() if old.services.get(t) != one]
        gone = [t for t, one in old.services.items() if new.services.get(t) != one]
        self._settings = new
        for title in gone:
            ref = system.ref(f"/services/{self._places.pop(title)}")
            if ref is not None:
                system.stop_child(ref)
        self.start(system, changed)
        logger.info("reloaded: {} services, {} of them new or changed", len(new.services),
                    len(changed))  # fmt: skip
        return ReloadOutcome(True, f"{len(changed)} services begin anew")

    async def drain(self, system: ActorSystem) -> None:
        """Take no new users, and wait for those who are here; cancelled at the deadline."""
        for place in self._places.values():
            ref = system.ref(f"/services/{place}")
            if ref is not None:
                ref.try_tell(Drain())
        while True:
            bridges = system.find("/bridges")
            if bridges is None or not bridges.children:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def run(self, drain_seconds: float) -> ExitCode:
        """Until a signal, or the end of the tree."""
        try:
            return await Daemon(
                "forward",
                lambda _: self.root(),
                drain_seconds=lambda: drain_seconds,
                hooks=Hooks(drain=self.drain, reload=self.reload),
            ).run()
        finally:
            self._pipes.abort()


class _Services(DynamicSupervisor):
    """The services; a new incarnation starts them all."""

    def __init__(self, forwarder: Forwarder) -> None:
        super().__init__(max_children=MAX_SERVICES)
        self._forwarder = forwarder

    def continue_(self) -> None:
        """It runs: so do they."""
        super().continue_()
        self._forwarder.start(self.system)
