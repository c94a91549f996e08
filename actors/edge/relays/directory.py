"""Which other relays there are, where they listen, and the links to them.

A plain object shared by the actors of a door. Endpoints come from the settings, from the
controller's list (`fleet`), and from the providers it names; the newest word counts. Links are
actors that are started when somebody needs one.

Source: protocol sheet ORP 3.11.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.edge.messages import CopyFrame, Reach
from actors.edge.relays.settings import RelaySettings
from actors.runtime import Actor, ActorRef, ActorSystem, ChildRefused, ChildSpec, Restart, escape_id
from actors.transport.quic import QuicEndpoint

#: Relays remembered; the oldest is forgotten first.
MAX_KNOWN = 10_000


def parse_address(text: str) -> tuple[str, int] | None:
    """`host:port` or `[ipv6]:port`; None when it is neither."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit():
        return None
    number = int(port)
    return (host, number) if 0 < number < 65536 else None


class SignallingRoute:
    """An actor that can tell another relay something, as a resource of that actor."""

    __slots__ = ("_all", "_on_end", "_ref")

    def __init__(
        self, everyone: list[ActorRef], ref: ActorRef, on_end: Callable[[], object]
    ) -> None:
        self._all = everyone
        self._ref = ref
        self._on_end: Callable[[], object] | None = on_end
        everyone.append(ref)

    def abort(self) -> None:
        """It cannot any more; idempotent."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self._all.remove(self._ref)
            on_end()


class RelayDirectory:
    """Which other relays there are, where they listen, and the links to them.

    Args:
        base: path of the dynamic supervisor of links.
        dialler: makes the endpoint a link dials from.
    """

    def __init__(
        self,
        system: ActorSystem,
        settings: RelaySettings,
        *,
        base: str,
        dialler: Callable[[], QuicEndpoint],
    ) -> None:
        self.settings = settings
        self.dialler = dialler
        #: Makes the actor of a link from the relay's id; set when the door is wired.
        self.make_link: Callable[[str], Actor]
        #: Is there something this relay may not have heard?
        self.unheard: Callable[[str], bool]
        self._system = system
        self._base = base
        self._known: dict[str, tuple[str, int]] = {}
        #: By relay id. Bound: the connections of the door to other relays; an empty list stays
        #: for every relay that was ever connected, and only relays with a certificate are.
        self._routes: dict[str, list[ActorRef]] = {}
        #: Relays that do not know the extension. Bound: those that were dialled, as `_known`.
        self._mute: set[str] = set()

    def learn(self, relay_id: str, endpoint: str) -> bool:
        """Remember where a relay listens. False: that is no address."""
        address = parse_address(endpoint)
        if address is None or not relay_id or relay_id == self.settings.relay_id:
            return False
        self._known.pop(relay_id, None)
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[relay_id] = address
        return True

    def address(self, relay_id: str) -> tuple[str, int] | None:
        """Where this relay listens; None: nobody told."""
        return self._known.get(relay_id) or self.settings.known.get(relay_id)

    def accepts(self, relay_id: str) -> bool:
        """May this relay bring streams here?"""
        accept = self.settings.accept
        return "*" in accept or relay_id in accept

    def below(self) -> list[str]:
        """Known relays whose id sorts before ours.

        A stream that waits is offered to those only: of two relays that both wait for it, exactly
        one offers.
        """
        known = {*self._known, *self.settings.known}
        return sorted(relay_id for relay_id in known if relay_id < self.settings.relay_id)

    def add_route(self, relay_id: str, ref: ActorRef) -> SignallingRoute:
        """This actor has a way to tell the relay something; abort the entry with it."""
        self._mute.discard(relay_id)
        return SignallingRoute(
            self._routes.setdefault(relay_id, []), ref, lambda: self._route_lost(relay_id)
        )

    def _route_lost(self, relay_id: str) -> None:
        """A way is lost, perhaps with what went over it last."""
        if self.unheard(relay_id):
            self.reach(relay_id)

    def tell(self, relay_id: str, frame: CopyFrame) -> bool:
        """Have a ctrl frame copied to this relay. False: there is no way now."""
        return any(ref.try_tell(frame) for ref in self._routes.get(relay_id, ()))

    def mute(self, relay_id: str) -> None:
        """This relay does not know the extension: it is not dialled to be told something."""
        self._mute.add(relay_id)

    def reach(self, relay_id: str) -> bool:
        """Get a way to tell this relay something. False: it would not understand."""
        if relay_id in self._mute:
            return False
        try:
            self.link(relay_id).try_tell(Reach())
        except ChildRefused:
            pass  # what is to be said is kept, and said when it comes back
        return True

    def link(self, relay_id: str) -> ActorRef:
        """The actor of the link to this relay; started if there is none.

        Raises:
            ChildRefused: not now.
        """
        child = "to-" + escape_id(relay_id)
        ref = self._system.ref(f"{self._base}/{child}")
        if ref is not None:
            return ref
        supervisor = self._system.ref(self._base)
        if supervisor is None:
            raise ChildRefused(self._base, child, "down")
        spec = ChildSpec(
            child,
            lambda: self.make_link(relay_id),
            restart=Restart.TRANSIENT,
            shutdown=2.0,
        )
        return self._system.start_child(supervisor, spec)
