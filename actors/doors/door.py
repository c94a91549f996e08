"""What a door is to the daemon: one protocol family that clients come in by.

A door is a folder of `actors` whose module `wiring` has a `DOOR`, a settings model that names that
module, and a line in `config.schema.Settings`, which is the list of doors. Everything else (tree,
drain, reload, metrics, readiness, what `ctl`, the inspector and `chaos` see) follows from what is
here. Doors never import each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from actors.control.messages import ControlPlane
from actors.observe.meters import Meters
from actors.runtime import ActorSystem, ChildSpec
from actors.transport.key_log import KeyLog
from actors.transport.tls import TlsIdentity
from config.schema import Settings
from wire.admin.arguments import Arguments
from wire.admin.messages import Row

#: Arguments and who asks; rows to stream, and the final answer (`actors.admin.commands`).
DoorCommand: TypeAlias = Callable[[Arguments, str], Awaitable[tuple[Sequence[Row], Row]]]


@dataclass(frozen=True, slots=True)
class DoorContext:
    """What the daemon gives to a door.

    Attributes:
        system: where its actors will live.
        settings: of the whole daemon; the door's own are the attribute of its name.
        identity: certificate to show: of this node, or the door's own where its settings name one
            (`TlsDoorRoom`); and whom this node trusts.
        control: finds the control actors; asked when the door starts, after control did.
        meters: what is counted, for operators.
        access: place of the access log; empty: none is kept.
        key_log: of TLS secrets, when the settings name one.
        present: the settings as they were read last; those that are live may be taken from there
            when the door is reloaded. None: they never change.
    """

    system: ActorSystem
    settings: Settings
    identity: TlsIdentity
    control: Callable[[], ControlPlane]
    meters: Meters = field(default_factory=Meters)
    access: str = ""
    key_log: KeyLog | None = None
    present: Callable[[], Settings] | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """One address of a door.

    Attributes:
        transport: such as QUIC, TCP or UDP.
        path: place of the actor that owns the socket.
        address: host and port; None while it is not bound.
    """

    transport: str
    path: str
    address: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Carriers:
    """Whose death costs whom; `trunkline chaos` judges by it.

    Attributes:
        connections: places; a death there, or of anything below, may reset any stream.
        pairs: places; the death of one child resets one stream.
    """

    connections: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()


class Door(Protocol):
    """A wired door: made before the tree, alive as long as the process."""

    @property
    def carriers(self) -> Carriers:
        """What carries its streams."""

    @property
    def draining(self) -> bool:
        """True once `drain` was called."""

    def spec(self) -> ChildSpec:
        """Its subtree; the id is the door's name."""

    def listening(self) -> Sequence[Listening]:
        """Its addresses, bound or not."""

    async def drain(self) -> None:
        """Accept nothing new, wait for what is open, then say goodbye.

        Waits as long as the caller lets it.
        """

    def reload(self, identity: TlsIdentity) -> str:
        """New handshakes use this certificate; what is connected stays.

        Returns what of the door's own files could not be read again and stays as it was; empty:
        nothing. Whoever asked for the reload is told.
        """
        ...

    def abort(self) -> None:
        """Close what outlives the tree."""


@runtime_checkable
class Commanded(Protocol):
    """A door that operators may ask more than every door."""

    def commands(self) -> Mapping[str, DoorCommand]:
        """By name, which begins with the door's: arguments and who asks; rows and result."""


@runtime_checkable
class Viewed(Protocol):
    """A door that shows whom it serves: rows for `ctl agents`, `ctl services` and `ctl streams`.

    Whoever asks adds the door's name. A field that a door has nothing for is None. Times are
    seconds; figures are totals, so that rates are the difference of two answers.
    """

    def agents(self) -> Iterable[Row]:
        """Who is connected: agent, tenant, remote, transport, seconds, services, streams,
        bytes_in, bytes_out, path; and what else a door has.
        """

    def services(self) -> Iterable[Row]:
        """What is offered here: service, tenant, provider, target, streams, path; and what else a
        door has.
        """

    def streams(self) -> Iterable[Row]:
        """What is carried: stream, tenant, consumer, provider, service, method, state, mode,
        seconds, bytes_up and bytes_down (from the consumer and to it), path.
        """


@dataclass(frozen=True, slots=True)
class DoorKind:
    """A door that can be opened.

    Attributes:
        name: its place in the tree, and its table in the settings.
        open: wire it; None when the settings do not want it.
    """

    name: str
    open: Callable[[DoorContext], Door | None]
