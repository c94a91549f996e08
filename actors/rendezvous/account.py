"""What is counted and told of one user, however its time here ends."""

from __future__ import annotations

import time
from typing import Protocol as Shape

from actors.doors.stream_account import StreamAccount
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


class UserAccount(StreamAccount):
    """The end of a user; see `StreamAccount`.

    Args:
        path: place of its actor.

    Attributes:
        outcome: one of `context.OUTCOMES`.
        carrier: what counts its bytes; None until it is served.
    """

    __slots__ = ("_door", "carrier", "path", "service", "user")

    def __init__(self, door: RendezvousContext, service: Service, user: User, path: str) -> None:
        super().__init__(door.clock, door.clock())
        self._door = door
        self.service = service
        self.user = user
        self.path = path
        self.carrier: Counted | None = None
        protocol = service.protocol.value
        door.meters.families["rendezvous_users_total"][protocol] += 1
        door.meters.histogram("rendezvous_user_wait_duration").observe(self._began - user.came)
        door.pairs[protocol] += 1
        service.pairs += 1
        service.served += 1
        door.accounts.add(self)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._began

    def volume(self) -> tuple[int, int]:
        """Bytes from the user, and to it."""
        carrier = self.carrier
        return (0, 0) if carrier is None else (carrier.bytes_in, carrier.bytes_out)

    def tell(self, seconds: float) -> None:
        door, service, protocol = self._door, self.service, self.service.protocol.value
        door.accounts.discard(self)
        up, down = self.volume()
        families = door.meters.families
        families["rendezvous_users_ended_total"][self.outcome] += 1
        families["rendezvous_traffic_in_bytes_total"][protocol] += up
        families["rendezvous_traffic_out_bytes_total"][protocol] += down
        door.meters.histogram("rendezvous_user_duration").observe(seconds)
        door.pairs[protocol] -= 1
        service.pairs -= 1
        service.bytes_in += up
        service.bytes_out += down
        self.user.place.leave()
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
