"""The numbers of IP protocols are the machine's, and one table has them."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import netemu
from netemu.model import protocols

ROOT = Path(netemu.__file__).parent
TABLE = re.compile(r"""["']tcp["']: 6\b|\b6: ["']tcp["']|\b(?:IPPROTO_)?_?UDP\b.* = .*\b17\b""")


def test_numbers_are_those_of_the_c_library() -> None:
    for name, number in protocols.NUMBERS.items():
        assert number == getattr(socket, f"IPPROTO_{name.upper()}")
    assert protocols.name_of(58) == "icmpv6"
    assert protocols.name_of(47) == "47"
    assert protocols.OF_NFT["ipv6-icmp"] == socket.IPPROTO_ICMPV6


def test_nobody_has_a_table_of_its_own() -> None:
    found = [str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if TABLE.search(file.read_text())]

    assert found == ["model/protocols.py"]
