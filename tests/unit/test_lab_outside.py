"""The resolver outside a lab: what its Corefile makes of the clients of a topology."""

from __future__ import annotations

import msgspec
import pytest

from netemu.dns import chain, corefile, names, wire
from netemu.dns.server import Server
from netemu.dns.wire import Query
from netemu.lab.config import LabConfig, resolve
from netemu.lab.network_plan import resolvers
from netemu.lab.outside import outside_corefile
from netemu.lab.topology import ClientSpec, Metadata, Topology, TopologySpec

NAMED = (ClientSpec(name="api", names=("api.example.com", "www.example.com")), ClientSpec(name="user"))


def lab(family: str = "ipv4", clients: tuple[ClientSpec, ...] = NAMED) -> LabConfig:
    return resolve(Topology(metadata=Metadata(name="t"), spec=TopologySpec(ip_family=family, clients=clients)))


async def ask(config: LabConfig, name: str, kind: int = wire.A) -> tuple[int, list[str], int]:
    """(rcode, data of the answers, number of SOA records)"""
    question = Query(1, 0, names.parse(name), kind)
    best: tuple[int, chain.Chain] | None = None
    for block in corefile.parse(outside_corefile(config)):
        built, _ = chain.build(block, Server(None))
        for zone, _ in block.keys:
            if names.within(question.lower, zone) and (best is None or len(zone) > best[0]):
                best = len(zone), built
    assert best
    response = await best[1].serve(question)
    return response.rcode, [wire.rdata_text(record) for record in response.answers], len(response.authority)


@pytest.mark.parametrize(
    ("family", "addresses"),
    [("ipv4", ("203.0.113.1",)), ("dual", ("203.0.113.1", "2001:db8:113::1")), ("ipv6", ("2001:db8:113::1",))],
)
def test_it_answers_on_the_addresses_of_the_router(family: str, addresses: tuple[str, ...]) -> None:
    config = lab(family)
    bound = {word for block in corefile.parse(outside_corefile(config)) for each in block.directives
             if each.name == "bind" for word in each.args}  # fmt: skip

    assert resolvers(config) == addresses
    assert bound == set(addresses)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("api.example.com.", wire.A, (wire.NOERROR, ["203.0.113.10"], 0)),
        ("WWW.example.com.", wire.AAAA, (wire.NOERROR, ["2001:db8:113::10"], 0)),
        ("example.com.", wire.A, (wire.NXDOMAIN, [], 1)),
        ("web.shop.svc.cluster.local.", wire.A, (wire.NXDOMAIN, [], 1)),
    ],
)
async def test_names_of_clients_and_nothing_else(name: str, kind: int, said: tuple[int, list[str], int]) -> None:
    assert await ask(lab("dual"), name, kind) == said


async def test_without_names_nothing_exists() -> None:
    assert await ask(lab(clients=()), "api.example.com.") == (wire.NXDOMAIN, [], 1)


async def test_a_name_of_two_machines_has_both_addresses() -> None:
    twice = tuple(msgspec.structs.replace(NAMED[0], name=name) for name in ("a", "b"))

    assert (await ask(lab(clients=twice), "api.example.com."))[1] == ["203.0.113.10", "203.0.113.11"]
