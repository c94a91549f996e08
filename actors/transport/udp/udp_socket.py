"""A batched UDP socket on the event loop: few system calls, no task and no copy per datagram.

Receiving: per wake-up at most `RECEIVE_CALLS` calls, each returning one datagram or, with UDP_GRO,
a run of datagrams of one sender and one size. What follows from the same sender in the same size is
received behind it: most senders do not batch, and their datagrams become a run all the same. Where
many single ones come, they are received by one call (`receive_many`). A run goes to `on_batch` as
one view, before the wake-up ends. Sending: a run
for one destination leaves in one call with UDP_SEGMENT; without it, one call per datagram. Both
are probed per socket and given up per socket.

While the kernel takes nothing (EAGAIN) datagrams are held in order, at most `MAX_BACKLOG_BYTES`
and `MAX_BACKLOG_DATAGRAMS`; newer ones are dropped and counted, as any wire would. An error that
a destination causes is counted and costs that datagram only.

On a socket bound to a wildcard the addresses given to `on_batch` remember which address of ours was
written to (`packet_info`); what is sent to such an address leaves from there.

Knows nothing of what the datagrams mean. The owner is the actor that calls `abort()`; exceptions
in the callbacks reach it through `guard`.

Source: udp(7).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from actors.runtime import Guard, unguarded
from actors.transport.addresses import Address
from actors.transport.udp.packet_info import (
    AskedAddress,
    PacketInfo,
    enable_packet_info,
    source_host,
)
from actors.transport.udp.receive_many import LARGEST_EXPECTED, SLOTS, many_receiver
from actors.transport.udp.segmentation import SOL_UDP, Segmentation, enable_coalescing
from actors.transport.udp.shedding import shed

Datagram: TypeAlias = bytes | bytearray | memoryview

#: Receive calls per wake-up, and bytes, then the loop gets its turn. A call may return 64 KiB.
RECEIVE_CALLS: Final = 128
RECEIVE_BYTES: Final = 2 * 1024 * 1024
#: The same for datagrams that cost more than they weigh: seconds in one wake-up.
RECEIVE_SECONDS: Final = 0.02
#: Single datagrams in a wake-up, and none coalesced, from which on many are asked for by one call.
MANY: Final = 4
#: Calls that brought smaller datagrams only, after which smaller ones are expected.
SMALLER: Final = 64
#: Held while the kernel takes none; overflow: the newest is dropped and counted.
MAX_BACKLOG_BYTES: Final = 1024 * 1024
MAX_BACKLOG_DATAGRAMS: Final = 4096
#: Runs sent per wake-up when the kernel takes datagrams again.
FLUSH_CALLS: Final = 64

#: One UDP datagram, or what UDP_GRO puts together, is never longer; nor is a run much longer.
_CALL_BYTES: Final = 65_536
#: See `UdpSocket`.
RECEIVE_BUFFER: Final = 2 * _CALL_BYTES
#: Room for the segment size and for where it was sent to.
_CONTROL_BYTES: Final = 128
_NOBODY: Final[Address] = ("", -1)
#: Errors that mean this descriptor is unusable: the owner's failure.
_FATAL: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EFAULT})


class UdpStatistics(NamedTuple):
    """Counters of one socket."""

    datagrams_in: int  #: received
    bytes_in: int  #: received, payload only
    receive_calls: int  #: system calls that returned data
    wakeups: int  #: times the event loop found the socket readable
    datagrams_out: int  #: handed to the kernel
    bytes_out: int  #: handed to the kernel, payload only
    send_calls: int  #: system calls that took data
    held: int  #: datagrams waiting for the kernel
    held_bytes: int  #: their size
    dropped: int  #: datagrams beyond the bound of the backlog
    errors: dict[str, int]  #: by direction and errno, e.g. `send_ENETUNREACH`
    receive_offload: bool  #: UDP_GRO in use
    send_offload: bool  #: UDP_SEGMENT in use


class _Outcome(Enum):
    """Of one system call that sends."""

    SENT = 1
    FULL = 2  #: the kernel takes nothing now
    NARROWED = 3  #: refused, and the next try is different
    LOST = 4  #: the destination cannot be reached; counted


class UdpSocket:
    """A batched UDP socket on the event loop: few system calls, no task and no copy per datagram.

    Args:
        sock: bound and non-blocking (`bind_udp`); owned from now on.
        on_batch: ``on_batch(buffer, segment_size, address)``: datagrams of `segment_size` bytes
            one behind the other in `buffer`, the last one possibly shorter; `segment_size` is at
            least 1 (an empty datagram is an empty buffer). The view is valid during the call only.
        guard: wraps what the event loop calls.
        offload: False: one datagram per call, both ways.
        answering: False: nobody asks us by this socket, so it is all the same which of our
            addresses is written to.
        buffer: for receiving, of `RECEIVE_BUFFER` bytes; sockets of one event loop may share one.
            None: one of its own.
        on_drained: called after the last `on_batch` of a wake-up.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_batch: Callable[[memoryview, int, Address], None],
        *,
        on_drained: Callable[[], None] | None = None,
        guard: Guard = unguarded,
        offload: bool = True,
        answering: bool = True,
        buffer: memoryview | None = None,
    ) -> None:
        self.on_batch = on_batch
        self.on_drained = on_drained
        self.bytes_in = self.bytes_out = 0
        self.datagrams_in = self.datagrams_out = 0
        self.dropped = self.wakeups = 0
        self.errors: Counter[str] = Counter()
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._guard = guard
        self._segmentation = Segmentation(sock, allowed=offload)
        self._coalescing = offload and enable_coalescing(sock)
        self._answering = answering and enable_packet_info(sock)
        self._control = self._coalescing or self._answering
        self._packet_info = PacketInfo()
        # A run is gathered in the first half; a call needs room for the longest datagram.
        self._view = memoryview(bytearray(RECEIVE_BUFFER)) if buffer is None else buffer
        self._receive_calls = self._send_calls = 0
        #: Bytes of the single datagrams that come; 0: runs come, or few datagrams.
        self._expected = self._smaller = 0
        # Bound: MAX_BACKLOG_BYTES and MAX_BACKLOG_DATAGRAMS; policy: drop the newest.
        self._backlog: deque[tuple[bytes, int, Address]] = deque()
        self._held = self._held_bytes = 0
        self._closed = False
        self._loop.add_reader(sock, guard("socket", self._wake))

    @property
    def address(self) -> Address:
        """The bound address.

        Raises:
            OSError: the socket was closed.
        """
        name: Address = self._sock.getsockname()
        return name

    @property
    def closed(self) -> bool:
        """True after `abort`."""
        return self._closed

    def shed(self, mask: int, value: int, share: float) -> bool:
        """Let the kernel drop datagrams by their first byte and by chance; see `shedding.shed`."""
        return not self._closed and shed(self._sock, mask, value, share)

    def abort(self) -> None:
        """Close now; what is held is lost. Idempotent."""
        if not self._closed:
            self.detach().close()

    def detach(self) -> socket.socket:
        """Let go of the socket without closing it: it was lent. What is held is lost."""
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._backlog.clear()
        self._held = self._held_bytes = 0
        return self._sock

    def statistics(self) -> UdpStatistics:
        """The counters as one tuple."""
        return UdpStatistics(
            self.datagrams_in,
            self.bytes_in,
            self._receive_calls,
            self.wakeups,
            self.datagrams_out,
            self.bytes_out,
            self._send_calls,
            self._held,
            self._held_bytes,
            self.dropped,
            dict(self.errors),
            self._coalescing,
            self._segmentation.enabled,
        )

    # Receiving.

    def _wake(self) -> None:
        self.wakeups += 1
        if self._expected:
            self._receive_many()
        else:
            self._readable()
        if self.on_drained is not None and not self._closed:
            self.on_drained()

    def _readable(self) -> None:
        sock, view = self._sock, self._view
        start = end = segment_size = 0  # the run gathered so far: view[start:end], of `sender`
        sender = _NOBODY
        there: tuple[int, bytes] | None = None  # which address of ours the run was sent to
        total = calls = longest = 0
        runs = False
        until = time.monotonic() + RECEIVE_SECONDS
        for _ in range(RECEIVE_CALLS):
            try:
                if self._control:
                    size, ancillary, _, address = sock.recvmsg_into([view[end:]], _CONTROL_BYTES)
                else:
                    size, address = sock.recvfrom_into(view[end:])
                    ancillary = []
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # ICMP errors of earlier sends surface here; the socket stays usable.
                self._count("receive", error)
                continue
            self._receive_calls += 1
            self.bytes_in += size
            total += size
            coalesced, here = 0, None
            for level, _, told in ancillary:
                if level == SOL_UDP:
                    coalesced = int.from_bytes(told, sys.byteorder)
                else:
                    here = (level, told)
            calls += 1
            runs |= coalesced > 0
            longest = max(longest, size)
            length = coalesced or size
            self.datagrams_in += -(-size // length) if coalesced else 1
            if (
                address == sender
                and here == there
                and 0 < length <= segment_size
                and (length == segment_size or not coalesced)
            ):
                end += size  # one run with what came before; a shorter one ends it
            else:
                if sender is not _NOBODY:
                    self.on_batch(view[start:end], segment_size, sender)
                    if self._closed:
                        return
                start, end = end, end + size
                sender, there, segment_size = address, here, length or 1
                if here is not None:
                    sender = self._packet_info.asked(address, *here)
            # Only a whole last datagram can be followed by another one of the run.
            if end > _CALL_BYTES or (end - start) % segment_size or not size:
                self.on_batch(view[start:end], segment_size, sender)
                if self._closed:
                    return
                start = end = 0
                sender = _NOBODY
            if total >= RECEIVE_BYTES or time.monotonic() >= until:
                break
        if sender is not _NOBODY:
            self.on_batch(view[start:end], segment_size, sender)
        if calls >= MANY and not runs and 0 < longest <= LARGEST_EXPECTED and many_receiver():
            self._expected, self._smaller = longest, 0

    def _receive_many(self) -> None:
        """As `_readable`, where single datagrams come."""
        many = many_receiver()
        assert many is not None
        total = 0
        until = time.monotonic() + RECEIVE_SECONDS
        for _ in range(RECEIVE_CALLS):
            expected = self._expected
            try:
                count = many.receive(self._sock.fileno(), expected, control=self._control)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._count("receive", error)
                continue
            self._receive_calls += 1
            longest = 0
            for buffer, size, sender, coalesced, here in many.runs(count):
                total += len(buffer)
                self.bytes_in += len(buffer)
                self.datagrams_in += -(-len(buffer) // size) or 1
                longest = LARGEST_EXPECTED + 1 if coalesced else max(longest, size)
                address = sender
                if here is not None:
                    address = self._packet_info.asked(sender, *here)
                self.on_batch(buffer, size, address)
                if self._closed:
                    return
            self._expect(longest)
            if count < SLOTS or total >= RECEIVE_BYTES or not self._expected:
                return
            if time.monotonic() >= until:
                return

    def _expect(self, longest: int) -> None:
        """The last call brought datagrams of up to so many bytes."""
        if longest > LARGEST_EXPECTED:
            self._expected = 0  # runs come
        elif longest > self._expected:
            self._expected, self._smaller = longest, 0
        elif longest < self._expected:
            self._smaller += 1
            if self._smaller >= SMALLER:
                self._expected, self._smaller = max(1, longest), 0
        else:
            self._smaller = 0

    # Sending.

    def send(self, datagram: Datagram, address: Address) -> int:
        """Send one datagram. Returns 1 if it was taken, 0 if it was dropped."""
        if not self._backlog and not self._closed:
            try:  # the way without lists and outcomes, for flows that do not come in runs
                if self._answering and type(address) is AskedAddress:
                    self.bytes_out += self._sock.sendmsg((datagram,), address.source, 0, address)
                else:
                    self.bytes_out += self._sock.sendto(datagram, address)
            except OSError:
                pass  # asked again below, where the answer matters
            else:
                self._send_calls += 1
                self.datagrams_out += 1
                return 1
        # Not a subclass's: what it adds is in the datagram already.
        return UdpSocket.send_segments(self, (datagram,), len(datagram), address)

    def send_segments(
        self, segments: Sequence[Datagram], segment_size: int, address: Address
    ) -> int:
        """Send datagrams to one destination, in order, without copying them.

        Args:
            segments: one buffer per datagram, each `segment_size` bytes, the last possibly
                shorter; an empty one only alone. Copied only if the kernel takes nothing now.

        Returns:
            How many were taken (sent, or held until the kernel takes them); the rest is counted
            as dropped or as an error.
        """
        if self._closed:
            return 0
        if self._backlog:
            return self._hold(segments, segment_size, address)
        count = len(segments)
        taken = start = 0
        while start < count:
            run = min(self._segmentation.per_call(segment_size), count - start)
            part = segments if run == count else segments[start : start + run]
            outcome = self._call(part, run, segment_size, address)
            if outcome is _Outcome.NARROWED:
                continue
            if outcome is _Outcome.FULL:
                return taken + self._hold(segments[start:], segment_size, address)
            start += run
            if outcome is _Outcome.SENT:
                taken += run
        return taken

    def _call(
        self, segments: Sequence[Datagram], count: int, segment_size: int, address: Address
    ) -> _Outcome:
        """One system call for `count` datagrams to one destination."""
        sock = self._sock
        try:
            if self._answering and type(address) is AskedAddress:
                control = address.source
                if count > 1:
                    control = [*control, *self._segmentation.ancillary(segment_size)]
                sent = sock.sendmsg(segments, control, 0, address)
            elif count > 1:
                sent = sock.sendmsg(
                    segments, self._segmentation.ancillary(segment_size), 0, address
                )
            else:
                sent = sock.sendto(segments[0], address)
        except (BlockingIOError, InterruptedError):
            return _Outcome.FULL
        except OSError as error:
            if count > 1 and self._narrow(error, count, segment_size, address):
                return _Outcome.NARROWED
            self._count("send", error)
            return _Outcome.LOST
        self._send_calls += 1
        self.datagrams_out += count
        self.bytes_out += sent
        return _Outcome.SENT

    def _narrow(self, error: OSError, count: int, segment_size: int, address: Address) -> bool:
        """True if a run was refused because of segmentation, and narrower limits are set now.

        A hostile address can cause the same errno (port 0, a link-local address without scope),
        and so can an address of ours that is gone; they must not cost the socket its offload.
        Connecting from one to the other, which sends nothing, tells the two apart.
        """
        if error.errno == errno.EINVAL and not self._reachable(address):
            return False
        return self._segmentation.refused(error, count, segment_size)

    def _reachable(self, address: Address) -> bool:
        """True if the kernel takes this address: asked with a socket that sends nothing."""
        with socket.socket(self._sock.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            try:
                if type(address) is AskedAddress:
                    host, scope = source_host(address)
                    ipv6 = self._sock.family == socket.AF_INET6
                    probe.bind((host, 0, 0, scope) if ipv6 else (host, 0))
                probe.connect(address)
            except OSError:
                return False
        return address[1] != 0

    # The backlog.

    def _hold(self, segments: Sequence[Datagram], segment_size: int, address: Address) -> int:
        """Copy what fits into the backlog, drop the rest. Returns how many are held."""
        room = max(0, MAX_BACKLOG_BYTES - self._held_bytes) // max(1, segment_size)
        fits = min(len(segments), room, MAX_BACKLOG_DATAGRAMS - self._held)
        self.dropped += len(segments) - fits
        if not fits:
            return 0
        data = b"".join(segments[:fits])
        if not self._backlog:
            self._loop.add_writer(self._sock, self._guard("socket", self._writable))
        self._backlog.append((data, segment_size, address))
        self._held += fits
        self._held_bytes += len(data)
        return fits

    def _writable(self) -> None:
        for _ in range(FLUSH_CALLS):
            if not self._backlog:
                break
            data, segment_size, address = self._backlog[0]
            count = max(1, -(-len(data) // max(1, segment_size)))
            run = min(self._segmentation.per_call(segment_size), count)
            part = data if run == count else data[: run * segment_size]
            outcome = self._call((part,), run, segment_size, address)
            if outcome is _Outcome.FULL:
                return
            if outcome is _Outcome.NARROWED:
                continue
            self._held -= run
            self._held_bytes -= len(part)
            if run == count:
                self._backlog.popleft()
            else:
                self._backlog[0] = (data[run * segment_size :], segment_size, address)
        if not self._backlog:
            self._loop.remove_writer(self._sock)

    def _count(self, direction: str, error: OSError) -> None:
        if error.errno in _FATAL:
            raise error
        self.errors[f"{direction}_{errno.errorcode.get(error.errno or 0, 'unknown')}"] += 1
