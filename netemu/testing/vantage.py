"""A place in a lab that tests look from: a Pod, a node or a client outside. Each claim about it is a method.

A claim that does not hold raises `ClaimFailed`, an AssertionError that remembers how to try once more: when a test has
failed, the plugin does so while it captures, and puts what it sees into the report (`evidence.py`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from netemu.lab import claims
from netemu.lab.check_spec import LosslessDuring, Reaches, Resolves, Source, Spread
from netemu.lab.commands import run_inside
from netemu.lab.destinations import destination_from
from netemu.lab.failures import Failed
from netemu.lab.targets import Target
from netemu.lab.trace import Tracer
from netemu.model.errors import NetemuError
from netemu.model.hosts import endpoint_text
from netemu.observe.capture import stream as capture
from netemu.observe.probe.prober import Destination
from netemu.observe.probe.result import ProbeResult
from netemu.observe.probe.timeline import Timeline
from netemu.observe.resolve.dig import Lookup
from netemu.observe.story.story import Story
from netemu.observe.trace.evidence import Protocol
from netemu.testing import capturing
from netemu.testing.capturing import Sniffed

if TYPE_CHECKING:
    from scapy.packet import Packet

    from netemu.testing.lab import Lab

_T = TypeVar("_T")
_AGAIN = 0.1


class ClaimFailed(AssertionError):
    """A claim that does not hold. `to` is TO:PORT, or the name that was looked up."""

    def __init__(self, vantage: Vantage, to: str, claim: str, failed: Failed, again: Callable[[], object]) -> None:
        super().__init__(f"{vantage} {claim}: {failed}")
        self.vantage, self.to, self.failed, self.again = vantage, to, failed, again


class Vantage:
    """Where packets start: `lab.pod("shop/client")`, `lab.node("worker-1")`, `lab.client("laptop")`.

    Destinations are written as for `netemu trace`: `NAME:PORT`, names as the resolver of the place knows them,
    `ADDRESS:PORT`, `service/NAME:PORT`, `NAMESPACE/NAME:PORT`, `pod/`, `node/` and `client/`. With `within` a claim is
    tried again for so many seconds until it holds; without it, it must hold at once.
    """

    def __init__(self, lab: Lab, target: Target) -> None:
        self._target = target
        self.lab = lab
        self.name = target.name
        """`shop/client`, `node/worker-1`, `client/laptop`."""
        self.namespace = self.name.partition("/")[0] if target.directory else "default"
        """A Pod's; of others `default`."""
        self.netns = target.netns
        """Its network namespace, as `ip netns` lists it."""

    def __str__(self) -> str:
        return self.name

    @property
    def addresses(self) -> list[str]:
        """Of all its links, without loopback and link-local ones."""
        every = map(ipaddress.ip_address, claims.addresses_of(self._target))
        return [str(one) for one in every if not (one.is_loopback or one.is_link_local)]

    @property
    def address(self) -> str:
        """The first of them."""
        return self.addresses[0]

    def at(self, port: int) -> str:
        """Its address with a port, to be a destination."""
        return endpoint_text(self.address, port)

    def destination(self, to: str) -> Destination:
        """What TO:PORT means from here. Raises UserError."""
        return _aside(partial(destination_from, self._target, to))

    # --- claims --------------------------------------------------------------------------------------------------

    def assert_reaches(self, to: str, *, count: int = 1, udp: bool = False, within: float = 0) -> ProbeResult:
        """Each of `count` connections (or datagrams) is answered."""
        __tracebackhide__ = True
        wanted = Reaches(source_=self.name, to=to, count=count, udp=udp)
        return self._claim(f"reaches {to}", to, partial(claims.reaches, self._target, wanted), within)

    def assert_refused(self, to: str, *, count: int = 1, udp: bool = False, within: float = 0) -> None:
        """Each is refused: by a reset, or by an ICMP error that says as much."""
        __tracebackhide__ = True
        wanted = Reaches(source_=self.name, to=to, count=count, udp=udp)
        self._claim(f"is refused by {to}", to, partial(claims.refused, self._target, wanted), within)

    def assert_dropped(self, to: str, *, count: int = 1, udp: bool = False, within: float = 0) -> None:
        """Each is lost without a word; it takes two seconds to know."""
        __tracebackhide__ = True
        wanted = Reaches(source_=self.name, to=to, count=count, udp=udp)
        self._claim(f"is not heard by {to}", to, partial(claims.dropped, self._target, wanted), within)

    def assert_spread(
        self, to: str, over: int, *, count: int = 300, tolerance: float = 0.5, within: float = 0
    ) -> ProbeResult:
        """Connections are answered by `over` servers, each by its share give or take `tolerance` of it."""
        __tracebackhide__ = True
        wanted = Spread(source_=self.name, to=to, over=over, count=count, tolerance=tolerance)
        return self._claim(
            f"reaches {over} servers evenly at {to}", to, partial(claims.spread, self._target, wanted), within
        )

    def assert_source_ip(self, to: str, address: str | Vantage | None = None, *, within: float = 0) -> None:
        """The server sees this source address; without one, an address of this place: nobody has translated it."""
        __tracebackhide__ = True
        seen = address.address if isinstance(address, Vantage) else address or "client"
        wanted = Source(source_=self.name, to=to, is_=seen)
        said = f"is {seen} to {to}" if address else f"has its own address to {to}"
        self._claim(said, to, partial(claims.source, self._target, wanted), within)

    def assert_resolves(
        self,
        name: str,
        *,
        to: Sequence[str] | None = None,
        types: Sequence[str] = ("A", "AAAA"),
        status: str = "found",
        resolver: str = "glibc",
        queries: int | None = None,
        within: float = 0,
    ) -> Lookup:
        """The resolver of the place finds the name; with `to`, exactly these addresses.

        `status` may be `found`, `not found`, `no data` or `try again`, `queries` how many questions that takes.
        """
        __tracebackhide__ = True
        wanted = Resolves(
            source_=self.name, name=name, types=tuple(types), resolver=resolver, status=status, queries=queries,
            addresses=None if to is None else tuple(to),
        )  # fmt: skip
        return self._claim(f"resolves {name}", name, partial(claims.resolves, self._target, wanted), within)

    def assert_no_loss(
        self,
        to: str,
        *,
        during: Callable[[], object],
        rate: float = 100.0,
        udp: bool = False,
        keep_alive: bool = False,
        margin: float = 0.5,
    ) -> Timeline:
        """Connections that begin `rate` times a second are all answered while `during` is called, and for `margin`
        seconds before and after. With `keep_alive`, requests on connections that stay open."""
        __tracebackhide__ = True
        wanted = LosslessDuring(
            source_=self.name, to=to, rate=rate, udp=udp, keep_alive=keep_alive, margin=f"{round(1000 * margin)}ms"
        )
        try:
            return claims.lossless_during(self._target, wanted, during)
        except Failed as failed:
            once = partial(claims.reaches, self._target, Reaches(source_=self.name, to=to, udp=udp))
            raise ClaimFailed(self, to, f"loses nothing to {to}", failed, once) from None

    # --- packets -------------------------------------------------------------------------------------------------

    def sniff(self, expression: str = "", *, link: str = "") -> AbstractContextManager[Sniffed]:
        """The packets that cross its links (or one of them) while the block runs, as scapy's packets.

        `expression` chooses them as tcpdump's do: `tcp port 80 and host 10.96.0.10`.
        """
        return capturing.sniffing(capture.Place(self.name, self.netns, link), expression)

    def send(self, packet: Packet, *, timeout: float = 1.0) -> Packet | None:
        """Send a packet of scapy's from here; its first answer, None if there is none within `timeout` seconds.

        One that begins with Ether goes out on eth0 as it is; one that begins with IP or IPv6 takes the way that the
        routes give it, from this place's own address unless it says otherwise.
        """
        return capturing.send(capture.Place(self.name, self.netns), self.addresses, packet, timeout)

    def trace(self, to: str, *, protocol: Protocol = "tcp") -> Story:
        """What `netemu trace` tells of a packet: `outcome`, `endpoint`, `source_seen`, `steps`, `why_not`."""

        def tell() -> Story:
            story, _ = asyncio.run(Tracer(self.lab.name, self.name, self.namespace).story(to, protocol=protocol))
            return story

        return _aside(tell)

    # --- commands ------------------------------------------------------------------------------------------------

    def exec(
        self, *command: str, input: str = "", check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine here.

        Raises NetemuError where it fails, unless `check` is False, and where it does not end within `timeout` seconds.

        What it does to links, addresses, routes and rules is noticed after the test: the lab is then built anew.
        """
        self.lab.note_machine(self.netns)
        done = run_inside(self.lab.name, self.name, command, input=input, timeout=timeout)
        if check and done.returncode:
            said = (done.stderr + done.stdout).strip()[-500:]
            raise NetemuError(f"{self}: {' '.join(command)}: exited with {done.returncode}: {said}")
        return done

    def _claim(self, said: str, to: str, claim: Callable[[], _T], within: float) -> _T:
        __tracebackhide__ = True
        end = time.monotonic() + within
        while True:
            try:
                return _aside(claim)
            except Failed as failed:
                if time.monotonic() >= end:
                    raise ClaimFailed(self, to, said, failed, claim) from None
            time.sleep(_AGAIN)


def _aside(claim: Callable[[], _T]) -> _T:
    """In a thread of its own: tests may run in an event loop, and so do claims."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(claim).result()
