"""Phases, conditions, what to start next, thresholds, back-off: pure decisions of a kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.kubelet.backoff import BackOff
from netemu.kubelet.materials import ports
from netemu.kubelet.node import node_object
from netemu.kubelet.probes import Kind, ProbeResults
from netemu.kubelet.settings import KubeletSettings, NodeFacts
from netemu.kubelet.slots import wanted
from netemu.kubelet.status import ContainerView, PodView, changes, pod_status
from netemu.kubelet.tokens import TokenAsk
from netemu.kubelet.volumes import Held, plan
from netemu.model.errors import UserError
from netemu.model.meta import decode
from netemu.model.pods import Container, Pod, Probe, Volume
from netemu.runtime.cri import ContainerState, ContainerStatus, PortMapping

NOW = "2026-01-02T03:04:05Z"


def view(state: str, code: int = 0, *, ready: bool = True, name: str = "c", sidecar: bool = False) -> ContainerView:
    """A container that is waiting, running or exited."""
    spec = Container(name=name, image="img", restart_policy="Always" if sidecar else None)
    if state == "waiting":
        return ContainerView(spec)
    exited = state == "exited"
    status = ContainerStatus(
        id="1", sandbox_id="u", name=name, image="img", image_id="img@x", attempt=0,
        state=ContainerState.EXITED if exited else ContainerState.RUNNING, created_at=NOW, exit_code=code,
    )  # fmt: skip
    return ContainerView(spec, current=status, ready=ready and not exited, started=not exited)


WAITING, RUNNING, DONE, BROKEN = view("waiting"), view("running"), view("exited"), view("exited", 1)
UNREADY = view("running", ready=False)


def status(
    containers: list[ContainerView], init: list[ContainerView] | None = None, policy: str = "Always", **pod: Any
) -> dict[str, Any]:
    one = decode({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"restartPolicy": policy}, **pod}, Pod)
    return pod_status(PodView(one, init or [], containers, "172.18.0.2", ("10.244.1.5",), True, NOW, NOW))


def conditions(of: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in of["conditions"]}


@pytest.mark.parametrize(
    ("containers", "init", "policy", "phase"),
    [
        pytest.param([WAITING], [], "Always", "Pending", id="nothing started"),
        pytest.param([RUNNING], [], "Always", "Running", id="running"),
        pytest.param([RUNNING, WAITING], [], "Always", "Pending", id="one has not started yet"),
        pytest.param([RUNNING, BROKEN], [], "Always", "Running", id="one crashed, others run"),
        pytest.param([BROKEN], [], "Always", "Running", id="crashed and to be restarted"),
        pytest.param([DONE], [], "OnFailure", "Succeeded", id="done"),
        pytest.param([DONE, BROKEN], [], "Never", "Failed", id="one failed for good"),
        pytest.param([BROKEN], [], "OnFailure", "Running", id="failed and to be tried again"),
        pytest.param([WAITING], [RUNNING], "Always", "Pending", id="initialising"),
        pytest.param([WAITING], [BROKEN], "Never", "Failed", id="initialisation failed for good"),
    ],
)
def test_phase(containers: list[ContainerView], init: list[ContainerView], policy: str, phase: str) -> None:
    assert phase == status(containers, init, policy)["phase"]


def test_a_pod_is_ready_only_when_all_containers_are() -> None:
    assert conditions(status([RUNNING, RUNNING]))["Ready"] == "True"
    assert conditions(status([RUNNING, UNREADY]))["Ready"] == "False"


def test_a_closed_readiness_gate_keeps_the_pod_from_being_ready() -> None:
    spec = {"readinessGates": [{"conditionType": "lb"}]}

    closed = conditions(status([RUNNING], spec=spec))
    opened = status([RUNNING], spec=spec, status={"conditions": [{"type": "lb", "status": "True"}]})

    assert (closed["Ready"], closed["ContainersReady"]) == ("False", "True")
    assert (conditions(opened)["Ready"], conditions(opened)["lb"]) == ("True", "True")


def test_conditions_remember_since_when_they_hold() -> None:
    old = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}

    same, changed = status([RUNNING], status=old), status([UNREADY], status=old)

    times = [next(c["lastTransitionTime"] for c in s["conditions"] if c["type"] == "Ready") for s in (same, changed)]
    assert times == ["2020-01-01T00:00:00Z", NOW]


@pytest.mark.parametrize("state", [WAITING, RUNNING, DONE])
def test_typed_clients_find_every_field_they_need(state: ContainerView) -> None:
    container = status([state])["containerStatuses"][0]

    assert {"name", "image", "imageID", "ready", "restartCount", "started", "state"} <= set(container)


def test_an_unchanged_status_needs_no_patch() -> None:
    assert changes(status([RUNNING]), status([RUNNING])) == {}


def test_a_reason_that_is_over_is_taken_back() -> None:
    assert changes({"phase": "Failed", "reason": "Evicted"}, {"phase": "Failed"}) == {"reason": None}


SIDE = view("running", sidecar=True)
SIDE_STARTING = view("waiting", sidecar=True)


@pytest.mark.parametrize(
    ("init", "containers", "policy", "next_ones"),
    [
        pytest.param([], [WAITING, WAITING], "Always", [(False, 0), (False, 1)], id="all at once"),
        pytest.param([WAITING, WAITING], [WAITING], "Always", [(True, 0)], id="init containers one by one"),
        pytest.param([DONE, WAITING], [WAITING], "Always", [(True, 1)], id="the next init container"),
        pytest.param([DONE, RUNNING], [WAITING], "Always", [], id="an init container still runs"),
        pytest.param([DONE], [WAITING], "Always", [(False, 0)], id="initialised"),
        pytest.param([BROKEN], [WAITING], "OnFailure", [(True, 0)], id="a failed init container again"),
        pytest.param([BROKEN], [WAITING], "Never", [], id="a failed init container never again"),
        pytest.param([SIDE_STARTING, WAITING], [WAITING], "Always", [(True, 0)], id="a sidecar comes in its turn"),
        pytest.param([SIDE, WAITING], [WAITING], "Always", [(True, 1)], id="a running sidecar lets others go on"),
        pytest.param([], [DONE], "OnFailure", [], id="done is done"),
        pytest.param([], [DONE], "Always", [(False, 0)], id="restarted whatever the code"),
        pytest.param([], [BROKEN], "Never", [], id="never restarted"),
    ],
)
def test_what_to_start_next(
    init: list[ContainerView], containers: list[ContainerView], policy: str, next_ones: list[tuple[bool, int]]
) -> None:
    assert next_ones == wanted(init, containers, policy)


@pytest.mark.parametrize(
    ("kind", "outcomes", "good", "failed"),
    [
        pytest.param("readiness", [], False, False, id="not ready until asked"),
        pytest.param("readiness", [True], True, False, id="one success is enough"),
        pytest.param("readiness", [True, False, False], True, False, id="two failures are not"),
        pytest.param("readiness", [True, False, False, False], False, True, id="three failures are"),
        pytest.param("liveness", [], True, False, id="alive until proven dead"),
        pytest.param(
            "liveness", [False, False, True, False, False], True, False, id="a success starts the count again"
        ),
        pytest.param("liveness", [False] * 3, False, True, id="dead"),
        pytest.param("startup", [False, False, True], True, False, id="started"),
    ],
)
def test_thresholds(kind: Kind, outcomes: list[bool], good: bool, failed: bool) -> None:
    results = ProbeResults(kind, Probe())

    for outcome in outcomes:
        results.observe(outcome)

    assert (good, failed) == (results.good, results.failed)


def test_back_off_doubles_up_to_its_limit_and_is_forgotten() -> None:
    back_off, now, waits = BackOff(10, 300), 1000.0, []
    for _ in range(8):
        waits.append(back_off.due(now) - now)
        now = back_off.due(now)
        back_off.started_again(now)

    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert now + 601 == back_off.due(now + 601)


def test_a_container_serves_the_ports_it_is_probed_on() -> None:
    probed = Container(name="c", readiness_probe=decode({"httpGet": {"port": 8080}}, Probe))

    assert (PortMapping(container_port=8080),) == ports(probed)


def test_a_node_says_what_it_is() -> None:
    networks = ("10.244.1.0/24", "fd00:10:244:1::/64")
    facts = NodeFacts("n1", ("172.18.0.2", "fc00::2"), "", networks, zone="a", labels={"x": "y"})

    node = node_object(facts, KubeletSettings(pods_dir="/x"))

    assert (node["spec"]["podCIDR"], node["spec"]["podCIDRs"]) == (networks[0], list(networks))
    addresses = [(each["type"], each["address"]) for each in node["status"]["addresses"]]
    assert addresses == [("InternalIP", "172.18.0.2"), ("InternalIP", "fc00::2"), ("Hostname", "n1")]
    assert {"kubernetes.io/hostname": "n1", "topology.kubernetes.io/zone": "a", "x": "y"}.items() <= node["metadata"][
        "labels"
    ].items()
    assert {"Ready": "True"}.items() <= conditions(node["status"]).items()


HELD = Held({"conf": {"a": b"1", "b": b"2"}}, {"key": {"k": b"s"}}, {TokenAsk("vault", 600): b"t"})
MOUNTING = decode({"metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}}, "spec": {}}, Pod)


@pytest.mark.parametrize(
    ("source", "files"),
    [
        pytest.param({"name": "conf"}, {"a": b"1", "b": b"2"}, id="every key a file"),
        pytest.param({"name": "conf", "items": [{"key": "a", "path": "d/x"}]}, {"d/x": b"1"}, id="chosen keys"),
        pytest.param({"name": "none", "optional": True}, {}, id="an optional one may be missing"),
    ],
)
def test_config_map_volume(source: dict[str, Any], files: dict[str, bytes]) -> None:
    made = plan(decode({"name": "v", "configMap": source}, Volume), HELD, MOUNTING)

    assert files == {path: contents for path, (contents, _) in made.files.items()}


def test_a_projected_volume_holds_the_files_of_all_its_sources() -> None:
    sources = [
        {"configMap": {"name": "conf", "items": [{"key": "a", "path": "a", "mode": 0o600}]}},
        {"secret": {"name": "key"}},
        {"secret": {"name": "none", "optional": True}},
        {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}},
        {"downwardAPI": {"items": [{"path": "where", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    volume = decode({"name": "v", "projected": {"defaultMode": 0o440, "sources": sources}}, Volume)

    made = plan(volume, HELD, MOUNTING)

    assert made.files == {
        "a": (b"1", 0o600), "k": (b"s", 0o440), "token": (b"t", 0o440), "where": (b"shop", 0o440),
    }  # fmt: skip


@pytest.mark.parametrize(
    "source", [{"name": "none"}, {"name": "conf", "items": [{"key": "c", "path": "c"}]},
               {"name": "conf", "items": [{"key": "a", "path": "../a"}]}]
)  # fmt: skip
def test_a_volume_that_cannot_be_filled_is_refused(source: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        plan(decode({"name": "v", "configMap": source}, Volume), HELD, MOUNTING)
