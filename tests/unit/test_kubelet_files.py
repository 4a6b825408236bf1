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
NONE = "nameserver 1.2.3.4\n"
ADDED = {
    "nameservers": ["192.0.2.54", "1.2.3.4"],
    "searches": ["svc.cluster.local", "x_y.z", "example.org"],
    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}, {"name": "use-vc", "value": ""}],
}
CLUSTER_ADDED = (
    f"search {CLUSTER_SEARCH} example.org x_y.z\nnameserver 10.96.0.10\nnameserver 192.0.2.54\nnameserver 1.2.3.4\n"
    "options ndots:2 edns0 use-vc\n"
)
DEFAULT_ADDED = (
    "search example.org svc.cluster.local x_y.z\nnameserver 192.0.2.53\nnameserver 192.0.2.54\nnameserver 1.2.3.4\n"
    "options ndots:2 edns0 use-vc\n"
)
NONE_ADDED = (
    "search svc.cluster.local x_y.z example.org\nnameserver 192.0.2.54\nnameserver 1.2.3.4\n"
    "options ndots:2 edns0 use-vc\n"
)


@pytest.mark.parametrize(
    ("policy", "host_network", "plain", "added"),
    [
        ("ClusterFirst", False, CLUSTER, CLUSTER_ADDED),
        ("ClusterFirst", True, DEFAULT, DEFAULT_ADDED),
        ("ClusterFirstWithHostNet", False, CLUSTER, CLUSTER_ADDED),
        ("ClusterFirstWithHostNet", True, CLUSTER, CLUSTER_ADDED),
        ("Default", False, DEFAULT, DEFAULT_ADDED),
        ("Default", True, DEFAULT, DEFAULT_ADDED),
        ("None", False, NONE, NONE_ADDED),
        ("None", True, NONE, NONE_ADDED),
    ],
)
def test_resolv_conf(policy: str, host_network: bool, plain: str, added: str) -> None:
    spec: dict[str, Any] = {"dnsPolicy": policy, "hostNetwork": host_network}
    least = {"nameservers": ["1.2.3.4"]} if policy == "None" else None

    assert plain == text_of({**spec, "dnsConfig": least})
    assert added == text_of({**spec, "dnsConfig": ADDED})


def test_a_pod_without_a_policy_asks_the_cluster_first() -> None:
    assert text_of({}) == CLUSTER


@pytest.mark.parametrize(
    ("cluster_dns", "domain", "expected"),
    [
        pytest.param(("10.96.0.10", "fd00::a"), "cluster.local", (("10.96.0.10", "fd00::a"), 4), id="of both families"),
        pytest.param(
            ("10.96.0.10",), "", (("10.96.0.10",), 1), id="without a cluster domain the host's searches alone"
        ),
    ],
)
def test_resolv_conf_of_other_clusters(
    cluster_dns: tuple[str, ...], domain: str, expected: tuple[tuple[str, ...], int]
) -> None:
    conf, _ = dns.resolv_conf(pod(), cluster_dns, domain, HOST)

    assert expected == (conf.nameservers, len(conf.searches))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", dns.ResolvConf(), id="nothing"),
        pytest.param("nameserver 1.1.1.1\nnameserver ::1 # x", dns.ResolvConf(("1.1.1.1", "::1")), id="servers add up"),
        pytest.param("search a.b\nsearch c. . d.e.", dns.ResolvConf((), ("c", ".", "d.e")), id="the last search line"),
        pytest.param("search a.b\nsearch", dns.ResolvConf(), id="an empty search line is one too"),
        pytest.param(
            "options ndots:1 edns0\noptions timeout:1 ndots:3",
            dns.ResolvConf((), (), ("ndots:3", "edns0", "timeout:1")),
            id="options add up, the last word on one counts",
        ),
        pytest.param("  # nameserver 1.1.1.1\n\t\nsortlist x\n", dns.ResolvConf(), id="comments, blanks, other words"),
    ],
)
def test_the_file_of_a_node(text: str, expected: dns.ResolvConf) -> None:
    assert expected == dns.parse(text)


@pytest.mark.parametrize(
    ("policy", "host_network"),
    [("ClusterFirst", False), ("ClusterFirstWithHostNet", False), ("ClusterFirstWithHostNet", True)],
)
def test_without_cluster_dns_a_pod_gets_the_hosts_file_and_pod_and_node_are_warned(
    policy: str, host_network: bool
) -> None:
    conf, warnings = dns.resolv_conf(pod(dnsPolicy=policy, hostNetwork=host_network), (), "cluster.local", HOST)

    text = (
        'kubelet does not have ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. '
        'Falling back to "Default" policy.'
    )
    assert conf == HOST
    assert warnings == [
        dns.Warned("MissingClusterDNS", text, of_node=True),
        dns.Warned("MissingClusterDNS", f'pod: "web_shop(u)". {text}'),
    ]


@pytest.mark.parametrize(("spec", "cluster_dns"), [({"hostNetwork": True}, ()), ({"dnsPolicy": "Default"}, ())])
def test_who_asks_no_cluster_dns_is_not_warned(spec: dict[str, Any], cluster_dns: tuple[str, ...]) -> None:
    assert dns.resolv_conf(pod(**spec), cluster_dns, "cluster.local", HOST) == (HOST, [])


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ((), "search .\nnameserver 127.0.0.1\n"),
        (("172.18.0.2",), "search .\nnameserver 127.0.0.1\n"),
        (("fc00::2",), "search .\nnameserver ::1\n"),
        (("172.18.0.2", "fc00::2"), "search .\nnameserver 127.0.0.1\nnameserver ::1\n"),
    ],
)
def test_default_without_a_host_file_points_at_loopback(addresses: tuple[str, ...], expected: str) -> None:
    conf, _ = dns.resolv_conf(pod(dnsPolicy="Default"), (), "cluster.local", None, addresses)

    assert expected == conf.text()


NAMESERVERS = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
SEARCHES = "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
MANY = [f"s{n}.example" for n in range(40)]
LONG = [f"{n:0>249}.x" for n in range(20)]


@pytest.mark.parametrize(
    ("nameservers", "searches", "warned"),
    [
        pytest.param(["1.0.0.1", "1.0.0.2"], [], [NAMESERVERS + "10.96.0.10 192.0.2.1 1.0.0.1"], id="a fourth server"),
        pytest.param([], MANY, [SEARCHES + " ".join([CLUSTER_SEARCH, *MANY[:29]])], id="a 33rd search path"),
        pytest.param([], LONG, [SEARCHES + " ".join([CLUSTER_SEARCH, *LONG[:7]])], id="more than 2048 characters"),
        pytest.param([], ["a" * 254, "b"], [SEARCHES + f"{CLUSTER_SEARCH} b"], id="one longer than 253"),
        pytest.param(
            [], ["a" * 254, *MANY], [SEARCHES + " ".join([CLUSTER_SEARCH, *MANY[:28]])],
            id="one that is too long has its place among the 32",
        ),
        pytest.param(
            ["1.0.0.1", "1.0.0.2"], MANY,
            [NAMESERVERS + "10.96.0.10 192.0.2.1 1.0.0.1", SEARCHES + " ".join([CLUSTER_SEARCH, *MANY[:29]])],
            id="both",
        ),
        pytest.param(["1.0.0.1"], MANY[:29], [], id="as many as may be"),
    ],
)  # fmt: skip
def test_what_is_too_much_is_cut_from_the_end_with_a_warning(
    nameservers: list[str], searches: list[str], warned: list[str]
) -> None:
    config = {"nameservers": ["192.0.2.1", *nameservers], "searches": searches}

    conf, warnings = dns.resolv_conf(pod(dnsConfig=config), ("10.96.0.10",), "cluster.local", None)

    assert [dns.Warned("DNSConfigForming", text) for text in warned] == warnings
    assert [" ".join(conf.nameservers), " ".join(conf.searches)] == [
        next((text.removeprefix(start) for text in warned if text.startswith(start)), whole)
        for start, whole in (
            (NAMESERVERS, " ".join(["10.96.0.10", "192.0.2.1", *nameservers])),
            (SEARCHES, " ".join([CLUSTER_SEARCH, *searches])),
        )
    ]


HEAD = (
    "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
)
SUB = "sub.shop.svc.cluster.local"
TWO = ["10.244.1.5", "fd00::5"]
ALIASES = [HostAlias(ip="1.2.3.4", hostnames=("a", "b.c")), HostAlias(ip="fd00::9", hostnames=("d",))]
ALIAS_LINES = "\n# Entries added by HostAliases.\n1.2.3.4\ta\tb.c\nfd00::9\td\n"


@pytest.mark.parametrize(
    ("names", "addresses", "aliases", "expected"),
    [
        pytest.param(Names("own", "", "own"), TWO[:1], [], "10.244.1.5\town\n", id="a hostname"),
        pytest.param(Names("own", "", "own"), TWO[1:], [], "fd00::5\town\n", id="IPv6"),
        pytest.param(
            Names("own", SUB, "own"), TWO, [], f"10.244.1.5\town.{SUB}\town\nfd00::5\town.{SUB}\town\n",
            id="a subdomain, both families",
        ),
        pytest.param(
            Names("own", SUB, f"own.{SUB}"), TWO[:1], [], f"10.244.1.5\town.{SUB}\town\n",
            id="the kernel's hostname changes nothing here",
        ),
        pytest.param(
            Names("own", "", "own"), TWO, ALIASES, f"10.244.1.5\town\nfd00::5\town\n{ALIAS_LINES}", id="aliases"
        ),
    ],
)  # fmt: skip
def test_hosts_file(names: Names, addresses: list[str], aliases: list[HostAlias], expected: str) -> None:
    assert hosts_text(names, addresses, aliases) == HEAD + expected


@pytest.mark.parametrize(("aliases", "lines"), [((), ""), (ALIASES, ALIAS_LINES)], ids=["plain", "aliases"])
def test_host_network_pods_get_the_nodes_hosts_file(aliases: list[HostAlias], lines: str) -> None:
    head = "# Kubernetes-managed hosts file (host network).\n"

    assert host_network_hosts_text("1.1.1.1\tx\n", aliases) == f"{head}1.1.1.1\tx\n{lines}"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, ("web", "", "web"), id="the Pod's name"),
        pytest.param({"subdomain": "sub"}, ("web", SUB, "web"), id="a subdomain needs no hostname"),
        pytest.param({"hostname": "h"}, ("h", "", "h"), id="a hostname alone makes no domain"),
        pytest.param({"hostname": "h", "subdomain": "sub"}, ("h", SUB, "h"), id="with subdomain"),
        pytest.param(
            {"hostname": "h", "subdomain": "sub", "setHostnameAsFQDN": True},
            ("h", SUB, f"h.{SUB}"),
            id="the kernel may know the full name",
        ),
        pytest.param({"hostname": "h", "setHostnameAsFQDN": True}, ("h", "", "h"), id="no subdomain, no full name"),
        pytest.param({"hostNetwork": True, "hostname": "h"}, ("n1", "", "n1"), id="host network keeps the node's"),
        pytest.param(
            {"hostNetwork": True, "subdomain": "s" * 60, "setHostnameAsFQDN": True}, ("n1", "", "n1"),
            id="whatever it asks for",
        ),
    ],
)  # fmt: skip
def test_hostname(spec: dict[str, Any], expected: tuple[str, str, str]) -> None:
    names = pod_names(pod(**spec), "n1", "cluster.local")

    assert expected == (names.hostname, names.domain, names.kernel)


@pytest.mark.parametrize(
    ("name", "hostname"),
    [
        pytest.param("a" * 63, "a" * 63, id="63 characters fit"),
        pytest.param("a" * 64, "a" * 63, id="64 are cut"),
        pytest.param("a" * 62 + "-b", "a" * 62, id="no dash at the end"),
        pytest.param("a" * 60 + ".-.b", "a" * 60, id="nor dots"),
    ],
)
def test_a_long_pod_name_is_cut_to_a_label(name: str, hostname: str) -> None:
    long = decode({"metadata": {"name": name, "namespace": "shop"}}, Pod)

    assert hostname == pod_names(long, "n1", "cluster.local").hostname


def test_a_full_name_of_64_characters_is_the_longest() -> None:
    def full(length: int) -> str:
        hostname = "h" * (length - len(f".{SUB}"))
        return pod_names(pod(hostname=hostname, subdomain="sub", setHostnameAsFQDN=True), "n1", "cluster.local").kernel

    assert len(full(64)) == 64
    with pytest.raises(UserError) as caught:
        full(65)
    assert str(caught.value) == (
        "failed to construct FQDN from pod hostname and cluster domain, "
        f"FQDN {'h' * 38}.{SUB} is too long (64 characters is the max, 65 characters requested)"
    )


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
