"""Corefiles that ship with netemu."""

from __future__ import annotations

KUBEADM = """\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
"""
"""What current kubeadm installs (`kubeadm/app/phases/addons/dns/manifests.go`)."""

LEGACY = KUBEADM.replace(
    """\
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
""",
    "    cache 30\n",
)
"""What older clusters have: cluster names are cached for 30 seconds too."""


def kubeadm(domain: str) -> str:
    """kubeadm's Corefile for a cluster domain."""
    return KUBEADM.replace("cluster.local", domain)
