"""A Pod's /etc/resolv.conf from its dnsPolicy, its dnsConfig and the node's own file. Pure.

Rules and limits: kubernetes/pkg/kubelet/network/dns/dns.go; the text has containerd's order (search, nameserver,
options).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from netemu.model.pods import Pod

_MOST_NAMESERVERS = 3
_MOST_SEARCHES = 32
_LONGEST_SEARCH_LINE = 2048
_LONGEST_SEARCH = 253


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


def parse(text: str) -> ResolvConf:
    """A node's file: nameserver lines add up, the last search and the last options line count."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
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
                options = tuple(words[1:])
    return ResolvConf(tuple(nameservers), searches, options)


def resolv_conf(
    pod: Pod, cluster_dns: tuple[str, ...], domain: str, host: ResolvConf | None
) -> tuple[ResolvConf, list[Warned]]:
    """What the Pod gets, and what to warn about. `host` is None where the node has no resolver file."""
    warnings: list[Warned] = []
    policy = pod.spec.dns_policy
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and not cluster_dns:
        warnings.append(
            Warned(
                "MissingClusterDNS",
                f"pod: {pod.key!r}. kubelet does not have ClusterDNS IP configured and cannot create Pod using "
                f'"{policy}" policy. Falling back to "Default" policy.',
            )
        )
        policy = "Default"
    base = _base(policy, pod.namespace, cluster_dns, domain, host)
    fitted, problems = _fit(_with_config(base, pod))
    return fitted, warnings + [Warned("DNSConfigForming", problem) for problem in problems]


def _base(
    policy: str, namespace: str, cluster_dns: tuple[str, ...], domain: str, host: ResolvConf | None
) -> ResolvConf:
    match policy:
        case "None":
            return ResolvConf()
        case "ClusterFirst" | "ClusterFirstWithHostNet":
            own = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain) if domain else ()
            return ResolvConf(cluster_dns, _unique((*own, *(host.searches if host else ()))), ("ndots:5",))
        case _:
            # Without a file upstream points at loopback, so that nothing of the machine leaks into the Pod.
            return host if host is not None else ResolvConf(("127.0.0.1",), (".",))


def _with_config(base: ResolvConf, pod: Pod) -> ResolvConf:
    config = pod.spec.dns_config
    if config is None:
        return base
    options = {option.partition(":")[0]: option for option in base.options}
    for option in config.options:
        options[option.name] = option.name if option.value is None else f"{option.name}:{option.value}"
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
    searches = [name for name in conf.searches if len(name) <= _LONGEST_SEARCH][:_MOST_SEARCHES]
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
