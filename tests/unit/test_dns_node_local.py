"""What a NodeLocal DNSCache takes for itself, and its Corefile."""

from __future__ import annotations

import pytest

from netemu.dns import defaults, names
from netemu.dns.corefile import parse
from netemu.dns.node_local import parse_addresses, rules
from netemu.dns.server import check_corefile
from netemu.model.errors import UserError


def test_rules_keep_both_directions_out_of_conntrack() -> None:
    found = rules(["169.254.20.10"])

    assert len(found) == len(set(found)) == 10
    assert [(table, chain) for table, chain, rule in found if rule.startswith("-d 169.254.20.10/32 -p udp")] == [
        ("raw", "PREROUTING"), ("raw", "OUTPUT"), ("filter", "INPUT"),
    ]  # fmt: skip
    assert {rule.rpartition("-j ")[2] for table, _, rule in found if table == "raw"} == {"CT --notrack"}


@pytest.mark.parametrize("text", ["", "localhost", "fd00::1", "10.0.0.1,,10.0.0.2"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="must be IPv4 addresses like"):
        parse_addresses(text)


def test_its_corefile_serves_the_cluster_and_everything_else() -> None:
    text = defaults.node_local("lab.test", ["169.254.20.10", "10.96.0.10"], "10.96.0.11")
    text = text.replace("/etc/resolv.conf", "192.0.2.1")
    check_corefile(text)

    assert [names.text(zone) for block in parse(text) for zone, _ in block.keys] == [
        "lab.test.", "in-addr.arpa.", "ip6.arpa.", ".",
    ]  # fmt: skip
