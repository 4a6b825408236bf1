"""What every cluster has besides its API: cluster DNS, as kubeadm sets it up.

`kube-dns` is a Service like any other, so every lookup crosses the proxy's rules. Behind it stands the Deployment
`coredns`, whose Pods run `netemu dns` as real processes in their own namespaces, with their ServiceAccount's token.
"""

from __future__ import annotations

from typing import Any

from netemu.dns.defaults import kubeadm
from netemu.lab.config import CONTROL_PLANE_LABEL, LabConfig

SYSTEM = "kube-system"
FAULTS = "dns-faults"
"""The ConfigMap whose data are the faults of cluster DNS."""
OUTSIDE_FAULTS = "dns-faults-outside"
"""Those of the resolver outside."""
_LABELS = {"k8s-app": "kube-dns"}


def cluster_dns(config: LabConfig) -> list[dict[str, Any]]:
    """The objects of cluster DNS, in the order they are posted."""
    return [
        _object("v1", "ServiceAccount", "coredns"),
        _object("v1", "ConfigMap", "coredns", data={"Corefile": config.corefile or kubeadm(config.dns_domain)}),
        _object("v1", "ConfigMap", FAULTS),
        _object("v1", "ConfigMap", OUTSIDE_FAULTS),
        _service(config),
        _deployment(config),
    ]


def _object(api_version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": SYSTEM, "labels": dict(_LABELS)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def _service(config: LabConfig) -> dict[str, Any]:
    ports = [("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"), ("metrics", 9153, "TCP")]
    service = _object("v1", "Service", "kube-dns")
    service["metadata"]["labels"] |= {"kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    service["spec"] = {
        "clusterIP": config.dns_service_ips[0],
        "selector": dict(_LABELS),
        "ports": [{"name": name, "port": port, "targetPort": port, "protocol": proto} for name, port, proto in ports],
    }
    if len(config.dns_service_ips) > 1:
        # kubeadm's has one address even where there are two families; here both can be asked.
        service["spec"] |= {"clusterIPs": list(config.dns_service_ips), "ipFamilyPolicy": "PreferDualStack"}
    return service


def _deployment(config: LabConfig) -> dict[str, Any]:
    container = {
        "name": "coredns",
        "image": "netemu.dev/dns",
        "command": ["netemu", "dns", "--conf", "/etc/coredns/Corefile"],
        "args": ["--faults", f"{SYSTEM}/{FAULTS}"],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 9153, "protocol": "TCP"},
        ],
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": 8080},
            "initialDelaySeconds": 60,
            "failureThreshold": 5,
            "timeoutSeconds": 5,
        },
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "timeoutSeconds": 5},
        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    pod = {
        "runtimeClassName": "process",
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 5,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": CONTROL_PLANE_LABEL, "effect": "NoSchedule"},
        ],
        "containers": [container],
        "volumes": [{"name": "config-volume", "configMap": {"name": "coredns"}}],
    }
    deployment = _object("apps/v1", "Deployment", "coredns")
    deployment["spec"] = {
        "replicas": config.dns_replicas,
        "selector": {"matchLabels": dict(_LABELS)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "template": {"metadata": {"labels": dict(_LABELS)}, "spec": pod},
    }
    return deployment
