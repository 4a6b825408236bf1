"""What TO:PORT of a trace means: objects, addresses, names and the port's number, and what is wrong with the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from netemu.model.errors import UserError
from netemu.model.meta import decode
from netemu.model.objects import EndpointSlice, Node
from netemu.observe.probe.prober import Destination, Place
from netemu.observe.story.destination import Objects, Wanted, parse, resolve, to_probe
from tests.unit.objects_world import a_pod, a_service

SLICE = decode(
    {
        "metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.1.8"], "conditions": {"ready": False}}, {"addresses": ["10.244.1.9"]}],
    },
    EndpointSlice,
)
NODE = decode(
    {
        "metadata": {"name": "worker"},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "worker"},
                {"type": "InternalIP", "address": "172.18.0.3"},
                {"type": "InternalIP", "address": "fc00::3"},
            ]
        },
    },
    Node,
)
OBJECTS = Objects(
    services=(
        a_service(ports=[{"name": "http", "port": 80, "nodePort": 30080}], clusterIPs=["10.96.0.9", "fd00::9"]),
        a_service("db", clusterIP="None", ports=[{"port": 5432}]),
        a_service("idle", clusterIP="None"),
        a_service("away", type="ExternalName", externalName="example.com", clusterIP=""),
    ),
    slices=(SLICE,),
    pods=(
        a_pod("web-0", "10.244.1.5", node="worker"),
        a_pod("waiting", status={"phase": "Pending"}),
        a_pod("starting", node="worker", status={"phase": "Pending"}),
    ),
    nodes=(NODE,),
    clients={"laptop": ("203.0.113.10",)},
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Somewhere with a hosts file, and a resolver that nobody has to ask."""
    (tmp_path / "hosts").write_text("10.96.0.9 web.test\n")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    return Place("", str(tmp_path / "resolv.conf"), str(tmp_path / "hosts"))


@pytest.mark.parametrize(
    ("text", "protocol", "wanted"),
    [
        ("web:80", "tcp", Wanted("web:80", "", "web", "80")),
        ("svc/web:http", "tcp", Wanted("svc/web:http", "Service", "web", "http")),
        ("shop/web:80", "udp", Wanted("shop/web:80", "shop/", "web", "80")),
        ("[fd00::1]:80", "tcp", Wanted("[fd00::1]:80", "", "fd00::1", "80")),
        ("node/worker:30080", "tcp", Wanted("node/worker:30080", "node", "worker", "30080")),
        ("fd00::1", "icmp", Wanted("fd00::1", "", "fd00::1", "")),
        ("pod/web-0", "icmp", Wanted("pod/web-0", "Pod", "web-0", "")),
        ("shop/web:80/a/b", "tcp", Wanted("shop/web:80/a/b", "shop/", "web", "80", "/a/b")),
        ("[fd00::1]:80/a", "tcp", Wanted("[fd00::1]:80/a", "", "fd00::1", "80", "/a")),
        ("http://web", "tcp", Wanted("http://web", "", "web", "80")),
        ("http://web/a", "tcp", Wanted("http://web/a", "", "web", "80", "/a")),
        ("http://web:81/a", "tcp", Wanted("http://web:81/a", "", "web", "81", "/a")),
    ],
)
def test_a_destination_is_read(text: str, protocol: str, wanted: Wanted) -> None:
    assert parse(text, protocol) == wanted


@pytest.mark.parametrize(
    ("text", "protocol", "why"),
    [
        ("web", "tcp", "must be NAME:PORT"),
        ("web:", "tcp", "must be NAME:PORT"),
        ("[fd00::1]", "tcp", "must be NAME:PORT"),
        ("http://fd00::1/x", "tcp", "must be in brackets"),
        (":80", "tcp", "must be NAME:PORT"),
        ("web:0", "tcp", "port 0 is none"),
        ("web:70000", "tcp", "port 70000 is none"),
        ("300.1.2.3:80", "tcp", "300.1.2.3 is no IPv4 address"),
        ("10.0.0.256", "icmp", "10.0.0.256 is no IPv4 address"),
        ("fd00::1:80", "tcp", "must be in brackets"),
        ("web:80", "icmp", "ICMP has no ports"),
    ],
)
def test_a_destination_is_refused(text: str, protocol: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        parse(text, protocol)


@pytest.mark.parametrize(
    ("text", "pod", "family", "found"),
    [
        pytest.param("10.0.0.1:80", True, "", ("10.0.0.1", 80, ""), id="address"),
        pytest.param("[fd00:0::1]:80", True, "", ("fd00::1", 80, ""), id="address in canonical text"),
        pytest.param("svc/web:80", True, "", ("10.96.0.9", 80, "Service shop/web"), id="Service"),
        pytest.param("svc/web:80", True, "ipv6", ("fd00::9", 80, "Service shop/web"), id="Service, other family"),
        pytest.param("web:http", False, "", ("10.96.0.9", 80, "Service shop/web"), id="name of a Service, outside"),
        pytest.param("web.test:80", True, "", ("10.96.0.9", 80, ""), id="name that is resolved"),
        pytest.param("svc/db:5432", True, "", ("10.244.1.9", 5432, "Service shop/db"), id="headless, ready endpoint"),
        pytest.param("shop/web-0:1", True, "", ("10.244.1.5", 1, "Pod shop/web-0"), id="NAMESPACE/POD"),
        pytest.param("shop/web:80", True, "", ("10.96.0.9", 80, "Service shop/web"), id="NAMESPACE/SERVICE"),
        pytest.param("web-0:80", True, "", ("10.244.1.5", 80, "Pod shop/web-0"), id="Pod by its name"),
        pytest.param("node/worker:1", True, "ipv6", ("fc00::3", 1, "node worker"), id="node"),
        pytest.param("client/laptop:1", True, "", ("203.0.113.10", 1, "client laptop"), id="client"),
    ],
)
def test_a_destination_is_found(place: Place, text: str, pod: bool, family: str, found: tuple[str, int, str]) -> None:
    it = asyncio.run(resolve(parse(text, "tcp"), place, OBJECTS, "shop", pod=pod, family=family))

    assert ((it.address, it.port, it.owner), it.trouble) == (found, None)


@pytest.mark.parametrize(
    ("text", "family", "reason", "trouble"),
    [
        ("pod/waiting:80", "", "unscheduled", "Pod shop/waiting is on no node yet"),
        ("pod/starting:80", "", "pod-pending", "Pod shop/starting has no address yet; its phase on node worker is"),
        ("svc/idle:80", "", "no-endpoints", "headless and has no ready endpoints"),
        ("svc/away:80", "", "external-name", "is a name for example.com"),
        ("svc/db:5432", "ipv6", "family", "Service shop/db has no IPv6 address; it has IPv4"),
    ],
)
def test_what_leads_nowhere_says_why(place: Place, text: str, family: str, reason: str, trouble: str) -> None:
    it = asyncio.run(resolve(parse(text, "tcp"), place, OBJECTS, "shop", pod=True, family=family))

    assert it.address == ""
    assert it.trouble is not None
    assert it.trouble.reason == reason
    assert trouble in it.trouble.text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("svc/wep:80", "no Service 'wep' in namespace shop; did you mean web?"),
        ("pod/zzz:80", "no Pod 'zzz' in namespace shop; Pods here: starting, waiting, web-0"),
        ("client/tablet:80", "no client 'tablet'; clients here: laptop"),
        ("shop/nobody:80", "namespace shop has neither a Service nor a Pod 'nobody'"),
        ("deployment/web:80", "nothing is in a namespace 'deployment'; must be ADDRESS, NAME, NAMESPACE/NAME,"),
        ("node/worker:http", "a node's ports have numbers, not names; http of Service shop/web is 30080"),
        ("node/worker:ftp", "no port 'ftp'; must be a number"),
        ("10.0.0.1:\N{SUPERSCRIPT TWO}", "no port '\N{SUPERSCRIPT TWO}'; must be a number"),
        ("svc/web:https", "no port 'https'; Service shop/web has http"),
        ("10.0.0.1:http", "no port 'http'; must be a number"),
    ],
)
def test_what_is_not_there_is_refused(place: Place, text: str, why: str) -> None:
    with pytest.raises(UserError, match=why.replace("?", r"\?")):
        asyncio.run(resolve(parse(text, "tcp"), place, OBJECTS, "shop", pod=True))


@pytest.mark.parametrize(
    ("text", "pod", "host", "port", "path"),
    [
        pytest.param("10.0.0.1:80/a", True, "10.0.0.1", 80, "/a", id="address"),
        pytest.param("web:80", True, "web", 80, "/", id="DNS name, of a Service too, stays one"),
        pytest.param("web.test:80", False, "web.test", 80, "/", id="DNS name, from outside"),
        pytest.param("web:80", False, "10.96.0.9", 80, "/", id="Service, from outside"),
        pytest.param("shop/web:http/a", True, "10.96.0.9", 80, "/a", id="NAMESPACE/SERVICE, port by name"),
        pytest.param("web-0:80", True, "10.244.1.5", 80, "/", id="Pod by its name"),
        pytest.param("node/worker:1", True, "172.18.0.3", 1, "/", id="node"),
        pytest.param("client/laptop:1", True, "203.0.113.10", 1, "/", id="client"),
    ],
)
def test_what_is_probed(place: Place, text: str, pod: bool, host: str, port: int, path: str) -> None:
    it = asyncio.run(to_probe(text, place, lambda: OBJECTS, "shop", pod=pod))

    assert it == Destination(host, port, path, text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pod/starting:80", "Pod shop/starting has no address yet"),
        ("svc/wep:80", "no Service 'wep' in namespace shop; did you mean web?"),
        ("10.0.0.1:http", "no port 'http'; must be a number"),
    ],
)
def test_what_cannot_be_probed_is_told_as_for_a_trace(place: Place, text: str, why: str) -> None:
    with pytest.raises(UserError, match=why.replace("?", r"\?")):
        asyncio.run(to_probe(text, place, lambda: OBJECTS, "shop", pod=True))


def test_without_an_api_server_dns_names_are_probed_all_the_same(place: Place) -> None:
    def silent() -> Objects:
        raise UserError("its API server does not answer")

    assert asyncio.run(to_probe("web:80", place, silent, "shop", pod=True)).host == "web"
    with pytest.raises(UserError, match="does not answer"):
        asyncio.run(to_probe("svc/web:80", place, silent, "shop", pod=True))
