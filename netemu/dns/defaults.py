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


def lab_corefile(domain: str = "cluster.local", upstreams: tuple[str, ...] = ()) -> str:
    """The Corefile of a lab: no pause at shutdown, and no outside unless upstreams are given.

    Two server blocks, because `template` stands before `kubernetes` in CoreDNS's order and would answer its names too.
    """
    if upstreams:
        return (
            KUBEADM.replace("cluster.local", domain)
            .replace("/etc/resolv.conf", " ".join(upstreams))
            .replace("    health {\n       lameduck 5s\n    }\n", "    health\n")
        )
    return f"""\
{domain}:53 in-addr.arpa:53 ip6.arpa:53 {{
    errors
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       ttl 30
    }}
    prometheus :9153
    loadbalance
}}
.:53 {{
    errors
    health
    prometheus :9153
    template ANY ANY {{
       rcode NXDOMAIN
       authority "{{{{ .Zone }}}} 30 IN SOA ns.dns.{domain}. hostmaster.{domain}. 1 7200 1800 86400 30"
    }}
    reload
}}
"""
