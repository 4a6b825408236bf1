"""Connections that IPVS balances in one namespace: /proc/net/ip_vs_conn lists them, netlink does not tell them."""

from __future__ import annotations

import socket
from typing import Final

from msgspec import Struct

from netemu.kernel import netns as namespaces

_FILE: Final = "/proc/thread-self/net/ip_vs_conn"


class Connection(Struct, frozen=True):
    """A client's connection to a virtual server, and the real server that it was given to."""

    protocol: str
    client: str
    client_port: int
    server: str
    server_port: int
    destination: str
    destination_port: int
    state: str


def connections(netns: str) -> list[Connection]:
    """All of them; none where the kernel has no IPVS. Raises KernelNotFound for a namespace that is not there."""
    with namespaces.entered(netns):
        try:
            with open(_FILE, encoding="ascii") as file:
                return parse(file.read())
        except FileNotFoundError:
            return []


def parse(text: str) -> list[Connection]:
    """Read the file. Addresses are hexadecimal, those of IPv6 with colons; the first line names the columns. Pure."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        protocol, client, client_port, server, server_port, destination, destination_port, state = words[:8]
        ends = (_address(client), int(client_port, 16), _address(server), int(server_port, 16))
        found.append(Connection(protocol.lower(), *ends, _address(destination), int(destination_port, 16), state))
    return found


def _address(shown: str) -> str:
    if ":" in shown:
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, shown))
    return socket.inet_ntop(socket.AF_INET, bytes.fromhex(shown))
