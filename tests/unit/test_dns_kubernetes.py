"""The kubernetes plugin: its options, its objects coming and going, and the zone as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from netemu.client.base import ObjectList, WatchEvent
from netemu.dns import names, wire
from netemu.dns.plugins.kubernetes import Kubernetes
from netemu.dns.wire import Query
from netemu.lab.authority import Authority, pem
from netemu.model import times
from netemu.model.errors import ServiceUnavailable, UserError
from netemu.model.resources import ENDPOINTSLICES, NAMESPACES, PODS, SERVICES
from netemu.testing.client import FakeClient
from tests.unit.dns_cluster import endpoint, pod, port, service, slice_of
from tests.unit.dns_host import Offline, world
from tests.unit.dns_table import SERIAL, said

ZONE = names.parse("cluster.local")


def corefile(options: str = "", zones: str = "cluster.local in-addr.arpa", more: str = "") -> str:
    return f".:53 {{\n kubernetes {zones} {{\n ttl 30\n {options}\n }}\n {more}\n}}"


def plugin(host: Offline) -> Kubernetes:
    return next(each for each in host.plugins if isinstance(each, Kubernetes))


async def ask(host: Offline, name: str, kind: str = "A") -> tuple[str, ...]:
    """A reply as text: the rcode, then data of its answers."""
    message = await host.ask(wire.build_query(7, names.parse(name), wire.TYPES[kind]))
    return (wire.rcode_name(message.rcode), *(wire.rdata_text(record) for record in message.answers))


async def becomes(host: Offline, name: str, *wanted: str) -> None:
    """Return once the reply is so; fail after two seconds."""
    async with asyncio.timeout(2):
        while await ask(host, name) != wanted:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)


# --- options ---

BAD = [
    ("namespaces a\n namespace_labels x=y", "namespaces and namespace_labels exclude each other"),
    ("namespaces", "expected at least one name"),
    ("labels x in", "labels: "),
    ("labels", "labels: expected a selector"),
    ("pods some", "'some' is none of disabled, insecure, verified"),
    ("ttl 3601", "'3601' is not a number from 0 to 3600"),
    ("ignore everything", "expected empty_service"),
    ("noendpoints yes", "noendpoints takes no arguments"),
    ("tls a b c", "tls needs an endpoint"),
    ("endpoint https://192.0.2.1\n tls a b", "expected the files of a certificate, its key and a CA"),
    ("endpoint https://192.0.2.1\n tls /none /none /none", "tls: /none: No such file"),
    ("kubeconfig a b c", r"expected FILE \[CONTEXT\]"),
    ("kubeconfig /nonexistent/k", "kubeconfig /nonexistent/k: No such file or directory"),
    ("multicluster clusterset.local", "zones of other clusters are not served"),
    ("transfer to *", "transfers have a plugin of their own"),
    ("startup_timeout soon", "'soon' is not a duration"),
    ("apiserver_qps many", "'many' is not a number"),
    ("endpoint_pod_name", 'did you mean "endpoint_pod_names"'),
]


@pytest.mark.parametrize(("options", "why"), BAD)
def test_a_bad_option_is_refused_with_its_line(options: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"Corefile:\d+: .*{why}"):
        Offline(corefile(options), FakeClient())


def test_a_zone_that_is_not_reverse_is_needed() -> None:
    with pytest.raises(UserError, match="needs a zone that is not a reverse zone"):
        Offline(corefile(zones="in-addr.arpa"), FakeClient())


def test_the_same_plugin_twice_in_a_block_is_refused() -> None:
    with pytest.raises(UserError, match="kubernetes may stand only once in a server block"):
        Offline(corefile(more="kubernetes other.local"), FakeClient())


def test_an_endpoint_with_tls_makes_credentials(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("cert", "key", "ca")]
    authority = Authority.create("test-ca")
    for file, content in zip(files, (*authority.issue("dns"), pem(authority.certificate)), strict=True):
        file.write_bytes(content)
    host = Offline(corefile(f"endpoint https://192.0.2.1/\n tls {' '.join(map(str, files))}"), FakeClient())
    found = plugin(host).credentials

    assert found
    assert found.server == "https://192.0.2.1"
    assert [found.client_certificate, found.client_key, found.ca] == [file.read_text() for file in files]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("endpoint ftp://192.0.2.1", "server: 'ftp://192.0.2.1': expected https://HOST:PORT"),
        ("endpoint https://192.0.2.1\n tls {0} {0} {0}", "certificate-authority: expected certificates in PEM"),
    ],
)
def test_an_endpoint_that_cannot_be_connected_to_is_refused(tmp_path: Path, options: str, why: str) -> None:
    (tmp_path / "x.pem").write_text("x")
    with pytest.raises(UserError, match=rf"Corefile:\d+: kubernetes: {why}"):
        Offline(corefile(options.format(tmp_path / "x.pem")), FakeClient())


async def test_what_limits_requests_is_read() -> None:
    options = (
        "startup_timeout 10s\n resyncperiod 5m\n apiserver_qps 50\n apiserver_burst 100\n apiserver_max_inflight 9"
    )
    async with Offline(corefile(options), await world()) as host:
        await host.ready()
        assert await ask(host, "web.shop.svc.cluster.local") == ("NOERROR", "10.96.0.5")


async def test_labels_select_services_and_slices_but_not_namespaces() -> None:
    client = FakeClient()
    await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    for name, labels in (("seen", {"dns": "yes"}), ("hidden", {"dns": "no"})):
        item = service(name, "10.96.0.1", port("http", 80))
        await client.create(SERVICES, {**item, "metadata": {**item["metadata"], "labels": labels}}, "shop")
    async with Offline(corefile("labels dns=yes"), client) as host:
        await host.ready()
        codes = [await ask(host, f"{name}.shop.svc.cluster.local") for name in ("seen", "hidden")]

    assert codes == [("NOERROR", "10.96.0.1"), ("NXDOMAIN",)]


async def test_namespace_labels_select_namespaces() -> None:
    client = FakeClient()
    for name, labels in (("seen", {"dns": "yes"}), ("hidden", {})):
        await client.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})
        await client.create(SERVICES, service("web", "10.96.0.1", port("http", 80), namespace=name), name)
    async with Offline(corefile("namespace_labels dns in (yes)"), client) as host:
        await host.ready()
        codes = [await ask(host, f"web.{name}.svc.cluster.local") for name in ("seen", "hidden")]

    assert codes == [("NOERROR", "10.96.0.1"), ("NXDOMAIN",)]


# --- objects come and go ---


async def test_every_kind_of_change_shows_with_the_next_question() -> None:
    client, web = await world(), "web.shop.svc.cluster.local"
    async with Offline(corefile("pods verified"), client) as host:
        await host.ready()
        await client.update(SERVICES, service("web", "10.96.0.50", port("http", 80)))
        await becomes(host, web, "NOERROR", "10.96.0.50")
        await client.delete(NAMESPACES, "shop")
        await becomes(host, web, "NXDOMAIN")
        await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
        await becomes(host, web, "NOERROR", "10.96.0.50")
        await client.create(PODS, pod("new", "10.0.0.99"), "shop")
        await becomes(host, "10-0-0-99.shop.pod.cluster.local", "NOERROR", "10.0.0.99")
        await client.delete(PODS, "new", "shop")
        await becomes(host, "10-0-0-99.shop.pod.cluster.local", "NXDOMAIN")
        await client.delete(SERVICES, "web", "shop")
        await becomes(host, web, "NXDOMAIN")


async def test_a_service_changes_into_an_alias_and_back() -> None:
    client, web = await world(), "web.shop.svc.cluster.local"
    async with Offline(corefile(), client) as host:
        await host.ready()
        await client.update(
            SERVICES, service("web", "", type="ExternalName", externalName="six.shop.svc.cluster.local")
        )
        await becomes(host, web, "NOERROR")
        assert await ask(host, web, "CNAME") == ("NOERROR", "six.shop.svc.cluster.local.")
        await client.update(SERVICES, service("web", "10.96.0.5", port("http", 80)))
        await becomes(host, web, "NOERROR", "10.96.0.5")


async def test_a_change_leaves_finished_answers_about_other_names_alone() -> None:
    client = await world()
    packets = [wire.build_query(7, names.parse(f"{name}.shop.svc.cluster.local"), wire.A) for name in ("web", "plain")]
    async with Offline(corefile(), client) as host:
        await host.ready()
        for packet in packets * 2:  # what is asked once is not worth keeping
            await host.exchange(packet)
        finished = host.port.finished("udp", "127.0.0.1").by_packet
        before = [packet[2:] in finished for packet in packets]
        await client.update(SERVICES, service("web", "10.96.0.50", port("http", 80)))
        await becomes(host, "web.shop.svc.cluster.local", "NOERROR", "10.96.0.50")
        kept = packets[1][2:] in finished

    assert (before, kept) == ([True, True], True)


async def test_the_serial_moves_with_what_changes_answers_and_with_nothing_else() -> None:
    client = await world()
    async with Offline(corefile(), client) as host:
        await host.ready()
        store = plugin(host).store
        store.serial = SERIAL
        await client.update(
            ENDPOINTSLICES, slice_of("unready", "1", [endpoint("10.0.3.8", ready=False)], port("http", 80))
        )
        await client.update(NAMESPACES, {"metadata": {"name": "shop", "labels": {"a": "b"}}})
        await client.create(NAMESPACES, {"metadata": {"name": "fresh"}})
        await becomes(host, "fresh.svc.cluster.local", "NOERROR")
        still = store.serial
        await client.update(ENDPOINTSLICES, slice_of("unready", "1", [endpoint("10.0.3.8")], port("http", 80)))
        await becomes(host, "unready.shop.svc.cluster.local", "NOERROR", "10.0.3.8")

    assert (still, store.serial > SERIAL) == (SERIAL, True)


class Flaky(FakeClient):
    """An API server that can be away: requests fail, and watches break."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.tried = 0

    async def list(self, *args: Any, **options: Any) -> ObjectList:
        """See Client."""
        self._refuse()
        return await super().list(*args, **options)

    async def watch(self, *args: Any, **options: Any) -> AsyncGenerator[WatchEvent, None]:
        """See Client."""
        self._refuse()
        async for event in super().watch(*args, **options):
            self._refuse()
            yield event

    def _refuse(self) -> None:
        if self.away:
            self.tried += 1
            raise ServiceUnavailable("connection refused")


async def test_while_the_api_server_is_away_the_last_answers_stay_and_then_catch_up() -> None:
    client, web = Flaky(), "web.shop.svc.cluster.local"
    await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    await client.create(SERVICES, service("web", "10.96.0.5", port("http", 80)), "shop")
    async with Offline(corefile(), client) as host:
        await host.ready()
        client.away = True
        await client.update(SERVICES, service("web", "10.96.0.50", port("http", 80)))
        async with asyncio.timeout(5):
            while client.tried < 2:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
        during, ready = await ask(host, web), not host.not_ready()
        client.away = False
        async with asyncio.timeout(5):
            while await ask(host, web) != ("NOERROR", "10.96.0.50"):  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)

    assert (during, ready) == (("NOERROR", "10.96.0.5"), True)


async def test_the_time_from_a_change_to_its_arrival_is_measured_by_kind_of_service() -> None:
    client = await world()
    async with Offline(corefile(), client) as host:
        await host.ready()
        for owner, address in (("web", "10.0.0.77"), ("peers", "10.0.1.77")):
            item = slice_of(owner, "1", [endpoint(address)], port("http", 8080))
            item["metadata"]["annotations"] = {"endpoints.kubernetes.io/last-change-trigger-time": times.now()}
            await client.update(ENDPOINTSLICES, item)
        await becomes(host, "peers.shop.svc.cluster.local", "NOERROR", "10.0.1.77")
        lines = host.metrics.text().splitlines()

    counts = [line for line in lines if line.startswith("coredns_kubernetes_dns_programming_duration_seconds_count")]
    assert sorted(counts) == [
        f'coredns_kubernetes_dns_programming_duration_seconds_count{{service_kind="{kind}"}} 1'
        for kind in ("cluster_ip", "headless_with_selector")
    ]


# --- the zone as a whole, and the clients in it ---


async def zone_of(fill: Callable[[FakeClient], Any], zone: bytes = ZONE) -> list[str]:
    client = FakeClient()
    await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    await fill(client)
    async with Offline(corefile(), client) as host:
        await host.ready()
        plugin(host).store.serial = SERIAL
        records = plugin(host).transfer(zone)
    assert records is not None
    message = wire.Message(0, 0, b"", records, [], [])
    return [line.replace("cluster.local.", "Z") for line in said(message)[1:]]


async def test_a_zone_holds_services_and_headless_endpoints() -> None:
    async def fill(client: FakeClient) -> None:
        await client.create(SERVICES, service("web", "10.96.0.5", port("http", 80), port("", 81)), "shop")
        await client.create(SERVICES, service("peers", "None", port("db", 5432)), "shop")
        await client.create(SERVICES, service("out", "", type="ExternalName", externalName="Example.com"), "shop")
        await client.create(SERVICES, service("literal", "", type="ExternalName", externalName="192.0.2.1"), "shop")
        two = [endpoint("10.0.1.1", "a"), endpoint("10.0.1.2")]
        await client.create(ENDPOINTSLICES, slice_of("peers", "1", two, port("db", 5433)), "shop")
        await client.create(ENDPOINTSLICES, slice_of("web", "1", [endpoint("10.0.1.3")], port("http", 80)), "shop")

    assert sorted(await zone_of(fill)) == sorted([
        f"Z 30 SOA ns.dns.Z hostmaster.Z {SERIAL} 7200 1800 86400 30",
        "Z 30 NS ns.dns.Z",
        "ns.dns.Z 0 A 10.0.9.53",
        "web.shop.svc.Z 30 A 10.96.0.5",
        "web.shop.svc.Z 30 SRV 0 100 80 web.shop.svc.Z",
        "_http._tcp.web.shop.svc.Z 30 SRV 0 100 80 web.shop.svc.Z",
        "web.shop.svc.Z 30 SRV 0 100 81 web.shop.svc.Z",
        "peers.shop.svc.Z 30 A 10.0.1.1",
        "a.peers.shop.svc.Z 30 A 10.0.1.1",
        "_db._tcp.peers.shop.svc.Z 30 SRV 0 50 5433 a.peers.shop.svc.Z",
        "peers.shop.svc.Z 30 A 10.0.1.2",
        "10-0-1-2.peers.shop.svc.Z 30 A 10.0.1.2",
        "_db._tcp.peers.shop.svc.Z 30 SRV 0 50 5433 10-0-1-2.peers.shop.svc.Z",
        "out.shop.svc.Z 30 CNAME Example.com.",
    ])  # fmt: skip


async def test_a_zone_in_between_has_the_names_of_the_cluster_in_front_of_it() -> None:
    async def fill(client: FakeClient) -> None:
        await client.create(SERVICES, service("web", "10.96.0.5"), "shop")

    assert "web.shop.svc.svc.Z 30 A 10.96.0.5" in await zone_of(fill, names.parse("svc.cluster.local"))


async def test_allowed_peers_transfer_the_cluster_over_tcp_and_nobody_over_udp() -> None:
    question = wire.build_query(7, ZONE, wire.AXFR)
    more = "transfer cluster.local {\n to 192.0.2.1\n }"
    async with Offline(corefile(more=more), await world()) as host:
        await host.ready()
        replies = [
            wire.parse_message(await host.exchange(question, transport, client))
            for transport, client in (("tcp", "192.0.2.1"), ("udp", "192.0.2.1"), ("tcp", "192.0.2.2"))
        ]

    assert [wire.rcode_name(reply.rcode) for reply in replies] == ["NOERROR", "REFUSED", "REFUSED"]
    types = [record.type for record in replies[0].answers]
    assert (types[0], types[-1], types.count(wire.SOA), len(types) > 80) == (wire.SOA, wire.SOA, 2, True)


async def test_a_zone_of_others_is_not_for_transfer() -> None:
    async with Offline(corefile(), await world()) as host:
        before = plugin(host).transfer(ZONE)
        await host.ready()
        assert (before, plugin(host).transfer(names.parse("example.com"))) == (None, None)


@pytest.mark.parametrize(
    ("client", "name", "path"),
    [
        ("10.0.0.5", "www.example.com.shop.svc.cluster.local", ("shop.svc.cluster.local.", "svc.cluster.local.", "cluster.local.")),  # noqa: E501
        ("10.0.0.99", "www.example.com.shop.svc.cluster.local", ()),
        ("10.0.0.5", "www.example.com", ()),
    ],
    ids=["a Pod", "somebody else", "a name outside the zone"],
)  # fmt: skip
async def test_the_search_path_of_a_client_is_that_of_its_pod(client: str, name: str, path: tuple[str, ...]) -> None:
    async with Offline(corefile("pods verified"), await world()) as host:
        await host.ready()
        found = plugin(host).search_path(Query(1, 0, names.parse(name), wire.A, client=(client, 1)))

    assert tuple(map(names.text, found)) == path


@pytest.mark.parametrize(
    ("client", "answer"),
    [("10.0.0.5", (wire.NOERROR, ["CNAME gate.example.", "A 192.0.2.7"])), ("10.0.0.99", (wire.NXDOMAIN, []))],
    ids=["a Pod", "somebody else"],
)
async def test_autopath_walks_the_search_path_of_pods(client: str, answer: tuple[int, list[str]]) -> None:
    more = "autopath @kubernetes\n hosts {\n 192.0.2.7 gate.example\n fallthrough\n }"
    question = wire.build_query(7, names.parse("gate.example.shop.svc.cluster.local"), wire.A)
    async with Offline(corefile("pods verified", more=more), await world()) as host:
        await host.ready()
        message = wire.parse_message(await host.exchange(question, client=client))

    lines = [f"{wire.type_name(record.type)} {wire.rdata_text(record)}" for record in message.answers]
    assert (message.rcode, lines) == answer


async def test_what_does_not_fit_into_a_label_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    long, client = "h" * 80, FakeClient()
    await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    for item in (service("web", "None", port("http", 80)), service(long, "10.96.0.9", port("http", 80))):
        await client.create(SERVICES, item, "shop")
    for owner, address in (("web", "10.244.1.5"), (long, "10.244.1.6")):
        item = slice_of(owner, "x", [endpoint(address, long)], port("http", 80))
        item["metadata"]["name"] = f"slice-{address}"
        await client.create(ENDPOINTSLICES, item, "shop")
    async with Offline(corefile(), client) as host:
        await host.ready()
        said = [
            await ask(host, "_http._tcp.web.shop.svc.cluster.local", "SRV"),
            await ask(host, "5.1.244.10.in-addr.arpa", "PTR"),
            await ask(host, "6.1.244.10.in-addr.arpa", "PTR"),
            await ask(host, "9.0.96.10.in-addr.arpa", "PTR"),
        ]

    own = "10-244-1-5.web.shop.svc.cluster.local."
    assert said == [("NOERROR", f"0 100 80 {own}"), ("NOERROR", own), ("NXDOMAIN",), ("NXDOMAIN",)]
    named = {record.getMessage().split(": ")[1] for record in caplog.records if long in record.getMessage()}
    assert named == {
        f"Service shop/{long}",
        "EndpointSlice shop/slice-10.244.1.5",
        "EndpointSlice shop/slice-10.244.1.6",
    }
