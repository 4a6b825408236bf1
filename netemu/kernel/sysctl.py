"""Sysctls of a namespace. /proc/sys/net shows whatever namespace the thread that opens a file is in.

Only `net.*` belongs to a namespace, so nothing else can be written here: it would be the machine's.
"""

from __future__ import annotations

from collections.abc import Mapping

from netemu.kernel import netns as namespaces
from netemu.model.errors import KernelError


def path(name: str) -> str:
    """The file of a sysctl, given with dots or, where an interface's name has a dot, with slashes."""
    return "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))


def read(name: str, netns: str = "") -> str:
    """The value, without its newline. Raises KernelNotFound."""
    with namespaces.entered(netns):
        try:
            with open(path(name), encoding="ascii") as file:
                return file.read().strip()
        except OSError as err:
            raise KernelError.of(f"read sysctl {name}", netns, err.errno or 0) from err


def write(values: Mapping[str, str | int], netns: str, *, optional: bool = False) -> None:
    """Set sysctls of a namespace; with `optional`, those this kernel does not have are left out.

    Values that are already right are not written, so nothing is logged or flushed by the kernel for nothing.
    """
    with namespaces.entered(netns):
        write_here(values, netns, optional=optional)


def write_here(values: Mapping[str, str | int], netns: str, *, optional: bool = False) -> None:
    """As `write`, for a thread that is already inside; `netns` is for the error's text."""
    for name, value in values.items():
        if not path(name).startswith("/proc/sys/net/"):
            raise KernelError(f"write sysctl {name}", netns, detail="it belongs to the machine, not to a namespace")
        try:
            with open(path(name), "r+b", buffering=0) as file:
                if file.read(64).split() != str(value).encode().split():
                    # The kernel ignores what is written anywhere but at the start (sysctl_writes_strict).
                    file.seek(0)
                    file.write(str(value).encode())
        except OSError as err:
            if optional and isinstance(err, FileNotFoundError):
                continue
            raise KernelError.of(f"write sysctl {name}={value}", netns, err.errno or 0) from err
