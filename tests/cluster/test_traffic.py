"""What crosses the links of a lab, and what its nodes remember of it: capture, flows, conntrack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.model.resources import NODES, SERVICES
from netemu.network import names
from tests.cluster.labs import ROOT, api, eventually, netemu, netemu_json, run, start


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    """The lab of topologies/quickstart.yaml."""
    name = "t-traffic"
    netemu("up", str(ROOT / "topologies/quickstart.yaml"), "--name", name)
    yield name
    run("down", name)


class Running:
    """A `netemu capture`, or `flows --follow`, in the background that has its sockets open."""

    def __init__(self, lab: str, folder: Path, *args: str) -> None:
        self.out, self._err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self._err.open("wb") as err:
            self._process = start(*args, "--lab", lab, "-n", "shop", stdout=out, stderr=err)
        eventually(lambda: "; " in self.said or self._process.poll() is not None, "sockets are open")

    @property
    def said(self) -> str:
        return self._err.read_text()

    def wait(self) -> str:
        """Until it ends, and well; what it said."""
        assert self._process.wait(20) == 0, self.said
        return self.said

    def interrupt(self) -> str:
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]


def ask(lab: str) -> None:
    """One request of Pod `client` to Service `web`, on one connection."""
    netemu("probe", "--lab", lab, "-n", "shop", "client", "web:80")


def address_of(lab: str, service: str) -> str:
    return str(api(lab).get(SERVICES, service, "shop")["spec"]["clusterIP"])


def test_a_connection_is_seen_on_every_link_in_order_and_with_names(lab: str, tmp_path: Path) -> None:
    nodes = ("node/worker-1", "node/worker-2")
    running = Running(
        lab, tmp_path, "capture", "client", *nodes, "-o", "json", "--filter", "tcp[tcpflags] & tcp-syn != 0"
    )
    ask(lab)
    running.interrupt()
    # Kubelets open connections too, when a probe of theirs is due.
    lines = [each for each in running.lines() if "shop/client:" in each["sourceName"] + each["destinationName"]]
    there = [line for line in lines if line["info"].startswith("Flags [S],")]
    back = [line for line in lines if line["info"].startswith("Flags [S.],")]

    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert there[0]["interface"] == "shop/client eth0"
    assert there[0]["direction"] == "out"
    assert there[0]["sourceName"].startswith("shop/client:")
    assert there[0]["destinationName"] == "service/shop/web:80"
    assert there[-1]["destinationName"].startswith("shop/web-")
    assert there[-1]["port"] == 8080
    assert back[-1]["interface"] == "shop/client eth0"
    assert back[-1]["sourceName"] == "service/shop/web:80"
    assert len(there) == len(back) >= 3


def test_a_file_has_places_names_and_directions_and_scapy_reads_it(lab: str, tmp_path: Path) -> None:
    from scapy.layers.inet import IP
    from scapy.utils import PcapNgReader

    file = tmp_path / "capture.pcapng"
    link = "shop/client eth0"
    expression = "tcp port 80 and host service/web"
    running = Running(lab, tmp_path, "capture", "client", "node/worker-1", "-w", str(file), "--filter", expression)
    ask(lab)
    said = running.interrupt()
    with PcapNgReader(str(file)) as reader:
        packets = list(reader)

    assert f"{len(packets)} packets captured, 0 dropped by the kernel" in said
    assert {packet.direction for packet in packets if packet.sniffed_on == link} == {1, 2}
    assert {packet[IP].dst for packet in packets if (packet.sniffed_on, packet.direction) == (link, 2)} == {
        address_of(lab, "web")
    }
    data = file.read_bytes()
    for text in (
        b"shop/client eth0",
        b"node/worker-1 eth0",
        b"service/shop/web\0",
        b"node/worker-2\0",
        b"to Pod shop/",
    ):
        assert text in data


def test_it_ends_after_so_many_packets_and_lines_are_to_be_read(lab: str, tmp_path: Path) -> None:
    running = Running(lab, tmp_path, "capture", "client:eth0", "--count", "2", "--filter", "udp dst port 53")
    ask(lab)

    assert "2 packets captured" in running.wait()
    first, second = running.out.read_text().splitlines()
    for line, kind in ((first, "A"), (second, "AAAA")):
        assert "shop/client eth0  out  shop/client:" in line
        assert f" > service/kube-system/kube-dns:53  udp  DNS {kind}? web.shop.svc.cluster.local." in line


def test_it_ends_after_so_many_seconds(lab: str) -> None:
    begin = time.monotonic()
    done = run("capture", "--lab", lab, "-n", "shop", "client", "--duration", "0.5", "--filter", "sctp")

    assert (done.returncode, done.stdout) == (0, "")
    assert "0 packets captured" in done.stderr
    assert time.monotonic() - begin >= 0.5


def test_it_ends_with_the_reader_of_its_pipe(lab: str) -> None:
    reading, writing = os.pipe()
    running = start("capture", "--lab", lab, "-n", "shop", "client", "-w", "-", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    head = os.read(reading, 4)
    os.close(reading)
    _, said = running.communicate(timeout=20)

    assert head == b"\x0a\x0d\x0d\x0a"
    assert running.returncode == 0
    assert b"packets captured" in said
    assert b"Traceback" not in said


def test_a_link_is_found_by_its_name_alone(lab: str, tmp_path: Path) -> None:
    link = names.host_veth(names.pod_netns(lab, "shop", "client"))
    running = Running(lab, tmp_path, "capture", link, "--count", "1", "-o", "json", "--filter", "udp dst port 53")
    ask(lab)
    running.wait()
    (line,) = running.lines()

    assert line["interface"].endswith(f" {link}")
    assert line["interface"].startswith("node/worker-")
    assert line["direction"] == "in"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nobody"], "no Pod 'nobody' running in namespace shop; "),
        (["node/worker-9"], "no node 'worker-9'; did you mean worker-2?"),
        (["node/worker-1:eth9"], "node/worker-1: no link 'eth9'; did you mean eth0?"),
        (["eth0"], "links of that name are node/control-plane:eth0, node/worker-1:eth0, node/worker-2:eth0"),
        (["client", "--filter", "tcp prt 80"], "filter 'tcp prt 80': "),
        (["client", "--filter", "host service/wbe"], "the lab has no 'service/wbe'; names are POD, NAMESPACE/POD, "),
        (["client", "-w", "/no/such/folder/file"], "cannot write /no/such/folder/file: No such file or directory"),
        (["client", "-w", "/dev/full"], "cannot write /dev/full: No space left on device"),
    ],
)
def test_a_mistake_is_told_in_one_line(lab: str, args: list[str], said: str) -> None:
    done = run("capture", "--lab", lab, "-n", "shop", *args)

    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_is_left_of_one_that_was_killed(lab: str, tmp_path: Path) -> None:
    running = Running(lab, tmp_path, "capture", "client")
    before = sockets_of_packets(lab)
    running.kill()

    assert (before, sockets_of_packets(lab)) == (1, 0)


def sockets_of_packets(lab: str) -> int:
    """How many there are in Pod `client`."""
    head, *rest = netemu("exec", "--lab", lab, "-n", "shop", "client", "--", "cat", "/proc/net/packet").splitlines()
    assert head.startswith("sk")
    return len(rest)


def test_a_connection_is_a_flow_from_client_to_service_to_endpoint(lab: str) -> None:
    netemu("exec", "--lab", lab, "client/laptop", "--", "curl", "-s", f"http://{node_address(lab)}:30080")
    ask(lab)
    flows = netemu_json("flows", "--lab", lab, "--service", "shop/web")
    inside = next(flow for flow in flows if flow["client"]["name"] == "shop/client")
    outside = next(flow for flow in flows if flow["client"]["name"] == "client/laptop")

    assert (inside["service"], inside["via"]) == ("shop/web:80", "cluster IP")
    assert inside["destination"] == {"name": "service/shop/web", "address": address_of(lab, "web"), "port": 80}
    assert inside["endpoint"]["name"].startswith("shop/web-")
    assert inside["sourceSeen"] == inside["client"]
    assert inside["there"]["packets"] >= 4
    assert inside["there"]["bytes"] > 200
    assert inside["back"]["packets"] >= 3
    assert 0 <= inside["age"] < 60
    assert (outside["service"], outside["via"]) == ("shop/web:80", "node port")
    assert outside["sourceSeen"]["name"] == "node/worker-1"
    assert outside["node"] == "worker-1"


def node_address(lab: str) -> str:
    """Of worker-1."""
    addresses = api(lab).get(NODES, "worker-1")["status"]["addresses"]
    return str(next(each["address"] for each in addresses if each["type"] == "InternalIP"))


def test_flows_as_a_table_and_only_those_that_are_asked_for(lab: str) -> None:
    ask(lab)
    table = netemu("flows", "--lab", lab, "-n", "shop", "--of", "client").splitlines()
    everything = netemu_json("flows", "--lab", lab, "--all")
    sums = netemu("flows", "--lab", lab, "--sum", "--service", "shop/web").splitlines()

    assert table[0].split() == [
        "PROTO",
        "CLIENT",
        "SERVICE",
        "ENDPOINT",
        "SOURCE",
        "NODE",
        "STATE",
        "PACKETS",
        "BYTES",
        "AGE",
    ]
    assert all(line.split()[1].startswith("shop/client:") for line in table[1:])
    assert {line.split()[2] for line in table[1:]} == {"shop/web:80", "kube-system/kube-dns:53"}
    assert sums[0].split() == ["PROTO", "CLIENT", "SERVICE", "ENDPOINT", "CONNECTIONS", "PACKETS", "BYTES"]
    assert all(line.split()[2] == "shop/web:80" and int(line.split()[4]) >= 1 for line in sums[1:])
    assert {"", "shop/web:80", "default/kubernetes:443"} <= {flow["service"] for flow in everything}


def test_a_connection_is_followed_from_its_beginning_to_its_end(lab: str, tmp_path: Path) -> None:
    running = Running(lab, tmp_path, "flows", "--follow", "-o", "json", "--service", "web")
    ask(lab)
    eventually(lambda: "TIME_WAIT" in running.out.read_text(), "the connection is over")
    port = running.lines()[0]["client"]["port"]
    netemu("conntrack", "--lab", lab, "--all", "--service", "shop/web", "--delete")
    # Of connections that were there before nothing is told.
    eventually(lambda: '"destroy"' in running.out.read_text(), "it is forgotten")
    running.interrupt()
    mine = [line for line in running.lines() if line["client"]["port"] == port]

    assert [line["event"] for line in mine] == ["new", *["update"] * (len(mine) - 2), "destroy"]
    assert [line["state"] for line in mine][:3] == ["SYN_SENT", "SYN_RECV", "ESTABLISHED"]
    assert mine[-1]["there"]["packets"] >= 4
    assert all(line["service"] == "shop/web:80" and line["client"]["name"] == "shop/client" for line in mine)


def test_entries_of_a_node_are_listed_in_their_own_form_with_names_and_forgotten(lab: str) -> None:
    ask(lab)
    args = ("conntrack", "--all", "--lab", lab, "--service", "shop/web", "--of", "shop/client")
    lines = netemu(*args).splitlines()
    listed = netemu_json(*args)
    address = address_of(lab, "web")

    assert lines
    assert all(f" dst={address} sport=" in line and " dport=80 " in line for line in lines)
    assert all("  # shop/client:" in line and " > service/shop/web:80 > shop/web-" in line for line in lines)
    assert len(listed) == len(lines)
    assert {entry["original"]["destination"] for entry in listed} == {address}
    gone = run(*args, "--delete")
    assert (gone.returncode, len(gone.stdout.splitlines())) == (0, len(lines))
    assert gone.stderr == f"{len(lines)} {'entry' if len(lines) == 1 else 'entries'} forgotten\n"
    assert netemu(*args) == ""
    assert netemu("flows", "--lab", lab, "--service", "shop/web", "--of", "shop/client") == "no flows\n"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["conntrack"], 2, "name one node, or say --all"),
        (["conntrack", "worker-9"], 1, "no node 'worker-9'; did you mean worker-2?"),
        (["flows", "--service", "shop/wbe"], 1, "no Service shop/wbe; did you mean shop/web?"),
        (["flows", "--duration", "5"], 2, "--duration: says how long to --follow"),
    ],
)
def test_what_cannot_be_asked_of_tables(lab: str, args: list[str], code: int, said: str) -> None:
    done = run(*args, "--lab", lab)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in " ".join(done.stderr.split())


def test_what_watches_ends_with_the_lab(lab: str, tmp_path: Path) -> None:
    folders = [tmp_path / "capture", tmp_path / "flows"]
    for folder in folders:
        folder.mkdir()
    capture = Running(lab, folders[0], "capture", "client", "node/worker-1", "-w", str(tmp_path / "file"))
    flows = Running(lab, folders[1], "flows", "--follow")
    netemu("down", lab)

    assert "went away" in capture.wait()
    assert "went down" in flows.wait()
