"""Where the evidence of a packet comes from: the kernel of each place, or what stands for it in tests.

`KernelSources` opens the sockets of `netemu.kernel`; `netemu.testing.sources.ScriptedSources` says what a test puts in.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from netemu.kernel import conntrack_events, ipvs_connections
from netemu.kernel.conntrack_events import ConntrackEvents, Tracked, Tuple
from netemu.kernel.iptables import has_xtables
from netemu.kernel.ipvs_connections import Connection
from netemu.kernel.netlink import Netlink
from netemu.kernel.nflog import Logged, Nflog
from netemu.kernel.nft_read import NftReader
from netemu.kernel.nft_trace import NftTrace, Step
from netemu.kernel.raw_ip import RawSender
from netemu.kernel.rtnetlink_answers import Address, Link, Neighbour, Route
from netemu.kernel.signature import Signature
from netemu.kernel.tap import Frame, Tap, signature_filter
from netemu.model import nft

_Told = TypeVar("_Told", covariant=True)


class Listener(Protocol[_Told]):
    """Something that tells by itself. Calls never block."""

    def fileno(self) -> int:
        """Readable when something is told."""
        ...

    def read(self) -> tuple[Sequence[_Told], int]:
        """What has been told since the last call; how often messages were lost."""
        ...

    def close(self) -> None:
        """Listen no more."""
        ...


class Frames(Protocol):
    """The frames of all links. Calls never block."""

    def fileno(self) -> int:
        """Readable when frames wait."""
        ...

    def read(self) -> list[Frame]:
        """The frames that wait, or the first of them; none when there are none."""
        ...

    def lost(self) -> int:
        """Frames that found the buffer full since the last call."""
        ...

    def close(self) -> None:
        """Take nothing more."""
        ...


class Links(Protocol):
    """Links, addresses, neighbours and routes of a place. See `kernel.netlink.Netlink`."""

    def links(self) -> list[Link]: ...
    def addresses(self) -> list[Address]: ...
    def neighbours(self) -> list[Neighbour]: ...
    def route_to(self, destination: str, *, source: str = "", in_index: int = 0, mark: int = 0) -> Route: ...
    def close(self) -> None: ...


class Reader(Protocol):
    """Chains, rules and elements of nf_tables. See `kernel.nft_read.NftReader`."""

    def chain(self, family: str, table: str, name: str) -> nft.Chain | None: ...
    def rules(self, family: str, table: str, chain: str) -> list[nft.Rule]: ...
    def element(self, family: str, table: str, name: str, key: nft.Values) -> nft.Element | None: ...
    def close(self) -> None: ...


class Sender(Protocol):
    """Sends packets and holds a source port for them. See `kernel.raw_ip.RawSender`."""

    source_port: int

    def send(self, packet: bytes, destination: str) -> None: ...


class Sources(Protocol):
    """Opens what tells of a namespace. Everything raises KernelNotFound for one that is not there."""

    def sender(
        self, netns: str, protocol: str, *, ipv6: bool, source_port: int = 0
    ) -> AbstractContextManager[Sender]: ...
    def links(self, netns: str) -> Links: ...
    def has_xtables(self, netns: str, family: str) -> bool: ...
    def events(self, netns: str) -> Listener[Tracked]: ...
    def log(self, netns: str, *, ipv6: bool) -> Listener[Logged]: ...
    def trace(self, netns: str, signature: Signature) -> Listener[Step]: ...
    def frames(self, netns: str, signature: Signature) -> Frames: ...
    def reader(self, netns: str) -> Reader: ...
    def connection(self, netns: str, of: Tuple) -> Tracked | None: ...
    def balanced(self, netns: str) -> list[Connection]: ...


class KernelSources:
    """The kernel's."""

    def sender(self, netns: str, protocol: str, *, ipv6: bool, source_port: int = 0) -> RawSender:
        """A raw IP socket."""
        return RawSender(netns, protocol, ipv6=ipv6, source_port=source_port)

    def links(self, netns: str) -> Netlink:
        """By rtnetlink."""
        return Netlink(netns)

    def has_xtables(self, netns: str, family: str) -> bool:
        """Whether there are tables of x_tables."""
        return has_xtables(netns, (family,))

    def events(self, netns: str) -> ConntrackEvents:
        """What conntrack tells."""
        return ConntrackEvents(netns)

    def log(self, netns: str, *, ipv6: bool) -> Nflog:
        """What x_tables tell. Raises KernelBusy where somebody else listens."""
        return Nflog(netns, ipv6=ipv6)

    def trace(self, netns: str, signature: Signature) -> NftTrace:
        """What nf_tables tell."""
        return NftTrace(netns, signature)

    def frames(self, netns: str, signature: Signature) -> Tap:
        """What crosses links, from Ethernet's header on."""
        return Tap(netns, signature_filter(signature), ethernet=True)

    def reader(self, netns: str) -> NftReader:
        """Of nf_tables."""
        return NftReader(netns)

    def connection(self, netns: str, of: Tuple) -> Tracked | None:
        """What conntrack holds of a flow."""
        return conntrack_events.find(netns, of)

    def balanced(self, netns: str) -> list[Connection]:
        """What IPVS holds."""
        return ipvs_connections.connections(netns)


KERNEL = KernelSources()
