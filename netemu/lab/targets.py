"""What a person means by POD, NAMESPACE/POD, node/NAME or client/NAME: where in a lab a command or packet can start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netemu.kernel import netns as namespaces
from netemu.kernel.pidfd import Process
from netemu.kernel.sandbox import Sandbox
from netemu.lab.config import LabConfig, load_config
from netemu.lab.paths import LabPaths
from netemu.model.errors import UserError
from netemu.model.suggest import instead
from netemu.network import names
from netemu.runtime import sandboxes
from netemu.runtime.cri import ContainerState, SandboxConfig
from netemu.runtime.sandboxes import Container


@dataclass(frozen=True, slots=True)
class Target:
    """A network namespace and the files that belong to it."""

    name: str
    netns: str
    hostname: str
    resolv_conf: str
    """Path of the file that its resolver reads; empty where it has none."""
    hosts: str
    lab: str
    namespace: str
    """Where objects are looked for that are named without one: a Pod's own."""
    directory: str = ""
    """A Pod's sandbox directory."""

    def sandbox(self, container: Container | None = None) -> Sandbox:
        """The view that a command gets here; in a Pod with the volumes of a container."""
        files = {"/etc/resolv.conf": self.resolv_conf, "/etc/hosts": self.hosts}
        if self.directory:
            files["/etc/hostname"] = f"{self.directory}/hostname"
        volumes = container.config.mounts if container else ()
        files |= {volume.container_path: volume.host_path for volume in volumes}
        return Sandbox(
            netns=self.netns,
            hostname=self.hostname,
            mounts={inside: path for inside, path in files.items() if path and Path(path).exists()},
            read_only=frozenset(volume.container_path for volume in volumes if volume.readonly),
        )

    def environment(self, container: Container | None) -> dict[str, str]:
        """What a command finds in its environment here, beyond what its caller has in his."""
        return {"HOSTNAME": self.hostname, **dict(container.config.env if container else ())}


def find_target(lab: str, text: str, namespace: str = "default") -> Target:
    """Raises UserError naming what is there instead."""
    config, kind, name = load_config(lab), *text.rpartition("/")[::2]
    if kind in ("", "pod", "po", "pods"):
        return _pod(lab, namespace, name)
    if kind in ("node", "no", "nodes"):
        known = [node.name for node in config.nodes]
        return _machine(config, "node", name, known, names.node_netns(lab, name), namespace)
    if kind == "client":
        known = [client.name for client in config.clients]
        return _machine(config, "client", name, known, names.client_netns(lab, name), namespace)
    if kind in {sandbox.config.pod_namespace for sandbox in sandboxes.load_all(LabPaths(lab).pods)}:
        return _pod(lab, kind, name)
    raise UserError(f"{text!r} is no target; must be POD, NAMESPACE/POD, node/NAME or client/NAME")


def find_pod(lab: str, text: str, namespace: str = "default") -> str:
    """NAMESPACE/NAME of a running Pod. Raises UserError naming what is there instead."""
    target = find_target(lab, text, namespace)
    if not target.directory:
        raise UserError(f"{text!r} is no Pod; must be POD or NAMESPACE/POD")
    return target.name


def _machine(config: LabConfig, kind: str, name: str, known: Sequence[str], netns: str, namespace: str) -> Target:
    if name not in known:
        raise UserError(f"lab {config.name}: no {kind} {name!r}; {_instead(name, known, f'{kind}s')}")
    paths = LabPaths(config.name)
    return Target(
        f"{kind}/{name}", _existing(netns), name, str(paths.node_resolv_conf), str(paths.node_hosts),
        config.name, namespace,
    )  # fmt: skip


def _pod(lab: str, namespace: str, name: str) -> Target:
    pods = LabPaths(lab).pods
    found = sandboxes.find(pods, namespace, name)
    if found is None:
        there = [s.config for s in sandboxes.load_all(pods)]
        known = [config.pod_name for config in there if config.pod_namespace == namespace]
        if elsewhere := [config.pod_namespace for config in there if config.pod_name == name]:
            raise UserError(
                f"no Pod {name!r} in namespace {namespace}; there is one in {elsewhere[0]}: -n {elsewhere[0]}"
            )
        raise UserError(f"no Pod {name!r} running in namespace {namespace}; {_instead(name, known, 'Pods')}")
    _existing(found.config.netns)
    return _target(lab, found.config)


def _target(lab: str, pod: SandboxConfig) -> Target:
    directory = pod.directory
    return Target(
        f"{pod.pod_namespace}/{pod.pod_name}", pod.netns, pod.hostname,
        f"{directory}/resolv.conf", f"{directory}/hosts", lab, pod.pod_namespace, directory,
    )  # fmt: skip


def find_container(target: Target, name: str = "") -> Container | None:
    """The running container of that name; without a name the first, real processes before emulated ones.

    None where no container runs. Raises UserError naming what is there instead.
    """
    containers = sandboxes.load_containers(Path(target.directory)) if target.directory else []
    known = [entry.config.name for entry in containers]
    if name and name not in known:
        raise UserError(f"Pod {target.name}: no container {name!r}; {_instead(name, known, 'containers')}")
    running = [entry for entry in containers if entry.state == ContainerState.RUNNING]
    mine = [entry for entry in running if name in ("", entry.config.name)]
    return next((entry for entry in mine if entry.pid), mine[0] if mine else None)


def process_of(container: Container | None) -> Process | None:
    """The real process of a container, if it has one."""
    return Process(container.pid, container.process_started) if container and container.pid else None


def pods_by_link(lab: str) -> dict[str, Target]:
    """The Pods of a lab by the link at their node's end; those of the host network have none."""
    configs = [sandbox.config for sandbox in sandboxes.load_all(LabPaths(lab).pods) if not sandbox.config.host_network]
    return {names.host_veth(config.netns): _target(lab, config) for config in configs}


def _existing(netns: str) -> str:
    if not namespaces.exists(netns):
        raise UserError(f"namespace {netns} is gone; `netemu status` tells what happened to the lab")
    return netns


def _instead(name: str, known: Sequence[str], what: str) -> str:
    return instead(name, sorted(set(known)), f"{what} here") if known else f"there are no {what}"
