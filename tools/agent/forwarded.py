"""A forward stream in an agent: the tunnel carries the bytes, the relay's stream tells of its life.

The relay's stream is kept open and closed last: when it ends the relay forgets the allocations, and
the tunnel with them. When the relay's side ends it first, the other agent is done or gone.

Source: protocol sheet ORP 3.5 steps 3 and 4; 6.5 A10, A12.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.runtime import Guard
from actors.transport.stream import CloseReason, Stream
from tools.agent.forward_tunnel import ForwardTunnel
from wire.orp.close_codes import ResetCode

#: Seconds that both agents keep the tunnel when everything arrived: the last acknowledgements and
#: whatever the other side still repeats need it.
LINGER = 1.0


class Forwarded:
    """The relay's stream of a forward stream, and the tunnel. A resource.

    Args:
        relay_stream: carries nothing any more; taken over.
        over: called once when the relay's side ended.
        guard: wraps callbacks (`Actor.guard`).
    """

    def __init__(
        self,
        relay_stream: Stream,
        tunnel: ForwardTunnel,
        over: Callable[[], None],
        guard: Guard,
    ) -> None:
        self.tunnel = tunnel
        self._relay_stream = relay_stream
        self._over = over
        self._ended = False

        def discard(chunk: bytes) -> None:
            relay_stream.consume(len(chunk))

        def coded(_: int) -> None:
            self._relay_ended()

        def lost(_: CloseReason) -> None:
            self._relay_ended()

        relay_stream.on_data = guard("relay stream", discard)
        relay_stream.on_eof = guard("relay stream", self._relay_ended)
        relay_stream.on_reset = relay_stream.on_stop_sending = guard("relay stream", coded)
        relay_stream.on_lost = guard("relay stream", lost)
        relay_stream.start()

    def _relay_ended(self) -> None:
        if not self._ended:
            self._ended = True
            self._over()

    def close(self) -> None:
        """Everything arrived: finish the relay's stream and the tunnel."""
        self._ended = True
        self.tunnel.close()
        self._finish()

    def abort(self) -> None:
        """Let go of both; idempotent."""
        self._ended = True
        self.tunnel.abort()
        self._finish()

    def _finish(self) -> None:
        """FIN and STOP_SENDING on every way out: nobody leaks stream credit."""
        self._relay_stream.forget_callbacks()
        self._relay_stream.write_eof()
        self._relay_stream.stop_sending(ResetCode.NONE)
