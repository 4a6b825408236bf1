"""Many UDP datagrams per system call: recvmmsg(2) and sendmmsg(2), which Python's sockets lack.

Theory of operation. A `Batch` has fixed slots in memory that the kernel fills and reads itself: for each datagram its
octets, whom it came from, and (as ancillary data) the address it came to. A reply goes out through the slot of its
question: the kernel finds the client's address, the source address and the message id where it put them, so that a
reply costs one copy of its octets and a few machine words. Everything is allocated once.

The address a question came to becomes the source of the reply: resolvers drop replies from elsewhere, and a machine
may have several addresses. The interface is cleared, because the way back is for the routing table to say; only a
link-local address means nothing without it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

SLOTS = 64
QUESTION = 1024
"""Octets of a datagram that are looked at; what is cut off is not needed to answer, or makes it malformed."""
REPLY = 1500
"""Octets of a reply that fits a slot."""
Address = tuple[str, int] | tuple[str, int, int, int]
Envelope = tuple[list[tuple[int, int, bytes]], Address]
"""(ancillary data, address), as `socket.sendmsg` takes them."""

_IP_PKTINFO = 8
_MSG_DONTWAIT = socket.MSG_DONTWAIT
_word = ctypes.sizeof(ctypes.c_size_t)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p), ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_HEADER = ctypes.sizeof(_Mmsghdr)


class Batch:
    """The slots of one UDP socket, which must have been opened with `want_destination`."""

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._inet6 = sock.family == socket.AF_INET6
        # sizeof(struct sockaddr_in[6]), CMSG_LEN and CMSG_SPACE of struct in[6]_pktinfo
        self._name_size, info = (28, 20) if self._inet6 else (16, 12)
        self._control_size = socket.CMSG_SPACE(info)
        self._info_at = socket.CMSG_LEN(0)
        self._questions = ctypes.create_string_buffer(SLOTS * QUESTION)
        self._replies = ctypes.create_string_buffer(SLOTS * REPLY)
        self._names = ctypes.create_string_buffer(SLOTS * self._name_size)
        self._controls = ctypes.create_string_buffer(SLOTS * self._control_size)
        self._into = (_Iovec * SLOTS)()
        self._from = (_Iovec * (SLOTS * 2))()
        self._incoming, self._outgoing = (_Mmsghdr * SLOTS)(), (_Mmsghdr * SLOTS)()
        self._wire_up()
        # Views through which slots are read and written; the kernel changes lengths in the headers of what comes in,
        # so these are laid over anew each time.
        self._headers = memoryview(self._incoming).cast("B")
        self._fresh = bytes(self._headers)
        at = _Mmsghdr.length.offset // 4
        self._lengths = self._headers.cast("I")[at :: _HEADER // 4]
        self._octets = memoryview(self._questions).cast("B")
        self._out = memoryview(self._replies).cast("B")
        self._out_lengths = memoryview(self._from).cast("B").cast("@P")[3::4]
        self._control_octets = memoryview(self._controls).cast("B")
        word = (self._info_at + (16 if self._inet6 else 0)) // 4
        self._interfaces = self._control_octets.cast("I")[word :: self._control_size // 4]
        self._no_interfaces = memoryview(bytes(4 * SLOTS)).cast("I")
        self._outgoing_at = ctypes.addressof(self._outgoing)
        self._incoming_at = ctypes.addressof(self._incoming)

    def _wire_up(self) -> None:
        def at(array: object, index: int, size: int) -> int:
            return ctypes.addressof(array) + index * size  # type: ignore[arg-type]

        iovec = ctypes.sizeof(_Iovec)
        for i in range(SLOTS):
            question = at(self._questions, i, QUESTION)
            self._into[i] = _Iovec(question, QUESTION)
            self._from[2 * i] = _Iovec(question, 2)  # the id goes back from where it came to
            self._from[2 * i + 1] = _Iovec(at(self._replies, i, REPLY), 0)
            for headers, iov, count in ((self._incoming, at(self._into, i, iovec), 1),
                                        (self._outgoing, at(self._from, 2 * i, iovec), 2)):  # fmt: skip
                headers[i].header = _Msghdr(
                    at(self._names, i, self._name_size), self._name_size, iov, count,
                    at(self._controls, i, self._control_size), self._control_size, 0,
                )  # fmt: skip

    def receive(self) -> list[int]:
        """The lengths of the datagrams that wait, one slot each; empty when there are none. Raises OSError."""
        self._headers[:] = self._fresh
        count = _recvmmsg(self._fd, self._incoming_at, SLOTS, _MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(number, os.strerror(number))
        if self._inet6:
            for i in range(count):
                at = i * self._control_size + self._info_at
                if not (self._controls[at] == b"\xfe" and ord(self._controls[at + 1]) & 0xC0 == 0x80):
                    self._interfaces[i] = 0
        else:
            self._interfaces[:count] = self._no_interfaces[:count]
        return self._lengths[:count].tolist()

    def octets(self, count: int) -> bytes:
        """The first `count` slots, `QUESTION` octets each."""
        return bytes(self._octets[: count * QUESTION])

    def put(self, slot: int, body: bytes) -> None:
        """The reply to a slot's datagram, without its id; at most `REPLY` octets."""
        size, at = len(body), slot * REPLY
        self._out[at : at + size] = body
        self._out_lengths[slot] = size

    def send(self, first: int, end: int) -> None:
        """Send the replies of these slots. What the kernel does not take is lost, as datagrams may be."""
        while first < end:
            sent = _sendmmsg(self._fd, self._outgoing_at + first * _HEADER, end - first, _MSG_DONTWAIT)
            if sent < 0 and ctypes.get_errno() == errno.EAGAIN:
                return
            first += max(sent, 1)  # the first of them was refused: go on behind it

    def client(self, slot: int) -> tuple[str, int]:
        """Address and port that a slot's datagram came from."""
        name = self._names.raw[slot * self._name_size : (slot + 1) * self._name_size]
        return _address(name)[:2]

    def envelope(self, slot: int) -> Envelope:
        """What it takes to reply to a slot's datagram when the slot is another's."""
        at = slot * self._control_size
        control = bytes(self._control_octets[at : at + self._control_size])
        name = self._names.raw[slot * self._name_size : (slot + 1) * self._name_size]
        level, kind = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) if self._inet6 else (socket.IPPROTO_IP, _IP_PKTINFO)
        info = control[self._info_at : self._info_at + (20 if self._inet6 else 12)]
        return [(level, kind, info)], _address(name)


def want_destination(sock: socket.socket) -> None:
    """Have the kernel tell the address that each datagram came to."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _address(name: bytes) -> Address:
    """A `struct sockaddr_in` or `sockaddr_in6`."""
    (port,) = struct.unpack_from("!H", name, 2)
    if len(name) == 16:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    flow, scope = struct.unpack_from("!I", name, 4)[0], struct.unpack_from("=I", name, 24)[0]
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, flow, scope
