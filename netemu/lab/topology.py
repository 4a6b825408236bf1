"""The topology file: what a person writes, checked before anything is created.

A file holds YAML documents: at most one `kind: Topology` (first), then plain Kubernetes manifests. A file of plain
manifests alone is a lab too, on the default three nodes. `read_topology` finds every mistake at once, each with its
line and what would be right.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from netemu.lab.certificate_spec import check_certificate
from netemu.lab.check_spec import CheckSpec, applied, check_mistakes, kind_mistakes
from netemu.lab.node_spec import SEVERAL, ControlPlaneSpec, LinkSpec, NodeSpec, Spec, node_names, planned_nodes
from netemu.lab.topology_networks import addresses_of_client, check_client_addresses, check_networks
from netemu.model.durations import Duration
from netemu.model.errors import UserError
from netemu.model.suggest import instead
from netemu.model.yamlfile import Document, Mistake, Mistakes, Where, read_documents
from netemu.proxy.config import MODES

API_VERSION = "netemu.dev/v1alpha1"
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_RATE = re.compile(r"^[0-9]+(\.[0-9]+)?[kmg]?bit$")
_DELAY = re.compile(r"^[0-9]+(\.[0-9]+)?(us|ms|s)$")
_LOSS = re.compile(r"^[0-9]+(\.[0-9]+)?%$")


class ClientSpec(Spec, frozen=True, kw_only=True):
    """A host outside the cluster, as an Internet user's machine is."""

    name: str
    address: str = ""
    """In 203.0.113.0/24, in 2001:db8:113::/64, or one of each; the next free one where empty."""
    names: tuple[str, ...] = ()
    """Its names in the DNS outside the cluster, such as api.example.com."""
    ports: tuple[int, ...] = ()
    """Where it answers HTTP; on 443 HTTPS, for its names."""


class ProxySpec(Spec, frozen=True, kw_only=True):
    mode: str = "iptables"


class DnsSpec(Spec, frozen=True, kw_only=True):
    domain: str = "cluster.local"
    replicas: int = 2
    corefile: str = ""
    """What the ConfigMap `coredns` holds at first; empty: kubeadm's."""
    node_local: bool = False
    """A DNS cache on every node, see netemu.lab.node_local_dns."""


_WORKERS = (NodeSpec(name="worker", count=2),)
_DEFAULT_NODES = (NodeSpec(name="control-plane", role="control-plane"), *_WORKERS)
_SHORTEST_VALIDITY = 10
"""Seconds: what ends sooner cannot be renewed in time."""
_STORES = ("sqlite", "etcd")


class TopologySpec(Spec, frozen=True, kw_only=True):
    control_plane: ControlPlaneSpec = ControlPlaneSpec()
    nodes: tuple[NodeSpec, ...] = _DEFAULT_NODES
    ip_family: str = "ipv4"
    """`ipv4`, `ipv6` or `dual`."""
    node_cidr: str = msgspec.field(name="nodeCIDR", default="")
    """A network, or in a dual-stack lab one of each family, `IPV4,IPV6`; what is left out is the default."""
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    service_cidr: str = msgspec.field(name="serviceCIDR", default="")
    proxy: ProxySpec = ProxySpec()
    dns: DnsSpec = DnsSpec()
    clients: tuple[ClientSpec, ...] = ()
    links: LinkSpec = LinkSpec()
    checks: tuple[CheckSpec, ...] = ()
    """What the lab must show; `netemu test` does them in order."""

    @property
    def all_nodes(self) -> tuple[NodeSpec, ...]:
        """The nodes listed, and those that the control plane adds."""
        several = self.control_plane.replicas > 1
        return planned_nodes(_WORKERS if several and self.nodes is _DEFAULT_NODES else self.nodes, self.control_plane)


class Metadata(Spec, frozen=True, kw_only=True):
    name: str
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    """Free text for readers of the file, for example what the lab shows."""


class Topology(Spec, frozen=True, kw_only=True):
    """The first document of a topology file."""

    api_version: str = API_VERSION
    kind: str = "Topology"
    metadata: Metadata
    spec: TopologySpec = TopologySpec()


@dataclass(frozen=True, slots=True)
class TopologyFile:
    """A checked file: the topology and the manifests to post, in order."""

    topology: Topology
    manifests: tuple[Document, ...]


def read_topology(path: Path, *, name: str = "", proxy_mode: str = "") -> TopologyFile:
    """Read and check a file; `name` overrides metadata.name, `proxy_mode` spec.proxy.mode.

    Raises Mistakes; UserError for a mode that is none.
    """
    if proxy_mode and proxy_mode not in MODES:
        raise UserError(f"{proxy_mode!r} is no proxy mode; {instead(proxy_mode, MODES, 'must be one of')}")
    documents, mistakes = read_documents(path)
    heads = [d for d in documents if isinstance(d.value, dict) and d.value.get("kind") == "Topology"]
    manifests = tuple(d for d in documents if d not in heads)
    if not documents and not mistakes:
        mistakes.append(Mistake(str(path), 1, "empty: expected a Topology, Kubernetes manifests, or both"))
    for extra in heads[1:]:
        mistakes.append(extra.mistake(("kind",), f"a second Topology; the first is on line {heads[0].line()}"))
    default = Topology(metadata=Metadata(name=name or _name_from(path)))
    topology = default
    if heads:
        decoded, found = _decode(heads[0])
        topology = _located(decoded or default, path.parent)
        mistakes += found
    if name:
        topology = msgspec.structs.replace(topology, metadata=Metadata(name=name))
    if not _LABEL.match(topology.metadata.name):
        where = heads[0].mistake(("metadata", "name"), "") if heads and not name else Mistake(str(path), 1, "")
        right = "lower-case letters, digits and '-', at most 63, beginning and ending with a letter or digit"
        mistakes.append(Mistake(where.file, where.line, f"lab name {topology.metadata.name!r}: must be {right}"))
    if manifests:
        # The API server's rules are not loaded for a file that has no manifests.
        from netemu.lab.manifests import manifests_mistakes

        mistakes += manifests_mistakes(manifests, topology, sound=not mistakes)
    if heads and topology.spec.checks:
        from netemu.lab.manifests import served_with

        checks = topology.spec.checks
        served = served_with([*(document.value for document in manifests), *applied(checks)])
        mistakes += kind_mistakes(heads[0], checks, served)
    if mistakes:
        raise Mistakes(mistakes)
    return TopologyFile(_in_mode(topology, proxy_mode) if proxy_mode else topology, manifests)


def _in_mode(topology: Topology, mode: str) -> Topology:
    spec = msgspec.structs.replace(topology.spec, proxy=ProxySpec(mode=mode))
    return msgspec.structs.replace(topology, spec=spec)


def _located(topology: Topology, folder: Path) -> Topology:
    """With absolute paths: the lab's processes are elsewhere."""
    plane = topology.spec.control_plane
    if plane.certificate is None:
        return topology
    plane = msgspec.structs.replace(plane, certificate=plane.certificate.located(folder))
    return msgspec.structs.replace(topology, spec=msgspec.structs.replace(topology.spec, control_plane=plane))


def _name_from(path: Path) -> str:
    """A file without a Topology is named after itself: `Online Boutique.yaml` gives `online-boutique`."""
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:63] or "lab"


def _decode(document: Document) -> tuple[Topology | None, list[Mistake]]:
    mistakes = list(_unknown_fields(document, document.value, Topology, ()))
    if document.value.get("apiVersion") != API_VERSION:
        given = document.value.get("apiVersion")
        return None, [*mistakes, document.mistake(("apiVersion",), f"{given!r}: must be {API_VERSION}")]
    value = copy.deepcopy(document.value)
    while True:
        try:
            topology = msgspec.convert(value, Topology)
            return topology, mistakes + list(_check(document, topology.spec))
        except msgspec.ValidationError as error:
            where, text = _where(str(error))
            if document.line(where) not in [mistake.line for mistake in mistakes]:
                mistakes.append(document.mistake(where, text))
            # What is wrong is told and taken out, so that the rest is judged too.
            if not _without(value, where):
                return None, mistakes


def _without(value: Any, where: Where) -> bool:
    """Take out what stands at a path; False if that is everything, or nothing stands there."""
    if not where or where == ("metadata",):
        return False
    for part in where[:-1]:
        value = value[part]
    if isinstance(value, list):
        del value[int(where[-1])]
        return True
    there = where[-1] in value
    value.pop(where[-1], None)
    return there


_TYPES = {"int": "a whole number", "str": "text", "array": "a list", "object": "a mapping", "bool": "true or false",
          "float": "a number", "null": "nothing"}  # fmt: skip


def _where(message: str) -> tuple[Where, str]:
    """msgspec's `Expected `int | null`, got `str` - at `$.spec.nodes[0].count``, taken apart and in plain words."""
    text, _, path = message.partition(" - at ")
    # msgspec does not say under which key of a mapping: `$.faults[...].fault`.
    path, _, within = path.strip("`").partition("[...]")
    if within:
        text = f"{within.lstrip('.')} of one of these: {text}"
    parts = re.findall(r"\.([A-Za-z0-9_]+)|\[([0-9]+)\]", path)
    where = tuple(int(index) if index else name for name, index in parts)
    if types := re.match(r"Expected `([a-z]+)[^`]*`, got `([a-z]+)`", text):
        wanted, given = (_TYPES.get(word, word) for word in types.groups())
        return where, f"must be {wanted}, not {given}"
    return where, text.replace("`", "").replace("Object missing required field ", "missing field ")


def _unknown_fields(document: Document, value: Any, kind: Any, where: Where) -> Iterator[Mistake]:
    """Every key that no field of the types takes, with the nearest that one does."""
    if (mapping := _mapping_in(kind)) is not None and isinstance(value, dict):
        for key, item in value.items():
            yield from _unknown_fields(document, item, mapping, (*where, str(key)))
        return
    struct = _struct_in(kind)
    if struct is None:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_fields(document, item, struct, (*where, index))
    if not isinstance(value, dict):
        return
    fields = {f.encode_name: f.type for f in msgspec.structs.fields(struct)}
    for key, item in value.items():
        if key in fields:
            yield from _unknown_fields(document, item, fields[key], (*where, key))
            continue
        yield document.mistake((*where, str(key)), f"unknown field; {instead(str(key), fields, 'known here')}")


def _mapping_in(kind: Any) -> Any:
    """X of `dict[str, X]` or `dict[str, X] | None`; None for anything else."""
    found = [each for each in (kind, *get_args(kind)) if get_origin(each) is dict]
    return get_args(found[0])[1] if found else None


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The struct inside `tuple[X, ...]`, `X | None` or `X` itself."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next(filter(None, map(_struct_in, get_args(kind))), None)


def _check(document: Document, spec: TopologySpec) -> Iterator[Mistake]:
    yield from _check_control_plane(document, spec)
    yield from _check_nodes(document, spec)
    nodes = sum(len(node_names(node)) for node in spec.all_nodes if node.count is None or node.count > 0)
    yield from check_networks(document, spec, nodes)
    yield from _check_clients(document, spec)
    yield from _check_link(document, spec.links, ("spec", "links"))
    if spec.proxy.mode not in MODES:
        why = f"{spec.proxy.mode!r} is no proxy mode; must be one of {', '.join(MODES)}"
        yield document.mistake(("spec", "proxy", "mode"), why)
    if not 1 <= spec.dns.replicas <= 100:
        yield document.mistake(("spec", "dns", "replicas"), f"{spec.dns.replicas}: must be 1 to 100")
    if not all(_LABEL.match(label) for label in spec.dns.domain.split(".")):
        yield document.mistake(("spec", "dns", "domain"), f"{spec.dns.domain!r}: must be a domain like cluster.local")
    if spec.dns.node_local and spec.ip_family == "ipv6":
        why = "true: the cache has IPv4 addresses; must be false in an ipv6 lab"
        yield document.mistake(("spec", "dns", "nodeLocal"), why)
    if spec.checks:
        yield from check_mistakes(document, spec.checks)
    if spec.dns.corefile:
        yield from _check_corefile(document, spec.dns.corefile)


def _check_corefile(document: Document, text: str) -> Iterator[Mistake]:
    from netemu.dns.server import check_corefile  # a server is much to load for files that say nothing of it

    try:
        check_corefile(text)
    except UserError as error:
        yield document.mistake(("spec", "dns", "corefile"), str(error))


def _check_control_plane(document: Document, spec: TopologySpec) -> Iterator[Mistake]:
    replicas, store, where = spec.control_plane.replicas, spec.control_plane.store, ("spec", "controlPlane")
    if replicas not in (1, *SEVERAL):
        yield document.mistake((*where, "replicas"), f"{replicas}: must be 1, 3 or 5")
    if store not in _STORES:
        yield document.mistake((*where, "store"), f"{store!r}: must be sqlite or etcd")
    elif replicas > 1 and store != "etcd":
        why = f"{store} has room for one API server; must be etcd where replicas is {replicas}"
        yield document.mistake((*where, "store"), why)
    validity = spec.control_plane.certificate_validity_period
    try:
        fine = Duration.parse(validity) >= _SHORTEST_VALIDITY
    except ValueError:
        fine = False
    if not fine:
        why = f"{validity!r}: must be a duration such as 8760h, {_SHORTEST_VALIDITY}s or more"
        yield document.mistake((*where, "certificateValidityPeriod"), why)
    if spec.control_plane.certificate:
        yield from check_certificate(document, spec.control_plane.certificate, Path(document.file).parent)
    listed = [(index, node) for index, node in enumerate(spec.nodes) if node.role == "control-plane"]
    count = sum(len(node_names(node)) for _, node in listed)
    if spec.nodes is not _DEFAULT_NODES and listed and count != replicas:
        index, node = listed[-1]
        field = "role" if node.count is None else "count"
        why = f"{count} control-plane nodes, and spec.controlPlane.replicas is {replicas}; must be as many"
        yield document.mistake(("spec", "nodes", index, field), why)


def _check_nodes(document: Document, spec: TopologySpec) -> Iterator[Mistake]:
    added = [name for node in spec.all_nodes if node not in spec.nodes for name in node_names(node)]
    seen = dict.fromkeys(added, document.line(("spec", "controlPlane")))
    if not spec.nodes:
        yield document.mistake(("spec", "nodes"), "empty: a lab needs at least one node")
    for index, node in enumerate(spec.nodes):
        where: Where = ("spec", "nodes", index)
        if not _LABEL.match(node.name):
            yield document.mistake((*where, "name"), f"{node.name!r}: must be a DNS label such as worker-1")
        if node.role not in ("", "control-plane", "worker"):
            yield document.mistake((*where, "role"), f"{node.role!r}: must be control-plane or worker")
        if node.count is not None and not 1 <= node.count <= 250:
            yield document.mistake((*where, "count"), f"{node.count}: must be 1 to 250")
            continue
        for name in node_names(node):
            if name in seen:
                yield document.mistake((*where, "name"), f"node {name!r} is already there, from line {seen[name]}")
            seen.setdefault(name, document.line((*where, "name")))
        for number, taint in enumerate(node.taints or ()):
            if taint.effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
                right = "must be NoSchedule, PreferNoSchedule or NoExecute"
                yield document.mistake((*where, "taints", number, "effect"), f"{taint.effect!r}: {right}")
        if node.link:
            yield from _check_link(document, node.link, (*where, "link"))
    if len(seen) > 250:
        yield document.mistake(("spec", "nodes"), f"{len(seen)} nodes: must be at most 250")


def _check_clients(document: Document, spec: TopologySpec) -> Iterator[Mistake]:
    names: dict[str, int] = {}
    addresses: dict[str, str] = {}
    for index, client in enumerate(spec.clients):
        where: Where = ("spec", "clients", index)
        if not _LABEL.match(client.name):
            yield document.mistake((*where, "name"), f"{client.name!r}: must be a DNS label such as laptop")
        if client.name in names:
            yield document.mistake((*where, "name"), f"{client.name!r} is already there, on line {names[client.name]}")
        names.setdefault(client.name, document.line((*where, "name")))
        for number, name in enumerate(client.names):
            if not all(_LABEL.match(label) for label in name.split(".")) or len(name) > 253:
                yield document.mistake((*where, "names", number), f"{name!r}: must be a name like api.example.com")
            elif f".{name}".endswith(f".{spec.dns.domain}"):
                why = f"{name!r}: is in the cluster's own domain; must be a name outside, like api.example.com"
                yield document.mistake((*where, "names", number), why)
        for number, port in enumerate(client.ports):
            if not 0 < port < 65536:
                yield document.mistake((*where, "ports", number), f"{port}: must be 1 to 65535")
        if 443 in client.ports and not client.names:
            yield document.mistake((*where, "ports"), "443 is HTTPS, which needs a certificate: names is missing")
        if not client.address:
            continue
        mistakes = list(check_client_addresses(document, (*where, "address"), client.address, spec.ip_family))
        yield from mistakes
        for address in addresses_of_client(client.address).values() if not mistakes else ():
            if address in addresses:
                owner = addresses[address]
                yield document.mistake((*where, "address"), f"{address} is already {owner}'s; must be unique")
            addresses.setdefault(address, client.name)


def _check_link(document: Document, link: LinkSpec, where: Where) -> Iterator[Mistake]:
    if not 576 <= link.mtu <= 65535:
        yield document.mistake((*where, "mtu"), f"{link.mtu}: must be 576 to 65535 bytes")
    for name, pattern, example in (("rate", _RATE, "100mbit"), ("delay", _DELAY, "5ms"), ("loss", _LOSS, "0.5%")):
        text = getattr(link, name)
        if text and not pattern.match(text):
            yield document.mistake((*where, name), f"{text!r}: must look like {example}")
        elif name == "loss" and text and float(text.rstrip("%")) > 100:
            yield document.mistake((*where, name), f"{text!r}: must be at most 100%")
