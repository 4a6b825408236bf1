"""The topology file: what is accepted, and what is said of each mistake."""

from __future__ import annotations

import textwrap
from pathlib import Path

import msgspec
import pytest

from netemu.lab.config import LabConfig, resolve
from netemu.lab.topology import TopologyFile, read_topology
from netemu.model.errors import UserError
from netemu.model.yamlfile import Mistakes
from tests.unit.custom_kit import definition

_HEAD = """\
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata:
  name: lab
spec:
"""
_SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports:
    - port: 80
"""


_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: x}
spec:
  nodeName: x
  containers: [{name: c, image: i}]
"""


def read(folder: Path, text: str) -> TopologyFile:
    file = folder / "my lab.yaml"
    file.write_text(textwrap.dedent(text))
    return read_topology(file)


def decided(folder: Path, spec: str) -> LabConfig:
    return resolve(read(folder, _HEAD + textwrap.indent(textwrap.dedent(spec), "  ")).topology)


def test_plain_manifests_are_a_lab_on_three_nodes_named_after_the_file(tmp_path: Path) -> None:
    file = read(tmp_path, _SERVICE)

    config = resolve(file.topology)

    assert config.name == "my-lab"
    assert [(node.name, *node.addresses, *node.pod_cidrs) for node in config.nodes] == [
        ("control-plane", "172.18.0.2", "10.244.0.0/24"),
        ("worker-1", "172.18.0.3", "10.244.1.0/24"),
        ("worker-2", "172.18.0.4", "10.244.2.0/24"),
    ]


def test_name_on_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(_HEAD.replace("spec:\n", ""))

    assert read_topology(file, name="other").topology.metadata.name == "other"


def test_a_control_plane_of_several_has_nodes_of_its_own_each_in_another_zone(tmp_path: Path) -> None:
    members = "controlPlane: {replicas: 3, store: etcd}\n"

    def planes(text: str) -> list[tuple[str, str]]:
        return [(node.name, node.labels["topology.kubernetes.io/zone"]) for node in decided(tmp_path, text).nodes[:3]]

    assert [node.name for node in decided(tmp_path, members).nodes][3:] == ["worker-1", "worker-2"]
    names = [f"control-plane-{number}" for number in (1, 2, 3)]
    assert planes(members) == list(zip(names, ["zone-1", "zone-2", "zone-3"], strict=True))
    some = members + "nodes: [{name: a, zone: east}, {name: b, count: 2, zone: zone-1}]"
    assert planes(some) == list(zip(names, ["east", "zone-1", "zone-2"], strict=True))


def test_control_plane_nodes_that_are_listed_are_the_members(tmp_path: Path) -> None:
    listed = "nodes: [{name: w}, {name: m, role: control-plane, count: 3}]"
    config = decided(tmp_path, f"controlPlane: {{replicas: 3, store: etcd}}\n{listed}")

    assert [node.name for node in config.nodes] == ["w", "m-1", "m-2", "m-3"]
    assert [node.name for node in config.control_planes] == ["m-1", "m-2", "m-3"]
    assert [node.name for node in config.nodes if node.taints] == ["m-1", "m-2", "m-3"]
    assert config.etcd_members == 3


def test_one_member_on_etcd_is_the_first_node(tmp_path: Path) -> None:
    config = decided(tmp_path, "controlPlane: {store: etcd}\nnodes: [{name: a}, {name: b}]")

    assert ([node.name for node in config.control_planes], config.etcd_members) == (["a"], 1)


def test_control_plane_is_tainted_only_beside_others(tmp_path: Path) -> None:
    alone = decided(tmp_path, "nodes: [{name: one}]")
    pair = decided(tmp_path, "nodes: [{name: one}, {name: two}]")

    assert alone.nodes[0].taints == ()
    assert [node.name for node in pair.nodes if node.taints] == ["one"]


def test_labels_zones_and_links_reach_the_node(tmp_path: Path) -> None:
    config = decided(
        tmp_path,
        """
        nodes:
          - {name: hub, role: control-plane}
          - {name: w, count: 2, zone: a, labels: {disk: ssd}, link: {rate: 10mbit}}
        links: {mtu: 1400}
        """,
    )

    node = config.nodes[2]
    assert (node.name, node.link.rate, node.link.mtu) == ("w-2", "10mbit", 1500)
    assert node.labels == {"disk": "ssd", "topology.kubernetes.io/zone": "a"}
    assert config.nodes[0].link.mtu == 1400


def test_clients_without_address_get_free_ones(tmp_path: Path) -> None:
    config = decided(tmp_path, "clients: [{name: a}, {name: b, address: 203.0.113.10}, {name: c}]")

    assert [client.addresses[0] for client in config.clients] == ["203.0.113.11", "203.0.113.10", "203.0.113.12"]


def test_a_dual_stack_lab_has_an_address_of_each_family_everywhere(tmp_path: Path) -> None:
    config = decided(tmp_path, "ipFamily: dual\nnodes: [{name: a}, {name: b}]\nclients: [{name: c}]")

    assert [(node.addresses, node.pod_cidrs) for node in config.nodes] == [
        (("172.18.0.2", "fc00:f853:ccd:e793::2"), ("10.244.0.0/24", "fd00:10:244::/64")),
        (("172.18.0.3", "fc00:f853:ccd:e793::3"), ("10.244.1.0/24", "fd00:10:244:1::/64")),
    ]
    assert config.clients[0].addresses == ("203.0.113.10", "2001:db8:113::10")
    assert (config.api_service_ip, config.dns_service_ips) == ("10.96.0.1", ("10.96.0.10", "fd00:10:96::a"))
    assert config.load_balancer_pools == ("172.18.255.0/24", "fc00:f853:ccd:e793::ff:0/112")


def test_a_network_that_is_left_out_is_the_default_of_its_family(tmp_path: Path) -> None:
    dual = decided(tmp_path, "ipFamily: dual\npodCIDR: 10.1.0.0/16\nserviceCIDR: 'FD00:1:0::/112'")
    six = decided(tmp_path, "ipFamily: ipv6\nclients: [{name: a, address: '2001:db8:113::7'}]")

    assert dual.pod_cidrs == ("10.1.0.0/16", "fd00:10:244::/56")
    assert dual.service_cidrs == ("10.96.0.0/16", "fd00:1::/112")
    assert (six.nodes[0].addresses, six.clients[0].addresses) == (("fc00:f853:ccd:e793::2",), ("2001:db8:113::7",))


def test_every_node_of_a_large_network_gets_its_own_part(tmp_path: Path) -> None:
    config = decided(tmp_path, "ipFamily: ipv6\nnodes: [{name: a, count: 250}]\npodCIDR: 'fd00:8::/48'")

    assert len({node.pod_cidrs for node in config.nodes}) == 250
    assert config.nodes[249].pod_cidrs == ("fd00:8:0:f9::/64",)


@pytest.mark.parametrize(
    ("spec", "line", "text"),
    [
        pytest.param(
            "  colour: red", 6, "spec.colour: unknown field; known here: controlPlane, nodes", id="unknown field"
        ),
        pytest.param("  podCIDRs: x", 6, "spec.podCIDRs: unknown field; did you mean podCIDR?", id="nearest field"),
        pytest.param("  nodes: [{nam: a}]", 6, "did you mean name?", id="unknown field in a list"),
        pytest.param("  nodes: [{name: a}, {name: a}]", 6, "node 'a' is already there", id="duplicate node"),
        pytest.param(
            "  nodes:\n    - {name: w, count: 2}\n    - {name: w-2}", 8, "'w-2' is already", id="counted twin"
        ),
        pytest.param("  nodes: [{name: A_b}]", 6, "must be a DNS label", id="bad name"),
        pytest.param("  nodes: []", 6, "at least one node", id="no nodes"),
        pytest.param("  nodes: [{name: a, count: zero}]", 6, "must be a whole number, not text", id="wrong type"),
        pytest.param("  nodes: [{name: a, role: boss}]", 6, "must be control-plane or worker", id="bad role"),
        pytest.param(
            "  controlPlane: {certificateValidityPeriod: 1s}",
            6,
            "'1s': must be a duration such as 8760h, 10s or more",
            id="certificates that end too soon",
        ),
        pytest.param("  controlPlane: {replicas: 2, store: etcd}", 6, "2: must be 1, 3 or 5", id="an even number"),
        pytest.param("  controlPlane: {replicas: 3}", 6, "must be etcd where replicas is 3", id="several on SQLite"),
        pytest.param("  controlPlane: {store: redis}", 6, "'redis': must be sqlite or etcd", id="no such store"),
        pytest.param(
            "  controlPlane: {replicas: 3, store: etcd}\n  nodes: [{name: a, role: control-plane, count: 2}]",
            7,
            "spec.nodes[0].count: 2 control-plane nodes, and spec.controlPlane.replicas is 3; must be as many",
            id="fewer control-plane nodes than members",
        ),
        pytest.param(
            "  nodes:\n    - {name: a, role: control-plane}\n    - {name: b, role: control-plane}",
            8,
            "spec.nodes[1].role: 2 control-plane nodes, and spec.controlPlane.replicas is 1",
            id="a second control-plane",
        ),
        pytest.param(
            "  controlPlane: {replicas: 3, store: etcd}\n  nodes: [{name: control-plane-2}]",
            7,
            "'control-plane-2' is already there, from line 6",
            id="the name of a member",
        ),
        pytest.param("  podCIDR: 10.96.0.0/12", 6, "overlaps", id="overlap with the Service network"),
        pytest.param("  podCIDR: 10.244.0.1/16", 6, "must be 10.244.0.0/16", id="host bits"),
        pytest.param("  nodeCIDR: 300.0.0.0/8", 6, "must be an IPv4 network", id="bad address"),
        pytest.param("  serviceCIDR: 10.96.0.0/30", 6, "too small", id="network too small"),
        pytest.param(
            "  podCIDR: 10.244.0.0/22\n  nodes: [{name: w, count: 9}]", 6, "room for 4", id="no room for Pods"
        ),
        pytest.param("  clients: [{name: a, address: 8.8.8.8}]", 6, "203.0.113.2 to", id="client address"),
        pytest.param("  clients: [{name: a, names: [no_name]}]", 6, "a name like api.example.com", id="client names"),
        pytest.param("  clients: [{name: a, names: [x.cluster.local]}]", 6, "own domain", id="client in the cluster"),
        pytest.param("  checks: [{name: a}]", 6, "0 steps in one: must be exactly one of resolves", id="no step"),
        pytest.param(
            "  checks: [{name: a, refused: {from: x, to: y}, faults: {}}]", 6, "2 steps in one", id="two steps"
        ),
        pytest.param(
            "  checks: [{name: a, resolves: {from: x, name: y, resolver: gibc}}]",
            6,
            "did you mean glibc?",
            id="resolver of a check",
        ),
        pytest.param(
            "  checks: [{name: a, resolves: {from: x, name: y, after: soon}}]",
            6,
            "a duration like 50ms",
            id="duration of a check",
        ),
        pytest.param(
            "  checks: [{name: a, faults: {f: {fault: dorp}}}]",
            6,
            "spec.checks[0].faults: fault of one of these: Invalid enum value 'dorp'",
            id="kind of a fault",
        ),
        pytest.param(
            "  checks: [{name: a, faults: {f: {fault: drop, percent: 0}}}]",
            6,
            "must be 1 to 100",
            id="fault of a check",
        ),
        pytest.param(
            "  checks: [{name: a, apply: [{apiVersion: v1, kind: Gadget}]}]",
            6,
            "v1 Gadget: not a kind",
            id="kind of a check",
        ),
        pytest.param(
            "  checks: [{name: a, losslessDuring: {from: x, to: y, margin: 1s, steps: [{name: b, within: soon}]}}]",
            6,
            "spec.checks[0].losslessDuring.steps[0]: 0 steps in one",
            id="step of a step",
        ),
        pytest.param(
            "  checks: [{name: a, losslessDuring: {from: x, to: y, rate: 0}}]",
            6,
            "spec.checks[0].losslessDuring.rate: 0: must be 1 to 20000 attempts per second",
            id="rate of nothing",
        ),
        pytest.param(
            "  checks: [{name: a, losslessDuring: {from: x, to: y}}]",
            6,
            "spec.checks[0].losslessDuring.steps: missing",
            id="nothing that is done meanwhile",
        ),
        pytest.param(
            "  checks: [{name: a, lossless-during: {from: x, to: y}}]",
            6,
            "did you mean losslessDuring?",
            id="step written otherwise",
        ),
        pytest.param("  checks: [{name: a, resolves: {form: x}}]", 6, "did you mean from?", id="field of a check"),
        pytest.param("  dns: {corefile: '. { forwrad . 1.2.3.4 }'}", 6, 'did you mean "forward"', id="corefile"),
        pytest.param("  ipFamily: both", 6, "'both': must be ipv4, ipv6 or dual", id="bad family"),
        pytest.param("  podCIDR: 'fd00::/56'", 6, "or ipFamily dual", id="a family that the lab has not"),
        pytest.param(
            "  ipFamily: dual\n  podCIDR: 'fd00::/56,10.1.0.0/16'", 7, "begin with the IPv4", id="wrong order"
        ),
        pytest.param(
            "  ipFamily: dual\n  podCIDR: 10.1.0.0/16,10.2.0.0/16", 7, "a second IPv4 network", id="one family"
        ),
        pytest.param(
            "  ipFamily: dual\n  podCIDR: 10.1.0.0/16,x", 7, "IPv6 network such as fd00:10:244", id="bad pair"
        ),
        pytest.param("  ipFamily: ipv6\n  podCIDR: 'fd00::/64'", 7, "/62 or larger, for a /64 per node", id="small"),
        pytest.param("  ipFamily: ipv6\n  podCIDR: 'fd00:10:96::/56'", 7, "overlaps podCIDR", id="overlap in IPv6"),
        pytest.param(
            "  ipFamily: dual\n  clients: [{name: a, address: '2001:db8::1'}]",
            7,
            "2001:db8:113::2 to",
            id="IPv6 client",
        ),
        pytest.param(
            "  ipFamily: dual\n  clients: [{name: a, address: '203.0.113.8,203.0.113.9'}]",
            7,
            "one of each family",
            id="client of two addresses",
        ),
        pytest.param("  clients: [{name: a, address: '2001:db8:113::7'}]", 6, "203.0.113.2 to", id="no IPv6 here"),
        pytest.param("  clients: [{name: a}, {name: a}]", 6, "'a' is already there, on line 6", id="duplicate client"),
        pytest.param("  links: {mtu: 10}", 6, "must be 576 to 65535", id="bad mtu"),
        pytest.param("  links: {rate: fast}", 6, "must look like 100mbit", id="bad rate"),
        pytest.param("  links: {loss: 120%}", 6, "must be at most 100%", id="more than all is lost"),
        pytest.param("  proxy: {mode: magic}", 6, "is no proxy mode; must be one of iptables", id="bad proxy mode"),
        pytest.param("  dns: {replicas: 0}", 6, "must be 1 to 100", id="no DNS"),
        pytest.param("  dns: {domain: a_b}", 6, "must be a domain like cluster.local", id="bad domain"),
        pytest.param(
            "  podCIDR: 10.1.0.0/16\n  podCIDR: 10.2.0.0/16", 7, "given twice, first on line 6", id="key twice"
        ),
        pytest.param("  nodes: [", 7, "not valid YAML", id="not YAML"),
    ],
)
def test_a_mistake_in_the_topology_is_one_line_with_its_place(tmp_path: Path, spec: str, line: int, text: str) -> None:
    with pytest.raises(Mistakes) as refused:
        read(tmp_path, _HEAD + spec + "\n")

    assert text in str(refused.value)
    assert line in [mistake.line for mistake in refused.value.mistakes]


def test_steps_with_a_mistake_are_not_said_to_be_missing(tmp_path: Path) -> None:
    inner = "steps: [{refused: {from: x, to: y}}]"
    with pytest.raises(Mistakes) as refused:
        read(tmp_path, f"{_HEAD}  checks: [{{name: a, losslessDuring: {{from: x, to: y, {inner}}}}}]\n")

    assert [mistake.text for mistake in refused.value.mistakes] == [
        "spec.checks[0].losslessDuring.steps[0]: missing field name"
    ]


def test_steps_may_name_kinds_that_the_file_defines_or_that_a_step_does(tmp_path: Path) -> None:
    crd = msgspec.json.encode(
        {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", **definition()}
    ).decode()
    step = "{name: b, apply: [{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}}]}"
    gone = "{name: c, delete: [{apiVersion: example.com/v1, kind: Widget, name: w}]}"

    beside = read(tmp_path, f"{_HEAD}  checks: [{step}, {gone}]\n---\n{crd}\n")
    before = read(tmp_path, f"{_HEAD}  checks: [{{name: a, apply: [{crd}]}}, {step}]\n")
    with pytest.raises(Mistakes) as refused:
        read(tmp_path, f"{_HEAD}  checks: [{step}, {gone}]\n")

    assert len(beside.topology.spec.checks) == len(before.topology.spec.checks) == 2
    assert str(refused.value).count("example.com/v1 Widget: not a kind of this cluster") == 2


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        pytest.param("kind: Service", "apiVersion is missing", id="no apiVersion"),
        pytest.param("apiVersion: v1\nkind: Sevice", "did you mean Service?", id="unknown kind"),
        pytest.param("apiVersion: apps/v1beta1\nkind: Deployment", "must be apps/v1", id="old version"),
        pytest.param(_SERVICE.replace("selector", "selectr"), 'unknown field "spec.selectr"', id="unknown field"),
        pytest.param(_SERVICE.replace("80", "70000"), "spec.ports[0].port: Invalid value: 70000", id="bad port"),
        pytest.param(_SERVICE.replace("80", "http"), "port", id="wrong type"),
        pytest.param(_SERVICE + "  clusterIP: 1.2.3.4\n", "spec.clusterIPs", id="cluster IP out of range"),
        pytest.param(_SERVICE + "  clusterIP: 10.96.0.10\n", "already allocated", id="cluster IP of the lab's DNS"),
        pytest.param(
            _SERVICE.replace("web\n", "web\n  namespace: sohp\n", 1), "no Namespace 'sohp'", id="no namespace"
        ),
        pytest.param(_POD.replace("nodeName: x", "nodeName: worker-9"), "did you mean worker-", id="no such node"),
        pytest.param(_POD.replace("nodeName: x", "runtimeClassName: runc"), "emulated, process", id="no such runtime"),
        pytest.param("- just\n- a list", "expected a Kubernetes object", id="no object"),
    ],
)
def test_a_mistake_in_a_manifest_is_found_before_anything_starts(tmp_path: Path, manifest: str, text: str) -> None:
    with pytest.raises(Mistakes, match=r"my lab\.yaml:\d+: ") as refused:
        read(tmp_path, manifest)

    assert text in str(refused.value)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Mistakes) as refused:
        read(
            tmp_path, _HEAD + "  nodes: [{name: A}]\n  podCIDR: x\n  dns: {replicas: 0}\n---\nkind: X\napiVersion: v1\n"
        )

    assert [mistake.line for mistake in refused.value.mistakes] == [6, 7, 8, 10]


def test_a_wrong_type_hides_no_other_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistakes) as refused:
        read(
            tmp_path,
            _HEAD + "  nodes:\n    - {name: A}\n    - {name: w, count: two}\n  links: {delay: 5}\n  podCIDR: x\n",
        )

    assert [mistake.line for mistake in refused.value.mistakes] == [7, 8, 9, 10]


def test_a_list_is_unpacked_with_the_lines_of_its_items(tmp_path: Path) -> None:
    item = textwrap.indent(_SERVICE.replace("port: 80", "port: 0"), "    ")
    text = "apiVersion: v1\nkind: List\nitems:\n  -\n" + item

    with pytest.raises(Mistakes) as refused:
        read(tmp_path, text)

    assert {mistake.line for mistake in refused.value.mistakes} == {12}


def test_an_alias_that_contains_itself_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistakes, match=":2: an alias contains itself"):
        read(tmp_path, "kind: x\na: &a [*a]\n")


def test_addresses_are_judged_beside_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(Mistakes) as refused:
        read(tmp_path, _SERVICE + "  clusterIP: 1.2.3.4\n---\n" + _POD.replace("nodeName: x", "nodeName: y"))

    assert "spec.clusterIPs" in str(refused.value)
    assert "no 'y' here" in str(refused.value)


def test_two_objects_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistakes, match="Service 'web' is already there, on line 1"):
        read(tmp_path, _SERVICE + "---\n" + _SERVICE)


@pytest.mark.parametrize("text", ["", "---\n---\n", "# only a comment\n"])
def test_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Mistakes, match="empty: expected a Topology"):
        read(tmp_path, text)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_topology(tmp_path / "absent.yaml")


@pytest.mark.parametrize("file", sorted(Path("topologies").glob("*.yaml")), ids=lambda path: path.stem)
def test_labs_that_ship_are_valid(file: Path) -> None:
    assert read_topology(file).manifests


_WIDGETS = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties: {spec: {type: object, properties: {size: {type: integer}}}}
"""


def test_a_file_that_defines_a_kind_may_use_it(tmp_path: Path) -> None:
    widget = "---\napiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec:\n  size: 1\n"

    assert len(read(tmp_path, _WIDGETS + widget).manifests) == 2
    with pytest.raises(Mistakes) as refused:
        read(tmp_path, _WIDGETS + widget.replace("size: 1", "size: big\n  colour: red"))
    told = [text.rpartition("my lab.yaml:")[2] for text in str(refused.value).splitlines()]
    assert told == [
        '21: spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"',
        '22: unknown field "spec.colour"',
    ]
