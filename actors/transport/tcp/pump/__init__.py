"""Bytes between two ends, once they are coupled: readiness callbacks, no task and no mailbox.

`socket_pair` couples two sockets, `stream_pump` a socket and a stream. In both, EOF becomes FIN and
FIN becomes EOF; any error resets the other side; a slow reader slows its own writer and nobody
else.
"""

from actors.transport.tcp.pump.pipes import PipePool
from actors.transport.tcp.pump.quiet import QuietLimits
from actors.transport.tcp.pump.socket_pair import SocketPair
from actors.transport.tcp.pump.stream_pump import StreamPump
from actors.transport.tcp.pump.throttle import Throttle

__all__ = ["PipePool", "QuietLimits", "SocketPair", "StreamPump", "Throttle"]
