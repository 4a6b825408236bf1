"""What a command in a container sees and has in its environment."""

from __future__ import annotations

import sys
from pathlib import Path

from netemu.kernel.sandbox import DEFAULT_PATH
from netemu.kernel.sandbox import Sandbox as View
from netemu.runtime.cri import ContainerConfig
from netemu.runtime.sandboxes import Sandbox


def view_of(sandbox: Sandbox, config: ContainerConfig) -> View:
    """The Pod's namespaces and files, and the container's volumes."""
    return View(
        netns=sandbox.config.netns,
        hostname=sandbox.config.hostname,
        domainname=sandbox.config.domainname,
        mounts={**sandbox.mounts, **{mount.container_path: mount.host_path for mount in config.mounts}},
        read_only=frozenset(mount.container_path for mount in config.mounts if mount.readonly),
    )


def environment_of(config: ContainerConfig, hostname: str = "", *, terminal: bool = False) -> dict[str, str]:
    """The container's environment; PATH begins with this Python's scripts, so that `netemu` is found."""
    scripts = str(Path(sys.executable).parent)
    env = {"PATH": f"{scripts}:{DEFAULT_PATH}", "HOME": "/root"}
    if hostname:
        env["HOSTNAME"] = hostname
    if terminal:
        env["TERM"] = "xterm"
    return env | dict(config.env)
