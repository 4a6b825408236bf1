"""One kube-proxy per network namespace.

Two of them would take each other's rules for stale and remove them, for ever. The lock is a socket with an abstract
name: such names belong to the network namespace, as the rules do, and the kernel lets go of them with the process.
"""

from __future__ import annotations

import errno
import socket

from netemu.kernel import netns as namespaces
from netemu.model.errors import KernelError, UserError

_NAME = "\0netemu.dev/kube-proxy"


def take(netns: str) -> socket.socket:
    """Hold the lock of a namespace until the socket is closed. Raises UserError where somebody else holds it."""
    with namespaces.entered(netns):
        held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(_NAME)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            where = f"network namespace {netns}" if netns else "this network namespace"
            raise UserError(f"another kube-proxy of netemu runs in {where}; stop it first") from error
        raise KernelError.of("take the lock of kube-proxy", netns, error.errno or 0) from error
    return held
