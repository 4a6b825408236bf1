"""A Pod's hostname and /etc/hosts. Pure.

Upstream: kubernetes/pkg/kubelet/kubelet_pods.go (GeneratePodHostNameAndDomain, managedHostsFileContent).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netemu.model.errors import UserError
from netemu.model.pods import HostAlias, Pod

_LONGEST_LABEL = 63
_LONGEST_HOSTNAME = 64
"""What the kernel takes (HOST_NAME_MAX)."""

_LOCAL = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)


@dataclass(frozen=True, slots=True)
class Names:
    """`hostname` is the first label; `kernel` what uname and /etc/hostname say; `domain` empty without a subdomain."""

    hostname: str
    domain: str
    kernel: str


def pod_names(pod: Pod, node_name: str, cluster_domain: str) -> Names:
    """The names of a Pod. Raises UserError where setHostnameAsFQDN makes a name the kernel would not take."""
    if pod.spec.host_network:
        return Names(node_name, "", node_name)
    hostname = pod.spec.hostname or pod.name[:_LONGEST_LABEL].rstrip("-.")
    domain = f"{pod.spec.subdomain}.{pod.namespace}.svc.{cluster_domain}" if pod.spec.subdomain else ""
    full = f"{hostname}.{domain}" if domain else hostname
    if not pod.spec.set_hostname_as_fqdn:
        return Names(hostname, domain, hostname)
    if len(full) > _LONGEST_HOSTNAME:
        raise UserError(
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
            f"({_LONGEST_HOSTNAME} characters is the max, {len(full)} characters requested)"
        )
    return Names(hostname, domain, full)


def hosts_text(names: Names, addresses: Sequence[str], aliases: Sequence[HostAlias]) -> str:
    """The file of a Pod with a network of its own."""
    own = f"{names.hostname}.{names.domain}\t{names.hostname}" if names.domain else names.hostname
    lines = ["# Kubernetes-managed hosts file.", *_LOCAL, *(f"{address}\t{own}" for address in addresses)]
    return "".join(f"{line}\n" for line in lines) + _aliases(aliases)


def host_network_hosts_text(node_file: str, aliases: Sequence[HostAlias]) -> str:
    """The file of a Pod on its node's network: the node's, and the aliases."""
    return "# Kubernetes-managed hosts file (host network).\n" + node_file + _aliases(aliases)


def _aliases(aliases: Sequence[HostAlias]) -> str:
    if not aliases:
        return ""
    lines = ["", "# Entries added by HostAliases."]
    lines += ["\t".join((alias.ip, *alias.hostnames)) for alias in aliases]
    return "".join(f"{line}\n" for line in lines)
