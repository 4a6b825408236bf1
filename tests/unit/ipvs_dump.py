"""What a node in ipvs mode holds, as text: the golden dump's format, from fakes or from a kernel's own tools.

`ipset save`, `ipvsadm -Sn` and `iptables-save`, in order of names so that two of them can be compared, and addresses
of kube-ipvs0.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from netemu.kernel.ipset import Ipset, SetSpec
from netemu.kernel.ipvs import Ipvs


def dump(
    sets: Iterable[str], servers: Iterable[str], tables: Mapping[str, Mapping[str, Sequence[str]]], bound: Iterable[str]
) -> str:
    """The four parts as one text."""
    lines = [*sets, *servers]
    for table in ("nat", "filter"):
        lines.append(f"*{table}")
        lines += [f"-A {chain} {rule}" for chain, rules in sorted(tables[table].items()) for rule in rules]
    return "\n".join((*lines, *(f"addr {address}" for address in sorted(bound)), ""))


def saved_sets(kind: Ipset) -> list[str]:
    """As `ipset save` prints them."""
    lines = []
    for name in sorted(kind.names()):
        found = kind.get(name)
        lines.append(f"create {name} {found.spec.type} {_made(found.spec)}")
        lines += (f"add {name} {entry}" for entry in sorted(map(str, found.entries)))
    return lines


def _made(spec: SetSpec) -> str:
    if spec.bitmap:
        return "range {}-{}".format(*spec.ports)
    return f"family {spec.family} hashsize {spec.hashsize} maxelem {spec.maxelem}"


def sort_saved(text: str) -> list[str]:
    """The tool's own output; what it tells beyond how a set was asked for is left out."""
    lines = [line.partition(" bucketsize")[0] for line in text.splitlines()]
    return sorted(lines, key=lambda line: (line.split()[1], line.startswith("add"), line))


def saved_servers(kind: Ipvs) -> list[str]:
    """As `ipvsadm -Sn` prints them."""
    blocks = []
    for server in kind.servers():
        key = server.key
        block = [_server(key.protocol, key.address, key.port, server.scheduler, server.persistence)]
        block += sorted(_real(block[0], each.target, each.weight) for each in kind.destinations(key))
        blocks.append(block)
    return [line for block in sorted(blocks) for line in block]


def sort_servers(text: str, persistence: Mapping[tuple[str, str, int], int]) -> list[str]:
    """The same from /proc/net/ip_vs, which has its own way to write addresses, and counts no seconds but ticks."""
    blocks: list[list[str]] = []
    for line in text.splitlines()[3:]:
        words = line.split()
        address, port = _unhex(words[1])
        if words[0] == "->":
            blocks[-1].append(_real(blocks[-1][0], _pair(address, port), int(words[3])))
        else:
            protocol = words[0].lower()
            seconds = persistence[protocol, address, port] if "persistent" in words else 0
            blocks.append([_server(protocol, address, port, words[2], seconds)])
    return [line for block in sorted([block[0], *sorted(block[1:])] for block in blocks) for line in block]


def _server(protocol: str, address: str, port: int, scheduler: str, persistence: int) -> str:
    about = f"-s {scheduler}" + (f" -p {persistence}" if persistence else "")
    return f"-A {'--sctp-service' if protocol == 'sctp' else '-' + protocol[0]} {_pair(address, port)} {about}"


def _real(server: str, target: str, weight: int) -> str:
    _, kind, address, *_ = server.split()
    return f"-a {kind} {address} -r {target} -m -w {weight}"


def _pair(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _unhex(text: str) -> tuple[str, int]:
    """`0A60000A:0050`, `[fd00:0000:...]:0050`."""
    address, _, port = text.rpartition(":")
    plain = address.strip("[]")
    found = ipaddress.ip_address(plain if ":" in plain else int(plain, 16))
    return str(found), int(port, 16)
