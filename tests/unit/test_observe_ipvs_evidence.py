"""Which entry of an ipset a packet would be, and IPVS's list of connections."""

from __future__ import annotations

import pytest

from netemu.kernel.ipset import Entry
from netemu.kernel.ipvs_connections import Connection, parse
from netemu.observe.trace.evidence import Headers
from netemu.observe.trace.ipvs import wanted_entry

SYN = Headers(protocol="tcp", source="10.0.0.1", source_port=61001, destination="10.96.0.1", port=80)


@pytest.mark.parametrize(
    ("kind", "directions", "entry"),
    [
        ("hash:ip,port", "dst,dst", Entry("10.96.0.1", "tcp", 80)),
        ("hash:ip,port,ip", "dst,dst,src", Entry("10.96.0.1", "tcp", 80, "10.0.0.1")),
        ("hash:ip,port,net", "dst,dst,src", Entry("10.96.0.1", "tcp", 80, "10.0.0.1")),
        ("hash:ip", "src", Entry("10.0.0.1")),
        ("bitmap:port", "dst", Entry(port=80)),
    ],
)
def test_the_entry_is_made_of_what_the_directions_say(kind: str, directions: str, entry: Entry) -> None:
    assert wanted_entry(kind, directions.split(","), SYN) == entry


def test_connections_of_both_families_are_read() -> None:
    text = """Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A000001 EE49 0A600001 0050 0AF40102 1F90 SYN_RECV         59
UDP fd00:0000:0000:0000:0000:0000:0000:0001 EE49 fd00:0000:0000:0000:0000:0000:0000:000a 0035 \
fd00:0000:0000:0000:0000:0000:0000:0002 0035 UDP             299
"""

    assert parse(text) == [
        Connection("tcp", "10.0.0.1", 61001, "10.96.0.1", 80, "10.244.1.2", 8080, "SYN_RECV"),
        Connection("udp", "fd00::1", 61001, "fd00::a", 53, "fd00::2", 53, "UDP"),
    ]
