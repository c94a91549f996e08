"""The subtree of the peer door, from plain values.

::

    peer              one_for_one
    ├─ connections    dynamic: one PeerConnection per client
    └─ listeners      one_for_one: one PeerListener per address, with TLS a DatagramListener
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from actors.doors.door import Carriers, DoorCommand, Listening
from actors.doors.stream_account import access_log
from actors.observe.meters import Meters
from actors.peer.connection import Leave
from actors.peer.context import PeerContext
from actors.peer.datagrams import DatagramListener, make_endpoint
from actors.peer.listener import Binding, PeerListener
from actors.peer.operators import PeerCommands
from actors.peer.peer_tls import PeerTls
from actors.peer.settings import PeerSettings
from actors.runtime import (
    ActorRef,
    ActorSystem,
    Backoff,
    ChildRefused,
    ChildSpec,
    DynamicSupervisor,
    Intensity,
    Supervisor,
)
from actors.transport.addresses import only_ipv6
from actors.transport.tls import TlsIdentity
from wire.admin.messages import Row

#: While a part of the door is away newcomers wait.
BACKOFF = Backoff(base=0.02, cap=0.5, stable_after=5.0)


class PeerDoor:
    """The wiring of one peer door: made before the tree, alive as long as the process.

    Args:
        listen: addresses for clients.
        url: what this relay calls itself; the same on all pods.
        secrets: those of the management servers.
        read_secrets: gives them anew at a reload; raises OSError.
        tls: how clients are met; None: without TLS.
        log_place: place of the access log; empty: none is kept.
        relay: name of this relay.
    """

    def __init__(
        self,
        system: ActorSystem,
        *,
        listen: Sequence[tuple[str, int]],
        url: str,
        secrets: Sequence[str],
        settings: PeerSettings,
        read_secrets: Callable[[], Sequence[str]] | None = None,
        tls: PeerTls | None = None,
        meters: Meters | None = None,
        log_place: str = "",
        relay: str = "",
        base: str = "/peer",
    ) -> None:
        self._system = system
        self._base = base
        self._tls = tls
        self._read_secrets = read_secrets
        self._bindings = [Binding(address) for address in listen]
        self.door = PeerContext(
            system,
            settings,
            url=url,
            secrets=secrets,
            place=self._connections,
            meters=meters,
            relay=relay,
        )
        self._quic = None if tls is None else make_endpoint(self.door, tls.identity)
        self.door.access_log = access_log(system, log_place, self.door.meters)

    def _connections(self) -> ActorRef:
        ref = self._system.ref(f"{self._base}/connections")
        if ref is None:
            raise ChildRefused(self._base, "connections", "down")
        return ref

    def spec(self) -> ChildSpec:
        """The door's subtree."""
        addresses = [one.wanted for one in self._bindings]
        listeners = [
            ChildSpec(
                name,
                lambda binding=binding: PeerListener(  # type: ignore[misc]
                    self.door, binding, self._tls, only_ipv6=only_ipv6(binding.wanted, addresses)
                ),
                backoff=BACKOFF,
            )
            for name, binding in zip(self._names(), self._bindings, strict=True)
        ]
        if (quic := self._quic) is not None:
            listeners.append(
                ChildSpec(
                    "quic",
                    lambda: DatagramListener(self.door, quic, self._first_address),
                    backoff=BACKOFF,
                )
            )
        budget = Intensity(restarts=10, period=10.0)
        most = self.door.settings.max_peers
        children = [
            ChildSpec("connections", lambda: DynamicSupervisor(max_children=most), backoff=BACKOFF),
            ChildSpec(
                "listeners", lambda: Supervisor(listeners, intensity=budget), backoff=BACKOFF
            ),
        ]
        return ChildSpec(
            self._base.rpartition("/")[2],
            lambda: Supervisor(children, intensity=budget),
            backoff=BACKOFF,
        )

    def _first_address(self) -> tuple[str, int]:
        """UDP has the port that TCP has."""
        return self._bindings[0].bound or self._bindings[0].wanted

    def _names(self) -> list[str]:
        return ["tcp" if n == 0 else f"tcp-{n + 1}" for n in range(len(self._bindings))]

    @property
    def carriers(self) -> Carriers:
        return Carriers((f"{self._base}/connections",))

    @property
    def draining(self) -> bool:
        return self.door.draining

    def listening(self) -> list[Listening]:
        kind = "WebSocket over TLS" if self._tls else "WebSocket"
        listening = [
            Listening(kind, f"{self._base}/listeners/{name}", binding.bound)
            for name, binding in zip(self._names(), self._bindings, strict=True)
        ]
        if self._quic is not None:
            place = f"{self._base}/listeners/quic"
            listening.append(Listening("QUIC", place, self._quic.address))
        return listening

    def agents(self) -> Iterable[Row]:
        """See `Viewed`: peers; whom one of them talks to is not kept."""
        for one in list(self.door.registry.peers.values()):
            yield {
                "agent": one.text,
                "tenant": None,
                "remote": one.link.source,
                "transport": one.link.transport,
                "seconds": round(self.door.clock() - one.since, 3),
                "services": [],
                "streams": None,
                "bytes_in": one.bytes_in,
                "bytes_out": one.bytes_out,
                "path": one.path,
            }

    def services(self) -> Iterable[Row]:
        """See `Viewed`: nothing is offered."""
        return ()

    def streams(self) -> Iterable[Row]:
        """See `Viewed`: messages are carried one by one."""
        return ()

    def commands(self) -> Mapping[str, DoorCommand]:
        return PeerCommands(self.door, f"{self._base}/connections").commands()

    async def drain(self) -> None:
        """Take nobody any more, and tell the peers to go, spread over a few seconds: they come
        back in lock-step otherwise."""
        door = self.door
        door.draining = True
        if self._quic is not None:
            self._quic.accepting = False
        connections = self._system.find(f"{self._base}/connections")
        names = list(connections.children or ()) if connections is not None else []
        pause = door.settings.drain_spread / max(1, len(names))
        for name in names:
            ref = self._system.ref(f"{self._base}/connections/{name}")
            if ref is not None and ref.try_tell(Leave("drained")):
                await asyncio.sleep(pause)
        while True:
            found = self._system.find(f"{self._base}/connections")
            if found is None or not found.children:
                break
            await asyncio.sleep(0.02)

    def reload(self, identity: TlsIdentity) -> str:
        """New handshakes use this certificate; secrets are read again."""
        if self._tls is not None:
            self._tls.reload(identity)
        if self._quic is not None:
            self._quic.reload(identity)
        if self._read_secrets is not None:
            try:
                secrets = self._read_secrets()
            except OSError as error:
                return f"peer: the secrets stay as they were: {error}"
            self.door.set_secrets(secrets)
        return ""

    def abort(self) -> None:
        """Close what outlives the tree."""
        for transport in list(self.door.lingering):
            transport.abort()
        if self._quic is not None:
            self._quic.abort()
