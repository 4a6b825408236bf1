"""The cells that clients print. `NOW` is the moment of looking."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from netemu.apiserver.subresources import SCALES
from netemu.apiserver.tables.format import human_duration, label_selector_text, some_of
from netemu.apiserver.tables.table import table
from netemu.model.errors import BadRequest
from netemu.model.resources import NODES, PODS, RESOURCES

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KINDS = {resource.kind: resource for resource in (*reversed(RESOURCES), SCALES)}
CREATED = "2026-01-02T03:03:05Z"


def row(kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    """Column name to cell of one object."""
    obj = {"metadata": {"name": "x", "creationTimestamp": CREATED, **obj.pop("metadata", {})}, **obj}
    made = table(KINDS[kind], [obj], {}, now=NOW)
    names = [column["name"] for column in made["columnDefinitions"]]
    return dict(zip(names, made["rows"][0]["cells"], strict=True))


def container(name: str = "c", *, restarts: int = 0, ready: bool = False, **state: Any) -> dict[str, Any]:
    return {"name": name, "restartCount": restarts, "ready": ready, "state": state}


RUNNING = {"startedAt": CREATED}
DONE = {"exitCode": 0, "reason": "Completed"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (0.4, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (5 * 3600 + 60, "5h1m"),
        (8 * 3600, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (8 * 86400, "8d"),
        (729 * 86400, "729d"),
        (731 * 86400, "2y1d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_durations_have_two_or_three_digits(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("status", "extra", "word"),
    [
        pytest.param({"phase": "Pending"}, {}, "Pending", id="not scheduled"),
        pytest.param(
            {"containerStatuses": [container(waiting={"reason": "ContainerCreating"})]},
            {},
            "ContainerCreating",
            id="being created",
        ),
        pytest.param(
            {"phase": "Running", "containerStatuses": [container(waiting={"reason": "CrashLoopBackOff"})]},
            {},
            "CrashLoopBackOff",
            id="crashing",
        ),
        pytest.param(
            {"phase": "Running", "containerStatuses": [container(ready=True, running=RUNNING)]},
            {},
            "Running",
            id="running",
        ),
        pytest.param(
            {"phase": "Succeeded", "containerStatuses": [container(terminated=DONE)]}, {}, "Completed", id="done"
        ),
        pytest.param(
            {"containerStatuses": [container(terminated={"exitCode": 3})]},
            {},
            "ExitCode:3",
            id="failed without a reason",
        ),
        pytest.param(
            {"containerStatuses": [container(terminated={"exitCode": 137, "signal": 9})]}, {}, "Signal:9", id="killed"
        ),
        pytest.param(
            {"initContainerStatuses": [container(running=RUNNING)]},
            {"initContainers": [{"name": "c"}]},
            "Init:0/1",
            id="initialising",
        ),
        pytest.param(
            {"initContainerStatuses": [container(terminated={"exitCode": 1, "reason": "Error"})]},
            {"initContainers": [{"name": "c"}]},
            "Init:Error",
            id="init failed",
        ),
        pytest.param(
            {"initContainerStatuses": [container(waiting={"reason": "CrashLoopBackOff"})]},
            {"initContainers": [{"name": "c"}]},
            "Init:CrashLoopBackOff",
            id="init crashing",
        ),
        pytest.param({"phase": "Failed", "reason": "Evicted"}, {}, "Evicted", id="evicted"),
        pytest.param(
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
            },
            {},
            "SchedulingGated",
            id="gated",
        ),
        pytest.param(
            {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [container(terminated=DONE), container(ready=True, running=RUNNING)],
            },
            {},
            "Running",
            id="one of two done",
        ),
    ],
)
def test_a_pods_status_is_one_word(status: dict[str, Any], extra: dict[str, Any], word: str) -> None:
    assert row("Pod", {"spec": {"containers": [{"name": "c"}], **extra}, "status": status})["Status"] == word


def test_a_deleted_pod_is_terminating() -> None:
    pod = {"metadata": {"deletionTimestamp": CREATED}, "status": {"phase": "Running"}}

    assert row("Pod", pod)["Status"] == "Terminating"


def test_a_deleted_pod_that_finished_is_not_terminating() -> None:
    pod = {"metadata": {"deletionTimestamp": CREATED}, "status": {"phase": "Succeeded"}}

    assert row("Pod", pod)["Status"] == "Succeeded"


def test_restarts_say_when_the_last_one_was() -> None:
    restarted = container(restarts=3, ready=True, running=RUNNING) | {
        "lastState": {"terminated": {"finishedAt": "2026-01-02T02:59:05Z", "exitCode": 1}}
    }
    cells = row("Pod", {"spec": {"containers": [{"name": "c"}]}, "status": {"containerStatuses": [restarted]}})

    assert (cells["Restarts"], cells["Ready"]) == ("3 (5m ago)", "1/1")


def test_a_sidecar_counts_as_a_container() -> None:
    spec = {"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}
    sidecar = container("s", ready=True, running=RUNNING) | {"started": True}
    status = {"initContainerStatuses": [sidecar], "containerStatuses": [container(ready=True, running=RUNNING)]}

    assert row("Pod", {"spec": spec, "status": status})["Ready"] == "2/2"


@pytest.mark.parametrize(
    ("spec", "ingress", "external"),
    [
        pytest.param({"type": "ClusterIP"}, [], "<none>", id="cluster address only"),
        pytest.param({"type": "LoadBalancer"}, [], "<pending>", id="balancer without address"),
        pytest.param(
            {"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]}, [{"ip": "1.2.3.4"}], "1.2.3.4,9.9.9.9", id="balancer"
        ),
        pytest.param({"type": "ExternalName", "externalName": "a.example"}, [], "a.example", id="external name"),
        pytest.param({"type": "NodePort", "externalIPs": ["9.9.9.9"]}, [], "9.9.9.9", id="external address"),
    ],
)
def test_a_services_external_address(spec: dict[str, Any], ingress: list[dict[str, str]], external: str) -> None:
    service = {"spec": spec, "status": {"loadBalancer": {"ingress": ingress}}}

    assert row("Service", service)["External-IP"] == external


def test_a_services_ports_show_node_ports() -> None:
    ports = [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]

    assert row("Service", {"spec": {"ports": ports}})["Port(s)"] == "80:30080/TCP,53/UDP"


def test_endpoint_slices_show_three_endpoints_and_count_the_rest() -> None:
    endpoints = [{"addresses": [f"10.244.0.{n}"]} for n in range(1, 6)]
    cells = row("EndpointSlice", {"addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 80}]})

    assert cells["Endpoints"] == "10.244.0.1,10.244.0.2,10.244.0.3 + 2 more..."


def test_service_cidrs_show_both_networks() -> None:
    assert row("ServiceCIDR", {"spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]}})["CIDRs"] == "10.96.0.0/16,fd00::/112"


def test_empty_endpoint_slices_are_unset_and_empty_endpoints_none() -> None:
    assert row("EndpointSlice", {"endpoints": None, "ports": None})["Ports"] == "<unset>"
    assert row("Endpoints", {})["Endpoints"] == "<none>"


def test_endpoints_of_ipv6_have_brackets() -> None:
    subsets = [{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}]

    assert row("Endpoints", {"subsets": subsets})["Endpoints"] == "[fd00::1]:80"


def test_both_shapes_of_an_event_print_alike() -> None:
    about = {"kind": "Pod", "name": "p"}
    core = {
        "involvedObject": about,
        "message": "hi",
        "lastTimestamp": CREATED,
        "count": 2,
        "source": {"component": "k"},
    }
    newer = {"regarding": about, "note": "hi", "deprecatedLastTimestamp": CREATED, "deprecatedCount": 2,
             "reportingController": "k"}  # fmt: skip

    assert row("Event", core) == row("Event", newer)
    assert row("Event", core)["Last Seen"] == "60s"


def test_selectors_read_as_kubectl_takes_them() -> None:
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a"]},
            {"key": "x", "operator": "Exists"},
        ],
    }

    assert label_selector_text(selector) == "app=web,tier in (a,b),x"


def test_exactly_as_many_as_the_limit_are_all_shown() -> None:
    assert some_of(["a", "b", "c"]) == "a,b,c"


@pytest.mark.parametrize("kind", sorted({resource.kind for resource in RESOURCES}))
def test_every_kind_has_as_many_cells_as_columns_even_when_empty(kind: str) -> None:
    assert row(kind, {})


@pytest.mark.parametrize(
    ("include", "kept"), [("Object", "Pod"), ("Metadata", "PartialObjectMetadata"), ("", "PartialObjectMetadata")]
)
def test_rows_carry_what_was_asked_for(include: str, kept: str) -> None:
    pod = {"kind": "Pod", "metadata": {"name": "x"}}

    assert table(PODS, [pod], {}, include)["rows"][0]["object"]["kind"] == kept


def test_an_unknown_include_is_refused() -> None:
    with pytest.raises(BadRequest):
        table(PODS, [], {}, "Everything")


def test_a_strange_object_keeps_its_name_and_hides_no_other() -> None:
    strange = {"metadata": {"name": "odd"}, "status": {"conditions": [None], "addresses": [None]}}
    plain = {"metadata": {"name": "even"}}

    rows = table(NODES, [strange, plain], {})["rows"]

    assert [made["cells"][0] for made in rows] == ["odd", "even"]
