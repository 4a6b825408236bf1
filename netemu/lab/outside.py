"""The world outside a lab: the resolver that nodes, and so cluster DNS, ask for names that are none of the cluster's,
and the hosts that have those names.

The resolver answers on the router's address in the client network, as a provider's does: the names that the
topology file gives to clients (`names: [api.example.com]`), and NXDOMAIN for everything else. It is `netemu.dns`
with a Corefile of its own, served by the node agent from a socket in the underlay. The ports of clients are served as
those of emulated Pods are: HTTP, which tells who asks; on 443 by TLS, with a certificate of the lab's own authority.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from netemu.client.base import Client
from netemu.client.rotation import follow
from netemu.dns import corefile
from netemu.kernel import netns as namespaces
from netemu.lab.addons import OUTSIDE_FAULTS, SYSTEM
from netemu.lab.config import ClientConfig, LabConfig
from netemu.lab.network_plan import resolvers
from netemu.lab.pki import HTTPS, client_certificate
from netemu.model.errors import UserError
from netemu.network import names
from netemu.runtime.servers.identity import Identity
from netemu.runtime.servers.tcp import TcpServer

if TYPE_CHECKING:
    from netemu.dns.server import Server

_TTL = 60
_SOA = "a.root-servers.net. nstld.verisign-grs.com. 1 1800 900 604800 86400"


def outside_corefile(config: LabConfig) -> str:
    """What the resolver serves."""
    everything = f"""\
. {{
    bind {" ".join(resolvers(config))}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
        authority ". {_TTL} IN SOA {_SOA}"
    }}
}}
"""
    hosts = [f"{address} {name}" for client in config.clients for name in client.names for address in client.addresses]
    if not hosts:
        return everything
    # A block of its own, because `template` comes before `hosts` wherever both stand.
    named = sorted({name for client in config.clients for name in client.names})
    lines = "\n".join(f"        {line}" for line in hosts)
    return f"""\
{" ".join(named)} {{
    bind {" ".join(resolvers(config))}
    errors
    hosts /dev/null {{
{lines}
        ttl {_TTL}
    }}
}}
{everything}"""


async def serve_outside(config: LabConfig, client: Client) -> None:
    """Run the resolver and the hosts until cancelled. Raises UserError for what cannot be served."""
    renewed: dict[Path, Callable[[], None]] = {}
    hosts = [server for host in config.clients for server in _host_servers(config.name, host, renewed)]
    for each in hosts:
        await each.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(renewed))
            await _serve_names(config, client)
    finally:
        for each in hosts:
            each.close()


def _host_servers(lab: str, host: ClientConfig, renewed: dict[Path, Callable[[], None]]) -> Iterator[TcpServer]:
    who = Identity(host.name, "", "", host.names[0] if host.names else host.name, "")
    for port in host.ports:
        tls = None
        if port == HTTPS:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate, key = client_certificate(lab, host.name)
            renewed[certificate] = partial(tls.load_cert_chain, certificate, key)
            renewed[certificate]()
        with namespaces.entered(names.client_netns(lab, host.name)):
            socks = [socket.create_server((address, port), family=_family(address)) for address in host.addresses]
        yield from (TcpServer(sock, "echo", who, tls) for sock in socks)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def _serve_names(config: LabConfig, client: Client) -> None:
    # A fifth of a second that the nodes do not have to wait for.
    dns = await asyncio.to_thread(importlib.import_module, "netemu.dns.server")
    server: Server = dns.Server(
        None, client=client, faults=(SYSTEM, OUTSIDE_FAULTS), netns=names.underlay_netns(config.name)
    )
    await server.start(corefile.parse(outside_corefile(config), "outside"))
    try:
        await server.failed.wait()
        raise UserError(server.cause)
    finally:
        await server.close()
