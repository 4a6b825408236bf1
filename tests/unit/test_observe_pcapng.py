"""pcapng files, read back by those who read them everywhere: scapy, and tshark where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from netemu.observe.capture import pcapng
from netemu.observe.capture.pcapng import Interface, Packet

INTERFACES = (
    Interface("shop/web-abc eth0", "the link of Pod shop/web-abc", filter="tcp port 80"),
    Interface("node/worker-1 tunnel", link_type=pcapng.RAW_IP),
)
NAMES = {"10.244.1.5": "shop/web-abc", "10.96.0.20": "service/shop/web", "fd00:10:244::5": "shop/web-abc"}
TIME = 1_790_000_000_123_456_789
CUT_AT = 48


def frame(size: int) -> bytes:
    """An Ethernet frame with a datagram from a Pod to a Service, and so many bytes in it."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    parts = Ether(src="0a:58:0a:f4:01:05", dst="0a:58:0a:f4:01:01") / IP(src="10.244.1.5", dst="10.96.0.20")
    return bytes(parts / UDP(sport=4000, dport=9000) / bytes(size))


def packets() -> list[Packet]:
    whole = frame(60)
    return [
        Packet(0, TIME + 2, frame(1), outgoing=False, comment="the second"),
        Packet(0, TIME, frame(0), outgoing=True),
        Packet(1, TIME + 3, frame(3)[14:], outgoing=False),
        Packet(0, TIME + 5, whole[:CUT_AT], outgoing=True, length=len(whole)),
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "capture.pcapng"
    blocks = [*pcapng.pcapng(INTERFACES, packets(), NAMES, comment="a test")]
    blocks.append(pcapng.statistics_block(0, TIME, TIME + 5, received=7, dropped=2))
    path.write_bytes(b"".join(blocks))
    return path


def test_scapy_reads_the_packets_in_order_with_their_times_and_places(file: Path) -> None:
    from scapy.utils import PcapNgReader

    with PcapNgReader(str(file)) as reader:
        read = list(reader)
    sent = sorted(packets(), key=lambda packet: packet.nanoseconds)

    assert [bytes(packet) for packet in read] == [packet.data for packet in sent]
    assert [int(packet.time * 10**9) for packet in read] == [packet.nanoseconds for packet in sent]
    assert [packet.direction for packet in read] == [2, 1, 1, 2]
    assert [packet.sniffed_on for packet in read] == [INTERFACES[packet.interface].name for packet in sent]
    assert [packet.wirelen for packet in read] == [packet.length or len(packet.data) for packet in sent]
    assert read[1].comments == [b"the second"]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed; scapy alone judges")
def test_tshark_reads_names_of_places_and_of_addresses(file: Path) -> None:
    shown = ("frame.interface_name", "frame.interface_description", "ip.src_host", "ip.dst_host", "frame.len")
    done = subprocess.run(
        ["tshark", "-r", file, "-Nn", "-Tjson", "--no-duplicate-keys", *(f"-e{name}" for name in shown)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    read: list[dict[str, Any]] = [entry["_source"]["layers"] for entry in json.loads(done.stdout)]

    assert [layers["frame.interface_name"] for layers in read] == [
        [INTERFACES[0].name], [INTERFACES[0].name], [INTERFACES[1].name], [INTERFACES[0].name]
    ]  # fmt: skip
    assert read[0]["frame.interface_description"] == [INTERFACES[0].description]
    assert {(*layers["ip.src_host"], *layers["ip.dst_host"]) for layers in read} == {
        ("shop/web-abc", "service/shop/web")
    }


def test_names_may_follow_when_they_become_known(tmp_path: Path) -> None:
    from scapy.utils import PcapNgReader

    path = tmp_path / "later.pcapng"
    first, second = packets()[:2]
    path.write_bytes(
        pcapng.head(INTERFACES) + pcapng.packet_block(first) + pcapng.name_block(NAMES) + pcapng.packet_block(second)
    )
    with PcapNgReader(str(path)) as reader:
        assert [bytes(packet) for packet in reader] == [first.data, second.data]


def test_every_block_fills_whole_words_and_ends_with_its_length() -> None:
    data = b"".join(pcapng.pcapng(INTERFACES, packets(), NAMES))
    while data:
        total = int.from_bytes(data[4:8], "little")
        assert total % 4 == 0
        assert data[total - 4 : total] == data[4:8]
        data = data[total:]
