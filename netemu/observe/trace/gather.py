"""Sending one packet and gathering everything the kernel tells of it, and of what answers it.

    watch every place ──► send ──► take in until it is quiet ──► cut into passages ──► ask ──► evidence
    (watching.py)                                                (passages.py)   (consult.py)

The packet is sent through a raw IP socket of its place, so it passes hook output as a program's packet does. Nothing of
what is put in for watching has a verdict, and all of it goes with the sockets that made it: at the end, at Ctrl-C, and
when the process is killed. Without a trace going on, no packet meets anything of it.

It is quiet when the answer has come to where the packet was sent from, or when nothing was told for `timeout` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, closing
from typing import Final

from msgspec.structs import replace

from netemu.kernel.signature import Signature
from netemu.kernel.tap import wait_for_stamps
from netemu.model.errors import KernelBusy, KernelError, UserError
from netemu.observe.trace.compose import Sending, compose
from netemu.observe.trace.consult import Consultant
from netemu.observe.trace.evidence import Evidence, Packet, Watched
from netemu.observe.trace.headers import craft
from netemu.observe.trace.passages import Legs, crossings, passages
from netemu.observe.trace.sources import KERNEL, Sender, Sources
from netemu.observe.trace.watching import Watcher, close_all

_SETTLE: Final = 0.01
"""What the kernel told of an answer is there when the answer is; tools of other processors may take a moment."""

_OTHERS: Final = 10.0
"""Seconds for the traces of others to end."""


async def gather(
    packet: Packet,
    source: Watched,
    places: Sequence[Watched],
    *,
    timeout: float = 0.4,
    sources: Sources = KERNEL,
) -> Evidence:
    """Send the packet from `source` and follow it through `places`, which are all that it may come by.

    Raises UserError for a packet that cannot be sent from there at all, KernelNotFound for a namespace that is gone,
    KernelDenied without the rights, KernelError (EADDRINUSE) for a source port that somebody has.
    """
    with ExitStack() as stack:
        sender = stack.enter_context(
            sources.sender(source.netns, packet.protocol, ipv6=packet.ipv6, source_port=packet.source_port)
        )
        packet = replace(
            packet, source_port=sender.source_port, source=packet.source or _source(packet, source, sources)
        )
        crafted = craft(packet, secrets.token_bytes(16))
        watchers: dict[str, Watcher] = {}
        stack.callback(lambda: close_all(watchers.values()))
        # In one order, whoever traces: two that wait for each other would wait for good.
        for netns, place in sorted({place.netns: place for place in (*places, source)}.items()):
            watchers[netns] = await open_watcher(place, crafted.signature, sources)
        consultants = [Consultant(watcher, ipv6=packet.ipv6) for watcher in watchers.values()]
        for each in consultants:
            stack.callback(each.close)
        await asyncio.gather(*(each.before() for each in consultants))
        wait_for_stamps()
        for watcher in watchers.values():
            watcher.read()  # a busy place has filled its buffers meanwhile
            watcher.forget()
        sent = time.time()
        sending = Sending(packet, source, sent, _send(sender, crafted.data, packet.destination))
        legs = Legs(crafted.signature, packet.source, packet.source_port)
        await _until_quiet(list(watchers.values()), source, legs, 0.0 if sending.refusal else timeout)
        return await evidence_of(sending, consultants, legs)


async def open_watcher(place: Watched, signature: Signature, sources: Sources = KERNEL) -> Watcher:
    """x_tables tell one listener at a time, so another trace there is waited for. Raises KernelBusy."""
    deadline = time.monotonic() + _OTHERS
    while True:
        try:
            return Watcher(place, signature, sources)
        except KernelBusy:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_SETTLE)


def _source(packet: Packet, place: Watched, sources: Sources) -> str:
    """The address that a program's packet would bear."""
    with closing(sources.links(place.netns)) as netlink:
        with contextlib.suppress(KernelError):
            route = netlink.route_to(packet.destination)
            if route.src and route.type in ("unicast", "local"):
                return route.src
        # There is no way there, which the evidence is to tell; any address of the family will do to ask with.
        for address in netlink.addresses():
            bare = address.address.partition("/")[0]
            if (":" in bare) == packet.ipv6 and address.scope == "global":
                return bare
        down = [link.name for link in netlink.links() if not link.up]
    family = "IPv6" if packet.ipv6 else "IPv4"
    why = f" (down: link {', '.join(down)})" if down else ""
    raise UserError(
        f"{place.name} has no {family} address{why}: nothing can be sent to {packet.destination} from there"
    )


def _send(sender: Sender, data: bytes, destination: str) -> str:
    """What the kernel refuses; nothing where a rule did, which is told by its trace."""
    try:
        sender.send(data, destination)
    except KernelError as error:
        return "" if error.code == errno.EPERM else error.detail
    return ""


async def _until_quiet(watchers: Sequence[Watcher], source: Watched, legs: Legs, timeout: float) -> None:
    """Others' packets are no news, so the time since the last of ours counts."""
    deadline = time.monotonic() + timeout
    async with news_of(watchers) as news:
        while True:
            news.clear()
            fresh = [(frame, watcher) for watcher in watchers for frame in watcher.read()]
            fresh.sort(key=lambda entry: entry[0].nanoseconds)
            told = [
                (learnt[1], frame.outgoing, watcher.place.netns)
                for frame, watcher in fresh
                if (learnt := legs.learn(frame.data))
            ]
            if ("back", False, source.netns) in told:
                await asyncio.sleep(_SETTLE)
                break
            if told:
                deadline = time.monotonic() + timeout
            try:
                await asyncio.wait_for(news.wait(), deadline - time.monotonic())
            except TimeoutError:
                break
    for watcher in watchers:
        watcher.read()


@contextlib.asynccontextmanager
async def news_of(watchers: Iterable[Watcher]) -> AsyncIterator[asyncio.Event]:
    """Set whenever something can be read."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    filenos = [fileno for watcher in watchers for fileno in watcher.filenos]
    for fileno in filenos:
        loop.add_reader(fileno, news.set)
    try:
        yield news
    finally:
        for fileno in filenos:
            loop.remove_reader(fileno)


async def evidence_of(sending: Sending, consultants: Sequence[Consultant], legs: Legs) -> Evidence:
    """What was taken in of one packet everywhere, put in order."""
    crossed = crossings([each.seen for each in consultants], legs)
    found = [passages(each.seen, crossed, each.bases(), legs) for each in consultants]
    await asyncio.gather(*(each.after(ways) for each, ways in zip(consultants, found, strict=True)))
    noted = [
        (passage, await each.notes(passage)) for each, ways in zip(consultants, found, strict=True) for passage in ways
    ]
    return compose(sending, crossed, noted, sum(each.seen.lost for each in consultants))
