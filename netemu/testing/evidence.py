"""What a failed claim's report carries: what was seen, a packet's story, the Service's rules, and a capture.

The claim has failed already, so one packet is traced, and the claim is tried once more while packets are captured at
its place, at every node and between them; the report says so, because the second try need not fare as the first.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netemu.lab.addresses import address_names
from netemu.lab.config import load_config
from netemu.lab.node_rules import rules_of_node
from netemu.lab.places import describer
from netemu.model.errors import NetemuError
from netemu.network.names import node_netns, underlay_netns
from netemu.observe.capture.pcapng import pcapng
from netemu.observe.capture.stream import Capture, Place
from netemu.observe.names import NODE, POD, UNDERLAY, Names
from netemu.observe.probe.result import ProbeResult
from netemu.observe.probe.text import describe
from netemu.observe.probe.timeline import draw
from netemu.observe.resolve.dig import Lookup, render
from netemu.observe.rules.told import told
from netemu.observe.rules.walk import of_service
from netemu.observe.story.story import lines_of
from netemu.testing.vantage import ClaimFailed

if TYPE_CHECKING:
    from netemu.testing.lab import Lab

_FILE_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


def sections(failure: ClaimFailed, test: str) -> Iterator[tuple[str, str]]:
    """Title and text of each part of the report."""
    parts: dict[str, Callable[[], str]] = {
        "netemu lab": lambda: _lab(failure.vantage.lab),
        "netemu saw": lambda: "\n".join(_seen(failure)),
        "netemu trace": lambda: _trace(failure),
        "netemu rules": lambda: _rules(failure),
        "netemu packets": lambda: _packets(failure, test),
    }
    for title, part in parts.items():
        try:
            text = part()
        except Exception as error:  # the failure itself is told all the same, and the other tests go on
            text = f"could not be had: {type(error).__name__}: {error}"
        if text:
            yield title, text


def _lab(lab: Lab) -> str:
    mode = lab.mode or load_config(lab.name).proxy_mode
    return f"{lab.topology}, kube-proxy in {mode} mode, as {lab.name}"


def _seen(failure: ClaimFailed) -> Iterator[str]:
    if failure.failed.timeline:
        yield from draw(failure.failed.timeline)
        yield ""
    if isinstance(failure.failed.found, ProbeResult):
        yield from describe(str(failure.vantage), failure.failed.found)
    elif isinstance(failure.failed.found, Lookup):
        yield from render(failure.failed.found)


def _trace(failure: ClaimFailed) -> str:
    """The story of one packet more."""
    result = failure.failed.found
    if not isinstance(result, ProbeResult):
        return ""
    story = failure.vantage.trace(failure.to, protocol="udp" if result.protocol == "UDP" else "tcp")
    return "\n".join(lines_of(story))


def _rules(failure: ClaimFailed) -> str:
    """What is off on any node, then the rules of the node on which the connection meets them."""
    result = failure.failed.found
    if not isinstance(result, ProbeResult):
        return ""
    lab, lines = failure.vantage.lab.name, []
    names = address_names(lab)
    port = failure.vantage.destination(failure.to).port
    named = (names.service_port(result.protocol, address, port) for address in result.addresses)
    if (service := next((found.service for found in named if found), "")) == "":
        return ""
    rules = {node.name: rules_of_node(lab, node.name) for node in load_config(lab).nodes}
    for node, families in rules.items():
        lines += [f"off on node {node}: {what.port}: {what.what}" for found in families for what in found.off]
    for node in _meets(failure, names, result) or rules:
        for found in rules[node]:
            lines += ["", f"node {node}, {found.rules.mode} mode", *told(of_service(found.rules, service))]
    return "\n".join(lines).strip()


def _meets(failure: ClaimFailed, names: Names, result: ProbeResult) -> list[str]:
    """The node of the place, or the one whose address was tried; nobody knows which if it was neither."""
    for address in (*failure.vantage.addresses, *result.addresses):
        party = names.party(address)
        if party is not None and party.kind in (NODE, POD):
            return [party.node if party.kind == POD else party.name]
    return []


def _packets(failure: ClaimFailed, test: str) -> str:
    lab = failure.vantage.lab
    places = [
        Place(failure.vantage.name, failure.vantage.netns),
        *(Place(f"node/{node.name}", node_netns(lab.name, node.name)) for node in load_config(lab.name).nodes),
        Place(UNDERLAY, underlay_netns(lab.name)),
    ]
    file = lab.artifacts / f"{''.join(letter if letter in _FILE_NAME else '-' for letter in test)}.pcapng"
    places = list({place.netns: place for place in places}.values())
    count = record(places, failure.again, lab.name, file)
    return f"{file}\n{count} packets of one more try, at {', '.join(place.name for place in places)}"


def record(places: Sequence[Place], act: Callable[[], object], lab: str, file: Path) -> int:
    """Capture at places of a lab while something is done, whatever comes of it; how many packets the file then has."""

    def work() -> None:
        with contextlib.suppress(NetemuError):
            act()

    with Capture(places, describe=describer(lab)) as capture:
        thread = threading.Thread(target=work, name="netemu-again")
        thread.start()
        packets = [packet for some in capture.packets(lambda: not thread.is_alive()) for packet in some]
        thread.join()
        parties = {address: str(party) for address, party in address_names(lab).parties.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(pcapng(capture.interfaces, packets, parties)))
    return len(packets)
