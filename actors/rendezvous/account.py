"""What is counted and told of one user, however its time here ends."""

from __future__ import annotations

import time
from typing import Protocol as Shape

from actors.observe.records import StreamRecord
from actors.rendezvous.context import RendezvousContext
from actors.rendezvous.service import Service, User


class Counted(Shape):
    """What carries the user's bytes."""

    @property
    def bytes_in(self) -> int:
        """Bytes from the user."""

    @property
    def bytes_out(self) -> int:
        """Bytes to the user."""


class UserAccount:
    """The end of a user, told once. A resource of the pair's actor, acquired first.

    Attributes:
        outcome: one of `context.OUTCOMES`; killed until somebody says otherwise.
        detail: why.
        carrier: what counts its bytes; None until it is served.
    """

    __slots__ = ("_began", "_door", "_service", "_told", "_user", "carrier", "detail", "outcome")

    def __init__(self, door: RendezvousContext, service: Service, user: User) -> None:
        self._door = door
        self._service = service
        self._user = user
        self._began = door.clock()
        self._told = False
        self.outcome = "killed"
        self.detail = ""
        self.carrier: Counted | None = None
        protocol = service.protocol.value
        door.meters.families["rendezvous_users_total"][protocol] += 1
        door.meters.histogram("rendezvous_user_wait_duration").observe(self._began - user.came)
        door.pairs[protocol] += 1
        service.pairs += 1
        service.served += 1

    def abort(self) -> None:
        """The pair's actor ended; idempotent."""
        if self._told:
            return
        self._told = True
        door, service, protocol = self._door, self._service, self._service.protocol.value
        seconds = door.clock() - self._began
        up = 0 if self.carrier is None else self.carrier.bytes_in
        down = 0 if self.carrier is None else self.carrier.bytes_out
        families = door.meters.families
        families["rendezvous_users_ended_total"][self.outcome] += 1
        families["rendezvous_traffic_in_bytes_total"][protocol] += up
        families["rendezvous_traffic_out_bytes_total"][protocol] += down
        door.meters.histogram("rendezvous_user_duration").observe(seconds)
        door.pairs[protocol] -= 1
        service.pairs -= 1
        service.bytes_in += up
        service.bytes_out += down
        self._user.place.leave()
        door.access_log(
            StreamRecord(
                time.time(),
                "",
                door.relay,
                "",
                "",
                service.client.name,
                service.title,
                service.protocol.value,
                self.outcome,
                self.detail,
                "splice",
                round(seconds, 6),
                up,
                down,
                0,
            )
        )
        self.carrier = None
        service.pair_over()
