"""The contract of `Ipset`, on the kernel; the ipset tool is the judge of what is there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from netemu.kernel import netns
from netemu.kernel.ipset import Add, Create, Entry, Ipset, IpsetNetlink, Request, SetSpec
from netemu.kernel.iptables import IptablesTool
from netemu.model.errors import KernelError, KernelNotFound
from tests.unit.ipset_contract import BEHAVIOUR, KEPT, REFUSED, check_held, check_kept, check_refusal, filled

NAMESPACE = "t-kernel-ipset"


@pytest.fixture
def kernel() -> Iterator[IpsetNetlink]:
    netns.delete(NAMESPACE)
    netns.create(NAMESPACE)
    opened = IpsetNetlink(NAMESPACE)
    try:
        yield opened
    finally:
        opened.close()
        netns.delete(NAMESPACE)


@pytest.mark.parametrize(("request_", "error"), REFUSED)
def test_refuses(kernel: IpsetNetlink, request_: Request, error: type[KernelError]) -> None:
    check_refusal(kernel, request_, error)


@pytest.mark.parametrize(("name", "given", "shown"), KEPT)
def test_keeps(kernel: IpsetNetlink, name: str, given: str, shown: str) -> None:
    check_kept(kernel, name, given, shown)


@pytest.mark.parametrize("check", BEHAVIOUR)
def test_behaves(kernel: IpsetNetlink, check: Callable[[Ipset], None]) -> None:
    check(kernel)


async def test_rules_hold_sets(kernel: IpsetNetlink) -> None:
    filled(kernel)
    tool = IptablesTool("iptables", NAMESPACE)
    await tool.restore("*filter\n-A INPUT -m set --match-set WEB dst,dst -j ACCEPT\nCOMMIT\n")

    check_held(kernel)


def test_the_tool_prints_the_entries_as_they_are_written_here(kernel: IpsetNetlink) -> None:
    texts = ["10.0.0.1,tcp:80,192.0.2.0/24", "10.0.0.1,udp:53,192.0.2.9", "10.0.0.2,sctp:9,198.51.100.0/25"]
    kernel.apply(Create(SetSpec("NETS", "hash:ip,port,net")), *(Add("NETS", Entry.parse(text)) for text in texts))

    saved = subprocess.run(
        ["ip", "netns", "exec", NAMESPACE, "ipset", "save", "-sorted"], capture_output=True, text=True, check=True
    ).stdout

    assert [line.removeprefix("add NETS ") for line in saved.splitlines()[1:]] == texts


def test_sets_of_other_namespaces_are_not_seen(kernel: IpsetNetlink) -> None:
    filled(kernel)
    netns.create(f"{NAMESPACE}-2")
    there = IpsetNetlink(f"{NAMESPACE}-2")
    try:
        assert there.names() == []
        with pytest.raises(KernelNotFound):
            there.get("WEB")
    finally:
        there.close()
        netns.delete(f"{NAMESPACE}-2")
