"""nfnetlink: attributes, messages, and a socket for batches and dumps.

Theory of operation: the kernel works a batch off within sendmsg; its answers are there when that returns and are read
without waiting, and no sender can block on a receiver that does not read. The whole batch must be one message to the
socket, for it is one transaction; the send buffer is made as large as the batch (CAP_NET_ADMIN allows that), and only
refusals are answered, so that the receive buffer holds them. After a refusal the kernel looks at the rest of the batch
too and reports each further refusal; the first one is the cause.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from netemu.kernel import netns as namespaces
from netemu.model.errors import KernelError

NETLINK_NETFILTER: Final = 12
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_BATCH_BEGIN: Final = 16
_BATCH_END: Final = 17
_BATCH_GENID: Final = 1
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
_NLM_F_DUMP_INTR: Final = 0x10
_NLMSGERR_ATTR_MSG: Final = 1
_NLMSGERR_ATTR_OFFS: Final = 2
_RECEIVE_BUFFER: Final = 4 << 20
_LISTENING_BUFFER: Final = 8 << 20
_LARGEST: Final = 1 << 16
_DUMP_CHUNK: Final = 1 << 17
_DUMP_ATTEMPTS: Final = 20

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_U32: Final = struct.Struct("=HHBBBB")
_pack_attribute = _ATTRIBUTE.pack
_unpack_attribute = _ATTRIBUTE.unpack_from
_pack_header = _HEADER.pack

Message: TypeAlias = tuple[int, int, int, bytes]
"""Sequence, type, flags and payload of what the kernel sent."""


def attribute_header(size: int, kind: int) -> bytes:
    """What stands before an attribute's payload; the size counts both."""
    return _pack_attribute(size, kind)


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = len(payload)
    return _pack_attribute(size + 4, kind) + payload + _PADDING[size & 3]


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute made of attributes."""
    payload = b"".join(parts)
    return _pack_attribute(len(payload) + 4, kind | NESTED) + payload


def text(kind: int, value: str) -> bytes:
    """A string attribute."""
    return attribute(kind, value.encode() + b"\0")


def be32(kind: int, value: int) -> bytes:
    """A 32 bit number, signed or not, in network order."""
    return _pack_attribute(8, kind) + (value & 0xFFFFFFFF).to_bytes(4, "big")


def be64(kind: int, value: int) -> bytes:
    """A 64 bit number in network order."""
    return _pack_attribute(12, kind) + value.to_bytes(8, "big")


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes by type; of equal types the last."""
    found: dict[int, bytes] = {}
    end = len(data) - 3
    while offset < end:
        size, kind = _unpack_attribute(data, offset)
        if size < 4:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + size]
        offset += size + 3 & ~3
    return found


def attribute_list(data: bytes, wanted: int) -> list[bytes]:
    """All attributes of one type, in order."""
    found: list[bytes] = []
    offset, end = 0, len(data) - 3
    while offset < end:
        size, kind = _unpack_attribute(data, offset)
        if size < 4:
            break
        if kind & _TYPE_MASK == wanted:
            found.append(data[offset + 4 : offset + size])
        offset += size + 3 & ~3
    return found


class Refusal(Struct, frozen=True):
    """The kernel's answer to one message of a batch. `sequence` 0 is the batch itself; `offset` is where in the message
    the attribute is that the kernel objects to, 0 if it does not say."""

    sequence: int
    code: int
    detail: str
    offset: int = 0


def listen(netns: str, groups: Iterable[int] = ()) -> socket.socket:
    """A socket of the namespace that hears groups and never blocks; read it with `drain`. Raises KernelError."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with namespaces.entered(netns):
        sock = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _LISTENING_BUFFER)
        sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except OSError as error:
        sock.close()
        raise KernelError.of("listen to netfilter", netns, error.errno or 0) from error
    return sock


def drain(sock: socket.socket) -> tuple[list[Message], int]:
    """All messages that wait, and how often some were lost because the buffer was full."""
    found: list[Message] = []
    lost = 0
    while True:
        try:
            found += split(sock.recv(_LARGEST))
        except BlockingIOError:
            return found, lost
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            lost += 1


class Nfnetlink:
    """A socket in the namespace `netns` ("" for the calling thread's). Calls block; use a worker thread."""

    def __init__(self, netns: str = "") -> None:
        self.netns = netns
        with namespaces.entered(netns):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._set_buffer(_SO_RCVBUFFORCE, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._send_buffer = 0
        self._buffer = memoryview(bytearray(_DUMP_CHUNK))

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def batch(self, subsystem: int, messages: Sequence[bytes], generation: int | None = None) -> list[Refusal]:
        """Send one transaction; all refusals, first cause first. Empty: everything has taken effect.

        Messages are numbered from 1 in their sequence fields. With `generation` the kernel refuses (ERESTART) when
        anybody has changed anything since that generation.
        """
        genid = be32(_BATCH_GENID, generation) if generation is not None else b""
        begin = message(_BATCH_BEGIN, NLM_F_REQUEST, 0, 0, genid, resource=subsystem)
        end = message(_BATCH_END, NLM_F_REQUEST, len(messages) + 1, 0, b"", resource=subsystem)
        data = b"".join((begin, *messages, end))
        self._make_room(len(data))
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelError.of("send batch", self.netns, error.errno or 0) from error
        return list(self._refusals())

    def _refusals(self) -> Iterator[Refusal]:
        while True:
            try:
                size = self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more refusals than fit; the first ones did
                    raise KernelError.of("read answers", self.netns, error.errno or 0) from error
                continue
            for sequence, kind, flags, payload in split(bytes(self._buffer[:size])):
                if kind == _NLMSG_ERROR and (found := refusal(sequence, flags, payload)).code:
                    yield found

    def ask(self, kind: int, family: int, body: bytes, *, dump: bool = False, operation: str) -> list[bytes]:
        """The answers (attributes, without their header) to a question. Raises KernelError.

        A dump during which the rules changed is asked for again: it may have missed something.
        """
        for _ in range(_DUMP_ATTEMPTS):
            flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else NLM_F_ACK)
            self._socket.send(message(kind, flags, 1, family, body))
            answers, interrupted = self._answers(operation)
            if not interrupted:
                return answers
        raise KernelError.of(operation, self.netns, errno.EINTR, "the rules change faster than they can be read")

    def _answers(self, operation: str) -> tuple[list[bytes], bool]:
        answers: list[bytes] = []
        interrupted = False
        while True:
            size = self._socket.recv_into(self._buffer)
            for sequence, kind, flags, payload in split(bytes(self._buffer[:size])):
                if kind == _NLMSG_ERROR:
                    found = refusal(sequence, flags, payload)
                    if found.code in (errno.EINTR, errno.EAGAIN):
                        return answers, True
                    if found.code:
                        raise KernelError.of(operation, self.netns, found.code, found.detail)
                    return answers, interrupted
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if kind == _NLMSG_DONE:
                    return answers, interrupted
                answers.append(payload[4:])

    def _make_room(self, size: int) -> None:
        if size + 4096 > self._send_buffer:
            self._send_buffer = max(size * 5 // 4, 1 << 20)
            self._set_buffer(_SO_SNDBUFFORCE, socket.SO_SNDBUF, self._send_buffer)

    def _set_buffer(self, force: int, ask: int, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, ask, size)


def message(kind: int, flags: int, sequence: int, family: int, body: bytes, *, resource: int = 0) -> bytes:
    """A message with nfnetlink's header."""
    head = _pack_header(20 + len(body), kind, flags, sequence, 0)
    return head + bytes((family, 0, resource >> 8, resource & 0xFF)) + body


def split(data: bytes) -> Iterator[Message]:
    """Each message received."""
    offset = 0
    while offset + 16 <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield sequence, kind, flags, data[offset + 16 : offset + size]
        offset += size + 3 & ~3


def refusal(sequence: int, flags: int, payload: bytes) -> Refusal:
    """Read an error message; code 0 is an acknowledgement."""
    (code,) = struct.unpack_from("=i", payload)
    detail, offset = "", 0
    if flags & _NLM_F_ACK_TLVS:
        (size,) = struct.unpack_from("=I", payload, 4)
        echoed = 16 if flags & _NLM_F_CAPPED else size + 3 & ~3
        said = attributes(payload, 4 + echoed)
        detail = said.get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
        offset = int.from_bytes(said.get(_NLMSGERR_ATTR_OFFS, b""), sys.byteorder)
    return Refusal(sequence, -code, detail, offset)
