"""The table of traces, and what a story is written as to be compared: a line per place, without times and counters.

A row says by hand what must come of a packet: the mode, from where, to what, and who answers and sees which source.
The whole story of each row, step by step, stands in traces.txt, one paragraph per row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from netemu.model.pods import Pod
from netemu.model.resources import SERVICES
from netemu.network.names import host_veth, pod_netns
from netemu.observe.names import Names
from netemu.observe.story.story import Step, Story
from netemu.observe.trace.evidence import Balanced, Crossing, Dropped, MapHit, Routed, RuleHit, Translation
from tests.cluster.labs import api

LAB = "t-traces"
"""The name of the lab in lab.yaml."""
_HASH = re.compile(r"(KUBE-[A-Z]{2,3})-[A-Z2-7]{16}|(service|local|external|firewall|endpoint|affinity)-[A-Z2-7]{8}")
_ADDRESS = re.compile(r"__[0-9a-f.]+/")


@dataclass(frozen=True)
class Row:
    """One trace."""

    source: str
    to: str
    outcome: str = "answered"
    by: str = ""
    """Who took the packet, NAME:PORT."""
    sees: str = ""
    """Whose address it saw as the source."""
    options: dict[str, Any] = field(default_factory=dict)
    legacy: bool = False
    """Traced with iptables-legacy too."""

    @property
    def title(self) -> str:
        """`client -> svc/far:80 udp`."""
        more = " ".join(str(value) for key, value in self.options.items() if key in ("protocol", "family"))
        return f"{self.source} -> {self.to} {more}".rstrip()


def located(lab: str, to: str) -> str:
    """A destination; a name in capitals is the load balancer's address of the Service of that name."""
    host, _, port = to.partition(":")
    if not host.isupper():
        return to
    service = api(lab).get(SERVICES, host.lower(), "default")
    return f"{service['status']['loadBalancer']['ingress'][0]['ip']}:{port}"


def parties(story: Story, names: Names) -> tuple[str, str]:
    """Who took the packet, NAME:PORT, and whose address was its source; both "" if nobody did."""
    if not story.endpoint:
        return "", ""
    address, _, port = story.endpoint.rpartition(":") if story.protocol != "icmp" else (story.endpoint, "", "")
    server = names.text(address.strip("[]"))
    return f"{server}:{port}" if port else server, names.text(story.source_seen)


def compact(story: Story, names: Names, links: dict[str, str]) -> Iterator[str]:
    """The steps, a line per place and leg. `links` are those with a machine-made name, and whose they are."""
    server, source = parties(story, names)
    yield f"{story.outcome} {server} sees {source}" if server else story.outcome
    if story.why_not:
        yield f"why not: {story.why_not.reason} at {story.why_not.place}"
    if story.lookup:
        yield f"resolver: {'; '.join(f'{s.name} {s.reply.type} {s.reply.outcome}' for s in story.lookup.steps)}"
    for (leg, place), steps in groupby(story.steps, lambda step: (step.leg, step.place)):
        arrow = ">" if leg == "there" else "<"
        yield f"{arrow} {place}: {'; '.join(_token(step, names, links) for step in steps)}"


def read_stories(file: Path) -> dict[str, str]:
    """Paragraphs of a file of stories: the first line is the row, the rest is the story."""
    return dict(paragraph.split("\n", 1) for paragraph in file.read_text().split("\n\n") if "\n" in paragraph)


def write_stories(file: Path, stories: dict[str, str]) -> None:
    """Write the file anew."""
    file.write_text("\n\n".join(f"{title}\n{text.rstrip()}" for title, text in stories.items()) + "\n")


def links_of(lab: str, pods: Iterable[Pod]) -> dict[str, str]:
    """The nodes' ends of Pods' links, whose names are hashes, by the names of Pods."""
    return {host_veth(pod_netns(lab, pod.namespace, pod.name)): f"veth({pod.key})" for pod in pods}


def _token(step: Step, names: Names, links: dict[str, str]) -> str:
    event = step.event
    match event:
        case Crossing():
            return f"{event.direction} {links.get(event.link, event.link)} {event.headers.what}"
        case RuleHit():
            chain = f"{event.table} {plain(event.chain)}"
            return f"{chain} {event.verdict}{f' {plain(event.to)}' if event.to else ''}"
        case MapHit():
            return f"{event.kind} {plain(event.name)}"
        case Balanced():
            address, _, port = event.destination.rpartition(":")
            return f"ipvs {event.server} to {names.endpoint('tcp', address.strip('[]'), int(port))}"
        case Translation():
            after = event.after
            # Ports that the kernel or the trace chose are others each time.
            to = names.endpoint(event.protocol, after.destination, after.port if event.leg == "there" else 0)
            source = names.text(after.source)
            told = {"dnat": f"dnat {to}", "snat": f"snat {source}"}
            said = " ".join(told[kind] for kind in event.kinds) or "tracked"
            return said if event.new else f"({said})"
        case Routed():
            return f"route {event.error or event.type} {links.get(event.out_link, event.out_link)} {event.via}".rstrip()
        case Dropped():
            return f"{'rejected' if event.rejected else 'dropped'} by {event.by}"
    raise AssertionError(event)


def plain(chain: str) -> str:
    """A name of a chain without what is another each time: hashes, and the address in an endpoint's."""
    return _ADDRESS.sub("__", _HASH.sub(lambda found: found[1] or found[2], chain))


UDP, ICMP, IPV6 = {"protocol": "udp"}, {"protocol": "icmp"}, {"family": "ipv6"}
CLIENT, WORKER_1, WORKER_2, LAPTOP = "default/client", "node/worker-1", "node/worker-2", "client/laptop"
_NEAR, _FAR = "default/near:8080", "default/far:8080"
# fmt: off
ROWS = [
    # without a Service
    Row("client", "pod/near:8080", by=_NEAR, sees=CLIENT),
    Row("client", "pod/far:8080", by=_FAR, sees=CLIENT, legacy=True),
    Row("client", "pod/far", by="default/far", sees=CLIENT, options=ICMP),
    Row("node/worker-1", "pod/far", by="default/far", sees=WORKER_1, options=ICMP),
    Row("client/laptop", "pod/near:8080", by=_NEAR, sees=LAPTOP),
    Row("client", "pod/near:8080", by=_NEAR, sees=CLIENT, options=IPV6),
    # cluster IP
    Row("client", "svc/near:80", by=_NEAR, sees=CLIENT),
    Row("client", "svc/far:http", by=_FAR, sees=CLIENT, legacy=True),
    Row("client", "svc/far:90", by="default/far:8081", sees=CLIENT, options=UDP, legacy=True),
    Row("near", "svc/near:80", by=_NEAR, sees=WORKER_1, legacy=True),
    Row("node/worker-1", "svc/far:80", by=_FAR, sees=WORKER_1, legacy=True),
    Row("node/worker-1", "svc/near:80", by=_NEAR, sees=WORKER_1),
    Row("client", "svc/sticky:80", by=_FAR, sees=CLIENT),
    Row("client", "svc/inner:80", by=_NEAR, sees=CLIENT),
    Row("client", "10.96.0.1:443", by="node/control-plane:6443", sees=CLIENT),
    Row("client", "svc/far:80", by=_FAR, sees=CLIENT, options=IPV6, legacy=True),
    Row("client", "svc/near:90", by="default/near:8081", sees=CLIENT, options={**UDP, **IPV6}),
    Row("near", "svc/near:80", by=_NEAR, sees=WORKER_1, options=IPV6),
    # names
    Row("client", "far:80", by=_FAR, sees=CLIENT),
    Row("client", "bare:8080", by=_FAR, sees=CLIENT),
    # node ports
    Row("client/laptop", "node/worker-1:30101", by=_NEAR, sees=WORKER_1),
    Row("client/laptop", "node/worker-1:30102", by=_FAR, sees=WORKER_1, legacy=True),
    Row("client/laptop", "node/worker-1:30192", by="default/far:8081", sees=WORKER_1, options=UDP),
    Row("client", "node/worker-2:30101", by=_NEAR, sees=WORKER_2),
    Row("client/laptop", "node/worker-2:30103", by=_FAR, sees=LAPTOP, legacy=True),
    Row("client", "node/worker-1:30103", by=_FAR, sees=CLIENT),
    Row("client/laptop", "node/worker-1:30102", by=_FAR, sees=WORKER_1, options=IPV6),
    # load balancer and external IPs
    Row("client/laptop", "LOCAL:80", by=_FAR, sees=LAPTOP),
    Row("client", "FAR:80", by=_FAR, sees=WORKER_1),
    Row("client", "198.51.100.2:80", by=_FAR, sees=WORKER_1),
    # what is refused or dropped
    Row("client", "svc/empty:80", "rejected", legacy=True),
    Row("client", "RANGED:80", "lost"),
    Row("client/laptop", "node/worker-1:30103", "lost", legacy=True),
]
# fmt: on
