"""What operators ask of the door over the control socket."""

from __future__ import annotations

from collections.abc import Mapping

from loguru import logger

from actors.doors.door import DoorCommand
from actors.doors.row_filter import has_text
from actors.rendezvous.context import RendezvousContext
from wire.admin.arguments import Arguments
from wire.admin.errors import Declined
from wire.admin.messages import Row


class RendezvousCommands:
    """Services listed, and closed.

    Args:
        base: place of the services.
    """

    def __init__(self, door: RendezvousContext, base: str) -> None:
        self._door = door
        self._base = base

    def commands(self) -> Mapping[str, DoorCommand]:
        """By name."""
        return {"rendezvous_list": self.list_services, "rendezvous_close": self.close_service}

    async def list_services(self, args: Arguments, _initiator: str) -> tuple[list[Row], Row]:
        """args: filter, part of any text. A row a service, as `Service.row`."""
        needle = args.text("filter", "", most=200)
        args.finish()
        now = self._door.clock()
        services = sorted(self._door.services.values(), key=lambda one: one.port)
        rows = [row for one in services if has_text(row := one.row(now), needle)]
        return rows, {"services": len(rows)}

    async def close_service(self, args: Arguments, initiator: str) -> tuple[list[Row], Row]:
        """args: which, a port, a name or an id. Result: how many were closed.

        Raises:
            Declined: there is none.
        """
        which = args.text("which", most=200)
        args.finish()
        found = [
            one
            for one in self._door.services.values()
            if which in (one.id, str(one.port), one.options.name)
        ]
        if not found:
            raise Declined(f"no service {which}: it is a port, a name or an id")
        for service in found:
            ref = self._door.system.ref(f"{self._base}/{service.id}")
            logger.warning("rendezvous service {} closed by {}", service.id, initiator)
            if ref is not None:
                self._door.system.stop_child(ref)
        return [], {"closed": len(found)}
