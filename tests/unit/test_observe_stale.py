"""Which conntrack entries lead where a Service does not lead any more."""

from __future__ import annotations

import pytest

from netemu.kernel.conntrack_events import Tracked, Tuple
from netemu.observe.conntrack.stale import stale_entries
from netemu.observe.names import NODE, POD, Party, names_of
from tests.unit.proxy_world import endpoint_slice, service

CLIENT, VIP = "10.180.0.9", "172.30.0.53"
SERVICES = [
    service("kube-system/dns", VIP, ports={"dns": "53/UDP", "dns-tcp": 53}, type="NodePort", node_ports={"dns": 30053}),
    service("default/empty", "172.30.0.17", ports={"": "80/UDP"}),
]
AT = [["10.180.0.53", "a"], ["10.180.1.53", "b", "ended"], ["10.180.2.53", "c", "ending"]]
SLICES = [endpoint_slice("kube-system/dns", AT, {"dns": "53/UDP", "dns-tcp": 53})]
NAMES = names_of(
    [("10.180.0.53", Party(POD, "kube-system/dns-1", "a")), ("10.180.1.53", Party(POD, "kube-system/dns-2", "b")),
     ("192.168.0.2", Party(NODE, "a"))],
    SERVICES,
)  # fmt: skip


def entry(to: str, by: str, *, protocol: str = "udp", port: int = 53, state: str = "", back: int = 53) -> Tracked:
    """A client's connection to an address, answered by another."""
    there, reply = Tuple(protocol, CLIENT, 40000, to, port), Tuple(protocol, by, back, CLIENT, 40000)
    return Tracked("new", 1, there, reply, 0, state)


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (entry(VIP, "10.180.0.53"), ""),
        (entry(VIP, "10.180.2.53"), ""),
        (entry(VIP, "10.180.77.77"), "it leads to 10.180.77.77:53, which is no endpoint any more"),
        (entry(VIP, "10.180.0.53", back=54), "it leads to kube-system/dns-1:54 (10.180.0.53:54), which is no endpoint "
                                             "any more"),
        (entry(VIP, "10.180.1.53"), "it leads to kube-system/dns-2:53 (10.180.1.53:53), which is not ready any more"),
        (entry(VIP, VIP), "it is not translated: the Service had no endpoints when it was made"),
        (entry("192.168.0.2", "192.168.0.2", port=30053, back=30053), "it is not translated: the Service had no "
                                                                      "endpoints when it was made"),
        (entry("172.30.0.17", "172.30.0.17", port=80, back=80), ""),
        (entry(VIP, "10.180.1.53", protocol="tcp", state="ESTABLISHED"), ""),
        (entry(VIP, "10.180.77.77", protocol="tcp", state="ESTABLISHED"), "it leads to 10.180.77.77:53, which is no "
                                                                          "endpoint any more"),
        (entry(VIP, "10.180.77.77", protocol="tcp", state="TIME_WAIT"), ""),
        (entry("203.0.113.1", "203.0.113.1"), ""),
    ],
)  # fmt: skip
def test_an_entry_is_stale_where_its_service_leads_elsewhere_now(held: Tracked, why: str) -> None:
    found = stale_entries([("a", held)], NAMES, SLICES)

    assert [each.why for each in found] == ([why] if why else [])


def test_a_stale_entry_is_told_with_its_node_and_service_port() -> None:
    lost = entry(VIP, "10.180.77.77")

    (found,) = stale_entries([("a", entry(VIP, "10.180.0.53")), ("b", lost)], NAMES, SLICES)

    assert (found.node, found.entry, found.service) == ("b", lost, "kube-system/dns:dns")
