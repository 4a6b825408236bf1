"""NodeLocal DNSCache in a lab: a cache on every node, on a link-local address and on the address of cluster DNS.

Upstream runs it as a DaemonSet; here it is a Pod for each node, posted with the other add-ons. It asks cluster DNS by
TCP through `kube-dns-upstream`, a second Service in front of the same Pods: the address of the first is its own.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from netemu.dns import defaults
from netemu.lab.addons import SYSTEM
from netemu.lab.config import LabConfig

ADDRESS: Final = "169.254.20.10"
_NAME = "node-local-dns"
_UPSTREAM = "kube-dns-upstream"


def cluster_dns_of_pods(config: LabConfig) -> tuple[str, ...]:
    """What the kubelet writes into resolv.conf: with IPVS the cluster IP is an address of every node already."""
    if config.node_local_dns and config.proxy_mode == "ipvs":
        return (ADDRESS,)
    return config.dns_service_ips[:1]  # as kubeadm configures its kubelets, with two families too


def own_addresses(config: LabConfig) -> tuple[str, ...]:
    """The addresses that each cache has."""
    return tuple(dict.fromkeys((ADDRESS, *(cluster_dns_of_pods(config)))))


def node_local_dns(config: LabConfig) -> list[dict[str, Any]]:
    """The objects, in the order they are posted."""
    behind = str(ipaddress.ip_network(config.service_cidrs[0])[11])
    corefile = defaults.node_local(config.dns_domain, own_addresses(config), behind)
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    return [
        _object("ConfigMap", _NAME, data={"Corefile": corefile}),
        _object("Service", _UPSTREAM, spec={"clusterIP": behind, "selector": {"k8s-app": "kube-dns"}, "ports": ports}),
        *(_pod(config, node.name) for node in config.nodes),
    ]


def _object(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": SYSTEM, "labels": {"k8s-app": _NAME}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


def _pod(config: LabConfig, node: str) -> dict[str, Any]:
    container = {
        "name": "node-cache",
        "image": "netemu.dev/dns",
        "command": ["netemu", "dns", "--conf", "/etc/coredns/Corefile"],
        "args": ["--node-local", ",".join(own_addresses(config))],
        "livenessProbe": {
            "httpGet": {"host": ADDRESS, "path": "/health", "port": 8080},
            "initialDelaySeconds": 60,
            "timeoutSeconds": 5,
        },
        "readinessProbe": {"httpGet": {"host": ADDRESS, "path": "/health", "port": 8080}},
        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    return _object(
        "Pod",
        f"{_NAME}-{node}",
        spec={
            "nodeName": node,
            "hostNetwork": True,
            "dnsPolicy": "Default",
            "runtimeClassName": "process",
            "priorityClassName": "system-node-critical",
            "terminationGracePeriodSeconds": 5,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [{"name": "config-volume", "configMap": {"name": _NAME}}],
        },
    )
