"""IP packets sent as they are: each passes hook output and routing of its namespace as those of any program do."""

from __future__ import annotations

import errno
import os
import random
import socket
from types import TracebackType
from typing import Final

from netemu.kernel import netns as namespaces
from netemu.model.errors import KernelError

PORTS: Final = range(61001, 65536)
"""Ports that the kernel gives to nobody by itself, with the usual ip_local_port_range, and above NodePorts."""
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_ATTEMPTS: Final = 64


def send(netns: str, packet: bytes, destination: str) -> None:
    """Send one packet that begins with its IP header. Raises KernelNotFound for the namespace, KernelError with the
    errno that routing gives."""
    with namespaces.entered(netns), _raw(ipv6=":" in destination) as sock:
        _send(sock, netns, packet, destination)


def _raw(*, ipv6: bool) -> socket.socket:
    # With this protocol the header is part of what is sent, in both families (raw(7), ipv6(7)).
    return socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _send(sock: socket.socket, netns: str, packet: bytes, destination: str) -> None:
    try:
        sock.sendto(packet, (destination, 0))
    except OSError as error:
        code = error.errno or 0
        raise KernelError.of(f"send to {destination}", netns, code, os.strerror(code)) from error


class RawSender:
    """Sends packets of one protocol from the namespace `netns`, and holds a source port for them.

    Nobody else gets the port meanwhile. The kernel resets what a SYN began, so that no server keeps half a
    connection; datagrams find the socket that holds the port, so that no error goes back.
    """

    def __init__(self, netns: str, protocol: str, *, ipv6: bool, source_port: int = 0) -> None:
        """Raises KernelNotFound for the namespace, KernelError (EADDRINUSE) for a port that somebody has."""
        self._netns, self._ipv6 = netns, ipv6
        self._holder: socket.socket | None = None
        with namespaces.entered(netns):
            self._raw = _raw(ipv6=ipv6)
            try:
                self.source_port = self._hold(protocol, source_port)
            except BaseException:
                self._raw.close()
                raise

    def __enter__(self) -> RawSender:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self._raw.close()
        if self._holder:
            self._holder.close()

    def send(self, packet: bytes, destination: str) -> None:
        """Send a packet that begins with its IP header. Raises KernelError with the errno that routing gives."""
        _send(self._raw, self._netns, packet, destination)

    @property
    def _family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if self._ipv6 else socket.AF_INET

    def _hold(self, protocol: str, wanted: int) -> int:
        """A port of the protocol; an echo's identifier needs no holding."""
        if protocol not in _KINDS:
            return wanted or random.choice(PORTS)
        for port in [wanted] if wanted else random.sample(PORTS, _ATTEMPTS):
            holder = socket.socket(self._family, _KINDS[protocol])
            try:
                holder.bind(("", port))
            except OSError as error:
                holder.close()
                if error.errno != errno.EADDRINUSE or wanted:
                    raise KernelError.of(f"bind {protocol} port {port}", self._netns, error.errno or 0) from error
                continue
            self._holder = holder
            return port
        raise KernelError.of(f"find a free {protocol} port", self._netns, errno.EADDRINUSE)
