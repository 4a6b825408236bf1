"""A Pod's sandbox: its network namespace and addresses, and the files all its containers see.

The network comes first (namespace, then CNI ADD), then the files that depend on the addresses, then the runtime's own
verb. `unmake` goes the other way and leaves nothing; the sandbox directory goes last, so that a crash in between leaves
the note by which the next run finds the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from netemu.kernel import netns
from netemu.kubelet.dns import ResolvConf, Warned, parse, resolv_conf
from netemu.kubelet.hosts import Names, host_network_hosts_text, hosts_text, pod_names
from netemu.kubelet.settings import KubeletSettings, NodeFacts
from netemu.model.pods import Pod
from netemu.network import names
from netemu.network.hostports import HostPort
from netemu.runtime.cri import Runtime, SandboxConfig


class PodNetwork(Protocol):
    """CNI's verbs (`network.pods.PodNetwork`). Blocking, a millisecond or two."""

    def add(self, netns: str) -> tuple[str, ...]:
        """Connect a namespace; its addresses, one of each family of the node. Idempotent."""
        ...

    def delete(self, netns: str) -> None:
        """Disconnect it and free the addresses. Absent is success."""
        ...


class HostPorts(Protocol):
    """CNI's portmap plugin (`network.hostports.HostPorts`)."""

    async def add(self, ports: Sequence[HostPort], addresses: Sequence[str]) -> None:
        """Lead ports of the node to the Pod with these addresses."""
        ...

    async def delete(self, addresses: Sequence[str]) -> None:
        """No port leads to it any more. Absent is success."""
        ...


class NoHostPorts:
    """A node that gives none of its ports away."""

    async def add(self, ports: Sequence[HostPort], addresses: Sequence[str]) -> None:
        """See HostPorts."""

    async def delete(self, addresses: Sequence[str]) -> None:
        """See HostPorts."""


class Namespaces(Protocol):
    """What is needed of `kernel.netns`."""

    def ensure(self, name: str) -> bool:
        """Make it unless it is there."""
        ...

    def delete(self, name: str) -> None:
        """Absent is success."""
        ...

    def exists(self, name: str) -> bool:
        """Whether it is there."""
        ...


class KernelNamespaces:
    """The real ones."""

    def ensure(self, name: str) -> bool:
        """See Namespaces."""
        return netns.ensure(name)

    def delete(self, name: str) -> None:
        """See Namespaces."""
        netns.delete(name)

    def exists(self, name: str) -> bool:
        """See Namespaces."""
        return netns.exists(name)


@dataclass(frozen=True, slots=True)
class Sandboxes:
    """Makes and unmakes the sandboxes of one node."""

    lab: str
    node: NodeFacts
    settings: KubeletSettings
    network: PodNetwork
    namespaces: Namespaces
    host_ports: HostPorts

    def directory(self, pod_uid: str) -> Path:
        """A Pod's sandbox directory."""
        return Path(self.settings.pods_dir, pod_uid)

    async def make(self, pod: Pod, runtime: Runtime, attempt: int) -> tuple[SandboxConfig, list[Warned]]:
        """A sandbox in that runtime. Raises NetemuError; what was made until then is unmade by `unmake`."""
        config, warnings = await asyncio.to_thread(self._prepare, pod, attempt)
        if not config.host_network and (ports := host_ports(pod)):
            await self.host_ports.add(ports, config.addresses)
        await runtime.run_pod_sandbox(config)
        return config, warnings

    async def unmake(self, config: SandboxConfig, runtime: Runtime) -> None:
        """Stop and remove everything of it."""
        await self.disconnect(config, runtime)
        await runtime.remove_pod_sandbox(config.pod_uid)

    async def disconnect(self, config: SandboxConfig, runtime: Runtime) -> None:
        """Stop its containers and give the network back; directory and logs stay."""
        await runtime.stop_pod_sandbox(config.pod_uid)
        if not config.host_network:
            await self.host_ports.delete(config.addresses)
            await asyncio.to_thread(self.release, config.netns)

    def release(self, name: str) -> None:
        """CNI DEL, and the namespace."""
        self.network.delete(name)
        self.namespaces.delete(name)

    def usable(self, config: SandboxConfig) -> bool:
        """Whether the network of a sandbox found on disk is still there."""
        return config.host_network or self.namespaces.exists(config.netns)

    def _prepare(self, pod: Pod, attempt: int) -> tuple[SandboxConfig, list[Warned]]:
        pod_name = pod_names(pod, self.node.name, self.settings.cluster_domain)
        if pod.spec.host_network:
            namespace, addresses = self.node.netns, self.node.addresses
        else:
            namespace = names.pod_netns(self.lab, pod.namespace, pod.name)
            self.namespaces.ensure(namespace)
            addresses = self.network.add(namespace)
        directory = self.directory(pod.metadata.uid)
        warnings = self._write_files(pod, pod_name, addresses, directory)
        config = SandboxConfig(
            pod_uid=pod.metadata.uid,
            pod_name=pod.name,
            pod_namespace=pod.namespace,
            node_name=self.node.name,
            directory=str(directory),
            netns=namespace,
            hostname=pod_name.kernel,
            domainname=pod_name.domain,
            addresses=addresses,
            host_network=pod.spec.host_network,
            attempt=attempt,
        )
        return config, warnings

    def _write_files(self, pod: Pod, pod_name: Names, addresses: tuple[str, ...], directory: Path) -> list[Warned]:
        settings = self.settings
        resolver, warnings = resolv_conf(
            pod, settings.cluster_dns, settings.cluster_domain, self._host_resolver(), self.node.addresses
        )
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text(resolver.text())
        (directory / "hostname").write_text(f"{pod_name.kernel}\n")
        self.write_hosts(pod, addresses)
        return warnings

    def write_hosts(self, pod: Pod, addresses: Sequence[str]) -> None:
        """The Pod's /etc/hosts as it should be; a file that is so already is left alone, for it may be being read.

        As upstream, it is written before each start of a container: what a container did to it ends with that.
        """
        if pod.spec.host_network:
            text = host_network_hosts_text(_read(self.settings.hosts_file), pod.spec.host_aliases)
        else:
            pod_name = pod_names(pod, self.node.name, self.settings.cluster_domain)
            text = hosts_text(pod_name, addresses, pod.spec.host_aliases)
        path = self.directory(pod.metadata.uid) / "hosts"
        if _read(str(path)) != text:
            path.write_text(text)

    def _host_resolver(self) -> ResolvConf | None:
        return parse(_read(self.settings.resolv_conf)) if self.settings.resolv_conf else None


def host_ports(pod: Pod) -> list[HostPort]:
    """What the containers of a Pod ask for: `hostPort`, and `hostIP` unless it means every address."""
    return [
        HostPort("" if port.host_ip in ("0.0.0.0", "::") else port.host_ip, port.protocol.lower(), port.host_port,
                 port.container_port)
        for container in pod.spec.containers
        for port in container.ports
        if port.host_port
    ]  # fmt: skip


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # a machine may have none
        return ""
