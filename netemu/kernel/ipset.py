"""ipsets of one namespace: sets of addresses, ports and networks that firewall rules look packets up in.

Theory of operation: nfnetlink, subsystem 6 (linux/netfilter/ipset/ip_set.h). Requests are values; `apply` tries all of
them in order, then raises the first refusal, and `attempt` tells all refusals. A set that a rule or a list set refers
to cannot be destroyed, but its content can change, and `Swap` exchanges two sets of one type under the rules' feet.
`exist` is the tool's -exist: what is there already, or not there any more, is no error then.

Entries are written as `ipset save` prints them: `10.96.0.10,udp:53`, `10.0.0.1,tcp:80,192.0.2.0/24`, `30080`, and so
read back: the kernel masks networks, and a network of one address is that address.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import ClassVar, Final, NamedTuple, Protocol

from msgspec import Struct, field

from netemu.kernel.nfnetlink import NETLINK_NETFILTER, NLM_F_EXCL, attribute, attribute_list, attributes, nested, text
from netemu.kernel.requests import Message, Requests
from netemu.model.errors import KernelError, UserError
from netemu.model.protocols import WITH_PORTS, name_of

TYPES: Final = ("bitmap:port", "hash:ip", "hash:ip,port", "hash:ip,port,ip", "hash:ip,port,net")
LONGEST_NAME: Final = 31
_SUBSYSTEM: Final = 6 << 8
_CREATE, _DESTROY, _FLUSH, _RENAME, _SWAP, _LIST, _ADD, _DEL, _TYPE = 2, 3, 4, 5, 6, 7, 9, 10, 13
# Kernels from 3.0 on take this version of the protocol; 7 only those from 4.20 on.
_VERSION: Final = 6
_A_PROTOCOL, _A_SETNAME, _A_TYPENAME, _A_REVISION, _A_FAMILY, _A_FLAGS, _A_DATA, _A_ADT = range(1, 9)
_A_SETNAME2: Final = _A_TYPENAME
_LIST_SETNAME, _LIST_HEADER = 1 << 1, 1 << 2
_D_IP, _D_CIDR, _D_PORT, _D_PORT_TO, _D_PROTO, _D_CADT_FLAGS = 1, 3, 4, 5, 7, 8
_D_HASHSIZE, _D_MAXELEM, _D_ELEMENTS, _D_REFERENCES = 18, 19, 24, 25
_D_IP2, _D_CIDR2, _D_COMMENT = 20, 21, 26
_WITH_COMMENT: Final = 1 << 4
_NET_ORDER: Final = 0x4000


class Entry(NamedTuple):
    """One element of a set; which fields are used, its type says. `other` is the second address, or the network."""

    address: str = ""
    protocol: str = ""
    port: int = 0
    other: str = ""

    def __str__(self) -> str:
        number = f"{self.protocol}:{self.port}" if self.protocol else str(self.port) if not self.address else ""
        return ",".join(part for part in (self.address, number, self.other) if part)

    @staticmethod
    def parse(text: str) -> Entry:
        """Read what `ipset save` prints; a network may have host bits. Raises UserError."""
        try:
            parts = text.split(",")
            if len(parts) == 1:
                return Entry(port=int(text)) if text.isdigit() else Entry(_plain(text))
            address, number, *others = parts
            protocol, _, port = number.partition(":")
            WITH_PORTS[protocol]
            other = _network(others[0]) if others else ""
            return Entry(_plain(address), protocol, int(port), other)
        except (ValueError, KeyError, OSError) as error:
            raise UserError(f"ipset entry {text!r}: want 10.0.0.1,tcp:80 or the like") from error


class SetSpec(Struct, frozen=True):
    """How a set is made. `family` is inet or inet6, and says nothing for a bitmap, which `ports` is for instead.

    `hashsize` is what the set starts with: it grows up to `maxelem` elements.
    """

    name: str
    type: str
    family: str = "inet"
    hashsize: int = 1024
    maxelem: int = 65536
    comment: bool = False
    ports: tuple[int, int] = (0, 65535)

    @property
    def bitmap(self) -> bool:
        """Whether it is a field of bits, one per port."""
        return self.type.startswith("bitmap")


class IpSet(Struct, frozen=True):
    """A set as the kernel has it. `references` counts the rules and list sets that hold on to it."""

    spec: SetSpec
    entries: frozenset[Entry] = frozenset()
    comments: dict[Entry, str] = field(default_factory=dict)
    references: int = 0


class Create(Struct, frozen=True):
    """Make a set. KernelExists: one of that name is there; with `exist` only if it was made differently."""

    spec: SetSpec
    exist: bool = True
    command: ClassVar[int] = _CREATE

    def __str__(self) -> str:
        return f"create ipset {self.spec.name} {self.spec.type}"


class Destroy(Struct, frozen=True):
    """Remove a set. KernelNotFound unless `exist`; KernelBusy: a rule refers to it."""

    name: str
    exist: bool = True
    command: ClassVar[int] = _DESTROY

    def __str__(self) -> str:
        return f"destroy ipset {self.name}"


class Flush(Struct, frozen=True):
    """Empty a set. KernelNotFound."""

    name: str
    command: ClassVar[int] = _FLUSH

    def __str__(self) -> str:
        return f"flush ipset {self.name}"


class Rename(Struct, frozen=True):
    """Give a set another name. KernelNotFound; KernelExists; KernelBusy: a rule refers to it."""

    name: str
    to: str
    command: ClassVar[int] = _RENAME

    def __str__(self) -> str:
        return f"rename ipset {self.name} to {self.to}"


class Swap(Struct, frozen=True):
    """Exchange two sets: rules that looked into one look into the other now. KernelNotFound; EINVAL: unlike types."""

    name: str
    other: str
    command: ClassVar[int] = _SWAP

    def __str__(self) -> str:
        return f"swap ipset {self.name} and {self.other}"


class Add(Struct, frozen=True):
    """Put an entry into a set. KernelNotFound: no such set; KernelExists unless `exist`; ENOSPC: the set is full."""

    name: str
    entry: Entry
    exist: bool = True
    comment: str = ""
    command: ClassVar[int] = _ADD

    def __str__(self) -> str:
        return f"add {self.entry} to ipset {self.name}"


class Del(Struct, frozen=True):
    """Take an entry out. KernelNotFound: no such set, or (unless `exist`) no such entry."""

    name: str
    entry: Entry
    exist: bool = True
    command: ClassVar[int] = _DEL

    def __str__(self) -> str:
        return f"delete {self.entry} from ipset {self.name}"


Request = Create | Destroy | Flush | Rename | Swap | Add | Del


class Ipset(Protocol):
    """The sets of one namespace; `netemu.testing.ipset.FakeIpset` is the other one. Calls block shortly."""

    def names(self) -> list[str]:
        """The names of all sets."""

    def get(self, name: str) -> IpSet:
        """A set with its entries. Raises KernelNotFound."""

    def attempt(self, requests: Iterable[Request]) -> list[tuple[Request, KernelError]]:
        """Try all requests in order; what was refused, and why."""

    def apply(self, *requests: Request) -> None:
        """Try all requests in order, then raise the first refusal."""

    def close(self) -> None:
        """Give the socket back."""


class IpsetNetlink:
    """ipsets of the namespace `netns` (a name, a path, or "" for the calling thread's)."""

    def __init__(self, netns: str = "") -> None:
        self.netns = netns
        self._requests = Requests(netns, NETLINK_NETFILTER)
        self._revisions: dict[tuple[str, int], int] = {}
        self._families: dict[str, int] = {}

    def close(self) -> None:
        """Give the socket back."""
        self._requests.close()

    def names(self) -> list[str]:
        """See Ipset."""
        body = _u32(_A_FLAGS, _LIST_SETNAME)
        answers = self._requests.ask(_message(_LIST, 0, body), "list ipsets", dump=True)
        return [_text(attributes(answer, 4)[_A_SETNAME]) for answer in answers]

    def get(self, name: str) -> IpSet:
        """See Ipset."""
        operation = f"list ipset {name}"
        try:
            answers = self._requests.ask(_message(_LIST, 0, text(_A_SETNAME, name)), operation, dump=True)
        except KernelError as error:
            raise refusal(operation, self.netns, _LIST, error.code) from None
        return _read_set([attributes(answer, 4) for answer in answers])

    def attempt(self, requests: Iterable[Request]) -> list[tuple[Request, KernelError]]:
        """See Ipset."""
        tried: list[Request] = []
        messages: list[Message] = []
        refused: list[tuple[Request, KernelError]] = []
        for request in requests:
            try:
                messages.append(self._encode(request))
            except KernelError as error:  # the kernel has no such type
                refused.append((request, KernelError.of(str(request), self.netns, error.code, error.detail)))
                continue
            tried.append(request)
        for each in self._requests.change(messages):
            request = tried[each.index]
            # Kernels before 5.7 know no -exist for this one.
            if not (isinstance(request, Destroy) and request.exist and each.code == errno.ENOENT):
                refused.append((request, refusal(str(request), self.netns, request.command, each.code)))
        return refused

    def apply(self, *requests: Request) -> None:
        """See Ipset."""
        for _, error in self.attempt(requests):
            raise error

    def _encode(self, request: Request) -> Message:
        match request:
            case Create(spec, exist):
                return _message(_CREATE, 0 if exist else NLM_F_EXCL, text(_A_SETNAME, spec.name) + self._made(spec))
            case Destroy(name, exist):
                return _message(_DESTROY, 0 if exist else NLM_F_EXCL, text(_A_SETNAME, name))
            case Flush(name):
                return _message(_FLUSH, 0, text(_A_SETNAME, name))
            case Rename(name, other) | Swap(name, other):
                return _message(request.command, 0, text(_A_SETNAME, name) + text(_A_SETNAME2, other))
            case Add(name, entry, exist, comment):
                extra = text(_D_COMMENT, comment) if comment else b""
                body = text(_A_SETNAME, name) + nested(_A_DATA, _entry(entry), extra)
                return _message(_ADD, 0 if exist else NLM_F_EXCL, body)
            case Del(name, entry, exist):
                body = text(_A_SETNAME, name) + nested(_A_DATA, _entry(entry))
                return _message(_DEL, 0 if exist else NLM_F_EXCL, body)

    def _made(self, spec: SetSpec) -> bytes:
        family = socket.AF_UNSPEC if spec.bitmap else socket.AF_INET6 if spec.family == "inet6" else socket.AF_INET
        data = _u32(_D_CADT_FLAGS, _WITH_COMMENT) if spec.comment else b""
        if spec.bitmap:
            data += _u16(_D_PORT, spec.ports[0]) + _u16(_D_PORT_TO, spec.ports[1])
        else:
            data += _u32(_D_HASHSIZE, spec.hashsize) + _u32(_D_MAXELEM, spec.maxelem)
        revision = self._revision(spec.type, family)
        head = text(_A_TYPENAME, spec.type) + attribute(_A_REVISION, bytes((revision,)))
        return head + attribute(_A_FAMILY, bytes((family,))) + nested(_A_DATA, data)

    def _revision(self, kind: str, family: int) -> int:
        """The newest revision of a type that this kernel has."""
        if (kind, family) not in self._revisions:
            body = text(_A_TYPENAME, kind) + attribute(_A_FAMILY, bytes((family,)))
            operation = f"find ipset type {kind}"
            try:
                (answer,) = self._requests.ask(_message(_TYPE, 0, body), operation)
            except KernelError as error:
                detail = (
                    "this kernel has no such type of ipset" if error.code in _NO_TYPE else _MEANINGS.get(error.code, "")
                )
                raise KernelError.of(operation, self.netns, error.code, detail) from None
            self._revisions[kind, family] = attributes(answer, 4)[_A_REVISION][0]
        return self._revisions[kind, family]


ERR_FIND_TYPE, ERR_MAX_SETS, ERR_BUSY, ERR_EXIST_SETNAME2, ERR_TYPE_MISMATCH, ERR_EXIST = range(4098, 4104)
ERR_INVALID_CIDR, ERR_INVALID_NETMASK, ERR_INVALID_FAMILY, ERR_TIMEOUT, ERR_REFERENCED = range(4104, 4109)
ERR_IPADDR_IPV4, ERR_IPADDR_IPV6, ERR_COUNTER, ERR_COMMENT = range(4109, 4113)
ERR_OF_TYPE: Final = 4352
"""What a type of set says for itself: a hash is full (4352); a port is out of a bitmap's range (4352)."""
_NO_TYPE: Final = (ERR_FIND_TYPE, errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP)
_STANDARD: Final = {
    ERR_BUSY: errno.EBUSY,
    ERR_REFERENCED: errno.EBUSY,
    ERR_EXIST: errno.EEXIST,
    ERR_EXIST_SETNAME2: errno.ENOENT,
    ERR_MAX_SETS: errno.ENFILE,
    ERR_OF_TYPE: errno.ENOSPC,
}
_MEANINGS: Final = {
    ERR_FIND_TYPE: "no such type of set",
    ERR_MAX_SETS: "no more sets fit",
    ERR_BUSY: "in use by a rule or another set",
    ERR_REFERENCED: "in use by a rule or another set",
    ERR_EXIST_SETNAME2: "no set of the second name",
    ERR_TYPE_MISMATCH: "the sets are of different types",
    ERR_EXIST: "the entry is there already",
    ERR_INVALID_CIDR: "the prefix length cannot be stored in this set",
    ERR_INVALID_FAMILY: "the family does not fit the type",
    ERR_IPADDR_IPV4: "an IPv4 address is needed",
    ERR_IPADDR_IPV6: "an IPv6 address is needed",
    ERR_COMMENT: "the set was made without comments",
    ERR_OF_TYPE: "the set is full, or the port is out of its range",
    errno.ENOENT: "no such set",
}


def refusal(operation: str, where: str, command: int, code: int) -> KernelError:
    """The error for what the kernel, or the fake, answered; ipset has numbers of its own beyond errno."""
    number, detail = _STANDARD.get(code, code if code < 4096 else errno.EINVAL), _MEANINGS.get(code, "")
    if command == _DEL and code == ERR_EXIST:
        number, detail = errno.ENOENT, "no such entry"
    elif command in (_CREATE, _RENAME) and code in (errno.EEXIST, ERR_EXIST_SETNAME2):
        number, detail = errno.EEXIST, "a set of that name is there already"
    return KernelError.of(operation, where, number, detail or os.strerror(number))


def _message(command: int, flags: int, body: bytes) -> Message:
    head = struct.pack("=BBH", socket.AF_INET, 0, 0) + attribute(_A_PROTOCOL, bytes((_VERSION,)))
    return Message(_SUBSYSTEM | command, flags, head + body)


def _entry(entry: Entry) -> bytes:
    body = _ip(_D_IP, entry.address) if entry.address else b""
    if entry.protocol or not entry.address:
        body += _u16(_D_PORT, entry.port)
    if entry.protocol:
        body += attribute(_D_PROTO, bytes((WITH_PORTS[entry.protocol],)))
    if entry.other:
        address, slash, length = entry.other.partition("/")
        body += _ip(_D_IP2, address) + (attribute(_D_CIDR2, bytes((int(length),))) if slash else b"")
    return body


def _read_set(answers: Iterable[dict[int, bytes]]) -> IpSet:
    """A big set comes in several messages, of which the first tells how it was made."""
    spec, references = SetSpec("", ""), 0
    entries: dict[Entry, str] = {}
    for answer in answers:
        if _A_TYPENAME in answer:
            made = attributes(answer[_A_DATA]) if _A_DATA in answer else {}
            spec = _read_spec(answer, made)
            references = int.from_bytes(made.get(_D_REFERENCES, b""), "big")
        entries.update(_read_entries(answer.get(_A_ADT, b""), spec))
    return IpSet(spec, frozenset(entries), {entry: said for entry, said in entries.items() if said}, references)


def _read_spec(answer: dict[int, bytes], made: dict[int, bytes]) -> SetSpec:
    def number(kind: int) -> int:
        return int.from_bytes(made.get(kind, b""), "big")

    name, kind = _text(answer[_A_SETNAME]), _text(answer[_A_TYPENAME])
    comment = bool(number(_D_CADT_FLAGS) & _WITH_COMMENT)
    if kind.startswith("bitmap:port"):
        return SetSpec(name, kind, comment=comment, ports=(number(_D_PORT), number(_D_PORT_TO)))
    family = "inet6" if answer[_A_FAMILY][0] == socket.AF_INET6 else "inet"
    return SetSpec(name, kind, family, number(_D_HASHSIZE), number(_D_MAXELEM), comment)


def _read_entries(data: bytes, spec: SetSpec) -> Iterator[tuple[Entry, str]]:
    length = 128 if spec.family == "inet6" else 32
    for raw in attribute_list(data, _A_DATA):
        found = attributes(raw)
        port = int.from_bytes(found.get(_D_PORT, b""), "big")
        comment = _text(found.get(_D_COMMENT, b""))
        if spec.bitmap:
            yield Entry(port=port), comment
            continue
        number = found.get(_D_PROTO, b"\0")[0]
        protocol = name_of(number) if _D_PROTO in found else ""
        other = _read_ip(found[_D_IP2]) if _D_IP2 in found else ""
        cidr = found.get(_D_CIDR2, bytes((length,)))[0]
        if other and cidr != length:
            other = f"{other}/{cidr}"
        yield Entry(_read_ip(found[_D_IP]), protocol, port, other), comment


def _plain(address: str) -> str:
    """The one way an address is written."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, address))


def _network(text: str) -> str:
    if "/" not in text:
        return _plain(text)
    network = ipaddress.ip_network(text, strict=False)
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _ip(kind: int, address: str) -> bytes:
    if ":" in address:
        return nested(kind, attribute(2 | _NET_ORDER, socket.inet_pton(socket.AF_INET6, address)))
    return nested(kind, attribute(1 | _NET_ORDER, socket.inet_pton(socket.AF_INET, address)))


def _read_ip(raw: bytes) -> str:
    ((kind, address),) = attributes(raw).items()
    return socket.inet_ntop(socket.AF_INET6 if kind == 2 else socket.AF_INET, address)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _u16(kind: int, value: int) -> bytes:
    return attribute(kind | _NET_ORDER, value.to_bytes(2, "big"))


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind | _NET_ORDER, value.to_bytes(4, "big"))
