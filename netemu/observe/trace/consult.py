"""What the kernel says of a packet's way through one place when it is asked, right behind the packet.

Rules come by themselves; the rest is looked up: the route for the packet as it was at that point, the elements of maps
and ipsets by which its rules decided, the real server that IPVS chose, what conntrack holds of the flow. The answers
are the kernel's; that they are the same as a moment before is assumed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from msgspec.structs import replace

from netemu.kernel import conntrack_events
from netemu.kernel.conntrack_events import Tracked, Tuple
from netemu.model import nft
from netemu.model.errors import KernelError
from netemu.model.nft import Field
from netemu.observe.trace.evidence import Balanced, Event, Flow, Headers, MapHit, Routed, RuleHit, Translation
from netemu.observe.trace.passages import RANKS, Base, ChainKey, Passage, Run, Seen
from netemu.observe.trace.rule_texts import Rules
from netemu.observe.trace.watching import Watcher

_DNAT_TARGET: Final = re.compile(r"(?:dnat to|--to-destination) \[?([0-9a-f.:]+?)\]?(?::\d+)?(?: |$)")
_DNAT_MAP: Final = re.compile(r"\d+ : ([0-9a-f.:]+) \. \d+")
"""The endpoints of `numgen random mod 2 map { 0 : 10.244.2.2 . 8080, 1 : 10.244.2.3 . 8080 }`."""
_LOOPBACK: Final = "lo"
_REFUSING: Final = ("drop", "reject")


class Consultant:
    """Asks about one place, until it is closed."""

    def __init__(self, watcher: Watcher, *, ipv6: bool) -> None:
        self._watcher = watcher
        self._place = watcher.place
        self._rules = Rules(watcher.place.netns, watcher.sources.reader(watcher.place.netns), ipv6=ipv6)

    @property
    def seen(self) -> Seen:
        """What was told of the place by itself."""
        return self._watcher.seen

    def close(self) -> None:
        """Ask no more."""
        self._rules.close()

    async def before(self) -> None:
        """Note what has to be known from before the packet."""
        await self._rules.before(xtables=self._watcher.xtables)

    async def after(self, ways: Iterable[Passage]) -> None:
        """Read what the notes of these passages need."""
        await self._rules.after(frozenset(hit.backend for passage in ways for run in passage.runs for hit in run.hits))

    def bases(self) -> dict[ChainKey, Base]:
        """Where the base chains hang that have told something."""
        found: dict[ChainKey, Base] = {}
        for step in self.seen.steps:
            key = (step.family, step.table, step.chain)
            if step.packet and key not in found:
                chain = self._rules.reader.chain(*key)
                if chain and chain.hook:
                    found[key] = Base(chain.hook, chain.priority)
        return found

    async def notes(self, passage: Passage) -> list[Event]:
        """Everything between the passage's frames, in order. Times are still missing."""
        found: list[Event] = []
        headers, runs = passage.headers, passage.runs
        if headers is None or passage.bridged:
            return found
        routed, balancing = routed_before(passage), balancing_run(passage)
        for index in range(len(runs) + 1):
            if index in routed and not _refused(found):
                known = routed[index]
                to = [known.headers.destination] if known else translated(found) or [headers.destination]
                routes = [self._route(passage, each, headers.source, known.mark if known else 0) for each in to]
                # Where a rule drew lots and no later witness saw the packet, it had the lot that leads nowhere.
                found.append(next((each for each in routes if each.leads_nowhere), routes[0]))
            for hit in runs[index].hits if index < len(runs) else ():
                found += await self._hit(hit, runs[index])
            if index == balancing:
                found += self._balanced(passage)
        return [*found, *self._translation(passage, headers)]

    # --- rules and what they look things up in ---

    async def _hit(self, hit: RuleHit, run: Run) -> list[Event]:
        told, rule = await self._rules.told(hit)
        if rule:
            return [told, *self._elements(told, rule, run)]
        if "--match-set" not in told.text:
            return [told]
        from netemu.observe.trace.ipvs import set_entries  # what only nodes in ipvs mode need is read there alone

        return [told, *set_entries(self._place.netns, told)]

    def _elements(self, hit: RuleHit, rule: nft.Rule, run: Run) -> Iterator[MapHit]:
        for key, name, kind in looked_up(rule):
            wanted = tuple(value for part in key if (value := _value(part, hit, run)) is not None)
            if len(wanted) != len(key):
                continue  # a random number, or what no packet bears
            if element := self._rules.reader.element(hit.family, hit.table, name, wanted):
                data = nft.values_text(element.data) if isinstance(element.data, tuple) else ""
                if isinstance(element.data, nft.Verdict):
                    data = element.data.text()
                yield MapHit(
                    seconds=0.0, place=hit.place, leg=hit.leg, kind=kind, family=hit.family, table=hit.table, name=name,
                    key=nft.values_text(element.key), data=data, comment=element.comment,
                )  # fmt: skip

    # --- routes ---

    def _route(self, passage: Passage, destination: str, source: str, mark: int) -> Routed:
        link = passage.entry.link if passage.entry else ""
        # What comes back in through loopback bears the place's own address, which on a link would be a forgery.
        index = next((i for i, name in self._watcher.seen.links.items() if name == link != _LOOPBACK), 0)
        asked = Routed(
            seconds=0.0, place=passage.place, leg=passage.leg, destination=destination, source=source, in_link=link,
            mark=mark,
        )  # fmt: skip
        return self._answered(asked, index)

    def _answered(self, asked: Routed, in_index: int) -> Routed:
        try:
            # What begins here may bear an address that is not this place's (yet); routing would refuse to look.
            route = self._watcher.netlink.route_to(
                asked.destination, source=asked.source if in_index else "", in_index=in_index, mark=asked.mark
            )
        except KernelError as error:
            return replace(asked, error=os.strerror(error.code) if error.code else str(error))
        hop = route.hops[0] if route.hops else None
        out = self._watcher.seen.links.get(hop.index, "") if hop else ""
        next_hop = (hop.index, hop.via or asked.destination) if hop else None
        silent = any(
            each.silent and (each.index, each.address) == next_hop for each in self._watcher.netlink.neighbours()
        )
        return replace(
            asked, type=route.type, out_link=out, via=hop.via if hop else "", preferred=route.src,
            mtu=self._watcher.mtus.get(out, 0), silent=silent,
        )  # fmt: skip

    # --- connections ---

    def _translation(self, passage: Passage, headers: Headers) -> Iterator[Translation]:
        if headers.about or (passage.leg == "back" and headers.what.startswith("echo request")):
            return
        flow = _tuple(headers)
        told = [each for each in self._watcher.tracked if flow in (each.original, each.reply)]
        held = told[0] if told else self._find(flow)
        if held is None:
            return
        there = passage.leg == "there"
        kinds: list[Literal["dnat", "snat"]] = ["dnat"] if held.status & conntrack_events.DESTINATION_NAT else []
        kinds += ["snat"] if held.status & conntrack_events.SOURCE_NAT else []
        yield Translation(
            seconds=0.0, place=passage.place, leg=passage.leg, before=_flow(held.original if there else held.reply),
            after=_flow((held.reply if there else held.original).reversed), protocol=headers.protocol,
            kinds=tuple(kinds), new=there and any(each.event == "new" and each.id == held.id for each in told),
        )  # fmt: skip

    def _find(self, flow: Tuple) -> Tracked | None:
        try:
            return self._watcher.sources.connection(self._place.netns, flow)
        except KernelError:  # a kernel without conntrack
            return None

    def _balanced(self, passage: Passage) -> Iterator[Balanced]:
        held = self._watcher.sources.balanced(self._place.netns)
        if held and passage.leg == "there":
            from netemu.observe.trace.ipvs import balanced

            yield from balanced(self._place.netns, passage, held)


# --- pure ------------------------------------------------------------------------------------------------------------


def routed_before(passage: Passage) -> dict[int, Run | None]:
    """Before which of its runs the packet was routed, and the run that shows where it went then, if one does.

    What came in is routed behind hook prerouting; what begins here before all hooks, and anew where rules of output
    have changed where it goes.
    """
    runs = passage.runs
    if passage.entry:
        inner = next((i for i, run in enumerate(runs) if RANKS[run.hook] > RANKS["prerouting"]), len(runs))
        return {inner: runs[inner] if inner < len(runs) else None}
    first = passage.headers.destination if passage.headers else ""
    elsewhere = next((i for i, run in enumerate(runs) if run.headers.destination != first), None)
    return {0: None} if elsewhere is None else {0: None, elsewhere: runs[elsewhere]}


def balancing_run(passage: Passage) -> int:
    """Behind which run IPVS works: the last of hook input, for what begins here of hook output; -1: there is none."""
    hook = "input" if passage.entry else "output"
    return max((i for i, run in enumerate(passage.runs) if run.hook == hook), default=-1)


def looked_up(rule: nft.Rule) -> Iterator[tuple[nft.Key, str, Literal["map", "set"]]]:
    """Key, name and kind of each set and map that a rule found something in, if it acted."""
    for expression in rule.expressions:
        if isinstance(expression, nft.Vmap | nft.DnatMap) and expression.map:
            yield expression.key, expression.map, "map"
        elif isinstance(expression, nft.Lookup) and not expression.negated:
            yield expression.key, expression.set, "set"


def _value(part: nft.KeyPart, hit: RuleHit, run: Run) -> nft.Value | None:
    """What the packet has where a key asks; None for what no packet has."""
    headers = run.headers
    protocol = {"icmpv6": "ipv6-icmp"}.get(headers.protocol, headers.protocol)
    values: dict[nft.KeyPart, nft.Value] = {
        Field.IP_SADDR: headers.source, Field.IP6_SADDR: headers.source, Field.IP_DADDR: headers.destination,
        Field.IP6_DADDR: headers.destination, Field.L4PROTO: protocol, Field.TH_SPORT: headers.source_port,
        Field.TH_DPORT: headers.port, Field.TCP_DPORT: headers.port, Field.UDP_DPORT: headers.port,
        Field.MARK: hit.mark, Field.IIFNAME: run.in_link, Field.OIFNAME: run.out_link,
    }  # fmt: skip
    return values.get(part)


def _refused(found: Sequence[Event]) -> bool:
    last = next((event for event in reversed(found) if isinstance(event, RuleHit)), None)
    return bool(last and last.verdict in _REFUSING)


def translated(found: Sequence[Event]) -> list[str]:
    """The destination that the last rule gave, or those it drew lots for, of a packet that no later witness saw."""
    for event in reversed(found):
        if isinstance(event, RuleHit) and (match := _DNAT_TARGET.search(event.text)):
            return [match[1]]
        if isinstance(event, RuleHit) and "dnat" in event.text and (lots := _DNAT_MAP.findall(event.text)):
            return [str(lot) for lot in lots]
    return []


def _tuple(headers: Headers) -> Tuple:
    port = headers.source_port if headers.protocol.startswith("icmp") else headers.port
    return Tuple(headers.protocol, headers.source, headers.source_port, headers.destination, port)


def _flow(held: Tuple) -> Flow:
    port = 0 if held.protocol.startswith("icmp") else held.port
    return Flow(held.source, held.source_port, held.destination, port)
