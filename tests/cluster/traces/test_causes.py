"""Set-ups that are broken on purpose, in one lab: real packets, and the cause that `netemu trace` finds for each."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest

from netemu.kernel import netns
from netemu.lab.api import LabApi, agent_status
from netemu.lab.paths import LabPaths
from netemu.lab.readiness import AGENT_AWAY
from netemu.lab.rules import wait_for_rules
from netemu.lab.trace import Tracer
from netemu.model.resources import ENDPOINTSLICES, PODS, SERVICES
from netemu.network.names import client_netns, host_veth, node_netns, pod_netns, underlay_netns
from netemu.observe.story.story import Story
from tests.cluster.labs import api, eventually, netemu
from tests.cluster.traces.trace_table import LAB, located

WORKER_1, WORKER_2 = node_netns(LAB, "worker-1"), node_netns(LAB, "worker-2")
FAR = pod_netns(LAB, "default", "far")
VETH = host_veth(FAR)


def traced(source: str, to: str, **options: Any) -> Story:
    story, _ = asyncio.run(Tracer(LAB, source, "default").story(located(LAB, to), **options))
    return story


def sh(namespace: str, command: str) -> str:
    """A command in a namespace of the lab."""
    done = subprocess.run(["ip", "netns", "exec", namespace, *shlex.split(command)], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextmanager
def changed(namespace: str, do: str, undo: str) -> Iterator[None]:
    """A command has been given in a namespace meanwhile."""
    sh(namespace, do)
    try:
        yield
    finally:
        sh(namespace, undo)


def gone(name: str) -> bool:
    """Whether nothing is left of a Pod."""
    return pod_netns(LAB, "default", name) not in netns.names()


@contextmanager
def created(*objects: dict[str, Any], until: Callable[[LabApi], object] = lambda _: True) -> Iterator[None]:
    """Objects are there meanwhile, and the rules know them."""
    client = api(LAB)
    kinds = {"Pod": PODS, "Service": SERVICES}
    for obj in objects:
        client.create(kinds[obj["kind"]], {"apiVersion": "v1", **obj}, "default")
    try:
        eventually(lambda: until(client), "the objects are as they should be")
        wait_for_rules(LAB, timeout=20)
        yield
    finally:
        for obj in objects:
            name = obj["metadata"]["name"]
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
            client.request("DELETE", kinds[obj["kind"]].path("default", name), options)
            eventually(partial(gone, name), f"{name} is gone")


def pod(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}]
    container = {"name": "c", "image": "agnhost", "args": ["netexec"], "ports": ports}
    return {
        "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": "worker-2", "containers": [container], **spec},
    }  # fmt: skip


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }  # fmt: skip


def runs(name: str) -> Callable[[LabApi], object]:
    return lambda client: client.get(PODS, name, "default")["status"].get("podIP")


def deleted(name: str) -> Callable[[LabApi], object]:
    """A Pod that is not Ready has been deleted, and takes its time to stop."""

    def check(client: LabApi) -> object:
        endpoints = endpoints_of(client, name)
        if endpoints and not endpoints[0]["conditions"]["terminating"]:
            client.delete(PODS, name, "default")
        return endpoints and endpoints[0]["conditions"]["terminating"]

    return check


NEVER = [{"conditionType": "example.com/never"}]


def unready() -> AbstractContextManager[None]:
    return created(pod("unready", readinessGates=NEVER), service("unready"), until=runs("unready"))


def terminating() -> AbstractContextManager[None]:
    slow = pod("parting", readinessGates=NEVER)
    slow["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 25}}}
    return created(slow, service("parting"), until=deleted("parting"))


def unscheduled() -> AbstractContextManager[None]:
    lost = pod("lost", nodeSelector={"disk": "none"})
    del lost["spec"]["nodeName"]
    return created(lost, until=lambda client: client.get(PODS, "lost", "default")["status"].get("conditions"))


def target_port() -> AbstractContextManager[None]:
    misnamed = service("misnamed", ports=[{"port": 80, "targetPort": "https"}])
    return created(pod("misnamed"), misnamed, until=runs("misnamed"))


@contextmanager
def stale_entry() -> Iterator[None]:
    """A datagram was translated to nobody's address; the rule that did it is gone, its conntrack entry is not."""
    rule = "PREROUTING -s {} -p udp --dport 90 -j DNAT --to-destination 10.244.2.99:8081"
    client = api(LAB).get(PODS, "client", "default")["status"]["podIP"]
    with changed(WORKER_1, f"iptables -t nat -I {rule.format(client)}", f"iptables -t nat -D {rule.format(client)}"):
        traced("client", "svc/far:90", protocol="udp", source_port=40000)
    yield


@contextmanager
def missing_rule() -> Iterator[None]:
    jump = 'PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    # What is newest is none of kube-proxy's business, so no proxy is behind for it.
    api(LAB).merge_patch(SERVICES, "bare", {"metadata": {"annotations": {"example.com/seen": "1"}}}, "default")
    with changed(WORKER_1, f"iptables -t nat -D {jump}", f"iptables -t nat -I {jump}"):
        yield


def missing_masquerade() -> AbstractContextManager[None]:
    jump = 'POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'
    return changed(WORKER_1, f"iptables -t nat -D {jump}", f"iptables -t nat -I {jump}")


def foreign(rule: str) -> AbstractContextManager[None]:
    """Somebody else has a rule in table nat."""
    return changed(WORKER_1, f"iptables -t nat -I {rule}", f"iptables -t nat -D {rule}")


@contextmanager
def no_proxies() -> Iterator[None]:
    """The node agent was killed and nobody starts it again; then there came a Service."""
    state = json.loads(LabPaths(LAB).supervisor_state.read_text())
    os.kill(state["supervisor"]["pid"], signal.SIGSTOP)
    try:
        os.kill(state["node-agent"]["pid"], signal.SIGKILL)
        client = api(LAB)
        client.create(SERVICES, {"apiVersion": "v1", **service("late", selector={"at": "far"})}, "default")
        eventually(lambda: endpoints_of(client, "late"), "the new Service has endpoints")
        assert AGENT_AWAY in netemu("status", LAB)
        yield
    finally:
        os.kill(state["supervisor"]["pid"], signal.SIGCONT)
        client.delete(SERVICES, "late", "default")
        eventually(lambda: agent_status(LAB), "the node agent is back")


def endpoints_of(client: LabApi, name: str) -> list[dict[str, Any]]:
    slices, _ = client.list(ENDPOINTSLICES, "default", labelSelector=f"kubernetes.io/service-name={name}")
    return [endpoint for each in slices for endpoint in each.get("endpoints") or ()]


def blackhole(kind: str) -> AbstractContextManager[None]:
    address = api(LAB).get(PODS, "far", "default")["status"]["podIP"]
    return changed(WORKER_1, f"ip route add {kind} {address}", f"ip route del {kind} {address}")


@contextmanager
def down(namespace: str, link: str) -> Iterator[None]:
    """A link is down, and what the kernel forgets with it comes back: routes, neighbours, addresses of IPv6."""
    forgotten = [f"ip route add {route} dev {link}" for route in lines(namespace, f"ip -4 route show dev {link}")]
    for address in lines(namespace, f"ip -o -6 addr show dev {link} scope global"):
        forgotten.append(f"ip -6 addr add {address.split()[3]} dev {link} nodad")
    for route in lines(namespace, f"ip -6 route show dev {link}"):
        if "proto kernel" not in route:
            forgotten.append(f"ip -6 route add {route.partition(' pref ')[0]} dev {link}")
    neighbours = lines(namespace, f"ip neigh show dev {link} nud permanent")
    forgotten += [f"ip neigh replace {each.removesuffix(' PERMANENT')} nud permanent dev {link}" for each in neighbours]
    with changed(namespace, f"ip link set {link} down", f"ip link set {link} up"):
        yield
    for command in forgotten:
        if "proto kernel" not in command:
            sh(namespace, command)


def lines(namespace: str, command: str) -> list[str]:
    return [line.strip() for line in sh(namespace, command).splitlines()]


def link_down() -> AbstractContextManager[None]:
    return changed(underlay_netns(LAB), "ip link set worker-2 down", "ip link set worker-2 up")


def own_link_down() -> AbstractContextManager[None]:
    return down(client_netns(LAB, "laptop"), "eth0")


def veth_down() -> AbstractContextManager[None]:
    return down(WORKER_2, VETH)


def no_forwarding() -> AbstractContextManager[None]:
    return changed(WORKER_2, "sysctl -w net.ipv4.ip_forward=0", "sysctl -w net.ipv4.ip_forward=1")


def no_way_back() -> AbstractContextManager[None]:
    (default,) = lines(FAR, "ip -4 route show default")
    return changed(FAR, "ip route del default", f"ip route add {default}")


def firewall(rule: str, node: str = WORKER_2) -> AbstractContextManager[None]:
    return changed(node, f"iptables -I {rule}", f"iptables -D {rule}")


def small_mtu(node: str = WORKER_1) -> AbstractContextManager[None]:
    return changed(node, "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500")


Broken = Callable[[], AbstractContextManager[None]]
UDP, ICMP, IPV6 = {"protocol": "udp"}, {"protocol": "icmp"}, {"family": "ipv6"}
# fmt: off
SETUPS: dict[str, tuple[Broken, str, str, dict[str, Any], str, str, str]] = {
    # what is broken: how, from, to, options, reason, place, words
    "selector with a typo": (nullcontext, "client", "svc/empty:80", {}, "no-endpoints", "node/worker-1",
        "the selector app=wep of Service default/empty matches no Pod"),
    "Pod not Ready": (unready, "client", "svc/unready:80", {}, "not-ready", "node/worker-1", "unready is Running"),
    "Pod terminating": (terminating, "client", "svc/parting:80", {}, "terminating", "node/worker-1", "terminating"),
    "targetPort without a name": (target_port, "client", "svc/misnamed:80", {}, "target-port", "node/worker-1",
        "targetPort 'https' of Service default/misnamed"),
    "wrong port": (nullcontext, "client", "svc/far:8080", {}, "wrong-port", "node/worker-1", "no port 8080/TCP"),
    "wrong protocol": (nullcontext, "client", "svc/far:90", {}, "wrong-protocol", "node/worker-1", "no port 90/TCP"),
    "internal policy Local": (nullcontext, "far", "svc/inner:80", {}, "no-local-endpoint", "node/worker-2",
        "internalTrafficPolicy of Service default/inner is Local"),
    "external policy Local": (nullcontext, "client/laptop", "172.18.0.3:30103", {}, "no-local-endpoint",
        "node/worker-1", "externalTrafficPolicy of Service default/local is Local"),
    "source ranges": (nullcontext, "client", "RANGED:80", {}, "source-range", "node/worker-1",
        "do not have the source"),
    "stale conntrack entry": (stale_entry, "client", "svc/far:90", {**UDP, "source_port": 40000}, "stale-conntrack",
        "node/worker-1", "has an entry from before, so the packet was sent on to 10.244.2.99:8081"),
    "missing rule": (missing_rule, "client", "svc/far:80", {}, "missing-rule", "node/worker-1", "by no rule"),
    "missing masquerade": (missing_masquerade, "client/laptop", "node/worker-1:30102", {}, "wrong-source",
        "node/worker-1", "saw the source 203.0.113.10; it should have seen 172.18.0.3"),
    "somebody else's DNAT": (lambda: foreign("PREROUTING -d 10.96.0.102 -p tcp -j DNAT --to 198.51.100.9:81"),
        "client", "svc/far:80", {}, "foreign-rule", "node/worker-1", "198.51.100.9:81` of nat PREROUTING"),
    "somebody else's masquerade": (lambda: foreign("POSTROUTING -p tcp --dport 8080 -j MASQUERADE"), "client",
        "svc/far:80", {}, "foreign-rule", "node/worker-1", "-j MASQUERADE` of nat POSTROUTING"),
    "the way to DNS is blocked": (lambda: firewall("FORWARD -p udp --dport 53 -j REJECT", WORKER_1), "client", "far:80",
        {}, "dropped-by-rule", "node/worker-1", "nobody tells what the name far is"),
    "cluster IP from outside": (nullcontext, "client/laptop", "10.96.0.102:80", {}, "no-route", "underlay",
        "made by the rules of nodes"),
    "name of another family": (nullcontext, "client", "inner:80", IPV6, "family", "resolver, nameserver 10.96.0.10",
        "Service default/inner has no IPv6 address; it has IPv4"),
    "proxies stopped": (no_proxies, "client", "svc/late:80", {}, "proxy-stopped", "node/worker-1", "the node agent"),
    "link down": (link_down, "client", "svc/far:80", {}, "link-down", "underlay", "link worker-2 of underlay"),
    "own link down": (own_link_down, "client/laptop", "node/worker-1:30102", {}, "link-down", "client/laptop",
        "link eth0 of client/laptop"),
    "server's link down": (veth_down, "client", "svc/far:80", {}, "link-down", "node/worker-2", VETH),
    "server's link down, from its node": (veth_down, "node/worker-2", "pod/far:8080", {}, "link-down",
        "node/worker-2", VETH),
    "no route": (lambda: blackhole("unreachable"), "client", "svc/far:80", {}, "no-route", "node/worker-1",
        "the route `unreachable 10.244.2."),
    "blackhole": (lambda: blackhole("blackhole"), "client", "pod/far:8080", {}, "blackhole", "node/worker-1",
        "the route `blackhole 10.244.2."),
    "no forwarding": (no_forwarding, "client", "svc/far:80", {}, "no-forwarding", "node/worker-2",
        "net.ipv4.ip_forward is 0"),
    "no way back": (no_way_back, "client", "svc/far:80", {}, "no-route-back", "default/far",
        "has no route back to default/client"),
    "no such Pod": (nullcontext, "client", "10.244.2.99:80", {}, "loop", "node/worker-2", "has it"),
    "no such Pod, from its node": (nullcontext, "near", "10.244.1.99:80", {}, "loop", "node/worker-1", "has it"),
    "nobody on the link": (nullcontext, "client/laptop", "203.0.113.77:80", {}, "no-neighbour", "client/laptop",
        "nobody on link eth0 of client/laptop has 203.0.113.77"),
    "address of nobody": (nullcontext, "client", "198.51.100.77:80", {}, "no-route", "underlay",
        "nothing in this lab"),
    "no such Pod, from the node itself": (nullcontext, "node/worker-1", "10.244.1.99:80", {}, "loop",
        "node/worker-1", "has it"),
    "MTU": (small_mtu, "client", "pod/far:8081", {**UDP, "size": 1500}, "mtu", "node/worker-1",
        "1500 bytes is too long"),
    "MTU at the far end": (lambda: small_mtu(WORKER_2), "client", "pod/far", {**ICMP, "size": 1450}, "mtu",
        "node/worker-2", "link eth0 of node/worker-2, MTU 1400"),
    "MTU at the far end, IPv6": (lambda: small_mtu(WORKER_2), "client", "pod/far", {**ICMP, **IPV6, "size": 1450},
        "mtu", "node/worker-2", "link eth0 of node/worker-2, MTU 1400"),
    "firewall drops": (lambda: firewall("FORWARD -p tcp --dport 8080 -j DROP"), "client", "svc/far:80", {},
        "dropped-by-rule", "node/worker-2", "drops the packet"),
    "firewall rejects": (lambda: firewall("FORWARD -p tcp --dport 8080 -j REJECT"), "client", "svc/far:80", {},
        "dropped-by-rule", "node/worker-2", "rejects the packet"),
    "firewall drops answers": (lambda: firewall("FORWARD -p tcp --sport 8080 -j DROP"), "client", "svc/far:80", {},
        "answer-lost", "node/worker-2", "the answer of default/far"),
    "Service of another family": (nullcontext, "client", "svc/inner:80", IPV6, "family", "Service default/inner",
        "has no IPv6 address"),
    "headless": (nullcontext, "client", "bare:80", {}, "headless", "default/far", "no rule translates its port"),
    "unknown name": (nullcontext, "client", "nosuch:80", {}, "unknown-name", "resolver, nameserver 10.96.0.10",
        "nosuch leads nowhere"),
    "nobody listens": (nullcontext, "client", "pod/far:9999", {}, "not-listening", "default/far", "on port 9999"),
    "nobody listens, datagram": (nullcontext, "client", "pod/far:9999", UDP, "not-listening", "default/far",
        "on port 9999"),
    "nobody listens at home": (nullcontext, "far", "127.0.0.1:9999", {}, "not-listening", "default/far", "refused"),
    "Pod on no node": (unscheduled, "client", "pod/lost:80", {}, "unscheduled", "Pod default/lost", "on no node yet"),
    "ping of a cluster IP": (nullcontext, "client", "svc/far", ICMP, "no-icmp", "node/worker-1",
        "nobody answers a ping"),
    "no node port": (nullcontext, "client/laptop", "node/worker-1:30999", {}, "not-listening", "node/worker-1",
        "has no node port 30999"),
}
# fmt: on


@pytest.mark.parametrize(("broken", "source", "to", "options", "reason", "place", "words"), SETUPS.values(), ids=SETUPS)
def test_the_cause_is_found(
    lab: str, broken: Broken, source: str, to: str, options: dict[str, Any], reason: str, place: str, words: str
) -> None:
    with broken():
        story = traced(source, to, **options)

    assert story.why_not is not None, story.summary
    assert (story.why_not.reason, story.why_not.place) == (reason, place), story.why_not.text
    assert words in story.why_not.text


@pytest.mark.parametrize(
    ("source", "to", "options"),
    [("far", "pod/far:8080", {}), ("far", "127.0.0.1:8080", {}), ("far", "pod/far", ICMP),
     ("node/worker-1", "node/worker-1:10250", {}), ("far", "svc/far:80", {})],
)  # fmt: skip
def test_whoever_asks_itself_is_answered(lab: str, source: str, to: str, options: dict[str, Any]) -> None:
    story = traced(source, to, **options)

    assert (story.outcome, story.why_not) == ("answered", None), story.summary


def test_who_rejected_is_told_though_its_answer_was_translated_back(lab: str) -> None:
    with firewall("FORWARD -p tcp --dport 8080 -j REJECT", WORKER_1):
        story = traced("client/laptop", "node/worker-1:30102")

    assert "by node/worker-1" in story.summary


def test_who_answered_is_told_though_nobody_expected_it(lab: str) -> None:
    near = api(LAB).get(PODS, "near", "default")["status"]["podIP"]
    rule = f"PREROUTING -d 10.96.0.102 -p tcp --dport 80 -j DNAT --to-destination {near}:8080"
    with changed(WORKER_1, f"iptables -t nat -I {rule}", f"iptables -t nat -D {rule}"):
        story = traced("client", "svc/far:80")

    assert "answered by default/near:8080" in story.summary
