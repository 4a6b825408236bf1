"""What the API server fills in."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from netemu.apiserver.defaults import apply_defaults
from netemu.apiserver.defaults_pod import pull_policy, qos_class
from netemu.apiserver.defaults_service import settled
from netemu.client.base import Obj
from netemu.model import resources as r


def defaulted(resource: r.Resource, **fields: Any) -> Obj:
    obj: Obj = {"metadata": {"name": "x"}, **fields}
    apply_defaults(resource, obj)
    once = copy.deepcopy(obj)
    apply_defaults(resource, obj)
    assert obj == once, "defaulting is not idempotent"
    return obj


def pod_spec(**fields: Any) -> Obj:
    spec: Obj = defaulted(r.PODS, spec={"containers": [{"name": "c", "image": "i:1"}], **fields})["spec"]
    return spec


def container(**fields: Any) -> Obj:
    spec = pod_spec(containers=[{"name": "c", "image": "i:1", **fields}])
    result: Obj = spec["containers"][0]
    return result


def service_spec(**spec: Any) -> Obj:
    result: Obj = defaulted(r.SERVICES, spec=spec)["spec"]
    return result


# --- Pods -----------------------------------------------------------------------------------------


def test_an_almost_empty_pod() -> None:
    assert pod_spec() == {
        "containers": [
            {
                "name": "c",
                "image": "i:1",
                "imagePullPolicy": "IfNotPresent",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in ("not-ready", "unreachable")
        ],
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("terminationGracePeriodSeconds", 0),
        ("enableServiceLinks", False),
        ("dnsPolicy", "Default"),
        ("restartPolicy", "Never"),
        ("schedulerName", "mine"),
    ],
)
def test_what_a_pod_says_stays(field: str, value: Any) -> None:
    assert pod_spec(**{field: value})[field] == value


def test_a_pod_starts_pending_with_its_qos_class() -> None:
    pod = defaulted(r.PODS, spec={"containers": [{"name": "c", "image": "i"}]})

    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


@pytest.mark.parametrize(
    ("tolerations", "added"),
    [
        pytest.param([{"operator": "Exists"}], 0, id="one that tolerates all"),
        pytest.param(
            [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}], 1, id="one"
        ),
        pytest.param([{"key": "other", "operator": "Exists"}], 2, id="none of them"),
    ],
)
def test_default_tolerations_are_added_unless_they_are_there(tolerations: list[Obj], added: int) -> None:
    assert len(pod_spec(tolerations=[*tolerations])["tolerations"]) == len(tolerations) + added


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:abc", "IfNotPresent"),
        ("nginx:latest@sha256:abc", "IfNotPresent"),
    ],
)
def test_pull_policy_by_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_probes_get_their_numbers_and_http_its_path_and_scheme() -> None:
    probe = container(readinessProbe={"httpGet": {"port": 80}, "periodSeconds": 3, "failureThreshold": 0})

    assert probe["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "failureThreshold": 3,
        "periodSeconds": 3,
        "successThreshold": 1,
        "timeoutSeconds": 1,
    }


def test_grpc_probes_name_the_empty_service() -> None:
    assert container(livenessProbe={"grpc": {"port": 1}})["livenessProbe"]["grpc"] == {"port": 1, "service": ""}


def test_requests_default_to_limits_in_pods_but_not_in_templates() -> None:
    limits = {"limits": {"cpu": "1"}}

    template = defaulted(
        r.DEPLOYMENTS, spec={"template": {"spec": {"containers": [{"name": "c", "resources": copy.deepcopy(limits)}]}}}
    )

    assert container(resources=copy.deepcopy(limits))["resources"] == {**limits, "requests": {"cpu": "1"}}
    assert template["spec"]["template"]["spec"]["containers"][0]["resources"] == limits


@pytest.mark.parametrize(
    ("volume", "result"),
    [
        ({}, {"emptyDir": {}}),
        ({"configMap": {"name": "x"}}, {"configMap": {"name": "x", "defaultMode": 420}}),
        ({"secret": {"secretName": "x", "defaultMode": 256}}, {"secret": {"secretName": "x", "defaultMode": 256}}),
        ({"hostPath": {"path": "/x"}}, {"hostPath": {"path": "/x", "type": ""}}),
        (
            {"projected": {"sources": [{"serviceAccountToken": {}}]}},
            {"projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3600}}]}},
        ),
        (
            {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {
                "downwardAPI": {
                    "defaultMode": 420,
                    "items": [{"path": "l", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}],
                }
            },
        ),
    ],
)  # fmt: skip
def test_volumes(volume: Obj, result: Obj) -> None:
    assert pod_spec(volumes=[{"name": "v", **volume}])["volumes"] == [{"name": "v", **result}]


def test_with_host_network_each_port_is_a_host_port() -> None:
    containers = [{"name": "c", "image": "i", "ports": [{"containerPort": 53, "protocol": "UDP"}]}]

    spec = pod_spec(hostNetwork=True, containers=containers)

    assert spec["containers"][0]["ports"] == [{"containerPort": 53, "hostPort": 53, "protocol": "UDP"}]


def test_field_references_name_their_version() -> None:
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]

    assert container(env=env)["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_qos_class(resources: Obj, qos: str) -> None:
    assert qos_class({"containers": [{"resources": resources}]}) == qos


# --- Services -------------------------------------------------------------------------------------


def test_an_almost_empty_service() -> None:
    assert service_spec(ports=[{"port": 80}]) == {
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        ({"type": "NodePort"}, "externalTrafficPolicy", "Cluster"),
        ({"type": "LoadBalancer"}, "externalTrafficPolicy", "Cluster"),
        ({"type": "LoadBalancer"}, "allocateLoadBalancerNodePorts", True),
        ({"externalIPs": ["203.0.113.1"]}, "externalTrafficPolicy", "Cluster"),
        ({"type": "ClusterIP"}, "externalTrafficPolicy", None),
        ({"type": "ClusterIP"}, "allocateLoadBalancerNodePorts", None),
        ({"type": "ExternalName", "externalName": "x.y"}, "internalTrafficPolicy", None),
        ({"type": "NodePort", "externalTrafficPolicy": "Local"}, "externalTrafficPolicy", "Local"),
        ({"sessionAffinity": "ClientIP"}, "sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 10800}}),
        ({"sessionAffinity": "None", "sessionAffinityConfig": {"clientIP": {}}}, "sessionAffinityConfig", None),
        ({"type": "", "sessionAffinity": ""}, "type", "ClusterIP"),
        ({"ports": [{"port": 1, "targetPort": 0, "protocol": ""}]}, "ports",
         [{"port": 1, "targetPort": 1, "protocol": "TCP"}]),
        ({"ports": [{"port": 1, "targetPort": "http", "protocol": "UDP"}]}, "ports",
         [{"port": 1, "targetPort": "http", "protocol": "UDP"}]),
    ],
)  # fmt: skip
def test_service_fields(spec: Obj, field: str, value: Any) -> None:
    assert service_spec(**spec).get(field) == value


def test_an_address_of_a_load_balancer_is_a_vip() -> None:
    service = defaulted(
        r.SERVICES, spec={"type": "LoadBalancer"}, status={"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}
    )

    assert service["status"]["loadBalancer"]["ingress"] == [{"ip": "1.2.3.4", "ipMode": "VIP"}]


OLD: Obj = {
    "metadata": {"name": "x"},
    "spec": {
        "type": "NodePort",
        "clusterIP": "10.96.0.9",
        "clusterIPs": ["10.96.0.9"],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "externalTrafficPolicy": "Cluster",
        "ports": [{"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30002}],
    },
}


@pytest.mark.parametrize(
    ("new", "kept"),
    [
        pytest.param(
            {"type": "NodePort", "ports": [{"name": "b", "port": 3}]},
            {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
             "ports": [{"name": "b", "port": 3, "nodePort": 30002}]},
            id="a PUT without them keeps addresses and node ports",
        ),
        pytest.param(
            {**OLD["spec"], "type": "ClusterIP"},
            {"externalTrafficPolicy": None, "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]},
            id="a ClusterIP Service loses node ports and their policy",
        ),
        pytest.param(
            {**OLD["spec"], "type": "ExternalName"},
            {"clusterIP": None, "clusterIPs": None, "ipFamilies": None, "ipFamilyPolicy": None},
            id="an ExternalName loses its addresses",
        ),
        pytest.param(
            {"type": "NodePort", "ports": [{"name": "a", "port": 1}, {"name": "c", "port": 2, "nodePort": 30001}]},
            {"ports": [{"name": "a", "port": 1}, {"name": "c", "port": 2, "nodePort": 30001}]},
            id="a node port given to another port is not kept twice",
        ),
        pytest.param(
            {**OLD["spec"], "clusterIP": "10.96.0.10"},
            {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]},
            id="a client that only knows clusterIP changes both",
        ),
    ],
)  # fmt: skip
def test_what_an_update_takes_over(new: Obj, kept: Obj) -> None:
    result = settled({"metadata": {"name": "x"}, "spec": new}, OLD)["spec"]

    assert {field: result.get(field) for field in kept} == kept
    assert settled({"spec": result}, OLD)["spec"] == result


# --- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="absent"),
        pytest.param({"strategy": {}}, id="empty, as protobuf clients send it"),
        pytest.param({"strategy": {"type": ""}}, id="empty inside"),
    ],
)
def test_a_deployment_however_little_it_says(spec: Obj) -> None:
    result = defaulted(r.DEPLOYMENTS, spec={"template": {"spec": {"containers": []}}, **spec})["spec"]

    assert result.pop("template")["spec"]["restartPolicy"] == "Always"
    assert result == {
        "progressDeadlineSeconds": 600,
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
    }


def test_zero_replicas_are_zero() -> None:
    assert defaulted(r.DEPLOYMENTS, spec={"replicas": 0})["spec"]["replicas"] == 0
    assert defaulted(r.REPLICASETS, spec={"replicas": 0})["spec"]["replicas"] == 0


def test_recreate_has_no_rolling_update() -> None:
    assert defaulted(r.DEPLOYMENTS, spec={"strategy": {"type": "Recreate"}})["spec"]["strategy"] == {"type": "Recreate"}


def test_templates_get_nothing_that_pods_alone_get() -> None:
    template = defaulted(r.REPLICASETS, spec={"template": {"spec": {"containers": []}}})["spec"]["template"]["spec"]

    assert not {"enableServiceLinks", "tolerations", "priority"} & template.keys()


@pytest.mark.parametrize(
    ("resource", "before", "after"),
    [
        pytest.param(
            r.NAMESPACES, {},
            {"metadata": {"name": "x", "labels": {"kubernetes.io/metadata.name": "x"}},
             "spec": {}, "status": {"phase": "Active"}},
            id="Namespace",
        ),
        pytest.param(
            r.NODES, {"spec": {"podCIDR": "10.244.1.0/24"}, "status": {"capacity": {"cpu": "2"}}},
            {"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]},
             "status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}},
            id="Node",
        ),
        pytest.param(
            r.SECRETS, {"stringData": {"a": "x"}, "data": {"a": "b2xk", "b": "eA=="}},
            {"type": "Opaque", "data": {"a": "eA==", "b": "eA=="}},
            id="Secret: stringData wins and goes",
        ),
        pytest.param(
            r.ENDPOINTSLICES, {"ports": [{"port": 80}]},
            {"endpoints": [], "ports": [{"name": "", "port": 80, "protocol": "TCP"}]},
            id="EndpointSlice",
        ),
        pytest.param(
            r.ENDPOINTS, {"subsets": [{"ports": [{"port": 80}]}]},
            {"subsets": [{"ports": [{"port": 80, "protocol": "TCP"}]}]},
            id="Endpoints",
        ),
        pytest.param(r.CONFIGMAPS, {"data": {"a": "b"}}, {"data": {"a": "b"}}, id="ConfigMap"),
        pytest.param(r.LEASES, {"spec": {"holderIdentity": "n"}}, {"spec": {"holderIdentity": "n"}}, id="Lease"),
        pytest.param(r.RUNTIMECLASSES, {"handler": "h"}, {"handler": "h"}, id="RuntimeClass"),
        pytest.param(r.EVENTS, {"reason": "x"}, {"reason": "x"}, id="Event"),
    ],
)  # fmt: skip
def test_small_kinds(resource: r.Resource, before: Obj, after: Obj) -> None:
    assert defaulted(resource, **before) == {"metadata": {"name": "x"}, **after}
