"""A small, fast rtnetlink client: what plumbing a lab needs, and nothing that costs start-up time.

The socket is opened inside the namespace and serves it from anywhere. rtnetlink works a request off within sendmsg,
so many of them go in one message and their answers are there when it returns; only the last asks for an
acknowledgement, refusals come for each. The kernel goes on after a refusal, and so does `apply`: all requests are
tried, then the first refusal is raised, with the kernel's own sentence where it gave one (extended acknowledgement).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Protocol, TypeVar

from netemu.kernel import netns as namespaces
from netemu.kernel import rtnetlink as wire
from netemu.kernel import rtnetlink_answers as answers
from netemu.kernel.rtnetlink import Request
from netemu.kernel.rtnetlink_answers import Address, Link, Neighbour, Route
from netemu.model.errors import KernelError

_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_SO_RCVBUFFORCE: Final = 33
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
_MESSAGE: Final = 1
# Every request may be answered by a refusal; this many fit the receive buffer with room to spare.
_AT_ONCE: Final = 200

_T = TypeVar("_T")


class Rtnetlink(Protocol):
    """What the network room needs of a namespace's links; `netemu.testing.FakeNetlink` is the other one."""

    def apply(self, *requests: Request) -> None:
        """Try all requests in order, then raise the first refusal."""

    def links(self) -> list[Link]:
        """All links."""

    def addresses(self) -> list[Address]:
        """All addresses, of both families."""

    def routes(self, table: int = wire.MAIN_TABLE) -> list[Route]:
        """The routes of a table, of both families."""

    def neighbours(self) -> list[Neighbour]:
        """The ARP and neighbour discovery tables."""

    def close(self) -> None:
        """Give the socket back."""


class Netlink:
    """rtnetlink in the namespace `netns` (a name, a path, or "" for the calling thread's)."""

    def __init__(self, netns: str = "") -> None:
        self.netns = netns
        with namespaces.entered(netns):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def apply(self, *requests: Request) -> None:
        """Try all requests in order, then raise the first refusal."""
        batch = _Batch(self)
        with ExitStack() as files:
            for request in requests:
                batch.add(request, files)
            batch.flush()
        if batch.refusal:
            raise batch.refusal

    def index(self, name: str) -> int:
        """The number of a link. Raises KernelNotFound."""
        return self.link(name).index

    def link(self, name: str) -> Link:
        """One link. Raises KernelNotFound.

        Asking has an effect: the end of a veth pair that was set up first carries packets only once the kernel's
        deferred work has seen its carrier, up to a second later; since Linux 6.8 this question waits for that work.
        """
        answer = self._ask(wire.RTM_GETLINK, wire.link_request(name), f"find link {name}")
        return answers.parse_link(answer)

    def links(self) -> list[Link]:
        """All links."""
        return self._dump(wire.RTM_GETLINK, answers.parse_link)

    def addresses(self) -> list[Address]:
        """All addresses, of both families."""
        return self._dump(wire.RTM_GETADDR, answers.parse_address)

    def routes(self, table: int = wire.MAIN_TABLE) -> list[Route]:
        """The routes of a table, of both families."""
        return [route for route in self._dump(wire.RTM_GETROUTE, answers.parse_route) if route.table == table]

    def route_to(self, destination: str, *, source: str = "", in_index: int = 0, mark: int = 0) -> Route:
        """What routing says to one packet: one that came in on a link, or (0) begins here. Its `src` is what a
        socket without an address takes. Raises KernelError with the errno that a sender gets.
        """
        body = wire.route_query(destination, source, in_index, mark)
        return answers.parse_route(self._ask(wire.RTM_GETROUTE, body, f"find route to {destination}"))

    def neighbours(self) -> list[Neighbour]:
        """The ARP and neighbour discovery tables."""
        return self._dump(wire.RTM_GETNEIGH, answers.parse_neighbour)

    def _ask(self, kind: int, body: bytes, operation: str) -> bytes:
        (sequence,) = self.send([(kind, wire.NLM_F_REQUEST, body)])
        for got, kind_got, flags, payload in self._messages():
            if got != sequence:
                continue
            if kind_got != wire.NLMSG_ERROR:
                return payload
            code, detail = _refusal(payload, flags)
            raise KernelError.of(operation, self.netns, code, detail)
        raise KernelError(operation, self.netns, detail="the kernel did not answer")

    def _dump(self, kind: int, parse: Callable[[bytes], _T]) -> list[_T]:
        (sequence,) = self.send([(kind, wire.NLM_F_REQUEST | wire.NLM_F_DUMP, wire.dump_request(kind, 0))])
        found: list[_T] = []
        while True:
            for got, kind_got, flags, payload in self._messages():
                if got != sequence:
                    continue
                if kind_got == wire.NLMSG_DONE:
                    return found
                if kind_got == wire.NLMSG_ERROR:
                    raise KernelError.of("dump", self.netns, *_refusal(payload, flags))
                found.append(parse(payload))

    def send(self, requests: Sequence[tuple[int, int, bytes]]) -> list[int]:
        """Send (type, flags, body) in one message; their sequence numbers."""
        sequences, message = [], b""
        for kind, flags, body in requests:
            self._sequence += 1
            sequences.append(self._sequence)
            message += struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0) + body
            message += bytes(-len(message) % 4)
        self._socket.send(message)
        return sequences

    def acknowledged(self, last: int) -> Iterator[tuple[int, int, str]]:
        """Sequence number, errno and text of each refusal up to request `last`, which asked for acknowledgement."""
        while True:
            for sequence, kind, flags, payload in self._messages():
                if kind != wire.NLMSG_ERROR:
                    continue
                code, detail = _refusal(payload, flags)
                if code:
                    yield sequence, code, detail
                if sequence == last:
                    return

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        raw = self._socket.recv(1 << 16)
        offset = 0
        while offset + 16 <= len(raw):
            size, kind, flags, sequence, _ = struct.unpack_from("=IHHII", raw, offset)
            yield sequence, kind, flags, raw[offset + 16 : offset + size]
            offset += (size + 3) & ~3


class _Batch:
    """Requests on their way: gathered until a link must be looked up that an earlier one may make."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._pending: list[tuple[Request, tuple[int, int, bytes]]] = []
        self._indices = {"lo": 1}
        self.refusal: KernelError | None = None

    def add(self, request: Request, files: ExitStack) -> None:
        try:
            flags, body = self._encode(request, files)
        except KernelError as err:
            self.refusal = self.refusal or KernelError.of(str(request), self._netlink.netns, err.code, err.detail)
            return
        self._pending.append((request, (request.kind, wire.NLM_F_REQUEST | flags, body)))
        if isinstance(request, wire.DelLink):
            self._indices.pop(request.name, None)
        if len(self._pending) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._pending:
            return
        messages = [message for _, message in self._pending]
        kind, flags, body = messages[-1]
        messages[-1] = (kind, flags | wire.NLM_F_ACK, body)
        sequences = self._netlink.send(messages)
        for sequence, code, detail in self._netlink.acknowledged(sequences[-1]):
            if self.refusal is None and sequence in sequences:
                request = self._pending[sequences.index(sequence)][0]
                if code == errno.EOPNOTSUPP and isinstance(request, wire.AddDummy):
                    detail = "this kernel has no links of type dummy (module dummy)"
                self.refusal = KernelError.of(str(request), self._netlink.netns, code, detail)
        self._pending.clear()

    def _encode(self, request: Request, files: ExitStack) -> tuple[int, bytes]:
        if not isinstance(request, wire.AddVeth) or not request.peer_netns:
            return request.encode(self._index)
        try:
            fd = os.open(namespaces.path(request.peer_netns), os.O_RDONLY)
        except OSError as err:
            detail = f"no network namespace {request.peer_netns}"
            raise KernelError.of(str(request), self._netlink.netns, err.errno or 0, detail) from err
        files.callback(os.close, fd)
        return request.encode(self._index, fd)

    def _index(self, name: str) -> int:
        if name not in self._indices:
            self.flush()
            self._indices[name] = self._netlink.index(name)
        return self._indices[name]


def _refusal(payload: bytes, flags: int) -> tuple[int, str]:
    """errno and text of an NLMSG_ERROR; 0 is an acknowledgement."""
    (code,) = struct.unpack_from("=i", payload)
    detail = ""
    if flags & _NLM_F_ACK_TLVS:
        (size,) = struct.unpack_from("=I", payload, 4)
        found = wire.attributes(payload, 20 if flags & _NLM_F_CAPPED else 4 + ((size + 3) & ~3))
        detail = found.get(_MESSAGE, b"").rstrip(b"\0").decode(errors="replace")
    return -code, f"{detail} ({errno.errorcode.get(-code, -code)})" if detail else ""
