"""Names of the lab in filter expressions."""

from __future__ import annotations

import pytest

from netemu.model.errors import UserError
from netemu.observe.capture.filter import with_addresses
from netemu.observe.names import CLIENT, NODE, POD, SERVICE, UNDERLAY, Names, Party, names_of

NAMES: Names = names_of(
    (
        ("172.18.0.1", Party(UNDERLAY, "underlay")),
        ("172.18.0.2", Party(NODE, "worker")),
        ("10.244.1.5", Party(POD, "shop/web-1", "worker")),
        ("fd00:10:244::5", Party(POD, "shop/web-1", "worker")),
        ("10.244.1.6", Party(POD, "default/web", "worker")),
        ("203.0.113.10", Party(CLIENT, "laptop")),
        ("10.96.0.20", Party(SERVICE, "shop/web")),
    )
)


@pytest.mark.parametrize(
    ("expression", "addresses"),
    [
        ("tcp port 80", "tcp port 80"),
        ("host shop/web-1", "host (10.244.1.5 or fd00:10:244::5)"),
        ("host pod/web-1", "host (10.244.1.5 or fd00:10:244::5)"),
        ("host web-1", "host (10.244.1.5 or fd00:10:244::5)"),
        ("host web", "host (10.96.0.20)"),
        ("host default/web", "host (10.244.1.6)"),
        ("dst service/web and port 53", "dst (10.96.0.20) and port 53"),
        ("dst host svc/shop/web", "dst host (10.96.0.20)"),
        ("src or dst host shop/web", "src or dst host (10.96.0.20)"),
        ("not host node/worker and port 53", "not host (172.18.0.2) and port 53"),
        ("host underlay or client/laptop", "host (172.18.0.1) or (203.0.113.10)"),
        ("net 10.0.0.0/8 or net fd00::/64", "net 10.0.0.0/8 or net fd00::/64"),
        ("src net 10.0.0.0/8 and dst port http", "src net 10.0.0.0/8 and dst port http"),
        ("host 10.0.0.1 or host fd00::1 or src 10.0.0.2", "host 10.0.0.1 or host fd00::1 or src 10.0.0.2"),
        ("ether host 02:00:00:00:00:01", "ether host 02:00:00:00:00:01"),
        ("ip6 dst host shop/web-1", "ip6 dst host (fd00:10:244::5)"),
        ("(ip6 or tcp) and ip host shop/web-1", "(ip6 or tcp) and ip host (10.244.1.5)"),
        ("tcp[12]/4 > 5 and len/2 < 40", "tcp[12]/4 > 5 and len/2 < 40"),
    ],
)
def test_names_become_addresses(expression: str, addresses: str) -> None:
    assert with_addresses(expression, NAMES, "shop") == addresses


@pytest.mark.parametrize("name", ["nosuch", "service/nosuch", "service/default/web", "nobody/here", "node/laptop"])
def test_a_name_the_lab_does_not_have_is_refused_with_what_names_there_are(name: str) -> None:
    with pytest.raises(UserError, match=f"^filter 'tcp and host {name}': the lab has no '{name}'; names are POD, NAME"):
        with_addresses(f"tcp and host {name}", NAMES, "shop")


def test_a_name_without_an_address_of_the_family_is_refused() -> None:
    with pytest.raises(UserError, match="'web' has no address of that family"):
        with_addresses("ip6 host web", NAMES, "shop")
