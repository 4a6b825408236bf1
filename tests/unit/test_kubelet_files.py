"""What a Pod finds at /etc: resolv.conf, hosts, hostname; and its environment."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.kubelet import dns
from netemu.kubelet.env import Place, Sources, environment, expand
from netemu.kubelet.hosts import Names, host_network_hosts_text, hosts_text, pod_names
from netemu.model.errors import UserError
from netemu.model.meta import decode
from netemu.model.objects import Service
from netemu.model.pods import HostAlias, Pod

HOST = dns.parse(
    "# a comment\nnameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch old.example\nsearch example.org. \n"
    "options ndots:1\n"
)
CLUSTER_SEARCH = "shop.svc.cluster.local svc.cluster.local cluster.local"


def pod(**spec: Any) -> Pod:
    return decode({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec}, Pod)


def text_of(spec: dict[str, Any], cluster_dns: tuple[str, ...] = ("10.96.0.10",)) -> str:
    return dns.resolv_conf(pod(**spec), cluster_dns, "cluster.local", HOST)[0].text()


CLUSTER = f"search {CLUSTER_SEARCH} example.org\nnameserver 10.96.0.10\noptions ndots:5\n"
DEFAULT = "search example.org\nnameserver 192.0.2.53\nnameserver 192.0.2.54\noptions ndots:1\n"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, CLUSTER, id="ClusterFirst drops the host's options and keeps its searches"),
        pytest.param(
            {"dnsPolicy": "ClusterFirst", "hostNetwork": True}, DEFAULT, id="ClusterFirst on the host's network"
        ),
        pytest.param(
            {"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True}, CLUSTER, id="ClusterFirstWithHostNet"
        ),
        pytest.param({"dnsPolicy": "Default"}, DEFAULT, id="Default is the host's file"),
        pytest.param(
            {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4"], "searches": ["a.b"]}},
            "search a.b\nnameserver 1.2.3.4\n",
            id="None is dnsConfig alone",
        ),
        pytest.param(
            {"dnsConfig": {"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}},
            f"search {CLUSTER_SEARCH} example.org\nnameserver 10.96.0.10\noptions ndots:2 edns0\n",
            id="dnsConfig options win by name",
        ),
        pytest.param(
            {"dnsConfig": {"nameservers": ["10.96.0.10", "1.1.1.1"], "searches": ["svc.cluster.local", "x.y"]}},
            f"search {CLUSTER_SEARCH} example.org x.y\nnameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:5\n",
            id="duplicates keep their first place",
        ),
    ],
)
def test_resolv_conf(spec: dict[str, Any], expected: str) -> None:
    assert expected == text_of(spec)


def test_cluster_first_without_cluster_dns_falls_back_and_warns() -> None:
    conf, warnings = dns.resolv_conf(pod(), (), "cluster.local", HOST)

    assert conf == HOST
    assert [warning.reason for warning in warnings] == ["MissingClusterDNS"]


def test_default_without_a_host_file_points_at_loopback() -> None:
    conf, _ = dns.resolv_conf(pod(dnsPolicy="Default"), (), "cluster.local", None)

    assert conf.text() == "search .\nnameserver 127.0.0.1\n"


def test_a_fourth_nameserver_is_cut_with_a_warning() -> None:
    spec = {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4"]}}

    conf, warnings = dns.resolv_conf(pod(**spec), (), "", None)

    assert conf.nameservers == ("1.0.0.1", "1.0.0.2", "1.0.0.3")
    assert warnings[0].message.startswith("Nameserver limits were exceeded")


@pytest.mark.parametrize(
    ("searches", "kept"),
    [
        pytest.param([f"s{n}.example" for n in range(40)], 32, id="at most 32"),
        pytest.param([f"{n:0>249}.x" for n in range(20)], 8, id="at most 2048 characters together"),
        pytest.param(["a" * 254, "b.c"], 1, id="none longer than 253"),
    ],
)
def test_search_lists_are_cut_with_a_warning(searches: list[str], kept: int) -> None:
    conf, warnings = dns.resolv_conf(pod(dnsPolicy="None", dnsConfig={"searches": searches}), (), "", None)

    assert kept == len(conf.searches)
    assert warnings[0].message.startswith("Search Line limits were exceeded")


def test_hosts_file_line_by_line() -> None:
    names = Names("own", "sub.shop.svc.cluster.local", "own")

    text = hosts_text(names, ["10.244.1.5", "fd00::5"], [HostAlias(ip="1.2.3.4", hostnames=("a", "b"))])

    assert (
        text == "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        "10.244.1.5\town.sub.shop.svc.cluster.local\town\nfd00::5\town.sub.shop.svc.cluster.local\town\n"
        "\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
    )


def test_host_network_pods_get_the_nodes_hosts_file() -> None:
    assert (
        host_network_hosts_text("1.1.1.1\tx\n", ()) == "# Kubernetes-managed hosts file (host network).\n1.1.1.1\tx\n"
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, ("web", "", "web"), id="the Pod's name"),
        pytest.param({"hostname": "h", "subdomain": "s"}, ("h", "s.shop.svc.cluster.local", "h"), id="with subdomain"),
        pytest.param(
            {"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": True},
            ("h", "s.shop.svc.cluster.local", "h.s.shop.svc.cluster.local"),
            id="the kernel may know the full name",
        ),
        pytest.param({"hostNetwork": True, "hostname": "h"}, ("n1", "", "n1"), id="host network keeps the node's"),
    ],
)
def test_hostname(spec: dict[str, Any], expected: tuple[str, str, str]) -> None:
    names = pod_names(pod(**spec), "n1", "cluster.local")

    assert expected == (names.hostname, names.domain, names.kernel)


def test_a_long_pod_name_is_cut_to_a_label() -> None:
    long = decode({"metadata": {"name": "a" * 62 + "-b", "namespace": "shop"}}, Pod)

    assert pod_names(long, "n1", "cluster.local").hostname == "a" * 62


def test_a_full_name_the_kernel_would_refuse_is_refused() -> None:
    with pytest.raises(UserError, match="is too long"):
        pod_names(pod(hostname="h" * 60, subdomain="s", setHostnameAsFQDN=True), "n1", "cluster.local")


SERVICES = [
    decode({"metadata": {"name": name, "namespace": ns}, "spec": {"clusterIP": ip, "ports": ports}}, Service)
    for name, ns, ip, ports in (
        ("kubernetes", "default", "10.96.0.1", [{"name": "https", "port": 443}]),
        ("redis-cart", "shop", "10.96.0.7", [{"name": "tcp-redis", "port": 6379}]),
        ("headless", "shop", "None", [{"port": 1}]),
        ("far", "other", "10.96.0.9", [{"port": 1}]),
    )
]
PLACE = Place("n1", ("172.18.0.2", "fc00::2"), ("10.244.1.5", "fd00::5"))


def env_of(spec: dict[str, Any], sources: Sources | None = None, **pod_spec: Any) -> dict[str, str]:
    one = pod(containers=[{"name": "c", **spec}], **pod_spec)
    return environment(one, one.spec.containers[0], PLACE, SERVICES, sources or Sources())


def test_services_of_the_namespace_are_in_the_environment() -> None:
    env = env_of({})

    assert env["REDIS_CART_SERVICE_HOST"] == "10.96.0.7"
    assert env["REDIS_CART_PORT_6379_TCP"] == "tcp://10.96.0.7:6379"
    assert not [name for name in env if name.startswith(("FAR_", "HEADLESS_"))]


def test_without_service_links_only_the_api_remains() -> None:
    env = env_of({}, enableServiceLinks=False)

    assert {name.partition("_")[0] for name in env} == {"KUBERNETES"}
    assert (env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"]) == ("10.96.0.1", "443")


def test_values_from_everywhere() -> None:
    sources = Sources({"conf": {"colour": "red", "not a name": "x"}}, {"safe": {"key": "s3"}})
    env = env_of(
        {
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "conf"}}],
            "env": [
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
                {"name": "HOSTS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "safe", "key": "key"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "ALL", "value": "$(IP) $(P_colour) $$(IP) $(NOBODY)"},
            ],
            "resources": {"limits": {"cpu": "250m"}},
        },
        sources,
    )

    assert env["ALL"] == "10.244.1.5 red $(IP) $(NOBODY)"
    assert (env["IPS"], env["HOSTS"]) == ("10.244.1.5,fd00::5", "172.18.0.2,fc00::2")
    assert (env["KEY"], env["CPU"]) == ("s3", "1")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param({"envFrom": [{"secretRef": {"name": "x"}}]}, 'secret "x" not found', id="no Secret"),
        pytest.param(
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "no"}}}]},
            "couldn't find key no in ConfigMap shop/conf",
            id="no key",
        ),
    ],
)
def test_what_is_missing_is_named(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        env_of(spec, Sources({"conf": {}}))


@pytest.mark.parametrize(
    ("text", "expected"), [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("a$", "a$"), ("$$$(A)", "$1")]
)
def test_expansion(text: str, expected: str) -> None:
    assert expected == expand(text, {"A": "1"})
