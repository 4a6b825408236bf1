"""Driving the `netemu` command as a user would, and looking at the machine it must not change."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from netemu.client import HttpClient, load_kubeconfig
from netemu.lab.api import LabApi
from netemu.lab.paths import RUN, STATE, LabPaths
from netemu.lab.remains import remains
from netemu.model.resources import by_kind

ROOT = Path(__file__).parents[2]
_NETEMU = [sys.executable, "-m", "netemu"]


def run(*args: str, timeout: float = 90.0) -> subprocess.CompletedProcess[str]:
    """`netemu ARGS`, whatever comes of it."""
    return subprocess.run([*_NETEMU, *args], capture_output=True, text=True, timeout=timeout)


def netemu(*args: str, timeout: float = 90.0) -> str:
    """`netemu ARGS`, which must succeed; its standard output."""
    done = run(*args, timeout=timeout)
    assert done.returncode == 0, f"netemu {' '.join(args)} exited with {done.returncode}:\n{done.stderr}{done.stdout}"
    return done.stdout


def start(
    *args: str, stdout: IO[bytes] | int = subprocess.DEVNULL, stderr: IO[bytes] | int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """`netemu ARGS` in the background; for tests that kill it or look at it meanwhile."""
    # Whoever runs the tests in the background has them ignore Ctrl-C; a command must not inherit that.
    handle = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen([*_NETEMU, *args], stdout=stdout, stderr=stderr, preexec_fn=handle)


def netemu_json(*args: str) -> Any:
    """`netemu ARGS -o json`."""
    return json.loads(netemu(*args, "-o", "json"))


@contextmanager
def up(name: str, text: str, folder: Path) -> Iterator[str]:
    """A lab of that topology file, up; its name."""
    file = folder / f"{name}.yaml"
    file.write_text(text)
    try:
        netemu("up", str(file), "--name", name)
        yield name
    finally:
        run("down", name)


def eventually(check: Callable[[], Any], what: str, within: float = 20.0) -> Any:
    """The first true answer of `check`; after `within` seconds an AssertionError with `what` and the last answer."""
    deadline = time.monotonic() + within
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what} (last answer: {answer!r})"
        time.sleep(0.05)


def api(lab: str) -> LabApi:
    """The lab's API server."""
    return LabApi(lab)


def create(lab: str, obj: dict[str, Any], namespace: str = "default") -> None:
    """Post an object through the lab's kubeconfig, over HTTPS."""

    resource = by_kind(obj["apiVersion"], obj["kind"])
    assert resource, f"no built-in kind: {obj['kind']}"

    async def work() -> None:
        async with HttpClient(load_kubeconfig(LabPaths(lab).kubeconfig)) as client:
            await client.create(resource, obj, namespace)

    asyncio.run(work())


def host_network() -> dict[str, str]:
    """Everything about the host's own network that a lab must not change."""
    commands = {
        "links": "ip -o link",
        "addresses": "ip -o addr",
        "routes": "ip route show table all",
        "routes6": "ip -6 route show table all",
        "rules": "ip rule",
        "namespace links": "ip -o link show type veth",
        "nft": "nft list ruleset",
        "iptables": "iptables-save",
        "forwarding": "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
        "ARP table": "sysctl -n net.ipv4.neigh.default.gc_thresh3",
    }
    return {
        # Lifetimes and counters run by themselves.
        name: "\n".join(
            line.split("valid_lft")[0].split(" expires ")[0]
            for line in subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout.splitlines()
            if not line.startswith("#")
        )
        for name, command in commands.items()
    }


def leftovers(lab: str) -> str:
    """What there is of a lab; `nothing` if there is nothing. The common directories count if they are empty."""
    empty = [str(root) for root in (STATE, RUN) if root.is_dir() and not any(root.iterdir())]
    return " ".join([str(remains(lab)), *empty])
