"""The address plan of the packet table as namespaces, and a wire that sends packets and tells what became of them.

    client --- out  |      | veth1, veth9, cbr0 --- pods
                    | node |
                    |      | eth0 --- peer (node-b with its Pods)

Only the node has addresses. The others answer nothing: a frame that reaches them is captured, and frames of any source
are put on their links. What the node itself receives shows on raw sockets, after all its rules.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from netemu.kernel import netns, sysctl
from netemu.observe.oracle import Origin
from netemu.testing.packets import Fate
from tests.kernel.proxy_bed import in_ns
from tests.kernel.raw_packets import PROTOCOLS, SYN, Seen, first_packet, read, read_body
from tests.unit.proxy_scene import CLIENT, CLIENT6, NODE6, NODE6_OUTSIDE, NODE_IP, NODE_OUTSIDE, PEER, PEER6, Case

PREFIX = "t-table-"
NODE, CLIENT_NS, PEER_NS, PODS_NS = (PREFIX + name for name in ("node", "client", "peer", "pods"))
LINKS = {"out": CLIENT_NS, "eth0": PEER_NS, "veth1": PODS_NS, "veth9": PODS_NS, "cbr0": PODS_NS}
_GATEWAY, _GATEWAY6 = "10.180.0.254", "fd00:10:180::fe"
_ADDRESSES = {"out": (f"{NODE_OUTSIDE}/24", f"{NODE6_OUTSIDE}/64"), "eth0": (f"{NODE_IP}/24", f"{NODE6}/64")}
_ROUTES = (
    "10.180.0.1/32 dev veth1", "10.180.0.9/32 dev veth9", "10.180.0.0/24 dev cbr0",
    f"10.180.1.0/24 via {PEER}", f"10.180.2.0/24 via {PEER}", f"default via {CLIENT}",
    "fd00:10:180::1/128 dev veth1", "fd00:10:180::9/128 dev veth9", "fd00:10:180::/64 dev cbr0",
    f"fd00:10:181::/64 via {PEER6}", f"::/0 via {CLIENT6}",
)  # fmt: skip
_NEIGHBOURS = {
    "out": (CLIENT, CLIENT6, "203.0.113.200"), "eth0": (PEER, PEER6, "192.168.0.77"),
    "veth1": ("10.180.0.1", "fd00:10:180::1"),
    "veth9": ("10.180.0.9",), "cbr0": ("10.180.0.200", "fd00:10:180::200"),
}  # fmt: skip
_SYSCTLS: dict[str, str | int] = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/all/send_redirects": 0,
    # Otherwise only a few refusals per second and destination would be told.
    "net/ipv4/icmp_ratelimit": 0,
    "net/ipv4/icmp_ratemask": 0,
    "net/ipv6/icmp/ratelimit": 0,
    **{f"net/ipv4/conf/{link}/rp_filter": 0 for link in LINKS},
}

_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


def build() -> None:
    """Namespaces, links, addresses, routes, neighbours."""
    for name in (NODE, CLIENT_NS, PEER_NS, PODS_NS):
        netns.create(name)
    for name in (CLIENT_NS, PEER_NS, PODS_NS):
        sysctl.write({"net/ipv6/conf/all/disable_ipv6": 1, "net/ipv6/conf/default/disable_ipv6": 1}, name)
    _ip(NODE, "link set lo up", *(line for link in LINKS for line in _link(link)))
    for link, namespace in LINKS.items():
        _ip(namespace, f"link set {link} up arp off")
    sysctl.write(_SYSCTLS, NODE)
    _ip(NODE, *(f"route add {route}" for route in _ROUTES))
    neighbours = ((ip, link) for link, ips in _NEIGHBOURS.items() for ip in ips)
    _ip(NODE, *(f"neigh add {ip} lladdr {far_mac(link)} dev {link} nud permanent" for ip, link in neighbours))


def _link(link: str) -> Iterator[str]:
    far = f"name {link} address {far_mac(link)} netns {LINKS[link]}"
    yield f"link add {link} address {near_mac(link)} type veth peer {far}"
    for address in _ADDRESSES.get(link, (f"{_GATEWAY}/32", f"{_GATEWAY6}/128")):
        yield f"addr add {address} dev {link}{' nodad' if ':' in address else ''}"
    yield f"link set {link} up"


def near_mac(link: str) -> str:
    """The node's end."""
    return f"02:00:00:00:01:{list(LINKS).index(link):02x}"


def far_mac(link: str) -> str:
    """The other end."""
    return f"02:00:00:00:02:{list(LINKS).index(link):02x}"


def _ip(namespace: str, *lines: str) -> None:
    done = subprocess.run(
        ["ip", "-n", namespace, "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def destroy() -> None:
    """Everything of `build`."""
    for name in netns.names():
        if name.startswith(PREFIX):
            netns.delete(name)


@dataclass
class _Shot:
    """One packet that was sent."""

    case: Case
    source: str
    source_port: int
    arrived: list[Seen] = field(default_factory=list)


class Wire:
    """Sends the packets of cases and judges them by what arrives where."""

    silence = 0.15
    """Seconds after which what has not arrived never will: packets cross veth links while they are being sent."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._far = {ns: in_ns(ns, _cooked) for ns in set(LINKS.values())}
        self._out = in_ns(NODE, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        self._out6 = in_ns(NODE, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW))
        for sock in self._far.values():
            self._selector.register(sock, selectors.EVENT_READ, 0)
        for number in (*PROTOCOLS.values(), socket.IPPROTO_ICMP):
            self._listen(socket.AF_INET, number)
        for number in (*PROTOCOLS.values(), socket.IPPROTO_ICMPV6):
            self._listen(socket.AF_INET6, number)
        self._token, self._port = 0x10000, 1024

    def _listen(self, family: int, number: int) -> None:
        sock = in_ns(NODE, lambda: socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, number))
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._selector.register(sock, selectors.EVENT_READ, number)

    def close(self) -> None:
        """Close every socket."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._out.close()
        self._out6.close()

    def fates(self, cases: Sequence[Case], mode: str, flags: int = SYN) -> dict[str, Fate]:
        """What becomes of the packet of each case. Cases with a choice of endpoints are sent often enough for all."""
        shots: dict[int, _Shot] = {}
        self._drain(shots)
        for case in cases:
            choice = len(case.fates[mode].destinations)
            for _ in range(3 if choice < 2 else 60):
                self._send(case, mode, shots, flags)
        deadline = time.monotonic() + self.silence
        while any(not shot.arrived for shot in shots.values()) and (left := deadline - time.monotonic()) > 0:
            self._selector.select(left)
            self._drain(shots)
        by_case: dict[str, list[_Shot]] = {}
        for shot in shots.values():
            by_case.setdefault(shot.case.about, []).append(shot)
        return {about: _judge(of_case) for about, of_case in by_case.items()}

    def _send(self, case: Case, mode: str, shots: dict[int, _Shot], flags: int) -> None:
        self._token += 1
        self._port = self._port + 1 if self._port < 65000 else 1024
        source, to = case.source, case.to
        address = source.address
        if mode == "ipvs" and source.origin is Origin.NODE and _virtual(case):
            address = to.address  # what the kernel chooses there
        shots[self._token] = _Shot(case, address, self._port)
        packet = first_packet(address, self._port, to.address, to.port, to.protocol, self._token, flags)
        if source.interface:
            kind = 0x86DD if ":" in to.address else 0x0800
            mac = bytes.fromhex(near_mac(source.interface).replace(":", ""))
            self._far[LINKS[source.interface]].sendto(packet, (source.interface, kind, 0, 0, mac))
        else:
            # A rule of OUTPUT may refuse or drop at once, which the sender is told.
            with suppress(PermissionError, ConnectionRefusedError):
                (self._out6 if ":" in to.address else self._out).sendto(packet, (to.address, 0))

    def _drain(self, shots: dict[int, _Shot]) -> None:
        for key, _ in self._selector.select(0):
            for seen in _receive(key.fileobj, key.data):  # type: ignore[arg-type]
                if (shot := shots.get(seen.token)) is not None:
                    shot.arrived.append(seen)


def _virtual(case: Case) -> bool:
    return not case.source.address.startswith(("127.", "::1"))


def _cooked() -> socket.socket:
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_PACKET, kind, socket.htons(0x0003))
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
    return sock


def _receive(sock: socket.socket, number: int) -> Iterable[Seen]:
    """Everything that waits on a socket: of a link (number 0), or of the node for one protocol."""
    with suppress(BlockingIOError):
        while True:
            data, extra, _, peer = sock.recvmsg(2048, 256)
            if number == 0 and peer[2] == socket.PACKET_OUTGOING:
                continue
            if sock.family == socket.AF_INET6:
                seen = read_body(number, peer[0].split("%")[0], _destination(extra), data)
            else:
                seen = read(data)
            if seen:
                yield seen


def _destination(extra: Iterable[tuple[int, int, bytes]]) -> str:
    return next(
        (socket.inet_ntop(socket.AF_INET6, d[:16]) for _, kind, d in extra if kind == socket.IPV6_PKTINFO), "::"
    )


def _judge(shots: Sequence[_Shot]) -> Fate:
    """One fate for all packets of a case; any disagreement but about the endpoint is a fate of its own."""
    case = shots[0].case
    arrived = [(shot, seen) for shot in shots for seen in shot.arrived if not seen.error]
    refused = sum(any(seen.error for seen in shot.arrived) for shot in shots)
    reached = len({id(shot) for shot, _ in arrived})
    # A packet that is delivered to a closed port of the node is answered like one that is rejected.
    if reached == len(shots):
        targets = {(seen.destination, seen.port) for _, seen in arrived}
        changed = any((seen.source, seen.source_port) != (shot.source, shot.source_port) for shot, seen in arrived)
        if targets == {(case.to.address, case.to.port)}:
            return Fate("accept", frozenset(), changed)
        return Fate(
            "dnat", frozenset(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in targets), changed
        )
    if not reached and refused in (0, len(shots)):
        return Fate("reject" if refused else "drop")
    return Fate(f"of {len(shots)}: {reached} delivered, {refused} refused")


@contextmanager
def wired(silence: float = Wire.silence) -> Iterator[Wire]:
    """A bed of its own with one wire, on which no two packets are of one connection."""
    destroy()
    try:
        build()
        wire = Wire()
        wire.silence = silence
        yield wire
        wire.close()
    finally:
        destroy()
