"""Evidence as values: what JSON makes of it, how flows are told."""

from __future__ import annotations

import msgspec

from netemu.observe.trace.evidence import Crossing, Evidence, Flow, Headers, Packet, Routed, Watched


def test_evidence_survives_json() -> None:
    syn = Headers(protocol="tcp", source="10.0.0.1", source_port=61001, destination="10.0.0.2", port=80, what="SYN")
    seen = Evidence(
        packet=Packet(destination="10.0.0.2", port=80),
        source=Watched("shop/client", "lab.pod.shop.client"),
        sent=1.5,
        events=(
            Crossing(
                seconds=1.5,
                place="shop/client",
                leg="there",
                link="eth0",
                direction="out",
                headers=syn,
                frame=b"\0\xff",
            ),
            Routed(seconds=1.6, place="node/worker-1", leg="there", destination="10.0.0.2", error="no route"),
        ),
        answer=Headers(protocol="icmp", source="10.0.0.9", destination="10.0.0.1", what="port unreachable", about=syn),
    )

    assert msgspec.json.decode(msgspec.json.encode(seen), type=Evidence) == seen
    assert [event.place for event in seen.at("node/worker-1")] == ["node/worker-1"]
    assert seen.at("node/worker-1", "back") == ()


def test_flows_are_told_as_the_field_writes_them() -> None:
    assert str(Flow("10.0.0.1", 61001, "10.0.0.2", 80)) == "10.0.0.1:61001 -> 10.0.0.2:80"
    assert str(Flow("fd00::1", 61001, "fd00::2", 80).reversed) == "[fd00::2]:80 -> [fd00::1]:61001"
    assert str(Flow("fd00::1", 0, "10.0.0.2", 0)) == "fd00::1 -> 10.0.0.2"
