"""Traces of real packets in every mode a host kernel has: who answers by the table, the whole story by traces.txt.

`NETEMU_WRITE_TRACES=1` writes traces.txt anew; what changed in it is then for a person to read.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netemu.lab.trace import Scene, Tracer, read_scene
from netemu.network.names import host_veth, node_netns, pod_netns
from netemu.observe.story import Story
from tests.cluster.labs import netemu, run
from tests.cluster.trace_table import ROWS, Row, compact, located, parties

LAB = "t-traces"
FILE, GOLDEN = (Path(__file__).parent / name for name in ("trace_lab.yaml", "traces.txt"))
_WRITE = bool(os.environ.get("NETEMU_WRITE_TRACES"))


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    """trace_lab.yaml, up; its name."""
    try:
        netemu("up", str(FILE), "--name", LAB)
        yield LAB
    finally:
        run("down", LAB)


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
    known = dict(paragraph.split("\n", 1) for paragraph in GOLDEN.read_text().split("\n\n") if "\n" in paragraph)
    yield known
    if _WRITE:
        GOLDEN.write_text("\n\n".join(f"{title}\n{text.rstrip()}" for title, text in known.items()) + "\n")


def traced(row: Row, scene: Scene) -> tuple[Story, tuple[str, str], list[str]]:
    """The story of a row, who took the packet and whose address it had, and what the story is compared as."""
    tracer = Tracer(LAB, row.source, "default", scene)
    story, _ = asyncio.run(tracer.story(located(LAB, row.to), **row.options))
    pods = [(pod.namespace, pod.name) for pod in scene.objects.pods]
    links = {host_veth(pod_netns(LAB, *pod)): f"veth({'/'.join(pod)})" for pod in pods}
    return story, parties(story, tracer.names), list(compact(story, tracer.names, links))


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
