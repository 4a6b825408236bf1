"""One small cluster for the DNS tests, and questions to it as text tables."""

from __future__ import annotations

from typing import Any, NamedTuple

from netemu.dns import names, wire
from netemu.dns.objects import Cluster, Options
from netemu.dns.records import Facts, answer
from netemu.model.meta import decode
from netemu.model.objects import EndpointSlice, Namespace, Service
from netemu.model.pods import Pod

ZONES = tuple(names.parse(zone) for zone in ("cluster.local", "in-addr.arpa", "ip6.arpa"))
FACTS = Facts(serial=1700000000, local=("10.0.9.53",))


def port(name: str, number: int, protocol: str = "TCP") -> dict[str, Any]:
    """A Service or slice port."""
    return {"name": name, "port": number, "protocol": protocol} if name else {"port": number, "protocol": protocol}


def service(name: str, ips: str, *ports: dict[str, Any], namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    """A Service; `ips` are its cluster IPs, or None for headless."""
    addresses = ips.split()
    body = {"clusterIP": addresses[0] if addresses else "", "clusterIPs": addresses, "ports": list(ports), **spec}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": body}


def slice_of(
    owner: str,
    suffix: str,
    endpoints: list[dict[str, Any]],
    *ports: dict[str, Any],
    namespace: str = "shop",
    family: str = "IPv4",
) -> dict[str, Any]:
    """An EndpointSlice of a Service."""
    labels = {"kubernetes.io/service-name": owner}
    meta = {"name": f"{owner}-{suffix}", "namespace": namespace, "labels": labels}
    return {"metadata": meta, "addressType": family, "endpoints": endpoints, "ports": list(ports)}


def endpoint(
    address: str, hostname: str = "", ready: bool | None = True, pod: str = "", **conditions: bool
) -> dict[str, Any]:
    """One endpoint."""
    found: dict[str, Any] = {"addresses": address.split(), "conditions": {"ready": ready, **conditions}}
    if hostname:
        found["hostname"] = hostname
    if pod:
        found["targetRef"] = {"kind": "Pod", "name": pod}
    return found


NAMESPACES = ("shop", "empty", "kube-system", "svc")
SERVICES = (
    service("web", "10.96.0.5", port("http", 80), port("dns", 53, "UDP")),
    service("dual", "10.96.0.6 fd00:10:96::6", port("http", 80), port("https", 443)),
    service("six", "fd00:10:96::7", port("http", 80)),
    service("plain", "10.96.0.8", port("", 8080)),
    service("sctp", "10.96.0.9", port("sig", 7000, "SCTP")),
    service("portless", "10.96.0.11"),
    service("1digit", "10.96.0.12", port("http", 80)),
    service("peers", "None", port("http", 80)),
    service("hosts", "None", port("db", 5432)),
    service("unready", "None", port("http", 80)),
    service("eager", "None", port("http", 80), publishNotReadyAddresses=True),
    service("noports", "None"),
    service("bare", "None", port("http", 80)),
    service("out", "", type="ExternalName", externalName="Www.Example.COM"),
    service("inner", "", type="ExternalName", externalName="web.shop.svc.cluster.local."),
    service("chain", "", type="ExternalName", externalName="inner.shop.svc.cluster.local"),
    service("selfish", "", type="ExternalName", externalName="selfish.shop.svc.cluster.local"),
    service("ping", "", type="ExternalName", externalName="pong.shop.svc.cluster.local"),
    service("pong", "", type="ExternalName", externalName="ping.shop.svc.cluster.local"),
    service("dangling", "", type="ExternalName", externalName="gone.shop.svc.cluster.local"),
    service("literal", "", type="ExternalName", externalName="192.0.2.1"),
    service("pod", "10.96.0.13", port("http", 80), namespace="svc"),
    service("kube-dns", "10.96.0.10", port("dns", 53, "UDP"), namespace="kube-system"),
    service("orphan", "10.96.0.99", port("http", 80), namespace="gone"),
)
SLICES = (
    slice_of("web", "1", [endpoint("10.0.0.5"), endpoint("10.0.0.6", "named")], port("http", 8080)),
    slice_of("peers", "1", [endpoint(f"10.0.1.{n}") for n in (1, 2, 3)], port("http", 8080)),
    slice_of("hosts", "1", [endpoint("10.0.2.1", "db-0"), endpoint("10.0.2.2", "db-1"), endpoint("10.0.2.3", "db-1")], port("db", 5432)),  # noqa: E501
    slice_of("hosts", "6", [endpoint("fd00::", "", True)], port("db", 5432), family="IPv6"),
    slice_of("unready", "1", [endpoint("10.0.3.1", ready=False), endpoint("10.0.3.2", ready=False, serving=True, terminating=True)], port("http", 80)),  # noqa: E501
    slice_of("eager", "1", [endpoint("10.0.3.3", ready=True, serving=False)], port("http", 80)),
    slice_of("noports", "1", [endpoint("10.0.4.1")]),
    slice_of("kube-dns", "1", [endpoint("10.0.9.53")], port("dns", 53, "UDP"), namespace="kube-system"),
    slice_of("nobody", "1", [endpoint("10.0.5.1")], port("http", 80)),
)  # fmt: skip
PODS = (
    {"metadata": {"name": "a", "namespace": "shop"}, "status": {"podIP": "10.0.0.5", "phase": "Running"}},
    {"metadata": {"name": "b", "namespace": "shop"}, "status": {"podIP": "10.0.0.7", "phase": "Succeeded"}},
)


def cluster(**options: Any) -> Cluster:
    """The cluster, filled."""
    found = Cluster(Options(**{"zones": ZONES, "ttl": 30, "pods": "insecure", **options}))
    for name in NAMESPACES:
        found.set_namespace(name, Namespace())
    for item in SERVICES:
        put(found, item)
    for item in SLICES:
        put(found, item)
    for item in PODS:
        found.set_pod("shop", item["metadata"]["name"], decode(item, Pod))
    return found


def put(into: Cluster, item: dict[str, Any]) -> bool:
    """Add or replace a Service or EndpointSlice."""
    meta = item["metadata"]
    if "addressType" in item:
        return into.set_slice(meta["namespace"], meta["name"], decode(item, EndpointSlice))
    return into.set_service(meta["namespace"], meta["name"], decode(item, Service))


class Case(NamedTuple):
    """A question and what is said: rcode, then answers as `TYPE data`, in any order."""

    name: str
    type: str
    rcode: str
    answers: tuple[str, ...] = ()


def cases(table: str) -> list[Case]:
    """Lines `NAME TYPE RCODE answer; answer`; a name without a last dot is under cluster.local."""
    found = []
    for line in table.strip().splitlines():
        name, kind, rcode, *rest = line.split(None, 3)
        answers = tuple(sorted(item.strip() for item in rest[0].split(";"))) if rest else ()
        absolute = name if name.endswith(".") else "cluster.local." if name == "@" else f"{name}.cluster.local."
        found.append(Case(absolute, kind, rcode, answers))
    return found


def ask(of: Cluster, name: str, kind: str, facts: Facts = FACTS) -> Case:
    """What the cluster says, in the form of a case."""
    wanted = names.parse(name)
    zone = next(suffix for suffix in names.suffixes(wanted.lower()) if suffix in of.options.zones)
    number = wire.TYPES.get(kind) or int(kind.removeprefix("TYPE"))
    said = answer(of, wanted, number, zone, facts)
    lines = [f"{wire.type_name(record.type)} {wire.rdata_text(record)}" for record in said.answers]
    return Case(name, kind, wire.rcode_name(said.rcode), tuple(sorted(lines)))
