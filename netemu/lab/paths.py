"""Where a lab lives on disk.

`/var/lib/netemu/LAB` holds what must survive a reboot of its processes (configuration, store, certificates, logs),
`/run/netemu/LAB` what is true only while it runs (process ids, sockets, Pod sandboxes).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATE = Path("/var/lib/netemu")
RUN = Path("/run/netemu")


@dataclass(frozen=True, slots=True)
class LabPaths:
    """Every file of one lab."""

    lab: str

    @property
    def state(self) -> Path:
        """Survives restarts."""
        return STATE / self.lab

    @property
    def run(self) -> Path:
        """Lost at reboot, like the lab's namespaces."""
        return RUN / self.lab

    @property
    def config(self) -> Path:
        """LabConfig as JSON."""
        return self.state / "lab.json"

    @property
    def manifests(self) -> Path:
        """What the topology file asked for, as a JSON list."""
        return self.state / "manifests.json"

    @property
    def posted(self) -> Path:
        """There once the manifests have been posted."""
        return self.state / "posted"

    @property
    def store(self) -> Path:
        """The API server's SQLite file."""
        return self.state / "store.db"

    def etcd(self, number: int) -> Path:
        """The data of a member of etcd."""
        return self.state / f"etcd-{number}"

    @property
    def incoming_store(self) -> Path:
        """A snapshot that takes the store's place when the control plane starts."""
        return self.state / "store.incoming"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.state / "kubeconfig"

    def api_socket(self, process: str = "control-plane") -> Path:
        """The API server of a control-plane process for root on this machine, without TLS."""
        return self.run / f"{process}.sock"

    @property
    def api_sockets(self) -> list[Path]:
        """Those of all control-plane processes that there have been."""
        return sorted(self.run.glob("control-plane*.sock"))

    def snapshot_socket(self, process: str = "control-plane") -> Path:
        """Where root gets copies of the store from a control-plane process."""
        return self.run / f"snapshot-{process}.sock"

    @property
    def agent_socket(self) -> Path:
        """The node agent's status."""
        return self.run / "node-agent.sock"

    @property
    def supervisor_state(self) -> Path:
        """Process ids and exits."""
        return self.run / "supervisor.json"

    @property
    def pods(self) -> Path:
        """Pod sandboxes by uid."""
        return self.run / "pods"

    @property
    def node_resolv_conf(self) -> Path:
        """What nodes resolve with: the resolver outside."""
        return self.run / "resolv.conf"

    @property
    def node_hosts(self) -> Path:
        """The names of the lab's nodes."""
        return self.run / "hosts"

    @property
    def proxies(self) -> Path:
        """Each node's proxy keeps its lock and state here."""
        return self.run / "proxy"

    def component_kubeconfig(self, component: str) -> Path:
        """The kubeconfig of `node-agent`, `kube-proxy` or `kubelet-NODE`."""
        return self.pki / f"{component}.kubeconfig"

    @property
    def announced(self) -> Path:
        """What was said of the end of a certificate that somebody brings."""
        return self.state / "announced.json"

    @property
    def audit(self) -> Path:
        """Every request to the API server, a JSON line each."""
        return self.state / "audit.log"

    def log(self, process: str) -> Path:
        """The log of one of the lab's processes."""
        return self.state / f"{process}.log"


def lab_names() -> list[str]:
    """Every lab that left something on disk."""
    found = {path.name for root in (STATE, RUN) if root.is_dir() for path in root.iterdir() if path.is_dir()}
    return sorted(found)
