"""The link to a Firezone portal: says that we are here, and with which secret.

The relay serves while the portal is away: credentials are checked with the secret in memory. The
link is dialled again with growing pauses; a refusal that will not change, and a portal that was
away for `patience` seconds, end the door's process, because then nobody is sent here any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import random
from time import time
from typing import Final

import aiohttp

from actors.runtime import Actor, shutdown
from wire.phoenix.backoff import Backoff
from wire.phoenix.session import PortalSession, Verdict

#: Seconds for the connection, and for the whole handshake.
CONNECT: Final = 5.0
HANDSHAKE: Final = 15.0
#: Bytes of one frame of the portal.
MAX_FRAME: Final = 1 << 20


@dataclass(slots=True)
class PortalState:
    """What others see of the link; outlives its actor.

    Attributes:
        stamp_secret: of our clients' passwords.
        joined: the portal lists us now.
        initialised: it ever said that we may serve.
        fatal: why it was given up; empty: it was not.
    """

    stamp_secret: str = field(repr=False)
    joined: bool = False
    initialised: bool = False
    fatal: str = ""


class PortalLink(Actor):
    """Dials the portal, joins as a relay, and dials again when the link is lost.

    Args:
        url: of the relay's channel; see `wire.phoenix.endpoint`.
        token: of this relay.
        state: what others see.
        initialised: called once, when the portal first said that we may serve.
    """

    def __init__(
        self,
        url: str,
        token: str,
        state: PortalState,
        *,
        patience: float = 86_400.0,
        initialised: Callable[[], object] | None = None,
    ) -> None:
        self._url = url
        self._token = token
        self._state = state
        self._backoff = Backoff(patience)
        self._initialised = initialised
        self._attempts = 0
        self._last = ""

    def init(self) -> None:
        """Begin to dial."""
        self.spawn_task(self._run(), "portal")

    def describe(self) -> dict[str, object]:
        """How it stands; never the token or the secret."""
        return {
            "portal": self._url.partition("?")[0],
            "joined": self._state.joined,
            "initialised": self._state.initialised,
            "attempts": self._attempts,
            "last_failure": self._last,
        }

    async def _run(self) -> None:
        while True:
            self._attempts += 1
            wanted = None
            try:
                wanted = await self._connection()
            except _Fatal as fatal:
                self._give_up(str(fatal))
                return
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self._last = f"{type(error).__name__}: {error}"[:200]
            finally:
                self._state.joined = False
            delay = self._backoff.delay(random(), wanted)  # spreads reconnects
            if delay is None:
                self._give_up(f"the portal stays away: {self._last}")
                return
            self.log.warning("portal: {}; again in {:.1f} s", self._last, delay)
            await asyncio.sleep(delay)

    def _give_up(self, why: str) -> None:
        self._state.fatal = why
        self.log.error("portal: {}", why)
        self.stop(shutdown("the portal is given up"))

    async def _connection(self) -> float | None:
        """One connection, to its end. Returns what the portal wants us to wait, if it said so."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
        headers = {
            "x-authorization": f"Bearer {''.join(self._token.split())}",
            "user-agent": "trunkline relay",
        }
        async with aiohttp.ClientSession(timeout=timeout) as client:
            try:
                async with asyncio.timeout(HANDSHAKE):
                    socket = await client.ws_connect(
                        self._url, headers=headers, max_msg_size=MAX_FRAME, compress=0
                    )
            except aiohttp.WSServerHandshakeError as error:
                if error.status == 401:
                    raise _Fatal("the portal does not know this token (401)") from None
                self._last = f"HTTP {error.status}"
                retry = error.headers.get("retry-after") if error.headers is not None else None
                return _seconds(retry)
            try:
                await self._serve(socket)
            finally:
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await socket.close()
        return None

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        session = PortalSession(self._state.stamp_secret, self.now())
        await socket.send_str(session.begin())
        while session.verdict is Verdict.GO_ON:
            try:
                async with asyncio.timeout(max(0.0, session.next() - self.now())):
                    message = await socket.receive()
            except TimeoutError:
                outgoing = session.timeout(self.now())
            else:
                if message.type is aiohttp.WSMsgType.TEXT:
                    outgoing = session.receive(message.data, self.now())
                elif message.type is aiohttp.WSMsgType.BINARY:
                    continue
                else:
                    self._last = "the portal closed the connection"
                    return
            for text in outgoing:
                await socket.send_str(text)
            self._note(session)
        self._last = session.why
        if session.verdict is Verdict.FATAL:
            raise _Fatal(session.why)

    def _note(self, session: PortalSession) -> None:
        if session.joined and not self._state.joined:
            self._backoff.succeeded()
            self.log.info("portal: joined")
        self._state.joined = session.joined
        if session.initialised and not self._state.initialised:
            self._state.initialised = True
            if self._initialised is not None:
                self._initialised()


class _Fatal(Exception):  # an answer of the portal
    """It would be the same next time."""


def _seconds(text: str | None) -> float | None:
    """Retry-After: seconds, or a date."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None
