"""The rules of one world with every feature on, against a dump of the real kube-proxy 1.30.5."""

from __future__ import annotations

import random

import pytest

from netemu.kernel.iptables import parse_save
from netemu.proxy import rulefiles
from netemu.proxy.iptables_programmer import IptablesProgrammer
from tests.unit.proxy_world import BASE, DATA, Proxy, world

# Services come in random order in the real one, so rules of chains that all services share compare as sets.
SHARED = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL")


async def programmed(shuffle: int = 0, piece: int = 50) -> Proxy:
    proxy = Proxy()
    proxy.programmer = IptablesProgrammer(proxy.fake, rulefiles.load("iptables", BASE), piece=piece)
    services, slices = world()
    objects = [*services, *slices]
    random.Random(shuffle).shuffle(objects)
    proxy.add(*objects)
    await proxy.sync()
    return proxy


@pytest.mark.parametrize("table", ["filter", "nat"])
async def test_chains_and_rules_equal_the_real_dump(table: str) -> None:
    wanted = parse_save((DATA / "iptables-world.save").read_text())[table]

    ours = (await programmed()).fake.tables[table]

    assert ours.keys() == wanted.keys()
    for chain, rules in wanted.items():
        if chain in SHARED:
            assert sorted(ours[chain]) == sorted(rules)
        else:
            assert ours[chain] == rules


async def test_node_port_jump_is_the_last_rule_of_the_services_chain() -> None:
    rules = (await programmed()).fake.tables["nat"]["KUBE-SERVICES"]

    assert rules[-1].endswith("-j KUBE-NODEPORTS")


async def test_mangle_holds_the_canary_and_nothing_else() -> None:
    chains = (await programmed()).fake.tables["mangle"]

    assert "KUBE-PROXY-CANARY" in chains
    assert not any(chains.values())


async def test_order_of_arrival_does_not_matter() -> None:
    dumps = {await (await programmed(seed)).fake.save() for seed in range(5)}

    assert len(dumps) == 1


@pytest.mark.parametrize("piece", [1, 3])
async def test_a_load_in_pieces_ends_with_the_same_tables(piece: int) -> None:
    whole, pieces = await programmed(), await programmed(piece=piece)

    assert await pieces.fake.save() == await whole.fake.save()
    assert len(pieces.fake.restores) > len(whole.fake.restores) + 2


async def test_nothing_leads_to_a_piece_before_the_last_restore() -> None:
    *pieces, last = (await programmed(piece=3)).fake.restores

    assert not any("-A KUBE-SERVICES" in text or "-I " in text for text in pieces)
    assert "-A KUBE-SERVICES" in last
