"""From frames, traces and logs, each in its own order, to one row of events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from netemu.kernel.nflog import Logged
from netemu.kernel.nft_trace import TABLE, Step
from netemu.kernel.tap import Frame
from netemu.observe.trace.compose import Sending, compose
from netemu.observe.trace.evidence import Event, Evidence, Hook, Leg, Packet, Protocol, Routed, RuleHit, Watched
from netemu.observe.trace.headers import craft
from netemu.observe.trace.passages import Base, ChainKey, Legs, Passage, Seen, crossings, passages

SECRET = b"netemu's own bytes"
ETHERNET = bytes(12) + b"\x08\x00"
CLIENT, SERVICE, SERVER, NODE = "10.0.0.1", "10.96.0.1", "10.0.0.2", "10.0.0.254"
PORT = 61001
LINKS = {1: "lo", 2: "veth1", 3: "eth0"}
HOOKS: dict[str, tuple[Hook, int]] = {
    "pre": ("prerouting", -100), "in": ("input", 0), "fwd": ("forward", 0), "out": ("output", -100),
    "post": ("postrouting", 100),
}  # fmt: skip
BASES: dict[ChainKey, Base] = {("ip", "t", chain): Base(*where) for chain, where in HOOKS.items()}
BASES |= {("ip", TABLE, hook): Base(hook, -310) for hook in ("prerouting", "output")}
BASES["ip", TABLE, "postrouting"] = Base("postrouting", 300)


def sent(source: str = CLIENT, to: str = SERVICE, port: int = PORT, protocol: Protocol = "tcp") -> bytes:
    """The packet, with these addresses now."""
    return craft(Packet(source=source, destination=to, source_port=port, port=80, protocol=protocol), SECRET).data


def answered(source: str = SERVICE, to: str = CLIENT, port: int = PORT) -> bytes:
    """A SYN-ACK to it."""
    data = craft(Packet(source=source, destination=to, source_port=80, port=port), b"xxxxyyyy").data
    sequence = (int.from_bytes(SECRET[:4], "big") + 1).to_bytes(4, "big")
    return data[:28] + sequence + bytes((0x60, 0x12)) + data[34:]


def legs(protocol: Protocol = "tcp") -> Legs:
    packet = Packet(source=CLIENT, destination=SERVICE, source_port=PORT, port=80, protocol=protocol)
    return Legs(craft(packet, SECRET).signature, CLIENT, PORT)


@dataclass
class Place:
    """Writes down what the kernel would tell of a place; time goes on with every frame."""

    name: str
    ports: frozenset[str] = frozenset()
    seen: Seen = field(init=False)
    clock: list[int] = field(default_factory=lambda: [1000])

    def __post_init__(self) -> None:
        self.seen = Seen(self.name, LINKS, self.ports)

    def frame(self, link: str, direction: Literal["in", "out"], packet: bytes) -> None:
        self.clock[0] += 1000
        self.seen.frames.append(Frame(self.clock[0], link, direction == "out", ETHERNET + packet))

    def chain(self, chain: str, packet: bytes, *, came: int = 0, goes: int = 0, id: int = 1, handle: int = 7) -> None:
        """A base chain of table t in which one rule acted, or one of our own."""
        table = TABLE if chain in ("prerouting", "output", "postrouting") else "t"
        rule = Step(id, "rule", "ip", table, chain, handle, "continue", "", 0, came, goes, packet)
        policy = Step(id, "policy", "ip", table, chain, 0, "accept", "", 0, 0, 0, b"")
        self.seen.steps += [rule, policy]

    def log(self, where: str, hook: str, packet: bytes, *, came: int = 0, goes: int = 0) -> None:
        self.seen.logged.append(Logged(f"TRACE: {where} ", hook, 0, came, goes, packet))

    def passages(self, legs: Legs) -> list[Passage]:
        return passages(self.seen, crossings([self.seen], legs), BASES, legs)


def ways(found: list[Passage]) -> list[tuple[Leg, str, str, list[str]]]:
    """Leg, link in, link out, and the chains of each passage, without our own."""
    return [
        (
            passage.leg, passage.entry.link if passage.entry else "", passage.exit.link if passage.exit else "",
            [hit.chain for run in passage.runs for hit in run.hits if not hit.policy],
        )
        for passage in found
    ]  # fmt: skip


def test_rules_of_both_kinds_stand_in_the_order_of_their_priorities() -> None:
    place = Place("node")
    translated = sent(to=SERVER)
    place.frame("veth1", "in", sent())
    place.chain("prerouting", sent(), came=2)
    place.chain("pre", sent(), came=2)
    place.chain("fwd", translated, came=2, goes=3)
    place.log("mangle:PREROUTING:rule:1", "prerouting", sent(), came=2)
    place.log("mangle:PREROUTING:policy:2", "prerouting", sent(), came=2)
    place.log("nat:OWN:return:3", "prerouting", sent(), came=2)
    place.log("filter:FORWARD:rule:4", "forward", translated, came=2, goes=3)
    place.frame("eth0", "out", translated)

    (passage,) = place.passages(legs())
    assert ways([passage]) == [("there", "veth1", "eth0", ["PREROUTING", "pre", "fwd", "FORWARD"])]
    assert passage.headers is not None
    assert (passage.headers.destination, passage.runs[-1].headers.destination) == (SERVICE, SERVER)
    assert [hit.number for run in passage.runs for hit in run.hits if hit.backend == "iptables-legacy"] == [1, 0, 4]


def test_ipvs_sends_on_from_input_through_output_in_one_passage() -> None:
    place = Place("node")
    place.frame("veth1", "in", sent())
    place.chain("prerouting", sent(), came=2)
    place.chain("in", sent(), came=2)
    place.chain("output", sent(to=SERVER), goes=3)
    place.chain("out", sent(to=SERVER), goes=3)
    place.chain("post", sent(to=SERVER), goes=3)
    place.frame("eth0", "out", sent(to=SERVER))

    assert ways(place.passages(legs())) == [("there", "veth1", "eth0", ["in", "out", "post"])]


def test_what_a_place_sends_to_itself_passes_twice() -> None:
    place = Place("node")
    place.chain("output", sent(), goes=1)
    place.chain("out", sent(), goes=1)
    place.chain("post", sent(to=SERVER), goes=1)
    place.frame("lo", "out", sent(to=SERVER))
    place.frame("lo", "in", sent(to=SERVER))
    place.chain("prerouting", sent(to=SERVER), came=1, id=2)
    place.chain("pre", sent(to=SERVER), came=1, id=2)
    place.chain("in", sent(to=SERVER), came=1, id=2)

    assert ways(place.passages(legs())) == [("there", "", "lo", ["out", "post"]), ("there", "lo", "", ["pre", "in"])]


def test_a_hairpin_leaves_by_the_link_it_came_by_and_so_does_its_answer() -> None:
    place = Place("node")
    masqueraded = sent(source=NODE, to=CLIENT, port=40000)
    place.frame("veth1", "in", sent())
    place.chain("prerouting", sent(), came=2)
    place.chain("pre", sent(), came=2)
    place.chain("post", masqueraded, came=2, goes=2)
    place.frame("veth1", "out", masqueraded)
    back = answered(source=CLIENT, to=NODE, port=40000)
    place.frame("veth1", "in", back)
    place.chain("prerouting", back, came=2, id=2)
    place.chain("fwd", answered(source=CLIENT), came=2, goes=2, id=2)
    place.frame("veth1", "out", answered())

    assert ways(place.passages(legs())) == [
        ("there", "veth1", "veth1", ["pre", "post"]), ("back", "veth1", "veth1", ["fwd"]),
    ]  # fmt: skip


def test_the_answer_to_a_datagram_is_known_by_the_address_it_was_sent_from_last() -> None:
    place = Place("node")
    place.frame("veth1", "in", sent(protocol="udp"))
    place.frame("eth0", "out", sent(source=NODE, to=SERVER, port=40000, protocol="udp"))
    to_node = Packet(source=SERVER, destination=NODE, source_port=80, port=40000, protocol="udp", payload=b"hello")
    # An echo repeats the packet, to the last byte.
    echo = Packet(source=SERVICE, destination=CLIENT, source_port=80, port=PORT, protocol="udp", payload=SECRET)
    place.frame("eth0", "in", craft(to_node, SECRET).data)
    place.frame("veth1", "out", craft(echo, SECRET).data)
    other = Packet(source=SERVER, destination=NODE, source_port=80, port=40001, protocol="udp", payload=b"somebody's")
    place.frame("eth0", "in", craft(other, SECRET).data)

    assert ways(place.passages(legs("udp"))) == [("there", "veth1", "eth0", []), ("back", "eth0", "veth1", [])]


def test_an_error_belongs_to_the_packet_that_it_quotes() -> None:
    def error(about: bytes) -> bytes:
        outer = craft(Packet(source=NODE, destination=CLIENT, protocol="icmp", source_port=1), b"x").data
        return outer[:20] + bytes((3, 3, 0, 0, 0, 0, 0, 0)) + about

    place = Place("node")
    place.frame("veth1", "in", sent())
    place.frame("veth1", "out", error(sent()))
    theirs = craft(Packet(source=CLIENT, destination=SERVICE, source_port=PORT, port=80), b"their own").data
    place.frame("veth1", "out", error(theirs))

    first, *others = crossings([place.seen], legs())
    assert first.leg == "there"
    assert [(each.leg, each.headers.what) for each in others] == [("back", "port unreachable")]


def test_on_the_ports_of_a_bridge_frames_only_come_by() -> None:
    place = Place("underlay", ports=frozenset({"veth1", "eth0"}))
    place.frame("veth1", "in", sent())
    place.frame("eth0", "out", sent())

    found = place.passages(legs())
    assert [(passage.bridged, way[1:3]) for passage, way in zip(found, ways(found), strict=True)] == [
        (True, ("veth1", "")), (True, ("", "eth0")),
    ]  # fmt: skip


# --- one row ---------------------------------------------------------------------------------------------------------


def route(place: str = "server", leg: Leg = "there", **fields: Any) -> Routed:
    return Routed(seconds=0.0, place=place, leg=leg, destination=SERVER, **fields)


def row(*places: Place, notes: dict[str, list[Event]], refusal: str = "") -> Evidence:
    """The evidence; `notes` are what each passage of a place has between its frames."""
    which = legs()
    crossed = crossings([place.seen for place in places], which)
    noted = [
        (passage, [note for note in notes.get(place.name, []) if note.leg == passage.leg])
        for place in places
        for passage in passages(place.seen, crossed, BASES, which)
    ]
    packet = Packet(source=CLIENT, destination=SERVICE, source_port=PORT, port=80)
    return compose(Sending(packet, Watched("client", ""), 1e-6, refusal), crossed, noted, 0)


def ends(evidence: Evidence) -> list[tuple[str, str]]:
    return [(event.by, event.detail) for event in evidence.events if type(event).__name__ == "Dropped"]  # type: ignore[union-attr]


def pair() -> tuple[Place, Place]:
    """A client and a server with one clock."""
    client, server = Place("client"), Place("server")
    server.clock = client.clock
    return client, server


def test_what_happened_stands_behind_the_frame_that_came_and_before_the_one_that_began() -> None:
    client, server = pair()
    client.frame("eth0", "out", sent())
    server.frame("eth0", "in", sent())
    server.frame("eth0", "out", answered())
    client.frame("eth0", "in", answered())
    evidence = row(
        client, server,
        notes={
            "client": [route("client", "there", type="unicast"), route("client", "back", type="local")],
            "server": [route("server", "there", type="local"), route("server", "back", type="unicast")],
        },
    )  # fmt: skip

    told = [(type(event).__name__, event.place, event.leg) for event in evidence.events]
    assert told == [
        ("Routed", "client", "there"), ("Crossing", "client", "there"),
        ("Crossing", "server", "there"), ("Routed", "server", "there"),
        ("Routed", "server", "back"), ("Crossing", "server", "back"),
        ("Crossing", "client", "back"), ("Routed", "client", "back"),
    ]  # fmt: skip
    assert evidence.reached == "server"
    assert evidence.answer is not None
    assert evidence.answer.what == "SYN-ACK"
    assert round(evidence.seconds * 1e6) == 4
    assert ends(evidence) == []


def test_a_frame_that_nobody_gets_was_lost_on_the_link() -> None:
    client, _ = pair()
    client.frame("eth0", "out", sent())
    evidence = row(client, notes={})

    assert ends(evidence) == [("link", "it left through eth0 and was not seen again")]
    assert evidence.answer is None
    assert evidence.reached == ""


def test_an_answer_shows_that_a_frame_has_arrived_where_nobody_watches() -> None:
    client, _ = pair()
    client.frame("eth0", "out", sent())
    client.frame("eth0", "in", answered())
    evidence = row(client, notes={"client": [route("client", "back", type="local")]})

    assert ends(evidence) == []
    assert evidence.answer is not None


def test_a_bridge_that_does_not_pass_a_frame_on() -> None:
    client, switch = pair()
    switch.seen.ports = frozenset({"veth1"})
    client.frame("eth0", "out", sent())
    switch.frame("veth1", "in", sent())
    evidence = row(client, switch, notes={})

    assert ends(evidence) == [("link", "the bridge that has veth1 did not pass it on and was not seen again")]


def hit(verdict: str, *, policy: bool = False, text: str = "") -> RuleHit:
    return RuleHit(
        seconds=0.0, place="server", leg="there", backend="nft", family="ip", table="t", chain="in", verdict=verdict,
        hook="input", handle=7, policy=policy, text=text,
    )  # fmt: skip


def test_where_a_packet_ends_is_told_by_what_ended_it() -> None:
    cases: list[tuple[list[Event], tuple[str, str], bool]] = [
        ([hit("drop")], ("rule", "rule with handle 7 of chain in, table ip t"), False),
        ([hit("drop", text="reject")], ("rule", "rule with handle 7 of chain in, table ip t"), True),
        ([hit("drop", policy=True)], ("policy", "policy of chain in, table ip t"), False),
        ([route(error="gone")], ("route", "gone"), False),
        (
            [route(type="unicast", out_link="e", mtu=20)],
            ("link", "44 bytes are more than the MTU of e, 20"), False,
        ),
        ([], ("unknown", ""), False),
    ]  # fmt: skip
    for notes, expected, rejected in cases:
        client, server = pair()
        client.frame("eth0", "out", sent())
        server.frame("eth0", "in", sent())
        evidence = row(client, server, notes={"server": notes})

        assert ends(evidence) == [expected]
        assert evidence.events[-1].rejected == rejected  # type: ignore[union-attr]
        assert evidence.reached == ""


@pytest.mark.parametrize(("refusal", "by"), [("Network is unreachable", "route"), ("Message too long", "link")])
def test_what_the_sender_is_refused_at_once_is_the_end(refusal: str, by: str) -> None:
    assert ends(row(Place("client"), notes={}, refusal=refusal)) == [(by, refusal)]
