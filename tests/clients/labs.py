"""An unmodified kubectl against a whole running lab: real controllers, kubelets, rules and packets."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netemu.lab.paths import LabPaths
from netemu.model.resources import ENDPOINTS, PODS
from netemu.network.names import node_netns
from tests.cluster.labs import api, eventually, netemu, run

NODES = ("control-plane", "worker-1", "worker-2")


@dataclass(frozen=True, slots=True)
class LabKubectl:
    """Runs one kubectl as the administrator of a lab, in one namespace, with a discovery cache of its own."""

    lab: str
    program: str
    cache: Path
    namespace: str = "default"

    def within(self, namespace: str) -> LabKubectl:
        """The same with another namespace."""
        return LabKubectl(self.lab, self.program, self.cache, namespace)

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """To the end, whatever comes of it."""
        return subprocess.run(
            [self.program, *self._options, *arguments],
            input=stdin, capture_output=True, text=True, timeout=50, env=self._environment,
        )  # fmt: skip

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """To the end, which must be a success; its standard output."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def start(self, *arguments: str, tty: int | None = None, piped: bool = False) -> subprocess.Popen[str]:
        """For commands that do not end by themselves, or shall run beside others; `tty`: on that terminal; `piped`:
        who started them writes to them."""
        return subprocess.Popen(
            [self.program, *self._options, *arguments],
            stdin=subprocess.PIPE if piped else tty,
            stdout=tty or subprocess.PIPE,
            stderr=tty or subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`."""
        return json.loads(self("get", *arguments, "-o", "json"))

    def field(self, *arguments: str, path: str) -> str:
        """`kubectl get ... -o jsonpath={PATH}`."""
        return self("get", *arguments, "-o", f"jsonpath={{{path}}}")

    def exec(self, source: str, *command: str) -> str:
        """`netemu exec` in a Pod of the namespace, a node or a client."""
        return netemu("exec", "--lab", self.lab, "-n", self.namespace, source, "--", *command)

    def probe(self, source: str, to: str, *options: str, count: int = 1) -> Any:
        """`netemu probe`: its JSON."""
        done = run(*self.probe_arguments(source, to, *options, count=count))
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def probe_arguments(self, source: str, to: str, *options: str, count: int = 1) -> Sequence[str]:
        """The command line of that."""
        where = ("--lab", self.lab, "-n", self.namespace)
        return ("probe", *where, source, to, "--count", str(count), *options, "-o", "json")

    def resolve(self, source: str, name: str) -> Any:
        """The result of `netemu dig NAME A`; None where it is not found."""
        done = run("dig", "--lab", self.lab, "-n", self.namespace, source, name, "A", "-o", "json")
        return json.loads(done.stdout)["result"]

    def addresses(self, selector: str) -> set[str]:
        """The addresses of the Pods that a label selector names, without those that are being deleted."""
        pods, _ = api(self.lab).list(PODS, self.namespace, labelSelector=selector)
        return {pod["status"].get("podIP", "") for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    def endpoints(self, service: str) -> set[str]:
        """The ready addresses in the Service's Endpoints."""
        subsets = api(self.lab).get(ENDPOINTS, service, self.namespace).get("subsets", [])
        return {address["ip"] for subset in subsets for address in subset.get("addresses", [])}

    def rules(self, node: str) -> str:
        """The node's NAT rules."""
        where = f"--net=/run/netns/{node_netns(self.lab, node)}"
        command = ("nsenter", where, "iptables-save", "-t", "nat")
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def follows(self, service: str, selector: str, count: int) -> set[str]:
        """Wait until Endpoints, and then the rules of every node, hold exactly the `count` Pods; their addresses."""

        def settled() -> tuple[set[str]] | None:
            pods = self.addresses(selector)
            return (pods,) if len(pods) == count and pods == self.endpoints(service) else None

        found: set[str] = eventually(settled, f"{count} endpoints of {service}")[0]
        eventually(lambda: all(self.programmed(service, node) == found for node in NODES), f"rules of {service}")
        return found

    def programmed(self, service: str, node: str) -> set[str]:
        """The endpoint addresses that the node's rules send the Service's connections to."""
        ours = f'"{self.namespace}/{service}'
        lines = [line for line in self.rules(node).splitlines() if ours in line and "--to-destination" in line]
        return {line.rpartition("--to-destination ")[2].rpartition(":")[0] for line in lines}

    def pod_networks(self) -> list[str]:
        """The network namespaces of the Pods of this namespace."""
        prefix = f"{self.lab}.pod.{self.namespace}."
        return sorted(entry.name for entry in Path("/run/netns").iterdir() if entry.name.startswith(prefix))

    @property
    def _options(self) -> Sequence[str]:
        config = str(LabPaths(self.lab).kubeconfig)
        return ("--kubeconfig", config, "--cache-dir", str(self.cache), "-n", self.namespace)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.cache)}
