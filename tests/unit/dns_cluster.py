"""One small cluster for the DNS tests."""

from __future__ import annotations

from typing import Any, NamedTuple

from netemu.dns import names, wire
from netemu.dns.objects import Changed, Cluster, Options, pod_address, service_facts, slice_facts
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


NAMESPACES = ("shop", "empty", "kube-system", "svc", "leaving")
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
    service("late", "10.96.0.14", port("http", 80), namespace="leaving"),
    service(
        "gate", "10.96.0.15", {**port("http", 80), "nodePort": 30080}, type="LoadBalancer", externalIPs=["203.0.113.8"]
    )
    | {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}},
    service("manual", "10.96.0.16", port("http", 80)),
    service("twin", "None", port("http", 80)),
    service("parts", "None", port("http", 80)),
    service("peers2", "None", port("http", 80)),
    service("nameless", "None", port("", 80)),
    service("numberless", "None", port("http", 80)),
    service("wide", "None", port("http", 80)),
    service("unsaid", "None", port("http", 80)),
    service("crew", "None", port("http", 80)),
    service("lead", "None", port("http", 80)),
    service("lead-in", "None", port("http", 80)),
    service("apex", "", type="ExternalName", externalName="cluster.local"),
    service("loud", "", type="ExternalName", externalName="Web.SHOP.svc.cluster.LOCAL"),
    service("nodata", "", type="ExternalName", externalName="empty.example.com"),
    service("nxdomain", "", type="ExternalName", externalName="absent.example.com"),
    service("servfail", "", type="ExternalName", externalName="broken.example.com"),
    service("refused", "", type="ExternalName", externalName="www.example.net."),
    service("chained", "", type="ExternalName", externalName="alias.example.com"),
    service("literal6", "", type="ExternalName", externalName="fd00::1"),
    *(
        service(f"link{n}", "", type="ExternalName", externalName=f"link{n - 1}.shop.svc.cluster.local")
        for n in range(2, 12)
    ),
    service("link1", "", type="ExternalName", externalName="web.shop.svc.cluster.local"),
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
    slice_of("manual", "1", [endpoint("192.0.2.80", "by-hand")], port("http", 80)),
    slice_of("twin", "4", [endpoint("10.0.6.1", "a"), endpoint("10.0.6.2")], port("http", 80)),
    slice_of("twin", "6", [endpoint("fd00:10::61", "a"), endpoint("fd00:10::62")], port("http", 80), family="IPv6"),
    slice_of("parts", "1", [endpoint("10.0.6.11")], port("http", 8080)),
    slice_of("parts", "2", [endpoint("10.0.6.12")], port("http", 9090), port("admin", 9100)),
    slice_of("peers2", "1", [endpoint("10.0.1.1", "first"), endpoint("10.96.0.8")], port("http", 80)),
    slice_of("nameless", "1", [endpoint("10.0.6.21")], port("", 8080)),
    slice_of("numberless", "1", [endpoint("10.0.6.31")], {"name": "http", "protocol": "TCP"}),
    slice_of("wide", "1", [endpoint("10.0.6.41 10.0.6.42")], port("http", 80)),
    slice_of("unsaid", "1", [{"addresses": ["10.0.6.51"]}, endpoint("10.0.6.52", ready=None)], port("http", 80)),
    slice_of("crew", "1", [endpoint("10.0.10.1", pod="crew-0"), endpoint("10.0.10.2", "captain", pod="crew-1"), endpoint("10.0.10.3", pod="c" * 64)], port("http", 80)),  # noqa: E501
    slice_of("lead", "1", [endpoint("www.example.com")], port("http", 80), family="FQDN"),
    slice_of("lead-in", "1", [endpoint("web.shop.svc.cluster.local")], port("http", 80), family="FQDN"),
)  # fmt: skip


def pod(name: str, address: str, namespace: str = "shop", phase: str = "Running", **meta: str) -> dict[str, Any]:
    """A Pod; with two addresses the first is its `podIP`."""
    addresses = address.split()
    status = {"podIP": addresses[0], "podIPs": [{"ip": each} for each in addresses], "phase": phase}
    return {"metadata": {"name": name, "namespace": namespace, **meta}, "status": status}


PODS = (
    pod("a", "10.0.0.5 fd00:10::5"),
    pod("b", "10.0.0.7", phase="Succeeded"),
    pod("c", "10.0.0.8", phase="Failed"),
    pod("d", "10.0.0.9", deletionTimestamp="2026-01-01T00:00:00Z"),
    pod("six", "fd00:10::6"),
    pod("host-a", "192.168.0.1"),
    pod("host-b", "192.168.0.1", namespace="kube-system"),
    pod("pending", "10.0.0.10", phase="Pending"),
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
        found.set_pod(item["metadata"]["namespace"], item["metadata"]["name"], pod_address(decode(item, Pod)))
    return found


def put(into: Cluster, item: dict[str, Any]) -> Changed:
    """Add or replace a Service or EndpointSlice; what that touches."""
    meta = item["metadata"]
    if "addressType" in item:
        facts = slice_facts(decode(item, EndpointSlice), into.options.endpoint_pod_names)
        return into.set_slice(meta["namespace"], meta["name"], facts)
    return into.set_service(meta["namespace"], meta["name"], service_facts(decode(item, Service)))


class Case(NamedTuple):
    """A question and what is said: rcode, then answers as `TYPE data`, in any order."""

    name: str
    type: str
    rcode: str
    answers: tuple[str, ...] = ()


def ask(of: Cluster, name: str, kind: str, facts: Facts = FACTS) -> Case:
    """What the cluster says, in the form of a case."""
    wanted = names.parse(name)
    zone = next(suffix for suffix in names.suffixes(wanted.lower()) if suffix in of.options.zones)
    number = wire.TYPES.get(kind) or int(kind.removeprefix("TYPE"))
    said = answer(of, wanted, number, zone, facts)
    lines = [f"{wire.type_name(record.type)} {wire.rdata_text(record)}" for record in said.answers]
    return Case(name, kind, wire.rcode_name(said.rcode), tuple(sorted(lines)))
