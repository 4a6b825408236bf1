"""A lab with every kind of Service that the oracle tells apart, for `netemu matrix`.

Pods one (worker-1) and two (worker-2) answer on 8080, TCP and UDP; `host` is on worker-2's own network. The control
plane has nothing but cluster DNS.
"""

from __future__ import annotations

from typing import Any

import yaml

HTTP = ({"name": "http", "port": 80, "targetPort": 8080},)
BOTH = (*HTTP, {"name": "udp", "port": 80, "protocol": "UDP", "targetPort": 8080})


def topology(family: str = "dual") -> str:
    """The topology file."""
    spec = {"ipFamily": family, "clients": [{"name": "laptop", "ports": [80]}], "dns": {"replicas": 3}}
    head = {"apiVersion": "netemu.dev/v1alpha1", "kind": "Topology", "metadata": {"name": "matrix"}, "spec": spec}
    return yaml.safe_dump_all([head, *PODS, *SERVICES, *slices(family)])


def _pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    ports = [{"containerPort": 8080}, {"containerPort": 8080, "protocol": "UDP"}]
    container = {"name": "web", "image": "example.com/web:1", "ports": ports}
    spec = {"nodeName": node, "containers": [container], **spec}
    labels = {"app": name, "tier": "none" if "hostNetwork" in spec else "web"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _service(name: str, ports: Any = HTTP, **spec: Any) -> dict[str, Any]:
    spec = {"ipFamilyPolicy": "PreferDualStack", "selector": {"tier": "web"}, "ports": list(ports), **spec}
    metadata = {"name": name}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {k: v for k, v in spec.items() if v}}


PODS = [_pod("one", "worker-1"), _pod("two", "worker-2"), _pod("host", "worker-2", hostNetwork=True)]
ONE = {"app": "one"}
SERVICES = [
    _service("plain", BOTH),
    _service("single", BOTH, selector=ONE),
    _service("sticky", sessionAffinity="ClientIP"),
    _service("inner", selector=ONE, internalTrafficPolicy="Local"),
    _service("ports", BOTH, type="NodePort"),
    _service("ports-local", BOTH, type="NodePort", selector=ONE, externalTrafficPolicy="Local"),
    _service("balanced", type="LoadBalancer"),
    _service("balanced-local", type="LoadBalancer", selector=ONE, externalTrafficPolicy="Local"),
    _service("ranged", type="LoadBalancer", loadBalancerSourceRanges=["10.244.0.0/16", "fd00:10:244::/56"]),
    _service("external", externalIPs=["198.51.100.7", "2001:db8:51::7"]),
    _service("external-local", selector=ONE, externalIPs=["198.51.100.8"], externalTrafficPolicy="Local"),
    _service("host", selector={"app": "host"}),
    _service("nobody", BOTH, selector={"app": "nobody"}),
    _service("unready", selector=None),
    _service("outside", selector=None),
    _service("headless", clusterIP="None"),
]


def slices(family: str) -> list[dict[str, Any]]:
    """Endpoints by hand: one that is not ready, and a client outside."""
    made = [
        _slice("unready", "IPv4", "10.244.1.200", 8080, ready=False),
        _slice("outside", "IPv4", "203.0.113.10", 80, ready=True),
    ]
    six = [_slice("outside", "IPv6", "2001:db8:113::10", 80, ready=True)]
    return [*made, *(six if family == "dual" else [])]


def _slice(service: str, kind: str, address: str, port: int, *, ready: bool) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{service}-{kind.lower()}", "labels": {"kubernetes.io/service-name": service}},
        "addressType": kind,
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }
