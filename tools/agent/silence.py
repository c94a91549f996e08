"""A relay that says nothing: it is down, or the way to it is.

Over QUIC whatever is sent is acknowledged within a round trip, so silence of seconds is no slow
relay. Waiting for the idle timeout, whoever is at the local end would wait as long, without a word:
after it was asked for a stream it is given up sooner. A connection that nobody asks anything of is
left to its idle timeout, but it is said before that nothing is heard, not even of keepalives.
"""

from __future__ import annotations

from typing import Final

from actors.runtime import Actor
from actors.transport.connection import Connection
from wire.orp.close_codes import CloseCode

#: Seconds without a byte until it is said, and until the connection is given up.
SAID_AFTER: Final = 3.0
GIVEN_UP_AFTER: Final = 6.0
#: Seconds between two looks at a connection that nobody asks anything of, and without a byte until
#: it is said: longer than two keepalives.
LOOK_SECONDS: Final = 2.0
IDLE_SAID_AFTER: Final = 7.0
#: The reason of a connection that was given up begins so.
NOTHING_HEARD: Final = "nothing heard"


class RelaySilent:
    """Time to see whether the relay said anything."""

    __slots__ = ()


class SilenceWatch:
    """A relay that says nothing: it is down, or the way to it is.

    Args:
        owner: gets `RelaySilent`, and calls `look` then.
    """

    def __init__(self, owner: Actor) -> None:
        self._owner = owner
        #: The connection that is watched, what had come of it when it was asked, and when.
        self._watched: tuple[Connection, int, float] | None = None

        #: What had come at the last look that found something new, when, and whether it was said.
        self._idle = (0, 0.0, False)

    def connected(self) -> None:
        """There is a connection over QUIC."""
        self._owner.start_timer(LOOK_SECONDS, RelaySilent(), "silence")

    def asked(self, connection: Connection) -> None:
        """The relay was asked for something over this connection, and must answer."""
        heard = connection.statistics().bytes_in
        # Nothing came since it was asked before: it is silent since then.
        if self._watched is None or self._watched[:2] != (connection, heard):
            self._watched = connection, heard, self._owner.now()
            self._owner.start_timer(SAID_AFTER, RelaySilent(), "silence")

    def look(self, connection: Connection | None) -> None:
        """Say it, or give the connection up.

        Args:
            connection: the one there is now.
        """
        if connection is None:
            self._watched = None
            return
        heard = connection.statistics().bytes_in
        if self._watched is None or self._watched[:2] != (connection, heard):
            self._watched = None
            self._look_idle(heard)
            return
        watched, _, since = self._watched
        silent = self._owner.now() - since
        if silent < GIVEN_UP_AFTER:
            self._owner.log.warning(
                "the relay does not answer for {:.0f} s; at {:g} s another connection is tried",
                silent,
                GIVEN_UP_AFTER,
            )
            self._owner.start_timer(GIVEN_UP_AFTER - silent, RelaySilent(), "silence")
        else:
            self._watched = None
            text = f"{NOTHING_HEARD} for {silent:.0f} s"
            watched.close(CloseCode.INTERNAL_ERROR, text)

    def _look_idle(self, heard: int) -> None:
        before, since, said = self._idle
        now = self._owner.now()
        if heard != before:
            self._idle = heard, now, False
        elif now - since >= IDLE_SAID_AFTER and not said:
            self._idle = heard, since, True
            self._owner.log.warning("nothing is heard of the relay for {:.0f} s", now - since)
        self.connected()
