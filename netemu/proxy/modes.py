"""The proxy modes, and what each contributes: settings, sysctls, a programmer per family, and cleaning up after itself.

A mode is a module `netemu.proxy.MODE_mode` with one object `MODE`; it is imported when it is asked for, because each
brings kernel wrappers along that the others do not need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from netemu.proxy.config import DEFAULT_MODE, MODES, PRIMARY, KubeProxyConfiguration
from netemu.proxy.programmer import Programmer
from netemu.proxy.services import Family, networks_of_family


@dataclass(frozen=True, slots=True)
class Site:
    """Where a programmer works."""

    netns: str = ""
    """"" is this process' own namespace."""
    lock_file: Path | None = None
    """The node's own xtables lock; None: the machine's."""


@dataclass(frozen=True, slots=True)
class Periods:
    """Seconds."""

    sync: float
    """Pause before a retry, and between two looks at whether the rules are intact."""
    min_sync: float
    """Shortest time between the starts of two syncs."""
    longest: float = 3600.0
    """A sync happens at least that often, and trusts nothing."""


class Mode(Protocol):
    """What `import_module("netemu.proxy.MODE_mode").MODE` is."""

    def periods(self, config: KubeProxyConfiguration) -> Periods:
        """When to sync."""
        ...

    def masquerade_all(self, config: KubeProxyConfiguration) -> bool:
        """Whether all traffic to ClusterIPs is masqueraded."""
        ...

    def node_port_networks(self, config: KubeProxyConfiguration, family: Family, node_ip: str) -> tuple[str, ...]:
        """CIDRs of addresses on which node ports answer; empty: all."""
        ...

    def needs_addresses(self, networks: tuple[str, ...]) -> bool:
        """Whether rules depend on the node's own addresses, given the networks from above."""
        ...

    def sysctls(self, config: KubeProxyConfiguration) -> Mapping[str, str | int]:
        """Sysctls of the namespace that the mode needs."""
        ...

    async def programmer(self, config: KubeProxyConfiguration, family: Family, site: Site) -> Programmer:
        """A programmer that knows nothing yet. Raises UserError where a tool or a kernel feature is missing."""
        ...

    async def cleanup(self, config: KubeProxyConfiguration, site: Site, *, successor: str = "") -> None:
        """Remove everything of this mode, both families, but what mode `successor`, which is in force, uses too.

        What this machine lacks cannot have left anything: success. Raises KernelError where something stays.
        """
        ...

    async def remains(self, site: Site) -> bool:
        """Whether something of this mode may be there, as far as can be told cheaply: if not, cleaning up is idle."""
        ...

    async def tidy(self, config: KubeProxyConfiguration, site: Site) -> bool:
        """Remove what a cleanup with a successor has left for the sake of open connections that have ended by now.

        Says whether anything is left to wait for. It finds out from the kernel, whoever left it there.
        """
        ...


def mode_of(name: str) -> Mode:
    """The mode of that name, "" for the default."""
    return cast(Mode, import_module(f"netemu.proxy.{name or DEFAULT_MODE}_mode").MODE)


def listed_networks(config: KubeProxyConfiguration, family: Family, node_ip: str) -> tuple[str, ...]:
    """nodePortAddresses of one family; `primary` is the node's own address, and nowhere where there is none."""
    if config.node_port_addresses != (PRIMARY,):
        return networks_of_family(config.node_port_addresses, family)
    return (f"{node_ip}/{family.bits}" if node_ip else NOWHERE[family],)


NOWHERE = {Family.IPV4: "127.0.0.1/32", Family.IPV6: "::1/128"}
"""Stands for "no address": loopback does not answer node ports."""


def left_overs(name: str) -> tuple[str, ...]:
    """Modes whose rules a start in mode `name` removes. Between iptables and ipvs nothing is removed, as upstream."""
    return tuple(m for m in MODES if (m == "nftables") != (name == "nftables"))
