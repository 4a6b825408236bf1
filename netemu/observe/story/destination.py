"""What TO:PORT means, seen from a place in a lab: the address that a packet is sent to, and how it was found.

Whoever sends packets reads destinations here: a trace (`resolve`), and a probe, a check or a claim (`to_probe`).

A program in a Pod knows names, and so does a trace from there: a name is asked for as the Pod's resolver asks for it,
query by query. What DNS does not know is found in the API objects: `pod/NAME`, `service/NAME`, `NAMESPACE/NAME`,
`node/NAME` and `client/NAME`, and from a node or a client, whose resolver is the one outside, the name of a Service.

Where a name leads nowhere there is a destination still, without an address: that, too, is a story
(`Destination.trouble`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from netemu.model.errors import NetemuError, UserError
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.model.pods import Pod
from netemu.model.suggest import instead
from netemu.observe.addresses import is_address
from netemu.observe.probe import prober as probe
from netemu.observe.probe.prober import Place
from netemu.observe.reasons import Because, Reason
from netemu.observe.resolve.dig import Lookup, lookup

IPV4, IPV6 = "ipv4", "ipv6"
_KINDS = {
    "service": "Service", "svc": "Service", "pod": "Pod", "po": "Pod", "node": "node", "no": "node", "client": "client",
}  # fmt: skip
_WRITTEN = "ADDRESS, NAME, NAMESPACE/NAME, service/NAME, pod/NAME, node/NAME or client/NAME"
_LIKE_IPV4 = re.compile(r"[0-9]+(\.[0-9]+){3}")
_WITH_PORT = re.compile(r"(.*?:[^:/\]]+)(/.*)?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """TO:PORT taken apart. `kind` is "" for an address or a name."""

    text: str
    kind: str
    name: str
    port: str
    """A number, or the name of a Service's port; "" for ICMP."""
    path: str = "/"
    """What is asked for where HTTP is spoken."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a packet is to go."""

    text: str
    address: str = ""
    port: int = 0
    owner: str = ""
    """The object that was meant, as `Service shop/web`; "" where an address or a DNS name was given."""
    lookup: Lookup | None = None
    trouble: Because | None = None
    """Why there is no address, where there is none."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A workload that is scaled to 0 Pods, with the labels that they would have."""

    kind: str
    """`deployment` or `statefulset`."""
    namespace: str
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Objects:
    """What destinations are found in."""

    services: Sequence[Service] = ()
    slices: Sequence[EndpointSlice] = ()
    pods: Sequence[Pod] = ()
    nodes: Sequence[Node] = ()
    clients: Mapping[str, Sequence[str]] | None = None
    """Addresses by name."""
    idle: Sequence[Idle] = ()

    def service(self, namespace: str, name: str) -> Service | None:
        """One Service."""
        return next((s for s in self.services if (s.namespace, s.name) == (namespace, name)), None)

    def pod(self, namespace: str, name: str) -> Pod | None:
        """One Pod."""
        return next((p for p in self.pods if (p.namespace, p.name) == (namespace, name)), None)


def parse(text: str, protocol: str) -> Wanted:
    """Take TO:PORT, TO:PORT/PATH or a URL of HTTP apart. Raises UserError."""
    icmp = protocol == "icmp"
    example = "for example web" if icmp else "for example web:80"
    endpoint, path = (text, "/") if icmp else _without_path(text)
    host, port = (endpoint, "") if icmp else endpoint.rpartition(":")[::2]
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if icmp and ":" in bare and not is_address(bare):
        raise UserError(f"destination {text!r}: ICMP has no ports; must be NAME or ADDRESS, {example}")
    if not bare or (not icmp and (not port or port.endswith("]"))):
        raise UserError(f"destination {text!r}: must be NAME:PORT or ADDRESS:PORT, {example}")
    if ":" in host and bare == host and not icmp:
        raise UserError(f"destination {text!r}: an IPv6 address must be in brackets, for example [fd00::1]:80")
    if _is_number(port) and not 0 < int(port) < 65536:
        raise UserError(f"destination {text!r}: port {port} is none; ports are 1 to 65535")
    if _LIKE_IPV4.fullmatch(bare) and not is_address(bare):
        raise UserError(f"destination {text!r}: {bare} is no IPv4 address; its numbers are 0 to 255")
    kind, slash, name = bare.partition("/")
    if not slash:
        return Wanted(text, "", bare, port, path)
    return Wanted(text, _KINDS.get(kind, f"{kind}/"), name, port, path)


def _without_path(text: str) -> tuple[str, str]:
    """The endpoint and the path. A URL without a port means port 80."""
    rest = text.removeprefix("http://")
    if (found := _WITH_PORT.fullmatch(rest)) is not None:
        return found[1], found[2] or "/"
    host, _, path = rest.partition("/")
    return (f"{host}:80", f"/{path}") if rest != text else (text, "/")


async def resolve(
    wanted: Wanted, place: Place, objects: Objects, namespace: str, *, pod: bool, family: str = ""
) -> Destination:
    """Find the address. `pod`: whether the place is a Pod, whose resolver knows Services.

    Raises UserError for an object that is not there or has no such port.
    """
    name = wanted.name
    if is_address(name):
        return Destination(wanted.text, str(ipaddress.ip_address(name)), _number(wanted))
    wanted = _meant(wanted, objects, namespace, pod=pod)
    if wanted.kind:
        return of_object(wanted, objects, namespace, family)
    return await _by_name(wanted, place, objects, namespace, family)


async def to_probe(
    text: str, place: Place, read: Callable[[], Objects], namespace: str, *, pod: bool
) -> probe.Destination:
    """What is connected to: the address of an object; a DNS name stays one, for every attempt asks for it anew.

    `read` gets the objects, where they are needed. Raises UserError as `resolve`, and for what has no address.
    """
    wanted = parse(text, "tcp")
    if not wanted.kind and is_address(wanted.name):
        return probe.Destination(wanted.name, _number(wanted), wanted.path, text)
    try:
        objects = read()
    except NetemuError:
        if wanted.kind or not _is_number(wanted.port):
            raise
        objects = Objects()  # what DNS knows is reached without an API server, too
    wanted = _meant(wanted, objects, namespace, pod=pod)
    if not wanted.kind and _is_number(wanted.port):
        return probe.Destination(wanted.name, int(wanted.port), wanted.path, text)
    found = await resolve(wanted, place, objects, namespace, pod=pod)
    if found.trouble is not None:
        raise UserError(f"destination {text!r}: {found.trouble.text}")
    return probe.Destination(found.address if wanted.kind else wanted.name, found.port, wanted.path, text)


def _meant(wanted: Wanted, objects: Objects, namespace: str, *, pod: bool) -> Wanted:
    """With the kind of object that a name without one stands for; without, where it is for DNS."""
    if wanted.kind or is_address(wanted.name):
        return wanted
    if objects.service(namespace, wanted.name) is not None:
        return wanted if pod else replace(wanted, kind="Service")
    return replace(wanted, kind="Pod") if objects.pod(namespace, wanted.name) is not None else wanted


def of_object(wanted: Wanted, objects: Objects, namespace: str, family: str = "") -> Destination:
    """The address of a Service, Pod, node or client. Raises UserError."""
    if wanted.kind.endswith("/"):
        namespace = wanted.kind[:-1]
        is_service = objects.service(namespace, wanted.name) is not None
        if not is_service and objects.pod(namespace, wanted.name) is None:
            if namespace not in {each.namespace for each in (*objects.services, *objects.pods)}:
                there = f"nothing is in a namespace {namespace!r}; must be {_WRITTEN}"
                raise UserError(f"destination {wanted.text!r}: {there}")
            raise UserError(
                f"destination {wanted.text!r}: namespace {namespace} has neither a Service nor a Pod {wanted.name!r}"
            )
        wanted = replace(wanted, kind="Service" if is_service else "Pod")
    match wanted.kind:
        case "Service":
            return _service(wanted, objects, namespace, family)
        case "Pod":
            return _pod(wanted, objects, namespace, family)
        case "node":
            known = {n.name: [a.address for a in n.status.addresses if a.type == "InternalIP"] for n in objects.nodes}
        case _:
            known = {name: list(addresses) for name, addresses in (objects.clients or {}).items()}
    if wanted.name not in known:
        raise _missing(wanted, known)
    if wanted.kind == "node" and (numbers := _node_ports(wanted.port, objects)):
        raise UserError(f"destination {wanted.text!r}: a node's ports have numbers, not names; {numbers}")
    return _first(wanted, f"{wanted.kind} {wanted.name}", known[wanted.name], family)


def _node_ports(name: str, objects: Objects) -> str:
    """The node ports of that name, in words: `http of Service shop/web is 30080`."""
    found = ((s, port) for s in objects.services for port in s.spec.ports if port.name == name and port.node_port)
    return ", ".join(f"{name} of Service {service.key} is {port.node_port}" for service, port in found if name)


def _service(wanted: Wanted, objects: Objects, namespace: str, family: str) -> Destination:
    service = objects.service(namespace, wanted.name)
    if service is None:
        raise _missing(wanted, [s.name for s in objects.services if s.namespace == namespace], namespace)
    owner, port = f"Service {service.key}", _number(wanted, service)
    if service.spec.type == "ExternalName":
        because = Because(Reason.EXTERNAL_NAME, f"{owner} is a name for {service.spec.external_name}", "use that name")
        return Destination(wanted.text, "", port, owner, trouble=because)
    if service.headless:
        addresses = [
            endpoint.addresses[0]
            for piece in objects.slices
            if piece.service_key == service.key
            for endpoint in piece.endpoints or ()
            if endpoint.addresses and endpoint.conditions.ready is not False
        ]
        if not addresses:
            why = f"{owner} is headless and has no ready endpoints: there is no address to send to"
            return Destination(wanted.text, "", port, owner, trouble=Because(Reason.NO_ENDPOINTS, why))
    else:
        addresses = _cluster_ips(service)
    return _first(wanted, owner, addresses, family, port)


def _pod(wanted: Wanted, objects: Objects, namespace: str, family: str) -> Destination:
    pod = objects.pod(namespace, wanted.name)
    if pod is None:
        raise _missing(wanted, [p.name for p in objects.pods if p.namespace == namespace], namespace)
    owner, addresses = f"Pod {pod.key}", [ip.ip for ip in pod.status.pod_ips]
    if addresses:
        return _first(wanted, owner, addresses, family)
    scheduled = next((c for c in pod.status.conditions if c.type == "PodScheduled"), None)
    if not pod.spec.node_name:
        why = f": {scheduled.message}" if scheduled and scheduled.message else ""
        trouble = Because(Reason.UNSCHEDULED, f"{owner} is on no node yet{why}")
    else:
        text = f"{owner} has no address yet; its phase on node {pod.spec.node_name} is {pod.status.phase}"
        trouble = Because(Reason.POD_PENDING, text)
    return Destination(wanted.text, "", _number(wanted), owner, trouble=trouble)


def _first(wanted: Wanted, owner: str, addresses: Sequence[str], family: str, port: int | None = None) -> Destination:
    number = _number(wanted) if port is None else port
    address = next((a for a in addresses if not family or _family(a) == family), "")
    if address:
        return Destination(wanted.text, address, number, owner)
    has = " and ".join(sorted({_words(_family(a)) for a in addresses})) or "none"
    because = Because(Reason.FAMILY, f"{owner} has no {_words(family)} address; it has {has}")
    return Destination(wanted.text, "", number, owner, trouble=because)


async def _by_name(wanted: Wanted, place: Place, objects: Objects, namespace: str, family: str) -> Destination:
    types = {IPV4: ("A",), IPV6: ("AAAA",)}.get(family, ("A", "AAAA"))
    if not place.resolv_conf:
        raise UserError(f"destination {wanted.text!r}: there is no resolver here for the name {wanted.name}")
    try:
        found = await lookup(
            wanted.name, types=types, resolv_conf=place.resolv_conf, hosts=place.hosts or None, netns=place.netns
        )
    except ValueError as error:
        raise UserError(f"destination {wanted.text!r}: {error}") from error
    port = _number(wanted, _named_service(found, objects, namespace))
    if found.result.addresses:
        return Destination(wanted.text, found.result.addresses[0], port, lookup=found)
    outcomes = ", ".join(dict.fromkeys(step.reply.outcome for step in found.steps))
    text = f"the name {wanted.name} leads nowhere: {found.result.status} ({outcomes})"
    if found.result.status == "try again":
        text = f"nobody tells what the name {wanted.name} is: {outcomes}"
        return Destination(wanted.text, "", port, lookup=found, trouble=Because(Reason.DNS_FAILS, text))
    meant = _named_service(found, objects, namespace)
    addresses = _cluster_ips(meant) if meant is not None else []
    if meant is not None and addresses and family and family not in map(_family, addresses):
        return replace(_first(wanted, f"Service {meant.key}", addresses, family, port), lookup=found)
    search = " ".join(found.resolv_conf.search) or "empty"
    remedy = f"`netemu dig` shows every query; the search path is {search}"
    return Destination(wanted.text, "", port, lookup=found, trouble=Because(Reason.UNKNOWN_NAME, text, remedy))


def _named_service(found: Lookup, objects: Objects, namespace: str) -> Service | None:
    """The Service that a name was about, whether it was found or not."""
    name, space, kind, *_ = [*(found.result.name or found.name).split("."), "", "", ""]
    return objects.service(space or namespace, name) if kind in ("svc", "") else objects.service(namespace, found.name)


def _cluster_ips(service: Service) -> list[str]:
    """None of a headless Service."""
    return [ip for ip in service.spec.cluster_ips or (service.spec.cluster_ip,) if ip not in ("", "None")]


def _number(wanted: Wanted, service: Service | None = None) -> int:
    if _is_number(wanted.port) or not wanted.port:
        return int(wanted.port or 0)
    ports = {port.name: port.port for port in service.spec.ports} if service else {}
    if wanted.port not in ports:
        known = f"Service {service.key} has {', '.join(filter(None, ports)) or 'no named ports'}" if service else ""
        raise UserError(f"destination {wanted.text!r}: no port {wanted.port!r}; {known or 'must be a number'}")
    return ports[wanted.port]


def _missing(wanted: Wanted, known: Iterable[str], namespace: str = "") -> UserError:
    names = sorted(set(known))
    where = f" in namespace {namespace}" if namespace else ""
    there = instead(wanted.name, names, f"{wanted.kind}s here") if names else f"there are no {wanted.kind}s"
    return UserError(f"destination {wanted.text!r}: no {wanted.kind} {wanted.name!r}{where}; {there}")


def _is_number(port: str) -> bool:
    """Of the digits that `int` and everybody reads alike."""
    return port.isascii() and port.isdecimal()


def _family(address: str) -> str:
    return IPV6 if ":" in address else IPV4


def _words(family: str) -> str:
    return {IPV4: "IPv4", IPV6: "IPv6"}.get(family, "usable")
