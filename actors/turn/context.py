"""What all actors of the door share, and what the protocol machine asks of it.

Outlives all of them: endpoints, records and relayed sockets are here, so that whichever actor is
restarted finds them (docs/decisions/0013).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from random import SystemRandom
from typing import Any

from actors.observe.meters import Family, Meters
from actors.observe.records import StreamRecord
from actors.runtime import ActorRef, ActorSystem, ChildRefused, ChildSpec, Restart
from actors.runtime.restart import Backoff
from actors.transport.udp import RECEIVE_BUFFER
from actors.turn.allocation import Allocation
from actors.turn.messages import Arm, Release
from actors.turn.relay_ports import RelayPorts, RelaySocket
from actors.turn.settings import TurnSettings
from wire.stun.nonce import Nonces
from wire.turn.allocation import Allocation as Record
from wire.turn.authentication import Authentication
from wire.turn.credentials import Accounts, Find, RestSecrets, StampSecret, StaticUsers
from wire.turn.dispatcher import Dispatcher, plain_host
from wire.turn.peer_filter import PeerFilter
from wire.turn.reply_limit import ReplyLimit

#: A client waits in the kernel's queue meanwhile: the pauses are short.
BACKOFF = Backoff(base=0.002, cap=0.01, stable_after=5.0)


def _untold(_: StreamRecord) -> None:
    """No access log is kept."""


class TurnContext:
    """What all actors of the door share, and what the protocol machine asks of it. Also the `Host`
    of the dispatcher.

    Attributes:
        dispatcher: the protocol machine, with the record of every allocation.
        ports: relayed sockets.
        nonces: of this server.
        events: what happened, for operators.
        buffer: all sockets of the door receive into it, one after the other.
        armed: what the registry waits for, loop time; None: nothing.
    """

    def __init__(
        self, system: ActorSystem, settings: TurnSettings, meters: Meters, base: str
    ) -> None:
        self.system = system
        self.settings = settings
        self.meters = meters
        self.clock = system.loop.time
        self.buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self.events: Family = meters.family("turn_events_total", "event")
        self.ended: Family = meters.family("turn_allocations_ended_total", "reason")
        self.access_log: Callable[[StreamRecord], object] = _untold
        self.relay_id = ""
        self.armed: float | None = None
        #: Payload bytes of allocations that are over, and of all by user; see `per_user`.
        self.bytes_up = self.bytes_down = 0
        self.users: Counter[str] = Counter()
        self.started = self.restarted = 0
        self.nonces = Nonces(os.urandom(32), settings.nonce_lifetime)
        self.stamp: Find = lambda username, wall: None
        if settings.stamp_secret:
            self.stamp = StampSecret(settings.stamp_secret).find
        self.ports = RelayPorts(settings, self.clock, SystemRandom())
        self.dispatcher = Dispatcher(
            settings.rules,
            Authentication(settings.realm, self.accounts(settings), self.nonces),
            self.peer_filter(settings),
            self,
            ReplyLimit(settings.replies_per_second),
            self.events,
        )
        self._base = base
        self._refs: dict[str, ActorRef] = {}

    def accounts(self, settings: TurnSettings) -> Accounts:
        """Who may come, by these settings."""
        return Accounts(
            StaticUsers(settings.users, settings.realm),
            [RestSecrets(settings.secrets).find, lambda name, wall: self.stamp(name, wall)],
        )

    def peer_filter(self, settings: TurnSettings) -> PeerFilter:
        """Whom clients may reach, by these settings."""
        hosts = settings.relay_hosts
        return PeerFilter(
            settings.allowed,
            settings.denied,
            closed=settings.closed,
            relayed=[settings.external.get(host, host) for host in hosts],
        )

    def place(self, name: str) -> ActorRef:
        """An actor of the door.

        Raises:
            ChildRefused: it is not there.
        """
        ref = self._refs.get(name) or self.system.ref(f"{self._base}/{name}")
        if ref is None:
            raise ChildRefused(self._base, name, "down")
        self._refs[name] = ref
        return ref

    def receive(self, data: memoryview, endpoint: Any, source: Any) -> bytes | None:
        """One STUN message of a client; its answer."""
        answer = self.dispatcher.receive(data, endpoint, source, self.clock(), time.time())
        self.arm()
        return answer

    def arm(self) -> None:
        """Have the registry wait for what expires next."""
        due = self.dispatcher.deadlines.next()
        if due is not None and (self.armed is None or due < self.armed):
            self.armed = due
            ref = self.system.ref(f"{self._base}/registry")
            if ref is None or not ref.try_tell(Arm()):
                self.armed = None  # its next incarnation asks by itself

    # What the dispatcher asks for; see `wire.turn.dispatcher.Host`.

    def open_relay(self, family: int, *, even: bool = False) -> RelaySocket | int:
        relay = self.ports.relay(family, even=even)
        if isinstance(relay, int) and relay == 508:
            self.events["bind_failed"] += 1
        return relay

    def open_pair(self, family: int) -> tuple[RelaySocket, RelaySocket] | int:
        for _ in range(4):
            first = self.ports.relay(family, even=True)
            if isinstance(first, int):
                return first
            second = self.ports.at(family, first.port + 1)
            if second is not None:
                return first, second
            first.close()
        return 508

    def opened(self, record: Record) -> bool:
        """See `Host`: its actor starts; what comes meanwhile waits in the kernel."""
        try:
            self.start(record)
        except ChildRefused:
            self.events["no_actor"] += 1
            return False
        return True

    def start(self, record: Record) -> ActorRef:
        """Start the actor of an allocation.

        Raises:
            ChildRefused: its supervisor is away, or full.
        """
        return self.system.start_child(
            self.place("allocations"),
            ChildSpec(
                str(record.number),
                lambda: Allocation(self, record),
                restart=Restart.TRANSIENT,
                backoff=BACKOFF,
            ),
        )

    def closed(self, record: Record, why: str) -> None:
        """See `Host`: the sockets are closed already."""
        self.ended[why] += 1
        up, down = record.bytes_from_client, record.bytes_from_peers
        self.bytes_up += up
        self.bytes_down += down
        if record.user in self.users or len(self.users) < MAX_USERS:
            self.users[record.user] += up + down
        ref = self.system.ref(f"{self._base}/allocations/{record.number}")
        if ref is not None:
            ref.try_tell(Release(why))
        record.endpoint.ended(record, why)  # type: ignore[attr-defined]  # ours have it
        failed = why in ("failed", "no_actor")
        self.access_log(
            StreamRecord(
                time.time(), f"{record.number:016x}", self.relay_id, "turn", record.user,
                "", plain_host(record.client[0]), "allocate",
                "failed" if failed else "finished", why,
                "turn-tcp" if record.endpoint.stream else "turn-udp",
                self.clock() - record.since, up, down, 0,
            )
        )  # fmt: skip

    def random(self, size: int) -> bytes:
        return os.urandom(size)


#: Users whose bytes are added up when their allocations are over; those beyond are not shown.
MAX_USERS = 4096
