"""A Pod's /etc/resolv.conf from its dnsPolicy, its dnsConfig and the node's own file. Pure.

Rules and limits: kubernetes/pkg/kubelet/network/dns/dns.go; the text has containerd's order (search, nameserver,
options).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from netemu.model.pods import Pod

_MOST_NAMESERVERS = 3
_MOST_SEARCHES = 32
_LONGEST_SEARCH_LINE = 2048
_LONGEST_SEARCH = 253
"""glibc 2.28 aborts on a longer one."""
_NO_CLUSTER_DNS = (
    "kubelet does not have ClusterDNS IP configured and cannot create Pod using "
    '"ClusterFirst" policy. Falling back to "Default" policy.'
)


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The contents of a resolv.conf; options as written, `ndots:5`."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """The file."""
        lines = [f"search {' '.join(self.searches)}"] if self.searches else []
        lines += [f"nameserver {address}" for address in self.nameservers]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Warned:
    """A Warning event that goes with the answer."""

    reason: str
    message: str
    of_node: bool = False
    """It is about the node rather than the Pod."""


def parse(text: str) -> ResolvConf:
    """A node's file: nameservers and options add up, the last search line counts, and the last word on an option."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if not words or line.lstrip().startswith(("#", ";")):
            continue
        match words[0]:
            case "nameserver" if len(words) > 1:
                nameservers.append(words[1])
            case "search":
                searches = tuple(word if word == "." else word.rstrip(".") for word in words[1:])
            case "options":
                options |= {word.partition(":")[0]: word for word in words[1:]}
    return ResolvConf(tuple(nameservers), searches, tuple(options.values()))


def loopback(node_addresses: Sequence[str]) -> ResolvConf:
    """What stands in for the file of a node without one: nothing of the machine must leak into its Pods."""
    servers = tuple("::1" if ":" in address else "127.0.0.1" for address in node_addresses)
    return ResolvConf(servers or ("127.0.0.1",), (".",))


def resolv_conf(
    pod: Pod,
    cluster_dns: tuple[str, ...],
    domain: str,
    host: ResolvConf | None,
    node_addresses: Sequence[str] = (),
) -> tuple[ResolvConf, list[Warned]]:
    """What the Pod gets, and what to warn about. `host` is None where the node has no resolver file."""
    warnings: list[Warned] = []
    policy = pod.spec.dns_policy
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and not cluster_dns:
        full_name = f"{pod.name}_{pod.namespace}({pod.metadata.uid})"
        warnings.append(Warned("MissingClusterDNS", _NO_CLUSTER_DNS, of_node=True))
        warnings.append(Warned("MissingClusterDNS", f'pod: "{full_name}". {_NO_CLUSTER_DNS}'))
        policy = "Default"
    match policy:
        case "None":
            base = ResolvConf()
        case "ClusterFirst" | "ClusterFirstWithHostNet":
            searches = _cluster_searches(pod.namespace, domain, host.searches if host else ())
            base = ResolvConf(cluster_dns, searches, ("ndots:5",))
        case _:
            base = host if host is not None else loopback(node_addresses)
    fitted, problems = _fit(_with_config(base, pod))
    return fitted, warnings + [Warned("DNSConfigForming", problem) for problem in problems]


def _cluster_searches(namespace: str, domain: str, of_host: tuple[str, ...]) -> tuple[str, ...]:
    own = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain) if domain else ()
    return _unique((*own, *of_host))


def _with_config(base: ResolvConf, pod: Pod) -> ResolvConf:
    config = pod.spec.dns_config
    if config is None:
        return base
    options = {option.partition(":")[0]: option for option in base.options}
    for option in config.options:
        options[option.name] = f"{option.name}:{option.value}" if option.value else option.name
    return ResolvConf(
        _unique((*base.nameservers, *config.nameservers)),
        _unique((*base.searches, *config.searches)),
        tuple(options.values()),
    )


def _fit(conf: ResolvConf) -> tuple[ResolvConf, list[str]]:
    problems: list[str] = []
    if len(conf.nameservers) > _MOST_NAMESERVERS:
        conf = replace(conf, nameservers=conf.nameservers[:_MOST_NAMESERVERS])
        problems.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
            + " ".join(conf.nameservers)
        )
    searches = [name for name in conf.searches[:_MOST_SEARCHES] if len(name) <= _LONGEST_SEARCH]
    while len(" ".join(searches)) > _LONGEST_SEARCH_LINE:
        searches.pop()
    if len(searches) < len(conf.searches):
        conf = replace(conf, searches=tuple(searches))
        problems.append(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
            + " ".join(searches)
        )
    return conf, problems


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
