"""A client like those of quic-go: packets to it carry no connection id.

Its socket has to be its own. For self-tests, test suites and benchmarks.
"""

from __future__ import annotations

from actors.transport.quic.native_engine.engine import NativeEngine


class NativeClientWithoutId(NativeEngine):
    """A client like those of quic-go: packets to it carry no connection id. For the arguments,
    `NativeEngine`.
    """

    cid_length = 0
