"""A stub resolver as a Pod's libc is one: hosts file, then the search list, ndots and name servers of its resolv.conf.

Reading the files and ordering the names is pure; queries are real datagrams from sockets opened in the namespace.
The C library's resolver cannot be used: it reads the files, and asks from the namespace, of this process.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from netemu.kernel import netns as namespaces
from netemu.model.errors import NetemuError

if TYPE_CHECKING:
    from dnslib import DNSRecord

_NOERROR: Final = 0
_NXDOMAIN: Final = 3


class Unresolvable(NetemuError):
    """The name has no address: `NXDOMAIN`, no records, or no answer from any name server."""


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """resolv.conf(5), with glibc's defaults: ndots 1, five seconds, two attempts."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 5.0
    attempts: int = 2


def parse_resolv_conf(text: str) -> ResolvConf:
    """Unknown lines and options are skipped; the last `search` or `domain` counts."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search" | "domain", *names]:
                search = tuple(name.rstrip(".") for name in names if name != ".")
            case ["options", *given]:
                pairs = (option.partition(":") for option in given)
                options |= {name: int(value) for name, _, value in pairs if value.isdigit()}
    return ResolvConf(
        tuple(servers[:3]), search, options.get("ndots", 1), options.get("timeout", 5), options.get("attempts", 2)
    )


def candidates(name: str, conf: ResolvConf) -> list[str]:
    """The names to try, in order: with enough dots the name itself first, else last; a final dot means no search."""
    if name.endswith("."):
        return [name.rstrip(".")]
    searched = [f"{name}.{domain}" for domain in conf.search]
    return [name, *searched] if name.count(".") >= conf.ndots else [*searched, name]


def in_hosts(name: str, hosts: str) -> list[str]:
    """The addresses a hosts file gives a name."""
    found = []
    for line in hosts.splitlines():
        address, *names = line.split("#")[0].split() or [""]
        if name.rstrip(".").lower() in (each.lower() for each in names):
            found.append(address)
    return found


async def resolve(name: str, netns: str, conf: ResolvConf, hosts: str = "") -> list[str]:
    """The addresses of a name as the namespace's resolver finds them, IPv4 before IPv6. Raises Unresolvable."""
    try:
        return [str(ipaddress.ip_address(name))]
    except ValueError:
        pass
    if found := in_hosts(name, hosts):
        return found
    if not conf.nameservers:
        raise Unresolvable(f"{name}: no name server")
    why = ""
    for candidate in candidates(name, conf):
        for kind in ("A", "AAAA"):
            answer = await _ask_all(candidate, kind, netns, conf)
            if isinstance(answer, str):
                why = answer
                break
            if addresses := [str(record.rdata) for record in answer.rr if record.rtype in (1, 28)]:
                return addresses
            why = why or f"{candidate}: no address records"
    raise Unresolvable(f"{name}: {why}")


async def _ask_all(name: str, kind: str, netns: str, conf: ResolvConf) -> DNSRecord | str:
    """The first answer that settles the matter, or why there is none; servers in order, as often as configured."""
    from dnslib import RCODE

    why = f"{name}: no answer from {', '.join(conf.nameservers)}"
    for _ in range(conf.attempts):
        for server in conf.nameservers:
            try:
                async with asyncio.timeout(conf.timeout):
                    answer = await _ask(name, kind, server, netns)
            except (OSError, TimeoutError):
                continue
            if answer.header.rcode == _NOERROR:
                return answer
            why = f"{name}: {RCODE.get(answer.header.rcode)} from {server}"
            if answer.header.rcode == _NXDOMAIN:
                return why
    return why


async def _ask(name: str, kind: str, server: str, netns: str) -> DNSRecord:
    from dnslib import DNSRecord

    query = DNSRecord.question(name, kind)
    query.header.id = random.getrandbits(16)
    packed = bytes(query.pack())
    answer = DNSRecord.parse(await _datagram(packed, server, netns))
    return DNSRecord.parse(await _stream(packed, server, netns)) if answer.header.tc else answer


async def _datagram(query: bytes, server: str, netns: str) -> bytes:
    loop = asyncio.get_running_loop()
    with open_socket(netns, server, socket.SOCK_DGRAM) as sock:
        await loop.sock_connect(sock, (server, 53))
        await loop.sock_sendall(sock, query)
        while True:
            answer = await loop.sock_recv(sock, 65535)
            # Anything else is late, or not for us.
            if answer[:2] == query[:2]:
                return answer


async def _stream(query: bytes, server: str, netns: str) -> bytes:
    loop = asyncio.get_running_loop()
    with open_socket(netns, server, socket.SOCK_STREAM) as sock:
        await loop.sock_connect(sock, (server, 53))
        await loop.sock_sendall(sock, struct.pack("!H", len(query)) + query)
        answer = b""
        while len(answer) < 2 or len(answer) < 2 + int.from_bytes(answer[:2], "big"):
            got = await loop.sock_recv(sock, 65535)
            if not got:
                raise ConnectionResetError
            answer += got
        return answer[2:]


def open_socket(netns: str, address: str, kind: int) -> socket.socket:
    """A non-blocking socket of the namespace, of the family of `address`. Raises KernelNotFound."""
    with namespaces.entered(netns):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.setblocking(False)
    return sock
