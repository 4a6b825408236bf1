"""What this machine has, and what each missing thing costs.

A feature is tried, not guessed: in a namespace made for the purpose, with the operation that a lab would do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from netemu.kernel import libpcap, netns
from netemu.kernel.ipvs import IpvsNetlink
from netemu.kernel.nflog import Nflog
from netemu.kernel.nft_trace import NftTrace
from netemu.kernel.sandbox import Sandbox, spawn
from netemu.kernel.signature import Signature
from netemu.lab.etcd_member import find_etcd
from netemu.model.errors import KernelError

_ANYTHING: Final = Signature.payload("icmp", b"netemu doctor", ipv6=False)


class Finding(NamedTuple):
    """A tool or a feature of the kernel."""

    name: str
    present: bool
    needed: bool
    costs: str


MODES_NEED = {
    "iptables": ("iptables (tool)", "iptables nat", "nf_conntrack", "xt_statistic"),
    "ipvs": ("iptables (tool)", "iptables nat", "nf_conntrack", "ip_set", "dummy", "ipvs"),
    "nftables": ("nft (tool)", "nf_tables", "nf_conntrack"),
}
"""What each mode of kube-proxy does not do without."""


def lacking_for_mode(mode: str, found: Sequence[Finding]) -> str:
    """Why kube-proxy cannot be in this mode on a machine where this was found; "" if it can."""
    lacking = [finding.name for finding in found if finding.name in MODES_NEED[mode] and not finding.present]
    return f"no {mode} mode of kube-proxy: this machine lacks {', '.join(lacking)}" if lacking else ""


def findings() -> list[Finding]:
    """Every tool and kernel feature, tried."""
    tools = [
        ("iptables", True, "no iptables mode of kube-proxy"),
        ("nsenter", True, "no process Pods and no `netemu exec`"),
        ("unshare", True, "no process Pods"),
        ("ip", False, "nothing; people like to look with it"),
        ("curl", False, "examples that call curl inside Pods"),
        ("kubectl", False, "nothing; any kubectl from 1.27 to 1.33 talks to a lab"),
        ("nft", False, "no nftables mode of kube-proxy"),
    ]
    found = [Finding(f"{name} (tool)", shutil.which(name) is not None, needed, cost) for name, needed, cost in tools]
    etcd = "control planes of several members; a checkout of netemu unpacks Debian's when one is asked for"
    found.append(Finding("etcd (tool)", bool(find_etcd()), False, etcd))
    found.append(Finding("libpcap (library)", libpcap.is_here(), False, "`--filter` of `netemu capture`"))
    root = os.geteuid() == 0
    found.append(Finding("root", root, True, "namespaces cannot be made; run as root"))
    if root:
        found += _kernel_findings()
    return found


def _kernel_findings() -> list[Finding]:
    name = f"netemu-doctor-{os.getpid()}"
    try:
        netns.create(name)
    except KernelError as error:
        return [Finding("network namespaces", False, True, f"no labs at all: {error}")]
    try:
        return [
            Finding("network namespaces", True, True, ""),
            _tried(name, "veth", True, "no links at all", "ip link add veth0 type veth peer name veth1"),
            _tried(name, "bridge", True, "no node network", "ip link add br0 type bridge"),
            _tried(name, "IPv6", False, "no ipFamily dual or ipv6", "ip -6 address add fd00::1/64 dev lo nodad"),
            _tried(name, "ip6tables nat", False, "no iptables or ipvs mode where ipFamily is dual or ipv6",
                   "ip6tables -t nat -S"),
            _tried(name, "iptables nat", True, "no iptables mode of kube-proxy", "iptables -t nat -S"),
            _tried(name, "nf_conntrack", True, "no Services: translation needs connection tracking",
                   "iptables -A INPUT -m conntrack --ctstate NEW"),
            _tried(name, "xt_statistic", True, "no spreading over endpoints in iptables mode",
                   "iptables -A INPUT -m statistic --mode random --probability 0.5"),
            _tried(name, "xt_recent", False, "no session affinity in iptables mode",
                   "iptables -A INPUT -m recent --set --name x"),
            _tried(name, "nf_tables", False, "no nftables mode of kube-proxy", "nft add table ip x"),
            _tried(name, "ip_set", False, "no ipvs mode of kube-proxy", "ipset create x hash:ip"),
            _tried(name, "vxlan", False, "no VXLAN between nodes",
                   "ip link add vxlan0 type vxlan id 1 dstport 4789 local 127.0.0.1"),
            _tried(name, "tbf", False, "no `rate` on links",
                   "tc qdisc add dev lo root tbf rate 1mbit burst 10k latency 1s"),
            _tried(name, "netem", False, "no `delay` and `loss` on links", "tc qdisc add dev lo root netem delay 1ms"),
            _tried(name, "dummy", False, "no ipvs mode of kube-proxy", "ip link add dummy0 type dummy"),
            Finding("ipvs", _has_ipvs(name), False, "no ipvs mode of kube-proxy"),
            Finding("nftrace", _opens(lambda: NftTrace(name, _ANYTHING)), False, "no `netemu trace`"),
            Finding("nfnetlink_log", _opens(lambda: Nflog(name, ipv6=False)), False,
                    "no `netemu trace` where a node uses iptables-legacy"),
            _process_pod(name),
            Finding("overlayfs", "overlay" in Path("/proc/filesystems").read_text(), False,
                    "process Pods share the machine's file system instead of a copy"),
        ]  # fmt: skip
    finally:
        netns.delete(name)


def _has_ipvs(namespace: str) -> bool:
    """Asking loads the module where there is one."""
    try:
        IpvsNetlink(namespace).close()
    except KernelError:
        return False
    return True


def _opens(make: Callable[[], NftTrace | Nflog]) -> bool:
    try:
        make().close()
    except KernelError:
        return False
    return True


def _process_pod(namespace: str) -> Finding:
    """Cluster DNS runs as real processes, so without them there is no lab."""
    view = Sandbox(namespace, "doctor")
    with open(os.devnull, "w") as nowhere:
        try:
            process = spawn(["true"], view, env={}, stdout=nowhere.fileno(), stderr=nowhere.fileno())
        except KernelError as error:
            return Finding("process Pods", False, True, f"no cluster DNS: {error}")
    ended_well = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 0
    return Finding("process Pods", ended_well, True, "no cluster DNS: a command in a view of its own does not run")


def _tried(namespace: str, name: str, needed: bool, costs: str, command: str) -> Finding:
    argv = command.split()
    if shutil.which(argv[0]) is None:
        return Finding(name, False, needed, f"{costs} (cannot be tried: {argv[0]} is missing)")
    inside = ["nsenter", f"--net={netns.path(namespace)}", *argv]
    return Finding(name, subprocess.run(inside, capture_output=True).returncode == 0, needed, costs)
