"""recvmmsg(2): many single datagrams by one call, one behind the other.

Most senders do not batch, and Python pays more for a call than the kernel does. The standard
library has no such call, so it is made by ctypes, with headers that are built once. Datagrams of
one size lie side by side, so that a run of one sender is one view, as with UDP_GRO; for that the
size has to be expected, and what is longer spills into room of its own. What came between
datagrams of others is copied to be one run: cheaper than another call that sends.

One per thread for all sockets: what it holds is valid until the next call. Linux with 64 bits.

Source: recvmmsg(2), recvmsg(2), cmsg(3), ip(7), ipv6(7).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import sys
import threading
from functools import cache
from struct import Struct
from typing import Any, Final, TypeAlias

from actors.transport.addresses import Address
from actors.transport.udp.segmentation import SOL_UDP

#: Datagrams by one call.
SLOTS: Final = 64
#: Longest datagram that can be expected; a run is no longer than 128 KiB.
LARGEST_EXPECTED: Final = 2048
_SPILL: Final = 65_536
_NAME: Final = 32
#: Where it was sent to (at most 40 bytes), and how long the pieces are (24).
_CONTROL: Final = 64
#: Bytes of `struct mmsghdr`, and what is read of it, in 32-bit words.
_HEADER: Final = 64
_CONTROL_LENGTH, _LENGTH = 10, 14
_HEADER_STRUCT: Final = Struct("=QIxxxxQQQQixxxxIxxxx")
_VECTORS: Final = Struct("=QQQQ")
_CMSG: Final = Struct("=Qii")
_CMSG_ALIGN: Final = 8
_FLOW: Final = Struct("!I")
_SCOPE: Final = Struct("=I")
#: Addresses, and sizes, remembered in the form they are used in; overflow: all are made again.
_MAX_ADDRESSES: Final = 4096
_MAX_SIZES: Final = 64


#: Datagrams of one sender, one behind the other, in the form that a socket hands them on: the view
#: (valid until the next call), the size of each but the last, which may be shorter (at least 1),
#: the sender, whether the kernel had put them together, and level and data of the control message
#: that tells which address of ours was asked.
Arrived: TypeAlias = tuple[memoryview, int, Address, bool, tuple[int, bytes] | None]
#: Of a datagram: size of its pieces, 0: it is one; and where it was sent to.
_Told: TypeAlias = tuple[int, tuple[int, bytes] | None]
#: A sender, in the words of its `struct sockaddr`; with its control message where they differ.
_Key: TypeAlias = Any


class ManyReceiver:
    def __init__(self, call: Any) -> None:
        self._call = call
        self._data, data = _memory(SLOTS * LARGEST_EXPECTED)
        self._spill, self._spill_at = _memory(SLOTS * _SPILL)
        self._names, names = _memory(SLOTS * _NAME)
        self._controls, controls = _memory(SLOTS * _CONTROL)
        self._vectors, vectors = _memory(SLOTS * _VECTORS.size)
        self._headers, self._headers_at = _memory(SLOTS * _HEADER)
        self._data_at = data
        words = self._headers.cast("I")
        step = _HEADER // words.itemsize
        self._lengths = words[_LENGTH::step]
        self._control_lengths = words[_CONTROL_LENGTH::step]
        #: The headers as they are before a call, with and without room for control messages.
        self._fresh = {
            control: b"".join(
                _HEADER_STRUCT.pack(
                    names + at * _NAME,
                    _NAME,
                    vectors + at * _VECTORS.size,
                    2,
                    controls + at * _CONTROL if control else 0,
                    _CONTROL if control else 0,
                    0,
                    0,
                )
                for at in range(SLOTS)
            )
            for control in (False, True)
        }
        self._no_control = bytes(SLOTS * _CONTROL)
        self._expected = 0
        self._by_size: dict[int, bytes] = {}
        quads = self._names.cast("Q")
        self._words = [quads[word :: _NAME // quads.itemsize] for word in range(4)]
        self._addresses: dict[_Key, Address] = {}
        self._controls_seen: dict[bytes, _Told] = {}

    def receive(self, descriptor: int, expected: int, *, control: bool) -> int:
        """Take what waits at a socket. Returns how many messages.

        Args:
            descriptor: of the socket.
            expected: bytes of a datagram, 1 to `LARGEST_EXPECTED`; others are taken all the same.
            control: the socket has control messages.

        Raises:
            OSError: as `recvmsg`; BlockingIOError: nothing waits.
        """
        if expected != self._expected:
            self._expect(expected)
        self._headers[:] = self._fresh[control]
        if control:
            self._controls[:] = self._no_control
        count: int = self._call(descriptor, self._headers_at, SLOTS, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return count

    def _expect(self, size: int) -> None:
        vectors = self._by_size.get(size)
        if vectors is None:
            if len(self._by_size) >= _MAX_SIZES:
                self._by_size.clear()
            vectors = self._by_size[size] = b"".join(
                _VECTORS.pack(self._data_at + at * size, size, self._spill_at + at * _SPILL, _SPILL)
                for at in range(SLOTS)
            )
        self._vectors[:] = vectors
        self._expected = size

    def runs(self, count: int) -> list[Arrived]:
        """What the last call brought: `count` messages. The order of each sender is kept."""
        expected = self._expected
        lengths: list[int] = self._lengths[:count].tolist()
        keys: list[_Key] = self._words[0][:count].tolist()
        if keys[0] & 0xFFFF != socket.AF_INET:
            keys = list(zip(*(word[:count].tolist() for word in self._words), strict=True))
        told: _Told = (0, None)
        several = False
        if any(self._control_lengths[:count].tolist()):
            controls = bytes(self._controls[: count * _CONTROL])
            told = self._told(controls[:_CONTROL])
            if told[0] or controls != controls[:_CONTROL] * count:
                several = True
                starts = range(0, count * _CONTROL, _CONTROL)
                keys = [
                    (key, controls[at : at + _CONTROL])
                    for key, at in zip(keys, starts, strict=True)
                ]
        first = keys[0]
        if not several and lengths.count(expected) == count and keys.count(first) == count:
            return [
                (self._data[: count * expected], expected, self._from(first, 0), False, told[1])
            ]
        result: list[Arrived] = []
        for key, fragments in self._gathered(keys, lengths):
            sender = key
            if several:
                sender, told = key[0], self._told(key[1])
                if told[0]:
                    result += self._coalesced(
                        fragments, lengths, self._from(sender, fragments[0][0]), told
                    )
                    continue
            address = self._from(sender, fragments[0][0])
            buffer = self._joined(fragments, lengths)
            whole = len(buffer) if lengths[fragments[0][0]] != expected else expected
            result.append((buffer, whole or 1, address, False, told[1]))
        return result

    def _gathered(
        self, keys: list[_Key], lengths: list[int]
    ) -> list[tuple[_Key, list[tuple[int, int]]]]:
        """Runs: per sender the fragments, first and last message, that follow each other."""
        expected, key, first, previous = self._expected, keys[0], 0, lengths[0]
        fragments: list[tuple[_Key, int, int]] = []
        at = 0
        for other, length in zip(keys, lengths, strict=True):
            if other != key or (
                at > first and (previous != expected or not 0 < length <= expected)
            ):
                fragments.append((key, first, at - 1))
                first, key = at, other
            previous = length
            at += 1
        fragments.append((key, first, at - 1))
        runs: list[tuple[_Key, list[tuple[int, int]]]] = []
        open_runs: dict[_Key, list[tuple[int, int]]] = {}
        for key, first, last in fragments:
            run = open_runs.get(key)
            if run is None or lengths[run[-1][1]] != expected or not 0 < lengths[first] <= expected:
                run = open_runs[key] = []
                runs.append((key, run))
            run.append((first, last))
        return runs

    def _joined(self, fragments: list[tuple[int, int]], lengths: list[int]) -> memoryview:
        """Messages side by side, copied only where those of others are between them."""
        expected, data = self._expected, self._data
        first, last = fragments[0]
        if lengths[first] > expected:
            spilled = self._spill[first * _SPILL : first * _SPILL + lengths[first] - expected]
            return memoryview(b"".join((data[first * expected :][:expected], spilled)))
        if len(fragments) == 1:
            return data[first * expected : last * expected + lengths[last]]
        return memoryview(
            b"".join(
                [data[one * expected : end * expected + lengths[end]] for one, end in fragments]
            )
        )

    def _coalesced(
        self, fragments: list[tuple[int, int]], lengths: list[int], address: Address, told: _Told
    ) -> list[Arrived]:
        """What the kernel had put together, message by message."""
        return [
            (self._joined([(at, at)], lengths), told[0], address, True, told[1])
            for first, last in fragments
            for at in range(first, last + 1)
        ]

    def _from(self, key: _Key, at: int) -> Address:
        """The address of message `at`, whose key this is."""
        address = self._addresses.get(key)
        if address is None:
            if len(self._addresses) >= _MAX_ADDRESSES:
                self._addresses.clear()
            name = bytes(self._names[at * _NAME : (at + 1) * _NAME])
            address = self._addresses[key] = _address(name)
        return address

    def _told(self, control: bytes) -> _Told:
        told = self._controls_seen.get(control)
        if told is None:
            if len(self._controls_seen) >= _MAX_ADDRESSES:
                self._controls_seen.clear()
            told = self._controls_seen[control] = _told(control)
        return told


def _memory(size: int) -> tuple[memoryview, int]:
    """Zeroed memory that takes room when it is used, and where it is."""
    block = mmap.mmap(-1, size)
    at = ctypes.addressof(ctypes.c_char.from_buffer(block))
    return memoryview(block), at


def _address(name: bytes) -> Address:
    """A `struct sockaddr_in` or `sockaddr_in6`, as the socket module has it."""
    port = int.from_bytes(name[2:4], "big")
    if int.from_bytes(name[:2], sys.byteorder) == socket.AF_INET:
        return socket.inet_ntoa(name[4:8]), port
    host = socket.inet_ntop(socket.AF_INET6, name[8:24])
    return host, port, _FLOW.unpack_from(name, 4)[0], _SCOPE.unpack_from(name, 24)[0]


def _told(control: bytes) -> _Told:
    """What the control messages of a datagram tell."""
    size, here, at = 0, None, 0
    while at + _CMSG.size <= len(control):
        length, level, _ = _CMSG.unpack_from(control, at)
        if length < _CMSG.size:
            break
        data = control[at + _CMSG.size : at + length]
        if level == SOL_UDP:
            size = int.from_bytes(data, sys.byteorder)
        else:
            here = (level, data)
        at += -(-length // _CMSG_ALIGN) * _CMSG_ALIGN
    return size, here


@cache
def _recvmmsg() -> Any:
    """The function of the C library; None: there is none, or its structures are not known."""
    if sys.platform != "linux" or sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    try:
        function = ctypes.PyDLL(None, use_errno=True).recvmmsg
    except (AttributeError, OSError):
        return None
    function.argtypes = (
        ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p
    )  # fmt: skip
    if function(-1, None, 0, 0, None) >= 0 or ctypes.get_errno() not in (errno.EBADF, errno.EINVAL):
        return None  # not allowed here
    return function


_of_thread = threading.local()


def many_receiver() -> ManyReceiver | None:
    """This thread's; None where there is no such call."""
    receiver: ManyReceiver | None = getattr(_of_thread, "receiver", None)
    if receiver is None and (function := _recvmmsg()) is not None:
        receiver = _of_thread.receiver = ManyReceiver(function)
    return receiver
