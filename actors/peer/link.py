"""What carries the messages of one client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Link(Protocol):
    """One client's connection, whatever it is made of. A resource.

    Attributes:
        transport: ws or quic.
        source: where the client is from, for people.
        most_ids: IDs in one message to it.
    """

    transport: str
    source: str
    most_ids: int

    def send(self, message: bytes) -> None:
        """A message of ours: before those of other peers, and never dropped."""

    def deliver(self, sender: bytes, message: bytes) -> str:
        """A Transport message of another peer.

        Args:
            sender: header and ID of the sender, which take the place of the destination.
            message: as the sender wrote it.

        Returns:
            Why it was dropped; empty: it was not.
        """

    def flush(self) -> None:
        """Hand over what was delivered."""

    @property
    def queued(self) -> int:
        """Bytes that wait."""

    def close(self) -> None:
        """End, after what was sent."""

    def abort(self) -> None:
        """End at once; idempotent."""


class Client(Link, Protocol):
    """A link whose actor begins."""

    def begin(
        self, received: Callable[[list[bytes]], object], lost: Callable[[str], object]
    ) -> None:
        """Deliver from now on, first of all what came meanwhile.

        Args:
            received: gets messages that came together.
            lost: called once when the connection is over, with why.
        """
