"""One world with every feature on, programmed into a kernel; what the kernel's own tools print is the golden dump."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from netemu.kernel import netns
from netemu.kernel.iptables import parse_save
from netemu.kernel.ipvs import IpvsNetlink
from netemu.observe.rules.check import findings
from netemu.observe.rules.read import read_rules
from netemu.observe.rules.walk import of_service
from netemu.observe.rules.words import Words
from netemu.proxy.modes import Site, mode_of
from netemu.proxy.services import Family
from netemu.proxy.tracker import Tracker
from tests.kernel.proxy_bed import configuration, sh
from tests.unit.ipvs_dump import dump, sort_saved, sort_servers
from tests.unit.ipvs_world import OWN
from tests.unit.proxy_world import DATA, NODE, world
from tests.unit.rules_world import SERVICES, SLICES, TEST_NODE, world_names, world_rules

PLACE = "t-vm-golden"


@pytest.fixture(autouse=True)
def place() -> Iterator[None]:
    """A node without anything but its addresses."""
    netns.delete(PLACE)
    netns.create(PLACE)
    sh(PLACE, "ip", "link", "set", "lo", "up")
    sh(PLACE, "ip", "link", "add", "eth0", "type", "dummy")
    for address in OWN:
        sh(PLACE, "ip", "addr", "add", address, "dev", "eth0")
    try:
        yield
    finally:
        netns.delete(PLACE)


def printed() -> str:
    """What the kernel holds, by its tools."""
    tables = parse_save(sh(PLACE, "iptables-save"))
    kernel = IpvsNetlink(PLACE)
    try:
        seconds = {(s.key.protocol, s.key.address, s.key.port): s.persistence for s in kernel.servers()}
    finally:
        kernel.close()
    link = sh(PLACE, "ip", "-o", "-4", "addr", "show", "dev", "kube-ipvs0")
    return dump(
        sort_saved(sh(PLACE, "ipset", "save")),
        sort_servers(sh(PLACE, "cat", "/proc/net/ip_vs"), seconds),
        tables,
        re.findall(r"inet (\S+)/32", link),
    )


async def test_a_kernel_holds_the_golden_dump(tmp_path: Path) -> None:
    tracker = Tracker(Family.IPV4, "test-node")
    services, slices = world()
    for service in services:
        tracker.service_changed(None, service)
    for piece in slices:
        tracker.slice_changed(None, piece)
    tracker.take()
    programmer = await mode_of("ipvs").programmer(
        configuration(mode="ipvs"), Family.IPV4, Site(PLACE, tmp_path / "lock")
    )
    await programmer.program(tracker.table, NODE, None)

    assert printed().splitlines() == (DATA / "ipvs-world.dump").read_text().splitlines()
    rules, told = await read_rules(PLACE, world_names()), await asyncio.to_thread(world_rules, "ipvs")
    off = findings(rules, TEST_NODE, SERVICES, SLICES, Words(world_names()))
    assert (rules.mode, off) == ("ipvs", [])
    for service in SERVICES:
        here = [each.line.sentence for each in of_service(rules, service.key)]
        assert sorted(here) == sorted(each.line.sentence for each in of_service(told, service.key))
