"""Corefiles that ship with netemu."""

from __future__ import annotations

from collections.abc import Sequence

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


def node_local(domain: str, own: Sequence[str], cluster: str, metrics: int = 9253) -> str:
    """The Corefile of a NodeLocal DNSCache (`addons/dns/nodelocaldns` of Kubernetes): `own` are the addresses it
    listens on, the first of which has the health page; `cluster` is where cluster DNS is behind it."""
    bind, local = " ".join(own), own[0]

    def block(zone: str, lines: str, options: str) -> str:
        return f"""\
{zone}:53 {{
    errors
    {lines}
    reload
    loop
    bind {bind}
    forward . {options}
    prometheus :{metrics}
}}
"""

    through = f"{cluster} {{\n        force_tcp\n    }}"
    names = f"cache {{\n        success 9984 30\n        denial 9984 5\n    }}\n    health {local}:8080"
    return (
        block(domain, names, through)
        + block("in-addr.arpa", "cache 30", through)
        + block("ip6.arpa", "cache 30", through)
        + block(".", "cache 30", "/etc/resolv.conf")
    )
