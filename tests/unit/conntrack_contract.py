"""The contract of `Conntrack`: what is listed, and what forgetting does. Run on the fake and on the kernel."""

from __future__ import annotations

from typing import Protocol

import pytest

from netemu.kernel.conntrack import Conntrack, Flow

Target = tuple[str, int]


class Wires(Protocol):
    """Something that tracks connections, with a sender in front of it."""

    @property
    def table(self) -> Conntrack: ...

    def translate(self, protocol: str, to: Target, end: Target) -> None:
        """From now on, new flows to `to` are sent on to `end` instead."""
        ...

    def send(self, protocol: str, source: Target, to: Target) -> None:
        """One packet."""
        ...


ADDRESSES = {
    False: ("10.9.0.1", "10.9.0.5", "10.9.0.6", "10.9.0.9"),
    True: ("fd00:9::1", "fd00:9::5", "fd00:9::6", "fd00:9::9"),
}
"""By family (is it IPv6?): a sender, two endpoints and the address of a Service."""


class Scene:
    """Names for the addresses of one family, and a port of the Service that leads to the first endpoint."""

    def __init__(self, wires: Wires, ipv6: bool, protocol: str = "udp") -> None:
        self.wires, self.ipv6, self.protocol = wires, ipv6, protocol
        sender, one, other, service = ADDRESSES[ipv6]
        self.sender, self.one, self.other, self.service = (sender, 4444), (one, 5353), (other, 5353), (service, 53)
        wires.translate(protocol, self.service, self.one)
        wires.send(protocol, self.sender, self.service)

    def flow(self, end: Target) -> Flow:
        """What is expected of the sender's flow."""
        return Flow(self.protocol, *self.sender, *self.service, *end)

    def held(self, protocol: str = "udp") -> list[Flow]:
        return self.wires.table.flows(protocol, ipv6=self.ipv6)

    def forget(self, *flows: Flow) -> int:
        return self.wires.table.delete(flows, ipv6=self.ipv6)


def a_flow_is_told_with_where_it_was_sent_and_where_it_went(wires: Wires, ipv6: bool) -> None:
    scene = Scene(wires, ipv6)

    assert scene.held() == [scene.flow(scene.one)]


def a_flow_that_no_rule_is_about_ends_where_it_was_sent(wires: Wires, ipv6: bool) -> None:
    scene = Scene(wires, ipv6)
    wires.send("udp", scene.sender, scene.other)

    assert Flow("udp", *scene.sender, *scene.other, *scene.other) in scene.held()


def protocols_and_families_are_told_apart(wires: Wires, ipv6: bool) -> None:
    scene = Scene(wires, ipv6, "tcp")

    assert scene.held("udp") == []
    assert scene.held("tcp") == [scene.flow(scene.one)]
    assert wires.table.flows("tcp", ipv6=not ipv6) == []


def a_flow_keeps_its_way_until_it_is_forgotten(wires: Wires, ipv6: bool) -> None:
    scene = Scene(wires, ipv6)
    wires.translate("udp", scene.service, scene.other)
    wires.send("udp", scene.sender, scene.service)
    before = scene.held()

    assert scene.forget(*before) == 1
    assert scene.held() == []

    wires.send("udp", scene.sender, scene.service)
    assert (before, scene.held()) == ([scene.flow(scene.one)], [scene.flow(scene.other)])


def others_are_left_alone(wires: Wires, ipv6: bool) -> None:
    scene = Scene(wires, ipv6)
    wires.send("udp", (scene.sender[0], 4445), scene.service)
    (first,) = [flow for flow in scene.held() if flow.source_port == 4444]

    assert scene.forget(first) == 1
    assert [flow.source_port for flow in scene.held()] == [4445]


def what_is_gone_already_is_no_error_and_not_counted(wires: Wires, ipv6: bool) -> None:
    scene = Scene(wires, ipv6)
    held = scene.held()
    scene.forget(*held)

    assert scene.forget(*held) == 0


CONTRACT = pytest.mark.parametrize(
    "check",
    [
        a_flow_is_told_with_where_it_was_sent_and_where_it_went,
        a_flow_that_no_rule_is_about_ends_where_it_was_sent,
        protocols_and_families_are_told_apart,
        a_flow_keeps_its_way_until_it_is_forgotten,
        others_are_left_alone,
        what_is_gone_already_is_no_error_and_not_counted,
    ],
)
FAMILIES = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
