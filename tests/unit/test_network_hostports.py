"""Host ports as elements of a table, on a fake of nf_tables."""

from __future__ import annotations

import pytest

from netemu.kubelet.sandbox import host_ports
from netemu.model import nft
from netemu.model.meta import decode
from netemu.model.pods import Pod
from netemu.network.hostports import HostPort, HostPorts
from netemu.testing.nftables import FakeNft

WEB = HostPort("", "tcp", 8080, 80)
IP, IP6 = nft.Table("ip", "cni_hostport"), nft.Table("ip6", "cni_hostport")


async def held(kernel: FakeNft, table: nft.Table = IP) -> set[tuple[str, nft.Values, object]]:
    """Set, key and data of what is programmed."""
    found = await kernel.dump(table)
    return {(each.set, each.key, each.data) for each in found.elements} if found else set()


async def test_a_port_of_every_address_leads_to_the_pod() -> None:
    kernel = FakeNft()
    await HostPorts(lambda: kernel).add([WEB], ["10.244.1.2"])

    assert await held(kernel) == {
        ("hostports", ("tcp", 8080), ("10.244.1.2", 80)), ("hairpin", ("10.244.1.2", "10.244.1.2"), None),
    }  # fmt: skip


async def test_one_number_serves_three_pods_that_differ_in_address_or_protocol() -> None:
    kernel = FakeNft()
    ports = HostPorts(lambda: kernel)
    await ports.add([WEB], ["10.244.1.2"])
    await ports.add([HostPort("172.18.0.3", "tcp", 8080, 80)], ["10.244.1.3"])
    await ports.add([HostPort("", "udp", 8080, 53)], ["10.244.1.4"])

    assert {item for item in await held(kernel) if item[0] != "hairpin"} == {
        ("hostports", ("tcp", 8080), ("10.244.1.2", 80)),
        ("hostip_hostports", ("172.18.0.3", "tcp", 8080), ("10.244.1.3", 80)),
        ("hostports", ("udp", 8080), ("10.244.1.4", 53)),
    }


async def test_both_families_of_a_pod_and_addresses_of_one() -> None:
    kernel = FakeNft()
    await HostPorts(lambda: kernel).add([WEB, HostPort("fd00::3", "tcp", 90, 90)], ["10.244.1.2", "fd00::2"])

    assert ("hostports", ("tcp", 8080), ("10.244.1.2", 80)) in await held(kernel)
    assert {item for item in await held(kernel, IP6) if item[0] != "hairpin"} == {
        ("hostports", ("tcp", 8080), ("fd00::2", 80)), ("hostip_hostports", ("fd00::3", "tcp", 90), ("fd00::2", 90)),
    }  # fmt: skip


async def test_what_a_pod_had_goes_with_it_also_after_a_restart() -> None:
    kernel = FakeNft()
    await HostPorts(lambda: kernel).add([WEB], ["10.244.1.2"])
    await HostPorts(lambda: kernel).add([HostPort("", "tcp", 9090, 80)], ["10.244.1.3"])
    await HostPorts(lambda: kernel).delete(["10.244.1.2"])

    assert {item[1] for item in await held(kernel)} == {("tcp", 9090), ("10.244.1.3", "10.244.1.3")}


async def test_a_port_that_leads_to_a_pod_that_is_no_more_is_taken_over() -> None:
    kernel = FakeNft()
    await HostPorts(lambda: kernel).add([WEB], ["10.244.1.2"])
    await HostPorts(lambda: kernel).add([WEB], ["10.244.1.9"])

    assert ("hostports", ("tcp", 8080), ("10.244.1.9", 80)) in await held(kernel)


async def test_a_node_without_host_ports_has_no_table() -> None:
    kernel = FakeNft()
    await HostPorts(lambda: kernel).delete(["10.244.1.2", "fd00::2"])

    assert await kernel.dump(IP) is None
    assert await kernel.dump(IP6) is None


@pytest.mark.parametrize(
    ("port", "wanted"),
    [
        ({"containerPort": 80}, []),
        ({"containerPort": 80, "hostPort": 8080}, [WEB]),
        ({"containerPort": 80, "hostPort": 8080, "hostIP": "0.0.0.0"}, [WEB]),
        (
            {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "172.18.0.3"},
            [HostPort("172.18.0.3", "udp", 53, 53)],
        ),
    ],
)
def test_what_a_container_asks_for(port: dict[str, object], wanted: list[HostPort]) -> None:
    containers = [{"name": "c", "image": "i", "ports": [port]}]
    pod = decode({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": containers}}, Pod)

    assert host_ports(pod) == wanted
