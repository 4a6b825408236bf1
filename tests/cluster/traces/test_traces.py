"""Traces of real packets in every mode a host kernel has: who answers by the table, the whole story by traces.txt.

`NETEMU_WRITE_TRACES=1` writes traces.txt anew; what changed in it is then for a person to read.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from netemu.kernel import netns
from netemu.lab.rules import wait_for_rules
from netemu.lab.trace import Scene, Tracer, read_scene
from netemu.model.resources import PODS
from netemu.network.names import node_netns, pod_netns
from netemu.observe.story.story import Story
from netemu.observe.trace.evidence import RuleHit
from tests.cluster.labs import api, eventually, netemu, netemu_json, run, start
from tests.cluster.traces.trace_table import (
    LAB,
    ROWS,
    Row,
    compact,
    links_of,
    located,
    parties,
    read_stories,
    write_stories,
)

GOLDEN = Path(__file__).parent / "traces.txt"
_WRITE = bool(os.environ.get("NETEMU_WRITE_TRACES"))


@pytest.fixture(scope="module")
def mode(lab: str, request: pytest.FixtureRequest) -> str:
    """All nodes in one mode after the other."""
    wanted = str(request.param)
    if wanted == "iptables-legacy":
        # A node keeps to the kind of iptables that holds a chain of the kubelet.
        for node in ("control-plane", "worker-1", "worker-2"):
            chain = "iptables-legacy -t mangle -N KUBE-KUBELET-CANARY"
            subprocess.run(["ip", "netns", "exec", node_netns(lab, node), *chain.split()], check=True)
    netemu("proxy-mode", "--lab", lab, "all", wanted.removesuffix("-legacy"))
    return wanted


@pytest.fixture(scope="module")
def scene(mode: str) -> Scene:
    """What is known of the lab: the same for all rows of a mode."""
    return read_scene(LAB)


@pytest.fixture(scope="module")
def stories(mode: str) -> Iterator[dict[str, str]]:
    """The paragraphs of traces.txt for the mode, by their rows; written anew if asked for."""
    known = read_stories(GOLDEN)
    yield known
    if _WRITE:
        write_stories(GOLDEN, known)


def traced(row: Row, scene: Scene) -> tuple[Story, tuple[str, str], list[str]]:
    """The story of a row, who took the packet and whose address it had, and what the story is compared as."""
    tracer = Tracer(LAB, row.source, "default", scene)
    story, _ = asyncio.run(tracer.story(located(LAB, row.to), **row.options))
    return story, parties(story, tracer.names), list(compact(story, tracer.names, links_of(LAB, scene.objects.pods)))


def check(mode: str, scene: Scene, stories: dict[str, str], row: Row) -> None:
    story, (server, source), lines = traced(row, scene)

    assert (story.outcome, server, source) == (row.outcome, row.by, row.sees), story.summary
    assert not story.lost
    title, text = f"{mode}: {row.title}", "\n".join(lines)
    if _WRITE:
        stories[title] = text
    assert stories[title].rstrip() == text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
@pytest.mark.parametrize("mode", ["iptables", "nftables"], indirect=True, scope="module")
def test_the_story_of_a_packet(mode: str, scene: Scene, stories: dict[str, str], row: Row) -> None:
    check(mode, scene, stories, row)


@pytest.mark.parametrize("row", [row for row in ROWS if row.legacy], ids=lambda row: row.title)
@pytest.mark.parametrize("mode", ["iptables-legacy"], indirect=True, scope="module")
def test_the_kernel_tells_the_same_of_xtables(mode: str, scene: Scene, stories: dict[str, str], row: Row) -> None:
    check(mode, scene, stories, row)


def test_several_packets_and_their_frames_in_one_file(lab: str, tmp_path: Path) -> None:
    from scapy.utils import PcapNgReader

    file = tmp_path / "three.pcapng"
    stories = netemu_json("trace", "client", "svc/far:80", "--count", "3", "--pcap", str(file), "--lab", lab)
    with PcapNgReader(str(file)) as reader:
        frames = list(reader)

    assert [story["endpoint"] for story in stories] == 3 * [stories[0]["endpoint"]]
    assert len(frames) == sum(step["kind"] == "link" for story in stories for step in story["steps"])
    assert frames == sorted(frames, key=lambda frame: frame.time)


def test_connections_that_programs_open_are_told_as_they_begin(lab: str, tmp_path: Path) -> None:
    said, told = tmp_path / "stderr", tmp_path / "stdout"
    with said.open("wb") as stderr, told.open("wb") as stdout:
        command = ("trace", "client", "svc/far:80", "--live", "--count", "2", "-o", "json", "--lab", lab)
        process = start(*command, stdout=stdout, stderr=stderr)
    try:
        eventually(lambda: "waiting for connections" in said.read_text(), "the trace is ready")
        netemu("probe", "client", "near:80", "--lab", lab)
        netemu("probe", "client", "far:80", "--count", "2", "--lab", lab)
        assert process.wait(timeout=20) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()
    stories = [msgspec.json.decode(line, type=Story) for line in told.read_text().splitlines()]

    assert [(story.outcome, story.endpoint[-5:], story.why_not) for story in stories] == 2 * [
        ("answered", ":8080", None)
    ]
    rules = [step.event.chain for step in stories[0].steps if isinstance(step.event, RuleHit)]
    assert "KUBE-SERVICES" in rules or "services" in rules


def test_a_pod_that_comes_while_connections_are_followed_is_watched_too(lab: str, tmp_path: Path) -> None:
    said, told = tmp_path / "stderr", tmp_path / "stdout"
    with said.open("wb") as stderr, told.open("wb") as stdout:
        command = ("trace", "client", "svc/empty:80", "--live", "-o", "json", "--lab", lab)
        process = start(*command, stdout=stdout, stderr=stderr)

    def reached() -> bool:
        run("probe", "client", "empty:80", "--lab", lab)
        return '"place":"default/fresh"' in told.read_text()

    try:
        eventually(lambda: "waiting for connections" in said.read_text(), "the trace is ready")
        container = {"name": "c", "image": "agnhost", "args": ["netexec"], "ports": [{"containerPort": 8080}]}
        meta = {"name": "fresh", "labels": {"app": "wep"}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
        api(lab).create(PODS, pod, "default")
        eventually(reached, "a connection to the new Pod is told from there")
    finally:
        process.kill()
        process.wait()
        api(lab).request("DELETE", PODS.path("default", "fresh"), {"kind": "DeleteOptions", "gracePeriodSeconds": 0})
        eventually(lambda: pod_netns(lab, "default", "fresh") not in netns.names(), "the Pod is gone")
        wait_for_rules(lab, timeout=20)
    stories = [msgspec.json.decode(line, type=Story) for line in told.read_text().splitlines()]

    assert [(story.outcome, story.why_not) for story in stories if story.endpoint][-1] == ("answered", None)


def test_a_trace_that_is_interrupted_leaves_nothing_behind(lab: str, tmp_path: Path) -> None:
    said = tmp_path / "stderr"
    with said.open("wb") as stderr:
        process = start("trace", "client", "svc/far:80", "--live", "--lab", lab, stderr=stderr)
    try:
        eventually(lambda: "waiting for connections" in said.read_text(), "the trace is ready")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()

    nft = ["ip", "netns", "exec", node_netns(lab, "worker-1"), "nft", "list", "tables"]
    assert "trace" not in subprocess.run(nft, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["client", "far"], 1, "must be NAME:PORT or ADDRESS:PORT, for example web:80"),
        (["client", "svc/fat:80"], 1, "no Service 'fat' in namespace default; did you mean far?"),
        (["client", "svc/far:https"], 1, "no port 'https'; Service default/far has http, udp"),
        (["clint", "svc/far:80"], 1, "no Pod 'clint' running in namespace default; did you mean client?"),
        (["client", "svc/far:80", "--proto", "sctp"], 2, "--proto sctp: must be tcp, udp, icmp"),
        (["client", "pod/none:80"], 1, "no Pod 'none' in namespace default"),
    ],
)
def test_a_trace_that_cannot_be_is_refused_in_a_line(lab: str, words: list[str], code: int, why: str) -> None:
    done = run("trace", *words, "--lab", lab)

    assert done.returncode == code
    assert why in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
