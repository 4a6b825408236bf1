"""What the tests in this room need of a kernel; `python -m tests.vm.needs` tells what is missing, and exits with 1."""

from __future__ import annotations

import os
import sys

from netemu.kernel import netns, process
from netemu.kernel.ipvs import IpvsNetlink
from netemu.kernel.netlink import Netlink
from netemu.kernel.rtnetlink import AddDummy
from netemu.model.errors import KernelError


def missing() -> list[str]:
    """The features that this kernel has not, found out by using them in a namespace of their own."""
    name = f"t-vm-needs-{os.getpid()}"
    netns.create(name)
    lacks: list[str] = []
    try:
        try:
            IpvsNetlink(name).close()
        except KernelError:
            lacks.append("IPVS")
        with Netlink(name) as netlink:
            try:
                netlink.apply(AddDummy("dummy9"))
            except KernelError:
                lacks.append("dummy links")
        try:
            process.run_sync(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"], netns=name)
        except KernelError:
            lacks.append("netem")
    finally:
        netns.delete(name)
    return lacks


if __name__ == "__main__":
    lacks = missing()
    sys.stdout.write(", ".join(lacks) + "\n" * bool(lacks))
    sys.exit(bool(lacks))
