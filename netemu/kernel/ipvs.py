"""The kernel's load balancer (IPVS) in one namespace: virtual servers, and the destinations behind each.

Theory of operation: generic netlink, family "IPVS" (linux/ip_vs.h). A virtual server is named by protocol, address and
port, or by a firewall mark; a destination by its virtual server, address and port. Requests are values; `apply` tries
all of them in order, then raises the first refusal, and `attempt` tells all refusals. What the kernel says:
ESRCH no such virtual server, ENOENT no such destination or scheduler, EEXIST there already, ERANGE a lower threshold
above the upper. Asking for the family loads the module where there is one; so does naming a scheduler, but under
the lock that a namespace on its way out waits for, and some schedulers' modules wait for that namespace: the kernel
stands still for good. So a scheduler's module is loaded here before its name is first said.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import ClassVar, Final, NamedTuple, Protocol

from msgspec import Struct

from netemu.kernel import process
from netemu.kernel.nfnetlink import attribute, attributes, nested, text
from netemu.kernel.requests import Message, Requests
from netemu.model.errors import KernelError
from netemu.model.hosts import endpoint_text
from netemu.model.protocols import WITH_PORTS, name_of

_NETLINK_GENERIC, _CONTROLLER, _GETFAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 0x10, 3, 1, 2
_VERSION: Final = 1
_NEW_SERVICE, _SET_SERVICE, _DEL_SERVICE, _GET_SERVICE = 1, 2, 3, 4
_NEW_DEST, _SET_DEST, _DEL_DEST, _GET_DEST = 5, 6, 7, 8
_SET_CONFIG, _GET_CONFIG, _FLUSH = 12, 13, 17
_SERVICE, _DEST, _TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP = 1, 2, 4, 5, 6
_S_AF, _S_PROTOCOL, _S_ADDR, _S_PORT, _S_FWMARK, _S_SCHED, _S_FLAGS, _S_TIMEOUT, _S_NETMASK = range(1, 10)
_D_ADDR, _D_PORT, _D_METHOD, _D_WEIGHT, _D_UPPER, _D_LOWER, _D_ACTIVE, _D_INACTIVE, _D_PERSISTENT = range(1, 10)
_D_FAMILY: Final = 11
_STATS: Final = 10
"""Of virtual servers and of destinations."""
_IN_PACKETS, _IN_BYTES = 2, 4
_PERSISTENT, _HASHED, _ALL_FLAGS = 0x1, 0x2, 0xFFFFFFFF
_FORWARDING_MASK: Final = 0x7


class ServerFlag(IntFlag):
    """Flags of a virtual server; persistence has a field of its own. What SCHED_n mean, the scheduler decides."""

    NONE = 0
    ONE_PACKET = 0x4
    SCHED_1 = 0x8
    """sh, mh: fall back to another destination when the chosen one has weight 0."""
    SCHED_2 = 0x10
    """sh, mh: the client's port counts too."""
    SCHED_3 = 0x20


class Forwarding(IntEnum):
    """How packets reach a destination."""

    MASQ = 0
    LOCAL = 1
    TUNNEL = 2
    ROUTE = 3
    BYPASS = 4


class ServerKey(NamedTuple):
    """What names a virtual server: protocol, address and port; or a firewall mark (and whether it is of IPv6)."""

    protocol: str = ""
    address: str = ""
    port: int = 0
    fwmark: int = 0
    ipv6_mark: bool = False

    @property
    def ipv6(self) -> bool:
        """Whether it is about IPv6."""
        return self.ipv6_mark if self.fwmark else ":" in self.address

    def __str__(self) -> str:
        if self.fwmark:
            return f"fwmark {self.fwmark}{' ipv6' if self.ipv6 else ''}"
        return f"{self.protocol} {endpoint_text(self.address, self.port)}"


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """A virtual server and its settings.

    `persistence`: for so many seconds a client (all clients in one network of `prefix` bits; None: a single address)
    stays with its destination; 0: never.
    """

    key: ServerKey
    scheduler: str = "rr"
    persistence: int = 0
    prefix: int | None = None
    flags: ServerFlag = ServerFlag.NONE
    counted: tuple[int, int] = field(default=(0, 0), compare=False)
    """Packets and bytes that came for it so far, by the kernel's count; tells nothing about equality."""

    @property
    def prefix_length(self) -> int:
        """`prefix`, or that of one address."""
        return self.prefix if self.prefix is not None else 128 if self.key.ipv6 else 32


@dataclass(frozen=True, slots=True)
class Destination:
    """A real server. From `upper` connections on (0: never) it gets no more, until there are less than `lower`.

    Weight 0 lets it keep its connections and gives it no new ones. The counts are the kernel's, and tell nothing about
    equality.
    """

    address: str
    port: int
    weight: int = 1
    method: Forwarding = Forwarding.MASQ
    upper: int = 0
    lower: int = 0
    active: int = field(default=0, compare=False)
    inactive: int = field(default=0, compare=False)
    persistent: int = field(default=0, compare=False)
    counted: tuple[int, int] = field(default=(0, 0), compare=False)
    """Packets and bytes that went to it so far."""

    @property
    def target(self) -> str:
        """`ip:port`, `[ip]:port`."""
        return endpoint_text(self.address, self.port)


class Timeouts(Struct, frozen=True):
    """Seconds after which an idle connection is forgotten; 0 in a request leaves the kernel's value."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0


class AddServer(Struct, frozen=True):
    """Make a virtual server. KernelExists; KernelNotFound: no such scheduler."""

    server: VirtualServer
    command: ClassVar[int] = _NEW_SERVICE

    def __str__(self) -> str:
        return f"add virtual server {self.server.key} scheduler {self.server.scheduler}"


class EditServer(Struct, frozen=True):
    """Give a virtual server other settings. KernelNotFound: no such virtual server or scheduler."""

    server: VirtualServer
    command: ClassVar[int] = _SET_SERVICE

    def __str__(self) -> str:
        return f"edit virtual server {self.server.key} scheduler {self.server.scheduler}"


class DelServer(Struct, frozen=True):
    """Remove a virtual server and its destinations. KernelNotFound."""

    key: ServerKey
    command: ClassVar[int] = _DEL_SERVICE

    def __str__(self) -> str:
        return f"delete virtual server {self.key}"


class AddDestination(Struct, frozen=True):
    """Put a destination behind a virtual server. KernelExists; KernelNotFound: no such virtual server."""

    key: ServerKey
    destination: Destination
    command: ClassVar[int] = _NEW_DEST

    def __str__(self) -> str:
        return f"add destination {self.destination.target} of {self.key}"


class EditDestination(Struct, frozen=True):
    """Change weight, method and thresholds. KernelNotFound."""

    key: ServerKey
    destination: Destination
    command: ClassVar[int] = _SET_DEST

    def __str__(self) -> str:
        return f"edit destination {self.destination.target} of {self.key}"


class DelDestination(Struct, frozen=True):
    """Take a destination away. KernelNotFound. What becomes of its connections: sysctl expire_nodest_conn."""

    key: ServerKey
    destination: Destination
    command: ClassVar[int] = _DEL_DEST

    def __str__(self) -> str:
        return f"delete destination {self.destination.target} of {self.key}"


class SetTimeouts(Struct, frozen=True):
    """Set the timeouts that are not 0."""

    timeouts: Timeouts
    command: ClassVar[int] = _SET_CONFIG

    def __str__(self) -> str:
        return "set IPVS timeouts"


class Flush(Struct, frozen=True):
    """Remove every virtual server of the namespace."""

    command: ClassVar[int] = _FLUSH

    def __str__(self) -> str:
        return "flush IPVS"


Request = (
    AddServer | EditServer | DelServer | AddDestination | EditDestination | DelDestination | SetTimeouts | Flush
)  # fmt: skip


class Ipvs(Protocol):
    """The load balancer of one namespace; `netemu.testing.ipvs.FakeIpvs` is the other one. Calls block shortly."""

    def servers(self) -> list[VirtualServer]:
        """All virtual servers, of both families."""

    def destinations(self, key: ServerKey) -> list[Destination]:
        """What stands behind a virtual server. Raises KernelNotFound."""

    def timeouts(self) -> Timeouts:
        """The timeouts in force."""

    def attempt(self, requests: Iterable[Request]) -> list[tuple[Request, KernelError]]:
        """Try all requests in order; what was refused, and why."""

    def apply(self, *requests: Request) -> None:
        """Try all requests in order, then raise the first refusal."""

    def close(self) -> None:
        """Give the socket back."""


class IpvsNetlink:
    """IPVS of the namespace `netns` (a name, a path, or "" for the calling thread's).

    Raises KernelNotFound, naming the module, where the kernel has no IPVS.
    """

    def __init__(self, netns: str = "") -> None:
        self.netns = netns
        self._requests = Requests(netns, _NETLINK_GENERIC)
        try:
            self._family = self._find_family()
        except BaseException:
            self._requests.close()
            raise

    def close(self) -> None:
        """Give the socket back."""
        self._requests.close()

    def servers(self) -> list[VirtualServer]:
        """See Ipvs."""
        answers = self._requests.ask(self._message(_GET_SERVICE), "list virtual servers", dump=True)
        return [_read_server(attributes(attributes(answer, 4)[_SERVICE])) for answer in answers]

    def destinations(self, key: ServerKey) -> list[Destination]:
        """See Ipvs."""
        operation = f"list destinations of {key}"
        body = nested(_SERVICE, _key(key))
        answers = self._requests.ask(self._message(_GET_DEST, body), operation, dump=True)
        if not answers:
            # A dump of the destinations of nothing is empty too, so whether it is there must be asked apart.
            try:
                self._requests.ask(self._message(_GET_SERVICE, body), operation)
            except KernelError as error:
                raise _said(operation, self.netns, _GET_SERVICE, error.code, error.detail) from None
        return [_read_destination(attributes(attributes(answer, 4)[_DEST]), key.ipv6) for answer in answers]

    def timeouts(self) -> Timeouts:
        """See Ipvs."""
        (answer,) = self._requests.ask(self._message(_GET_CONFIG), "read IPVS timeouts")
        found = attributes(answer, 4)
        return Timeouts(_number(found, _TIMEOUT_TCP), _number(found, _TIMEOUT_TCP_FIN), _number(found, _TIMEOUT_UDP))

    def attempt(self, requests: Iterable[Request]) -> list[tuple[Request, KernelError]]:
        """See Ipvs."""
        tried = list(requests)
        for name in {each.server.scheduler for each in tried if isinstance(each, AddServer | EditServer)}:
            _load_scheduler(name)
        refused = self._requests.change([self._message(each.command, _encode(each)) for each in tried])
        return [
            (
                tried[each.index],
                _said(str(tried[each.index]), self.netns, tried[each.index].command, each.code, each.detail),
            )
            for each in refused
        ]

    def apply(self, *requests: Request) -> None:
        """See Ipvs."""
        for _, error in self.attempt(requests):
            raise error

    def _message(self, command: int, body: bytes = b"") -> Message:
        return Message(self._family, 0, struct.pack("=BBH", command, _VERSION, 0) + body)

    def _find_family(self) -> int:
        body = struct.pack("=BBH", _GETFAMILY, _VERSION, 0) + text(_FAMILY_NAME, "IPVS")
        try:
            (answer,) = self._requests.ask(Message(_CONTROLLER, 0, body), "find IPVS")
        except KernelError as error:
            detail = "this kernel has no IPVS (module ip_vs)" if error.code == errno.ENOENT else error.detail
            raise KernelError.of("open IPVS", self.netns, error.code, detail) from None
        return int.from_bytes(attributes(answer, 4)[_FAMILY_ID], "little")


def _load_scheduler(name: str) -> None:
    """Load a scheduler's module where it is not; what there is no module for, the kernel refuses itself."""
    if not os.path.exists(f"/sys/module/ip_vs_{name}"):
        with suppress(KernelError):
            process.run_sync(["modprobe", "-q", "--", f"ip_vs_{name}"])


def refusal(request: Request, where: str, code: int) -> KernelError:
    """The error of a refused request, in the words that the product uses for it."""
    return _said(str(request), where, request.command, code, "")


_SERVER_COMMANDS: Final = (_NEW_SERVICE, _SET_SERVICE)


def _said(operation: str, where: str, command: int, code: int, detail: str) -> KernelError:
    """The kernel gives numbers only; here is what they mean."""
    if not detail:
        meanings = {
            errno.ESRCH: "no such virtual server",
            errno.EEXIST: "it is there already",
            errno.ENOENT: "no such scheduler" if command in _SERVER_COMMANDS else "no such destination",
            errno.ERANGE: "a negative weight, or a lower threshold above the upper one",
        }
        detail = meanings.get(code, os.strerror(code))
    return KernelError.of(operation, where, code, detail)


def _encode(request: Request) -> bytes:
    match request:
        case AddServer(server) | EditServer(server):
            return nested(_SERVICE, _key(server.key), _settings(server))
        case DelServer(key):
            return nested(_SERVICE, _key(key))
        case AddDestination(key, destination) | EditDestination(key, destination):
            return nested(_SERVICE, _key(key)) + nested(_DEST, _destination(destination))
        case DelDestination(key, destination):
            return nested(_SERVICE, _key(key)) + nested(_DEST, _destination_key(destination))
        case SetTimeouts(timeouts):
            kinds = ((_TIMEOUT_TCP, timeouts.tcp), (_TIMEOUT_TCP_FIN, timeouts.tcp_fin), (_TIMEOUT_UDP, timeouts.udp))
            return b"".join(_u32(kind, value) for kind, value in kinds)
        case Flush():
            return b""


def _key(key: ServerKey) -> bytes:
    family = _u16(_S_AF, socket.AF_INET6 if key.ipv6 else socket.AF_INET)
    if key.fwmark:
        return family + _u32(_S_FWMARK, key.fwmark)
    protocol = _u16(_S_PROTOCOL, WITH_PORTS[key.protocol])
    return family + protocol + attribute(_S_ADDR, _address(key.address)) + _port(_S_PORT, key.port)


def _settings(server: VirtualServer) -> bytes:
    flags = int(server.flags) | (_PERSISTENT if server.persistence else 0)
    length = server.prefix_length
    mask = struct.pack("=I", length) if server.key.ipv6 else (0xFFFFFFFF << 32 - length & 0xFFFFFFFF).to_bytes(4, "big")
    return (
        text(_S_SCHED, server.scheduler)
        + attribute(_S_FLAGS, struct.pack("=II", flags, _ALL_FLAGS))
        + _u32(_S_TIMEOUT, server.persistence)
        + attribute(_S_NETMASK, mask)
    )


def _destination_key(destination: Destination) -> bytes:
    family = socket.AF_INET6 if ":" in destination.address else socket.AF_INET
    body = attribute(_D_ADDR, _address(destination.address)) + _port(_D_PORT, destination.port)
    return body + _u16(_D_FAMILY, family)


def _destination(destination: Destination) -> bytes:
    return (
        _destination_key(destination)
        + _u32(_D_METHOD, destination.method)
        + _u32(_D_WEIGHT, destination.weight & 0xFFFFFFFF)
        + _u32(_D_UPPER, destination.upper)
        + _u32(_D_LOWER, destination.lower)
    )


def _read_server(found: dict[int, bytes]) -> VirtualServer:
    ipv6 = _number(found, _S_AF) == socket.AF_INET6
    if mark := _number(found, _S_FWMARK):
        key = ServerKey(fwmark=mark, ipv6_mark=ipv6)
    else:
        protocol = name_of(_number(found, _S_PROTOCOL))
        key = ServerKey(protocol, _read_address(found[_S_ADDR], ipv6), int.from_bytes(found[_S_PORT], "big"))
    flags = int.from_bytes(found[_S_FLAGS][:4], "little")
    length = _number(found, _S_NETMASK) if ipv6 else int.from_bytes(found[_S_NETMASK], "big").bit_count()
    return VirtualServer(
        key,
        found[_S_SCHED].rstrip(b"\0").decode(),
        _number(found, _S_TIMEOUT) if flags & _PERSISTENT else 0,
        None if length == (128 if ipv6 else 32) else length,
        ServerFlag(flags & 0x3C),
        _counted(found),
    )


def _read_destination(found: dict[int, bytes], ipv6: bool) -> Destination:
    if _D_FAMILY in found:
        ipv6 = _number(found, _D_FAMILY) == socket.AF_INET6
    return Destination(
        _read_address(found[_D_ADDR], ipv6),
        int.from_bytes(found[_D_PORT], "big"),
        _number(found, _D_WEIGHT),
        Forwarding(_number(found, _D_METHOD) & _FORWARDING_MASK),
        _number(found, _D_UPPER),
        _number(found, _D_LOWER),
        _number(found, _D_ACTIVE),
        _number(found, _D_INACTIVE),
        _number(found, _D_PERSISTENT),
        _counted(found),
    )


def _counted(found: dict[int, bytes]) -> tuple[int, int]:
    stats = attributes(found.get(_STATS, b""))
    return _number(stats, _IN_PACKETS), _number(stats, _IN_BYTES)


def _address(value: str) -> bytes:
    if ":" in value:
        return socket.inet_pton(socket.AF_INET6, value)
    return socket.inet_pton(socket.AF_INET, value) + bytes(12)


def _read_address(raw: bytes, ipv6: bool) -> str:
    return socket.inet_ntop(socket.AF_INET6, raw) if ipv6 else socket.inet_ntop(socket.AF_INET, raw[:4])


def _number(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), "little")


def _u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _port(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(2, "big"))
