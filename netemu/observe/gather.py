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
from contextlib import ExitStack
from typing import Final

from msgspec.structs import replace

from netemu.kernel.raw_ip import RawSender
from netemu.kernel.signature import Signature
from netemu.kernel.tap import wait_for_stamps
from netemu.model.errors import KernelBusy, KernelError, UserError
from netemu.observe.compose import compose
from netemu.observe.consult import Consultant
from netemu.observe.evidence import Backend, Evidence, Leg, Packet, Watched
from netemu.observe.headers import ETHERNET, Crafted, craft, parse_frame
from netemu.observe.passages import Base, ChainKey, Legs, Passage, crossings, passages
from netemu.observe.rule_texts import Rules
from netemu.observe.watching import Watcher, close_all

_SETTLE: Final = 0.01
"""What the kernel told of an answer is there when the answer is; tools of other processors may take a moment."""

_OTHERS: Final = 10.0
"""Seconds for the traces of others to end."""


async def gather(packet: Packet, source: Watched, places: Sequence[Watched], *, timeout: float = 0.4) -> Evidence:
    """Send the packet from `source` and follow it through `places`, which are all that it may come by.

    Raises UserError for a packet that cannot be sent from there at all, KernelNotFound for a namespace that is gone,
    KernelDenied without the rights, KernelError (EADDRINUSE) for a source port that somebody has.
    """
    watched = list({place.netns: place for place in (source, *places)}.values())
    with ExitStack() as stack:
        sender = stack.enter_context(
            RawSender(source.netns, packet.protocol, ipv6=packet.ipv6, source_port=packet.source_port)
        )
        packet = replace(packet, source_port=sender.source_port, source=packet.source or _source(packet, source))
        crafted = craft(packet, secrets.token_bytes(16))
        watchers: list[Watcher] = []
        stack.callback(close_all, watchers)
        for place in watched:
            watchers.append(await _watcher(place, crafted.signature))
        rules = [Rules(place.netns, ipv6=packet.ipv6) for place in watched]
        for each in rules:
            stack.callback(each.close)
        await asyncio.gather(*(each.before(xtables=w.xtables) for each, w in zip(rules, watchers, strict=True)))
        wait_for_stamps()
        sent = time.time()
        refusal = _send(sender, crafted.data, packet.destination)
        await _until_quiet(watchers, crafted, packet, 0.0 if refusal else timeout)
        return await _evidence(packet, source, sent, refusal, watchers, rules, crafted.signature)


async def _watcher(place: Watched, signature: Signature) -> Watcher:
    """x_tables tell one listener at a time, so another trace there is waited for. Raises KernelBusy."""
    deadline = time.monotonic() + _OTHERS
    while True:
        try:
            return Watcher(place, signature)
        except KernelBusy:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_SETTLE)


def _source(packet: Packet, place: Watched) -> str:
    """The address that a program's packet would bear."""
    from netemu.kernel.netlink import Netlink

    with Netlink(place.netns) as netlink:
        with contextlib.suppress(KernelError):
            route = netlink.route_to(packet.destination)
            if route.src and route.type in ("unicast", "local"):
                return route.src
        # There is no way there, which the evidence is to tell; any address of the family will do to ask with.
        for address in netlink.addresses():
            bare = address.address.partition("/")[0]
            if (":" in bare) == packet.ipv6 and address.scope == "global":
                return bare
    family = "IPv6" if packet.ipv6 else "IPv4"
    raise UserError(f"{place.name} has no {family} address: nothing can be sent to {packet.destination} from there")


def _send(sender: RawSender, data: bytes, destination: str) -> str:
    """What the kernel refuses; nothing where a rule did, which is told by its trace."""
    try:
        sender.send(data, destination)
    except KernelError as error:
        return "" if error.code == errno.EPERM else error.detail
    return ""


async def _until_quiet(watchers: Sequence[Watcher], crafted: Crafted, packet: Packet, timeout: float) -> None:
    legs = Legs(crafted.signature, packet.source, packet.source_port)
    async with _news(watchers) as news:
        seen = 0
        while True:
            news.clear()
            for watcher in watchers:
                watcher.read()
            frames = watchers[0].seen.frames
            # All of them are looked at, for what went out tells under which address answers come.
            told = [(_leg(frame.data, legs), frame.outgoing) for frame in frames[seen:]]
            if ("back", False) in told:
                await asyncio.sleep(_SETTLE)
                break
            seen = len(frames)
            try:
                await asyncio.wait_for(news.wait(), timeout)
            except TimeoutError:
                break
    for watcher in watchers:
        watcher.read()


def _leg(frame: bytes, legs: Legs) -> Leg | None:
    headers = parse_frame(frame)
    return legs.learn(frame[ETHERNET:], headers) if headers else None


@contextlib.asynccontextmanager
async def _news(watchers: Iterable[Watcher]) -> AsyncIterator[asyncio.Event]:
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


async def _evidence(
    packet: Packet, source: Watched, sent: float, refusal: str, watchers: Sequence[Watcher], rules: Sequence[Rules],
    signature: Signature,
) -> Evidence:  # fmt: skip
    legs = Legs(signature, packet.source, packet.source_port)
    crossed = crossings([watcher.seen for watcher in watchers], legs)
    found: list[list[Passage]] = []
    for watcher, each in zip(watchers, rules, strict=True):
        found.append(passages(watcher.seen, crossed, _bases(watcher, each), legs))
    await asyncio.gather(*(each.after(_backends(ways)) for each, ways in zip(rules, found, strict=True)))
    noted = []
    for watcher, each, ways in zip(watchers, rules, found, strict=True):
        consultant = Consultant(watcher, each)
        noted += [(passage, await consultant.notes(passage)) for passage in ways]
    lost = sum(watcher.seen.lost for watcher in watchers)
    return compose(packet, source, sent, refusal, crossed, noted, lost)


def _bases(watcher: Watcher, rules: Rules) -> dict[ChainKey, Base]:
    """Where the base chains hang that have told something."""
    found: dict[ChainKey, Base] = {}
    for step in watcher.seen.steps:
        key = (step.family, step.table, step.chain)
        if step.packet and key not in found:
            chain = rules.reader.chain(*key)
            if chain and chain.hook:
                found[key] = Base(chain.hook, chain.priority)
    return found


def _backends(ways: Iterable[Passage]) -> frozenset[Backend]:
    return frozenset(hit.backend for passage in ways for run in passage.runs for hit in run.hits)
