"""From what the kernel told, place by place, to what happened, in order. Pure.

Theory of operation: a passage is one way of a packet through the network stack of a place: in on a link or begun there,
through hooks, out on a link or taken in. Three witnesses tell of it, each in its own order: frames, with the time; the
trace of nf_tables; the log of x_tables, neither with a time. The two last are cut into passages where the hooks begin
anew, which our own chains at the beginning of prerouting and output make plain, and a passage goes with the frame that
came in on the link where its rules saw the packet come in. So rules get the time of the frame before them (behind the
one before, where the packet began there), and their own order.

IPVS sends on from hook input through hook output, so output does not begin a passage that is in input.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast

from msgspec import Struct, field

from netemu.kernel.nflog import Logged
from netemu.kernel.nft_trace import TABLE, Step
from netemu.kernel.signature import Signature
from netemu.kernel.tap import Frame
from netemu.model.protocols import UDP
from netemu.observe.trace.evidence import Backend, Crossing, Headers, Hook, Leg, RuleHit
from netemu.observe.trace.headers import ETHERNET, parse, parse_frame

ChainKey = tuple[str, str, str]
"""Family, table, chain."""

RANKS: Final = {"prerouting": 0, "input": 1, "forward": 1, "output": 2, "postrouting": 3}
_XTABLES_PRIORITIES: Final = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_TRACE: Final = re.compile(r"TRACE: (?P<table>[^:]+):(?P<chain>.+):(?P<kind>rule|return|policy):(?P<number>\d+) ?$")
_WITHOUT_OPTIONS: Final = 0x45
_IPTABLES_TABLES: Final = frozenset(_XTABLES_PRIORITIES)


class Base(Struct, frozen=True):
    """Where a base chain hangs."""

    hook: Hook
    priority: int


class Seen(Struct):
    """What the kernel told of one place. `links` are names by index, `ports` the names of those that a bridge has."""

    place: str
    links: Mapping[int, str] = field(default_factory=dict)
    ports: frozenset[str] = frozenset()
    frames: list[Frame] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    logged: list[Logged] = field(default_factory=list)
    lost: int = 0


class Run(Struct):
    """A base chain, or a table of x_tables, has looked at the packet: what acted, in order."""

    leg: Leg
    hook: Hook
    priority: int
    in_link: str
    out_link: str
    headers: Headers
    mark: int
    backend: Backend
    hits: list[RuleHit] = field(default_factory=list)


class Passage(Struct):
    """One way of the packet through a place; without `entry` it began there, without `exit` it went nowhere else.

    On a port of a bridge (`bridged`) a frame is not the place's own: nobody asks for rules or a route, and where the
    bridge itself is meant, the frame is seen on the bridge's link once more.
    """

    place: str
    leg: Leg
    entry: Crossing | None = None
    exit: Crossing | None = None
    runs: list[Run] = field(default_factory=list)
    bridged: bool = False

    @property
    def headers(self) -> Headers | None:
        """The packet as it came, or began."""
        if self.entry:
            return self.entry.headers
        return self.runs[0].headers if self.runs else self.exit.headers if self.exit else None

    @property
    def leaving(self) -> Headers | None:
        """The packet as it went, or as it was seen last."""
        if self.exit:
            return self.exit.headers
        return self.runs[-1].headers if self.runs else self.headers

    @property
    def verdict(self) -> RuleHit | None:
        """What acted last."""
        return next((run.hits[-1] for run in reversed(self.runs) if run.hits), None)


class Legs:
    """Which packets are the one that was sent, and which answer it."""

    def __init__(self, signature: Signature, source: str, source_port: int) -> None:
        self._signature = signature
        self._talkers = {_end(source, source_port)}
        """Addresses and ports that the packet has been sent from, as packets have them."""

    def learn(self, frame: bytes) -> tuple[Headers, Leg] | None:
        """As `of`, for frames in the order of time: under which addresses the packet goes is remembered."""
        if self._others(frame) or not (headers := parse_frame(frame)):
            return None
        leg = self.of(frame[ETHERNET:], headers)
        if leg == "there":
            self._talkers.add(_end(headers.source, headers.source_port))
        return (headers, leg) if leg else None

    def of(self, packet: bytes, headers: Headers) -> Leg | None:
        """None for somebody else's packet."""
        signature, begin = self._signature, 40 if self._signature.ipv6 else 20
        if headers.about or headers.what == "echo reply":
            offset = signature.quoted_offset if headers.about else signature.offset
            quoted = packet[begin + offset :][: len(signature.value)]
            return "back" if quoted == signature.value[: len(quoted)] and self._is_mine(headers) else None
        if signature.protocol != "icmp" and _end(headers.destination, headers.port) in self._talkers:
            return "back"
        value = packet[begin + signature.offset :][: len(signature.value)]
        return "there" if value and value == signature.value[: len(value)] else None

    def _others(self, frame: bytes) -> bool:
        """Whether a frame is a datagram of others, at a glance: all datagrams of a place come by here."""
        if self._signature.protocol != "udp":
            return False
        destination, transport = (38, 54) if self._signature.ipv6 else (30, 34)
        plain = frame[20] == UDP if self._signature.ipv6 else frame[14] == _WITHOUT_OPTIONS and frame[23] == UDP
        end = frame[destination:transport] + frame[transport + 2 : transport + 4]
        value = self._signature.value
        return plain and end not in self._talkers and not frame.startswith(value, transport + self._signature.offset)

    def _is_mine(self, headers: Headers) -> bool:
        if not headers.about or not headers.about.port:
            return self._signature.protocol == "icmp"
        return _end(headers.about.source, headers.about.source_port) in self._talkers


def _end(address: str, port: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address) + port.to_bytes(2, "big")


def crossings(seen: Iterable[Seen], legs: Legs) -> list[Crossing]:
    """Every frame of the packet and its answers, in the order of time."""
    found: list[Crossing] = []
    everything = [(frame, one.place) for one in seen for frame in one.frames]
    for frame, place in sorted(everything, key=lambda entry: entry[0].nanoseconds):
        if learnt := legs.learn(frame.data):
            headers, leg = learnt
            crossing = Crossing(
                seconds=frame.seconds, place=place, leg=leg, link=frame.link,
                direction="out" if frame.outgoing else "in", headers=headers, frame=frame.data,
            )  # fmt: skip
            found.append(crossing)
    return found


def passages(seen: Seen, crossed: Iterable[Crossing], bases: Mapping[ChainKey, Base], legs: Legs) -> list[Passage]:
    """The ways of the packet and its answers through one place, in the order of time; last those without frames."""
    found = _by_frames(seen, [crossing for crossing in crossed if crossing.place == seen.place])
    for runs in (traced(seen, bases, legs), logged(seen, legs)):
        used: set[int] = set()
        for group in _groups(runs):
            _join(found, used, group, seen.place)
    for passage in found:
        # Where both kinds have rules at one hook, their priorities say who was first; equal ones keep their order.
        passage.runs.sort(key=lambda run: (RANKS[run.hook], run.priority))
    return found


def _by_frames(seen: Seen, crossed: Sequence[Crossing]) -> list[Passage]:
    found: list[Passage] = []
    waiting: dict[Leg, Passage] = {}
    for crossing in crossed:
        incoming = crossing.direction == "in"
        if crossing.link not in seen.ports and not incoming and crossing.leg in waiting:
            waiting.pop(crossing.leg).exit = crossing
            continue
        entry, exit = (crossing, None) if incoming else (None, crossing)
        passage = Passage(seen.place, crossing.leg, entry, exit, bridged=crossing.link in seen.ports)
        found.append(passage)
        if incoming and not passage.bridged:
            waiting[crossing.leg] = passage
    return found


def _groups(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs of one passage each: another one begins where the hooks do."""
    groups: list[list[Run]] = []
    current: dict[Leg, list[Run]] = {}
    for run in runs:
        last = current.get(run.leg)
        if last is None or RANKS[run.hook] < RANKS[last[-1].hook]:
            current[run.leg] = [run]
            groups.append(current[run.leg])
        else:
            last.append(run)
    return groups


def _join(found: list[Passage], used: set[int], group: list[Run], place: str) -> None:
    """Put the runs into the passage they are of: the next one that came in where they say, or began here."""
    leg = group[0].leg
    came = next((run.in_link for run in group if run.in_link), "")
    for index, passage in enumerate(found):
        entry = passage.entry.link if passage.entry else ""
        if index not in used and passage.leg == leg and entry == came and not passage.bridged:
            used.add(index)
            passage.runs += group
            return
    used.add(len(found))
    found.append(Passage(place, leg, runs=group))


# --- the witnesses that know no time ---------------------------------------------------------------------------------


def traced(seen: Seen, bases: Mapping[ChainKey, Base], legs: Legs) -> list[Run]:
    """The runs of nf_tables. Those of our own table are there too, without hits: they tell where a passage begins."""
    runs: list[Run] = []
    current: dict[int, Run] = {}
    for step in seen.steps:
        if step.packet:
            current.pop(step.id, None)
            if begun := _begun(seen, step, bases, legs):
                runs.append(begun)
                current[step.id] = begun
        run = current.get(step.id)
        acted = step.kind == "policy" or step.handle  # without a handle: the end of a chain
        if run and acted and not step.table.startswith(TABLE):
            run.hits.append(_hit(seen.place, step, run))
    return runs


def _begun(seen: Seen, step: Step, bases: Mapping[ChainKey, Base], legs: Legs) -> Run | None:
    headers = parse(step.packet)
    leg = legs.of(step.packet, headers) if headers else None
    base = bases.get((step.family, step.table, step.chain))
    if not headers or not leg or not base:
        return None
    came, goes = (seen.links.get(index, "") for index in (step.in_index, step.out_index))
    return Run(leg, base.hook, base.priority, came, goes, headers, step.mark, _backend(step))


def _backend(step: Step) -> Backend:
    """iptables-nft keeps its rules in tables and base chains that are called as iptables calls them."""
    mine = step.family in ("ip", "ip6") and step.table in _IPTABLES_TABLES and step.chain.isupper()
    return "iptables-nft" if mine else "nft"


def _hit(place: str, step: Step, run: Run) -> RuleHit:
    return RuleHit(
        seconds=0.0, place=place, leg=run.leg, backend=run.backend, family=step.family, table=step.table,
        chain=step.chain, verdict=step.verdict, to=step.to, hook=run.hook, handle=step.handle,
        policy=step.kind == "policy", in_link=run.in_link, out_link=run.out_link, mark=step.mark, headers=run.headers,
    )  # fmt: skip


def logged(seen: Seen, legs: Legs) -> list[Run]:
    """The runs of x_tables: one ends with a policy, or where the next line is about another table, hook or packet."""
    runs: list[Run] = []
    before: tuple[object, ...] = ()
    for each in seen.logged:
        found, headers = _TRACE.match(each.prefix), parse(each.packet)
        leg = legs.of(each.packet, headers) if headers else None
        if not found or not headers or not leg:
            continue
        this = (leg, each.hook, found["table"], each.in_index, each.out_index)
        if this != before:
            runs.append(_logged_run(seen, each, found["table"], leg, headers))
        before = () if found["kind"] == "policy" else this
        if found["kind"] != "return":
            runs[-1].hits.append(_logged_hit(seen.place, each, found, runs[-1]))
    return runs


def _logged_run(seen: Seen, each: Logged, table: str, leg: Leg, headers: Headers) -> Run:
    priority = _XTABLES_PRIORITIES.get(table, 0)
    if table == "nat" and each.hook in ("postrouting", "input"):
        priority = -priority
    came, goes = (seen.links.get(index, "") for index in (each.in_index, each.out_index))
    return Run(leg, cast("Hook", each.hook), priority, came, goes, headers, each.mark, "iptables-legacy")


def _logged_hit(place: str, each: Logged, found: re.Match[str], run: Run) -> RuleHit:
    policy = found["kind"] == "policy"
    return RuleHit(
        seconds=0.0, place=place, leg=run.leg, backend=run.backend, family="ip6" if ":" in run.headers.source else "ip",
        table=found["table"], chain=found["chain"], verdict="", hook=run.hook,
        number=0 if policy else int(found["number"]), policy=policy, in_link=run.in_link, out_link=run.out_link,
        mark=each.mark, headers=parse(each.packet),
    )  # fmt: skip
