"""The world outside a lab: the resolver that nodes, and so cluster DNS, ask for names that are none of the cluster's.

It answers on the router's address in the client network, as the resolver of a provider does: the names that the
topology file gives to clients (`names: [api.example.com]`), and NXDOMAIN for everything else. It is `netemu.dns`
with a Corefile of its own, served by the node agent from a socket in the underlay.
"""

from __future__ import annotations

from netemu.client.base import Client
from netemu.dns import corefile
from netemu.dns.server import Server
from netemu.lab.addons import OUTSIDE_FAULTS, SYSTEM
from netemu.lab.config import LabConfig
from netemu.lab.network_plan import network_plan
from netemu.model.errors import UserError
from netemu.network import names
from netemu.network.plan import first_address

_TTL = 60
_SOA = "a.root-servers.net. nstld.verisign-grs.com. 1 1800 900 604800 86400"


def resolvers(config: LabConfig) -> tuple[str, ...]:
    """The addresses of the resolver, one of each family of the lab."""
    return tuple(map(first_address, network_plan(config).client_networks))


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
    """Run the resolver until cancelled. Raises UserError for what cannot be served."""
    server = Server(None, client=client, faults=(SYSTEM, OUTSIDE_FAULTS), netns=names.underlay_netns(config.name))
    await server.start(corefile.parse(outside_corefile(config), "outside"))
    try:
        await server.failed.wait()
        raise UserError(server.cause)
    finally:
        await server.close()
