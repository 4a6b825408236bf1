"""One member of a lab's etcd: this process steps into the network namespace of its node and becomes etcd.

Etcd is Debian's (3.4), on the PATH or, in a checkout of netemu, unpacked under `.etcd`. Flags and ports are kubeadm's.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from netemu.kernel import netns
from netemu.lab import etcd_pki
from netemu.lab.config import LabConfig, NodeConfig, load_config
from netemu.lab.paths import LabPaths
from netemu.model.errors import UserError
from netemu.model.hosts import bracketed
from netemu.network import names

CLIENT_PORT, PEER_PORT = 2379, 2380
_CHECKOUT = Path(__file__).parents[2]
_UNPACKED = _CHECKOUT / ".etcd/usr/bin/etcd"
_PATIENCE = 30.0


def find_etcd() -> str:
    """The path of etcd; empty where there is none."""
    return shutil.which("etcd") or (str(_UNPACKED) if _UNPACKED.exists() else "")


def ensure_etcd() -> None:
    """Unpack etcd if this is a checkout that has none yet. Raises UserError where it cannot be had."""
    if find_etcd():
        return
    script, why = _CHECKOUT / "scripts/bootstrap.sh", "it is not on the PATH"
    if script.exists():
        done = subprocess.run(["bash", "-c", f"source '{script}'; need_etcd"], capture_output=True, text=True)
        why = (done.stderr.strip().splitlines() or [why])[-1].removeprefix("error: ")
    if not find_etcd():
        raise UserError(f"store etcd needs etcd 3.4 or newer: {why}; on Debian, `apt-get install etcd-server`")


def client_urls(config: LabConfig, own: NodeConfig) -> list[str]:
    """Where the members serve clients, as seen from the node of one of them, which comes first."""
    others = [node for node in config.control_planes if node != own]
    return [f"https://{bracketed(node.addresses[0])}:{CLIENT_PORT}" for node in (own, *others)]


def arguments(config: LabConfig, number: int) -> list[str]:
    """What etcd is started with. Pure."""
    paths, node = LabPaths(config.name), config.control_planes[number - 1]
    own = bracketed(node.addresses[0])
    peers = [f"{each.name}=https://{bracketed(each.addresses[0])}:{PEER_PORT}" for each in config.control_planes]
    loopback = bracketed("::1" if ":" in node.addresses[0] else "127.0.0.1")
    return [
        "etcd", "--name", node.name, "--data-dir", str(paths.etcd(number)), "--logger", "zap",
        "--listen-client-urls", f"https://{loopback}:{CLIENT_PORT},https://{own}:{CLIENT_PORT}",
        "--advertise-client-urls", f"https://{own}:{CLIENT_PORT}",
        "--listen-peer-urls", f"https://{own}:{PEER_PORT}",
        "--initial-advertise-peer-urls", f"https://{own}:{PEER_PORT}",
        "--initial-cluster", ",".join(peers), "--initial-cluster-token", config.name,
        "--snapshot-count", "10000",
        *etcd_pki.member_flags(paths.pki),
    ]  # fmt: skip


def become(lab: str, number: int) -> None:
    """Wait for the node and the certificates, then become etcd; never returns. Raises UserError, TimeoutError."""
    config, paths = load_config(lab), LabPaths(lab)
    node = config.control_planes[number - 1]
    namespace = names.node_netns(lab, node.name)
    _until(paths.kubeconfig.exists)  # the last that is made of all certificates
    _until(lambda: netns.exists(namespace))
    netns.join(namespace)
    _until(lambda: _is_here(node.addresses[0]))
    paths.etcd(number).mkdir(parents=True, exist_ok=True, mode=0o700)
    binary = find_etcd()
    if not binary:
        raise UserError("store etcd: etcd is gone from this machine")
    # Etcd 3.4 takes settings from the environment too, and refuses some that are not its own.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
    os.execve(binary, arguments(config, number), environment)


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError("the node agent or the first member of the control plane does not come up")
        time.sleep(0.02)


def _is_here(address: str) -> bool:
    """Whether this network namespace has the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


def main() -> None:
    """`python -m netemu.lab.etcd_member LAB NUMBER`."""
    try:
        become(sys.argv[1], int(sys.argv[2]))
    except (UserError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
