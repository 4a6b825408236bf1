"""Protobuf bodies, most of them as kubectl 1.32 sent them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from netemu.apiserver.http import protobuf
from netemu.model.errors import BadRequest

# kubectl create deployment web --image=nginx --replicas=0 --port=8080
DEPLOYMENT = (
    "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50ErkBCh8KA3dlYhIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEocBCAASDAoKCgNhcHASA3dlYhptChwK"
    "ABIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEk0SLwoFbmdpbngSBW5naW54KgAyCwoAEAAYkD8iACoAQgBqAHIAgAEAiAEAkAEAogEAGgAyAEIASgBS"
    "AFgAYABoAIIBAIoBAJoBAMIBACICCgAoADgAGgwIABAAGAAgACgAOAAaACIA"
)
# kubectl create configmap c --from-literal=empty= --from-literal=k=v
CONFIGMAP = "azhzAAoPCgJ2MRIJQ29uZmlnTWFwEiYKEQoBYxIAGgAiACoAMgA4AEIAEgkKBWVtcHR5EgASBgoBaxIBdhoAIgA="
# kubectl create service clusterip s --tcp=80:http
SERVICE = (
    "azhzAAoNCgJ2MRIHU2VydmljZRJmChsKAXMSABoAIgAqADIAOABCAFoICgNhcHASAXMSQwoeCgc4MC1odHRwEgNUQ1AYUCIKCAEQABoEaHR0cCgAEggK"
    "A2FwcBIBcxoAIglDbHVzdGVySVA6AEIAUgBaAGAAaAAaAgoAGgAiAA=="
)
# kubectl create secret generic s --from-literal=k=v
SECRET = "azhzAAoMCgJ2MRIGU2VjcmV0Eh0KEQoBcxIAGgAiACoAMgA4AEIAEgYKAWsSAXYaABoAIgA="


def decoded(text: str) -> dict[str, Any]:
    return protobuf.decode(base64.b64decode(text))


def field(number: int, value: int | bytes) -> bytes:
    """One field of a message, small enough for one-byte lengths."""
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def body(api_version: str, kind: str, message: bytes) -> bytes:
    names = field(1, api_version.encode()) + field(2, kind.encode())
    return protobuf.MAGIC + field(1, names) + field(2, message)


def test_a_deployment_keeps_the_zero_behind_a_pointer_and_drops_others() -> None:
    spec = decoded(DEPLOYMENT)["spec"]

    assert spec["replicas"] == 0
    assert "minReadySeconds" not in spec
    assert "paused" not in spec


def test_a_deployments_containers_arrive() -> None:
    deployment = decoded(DEPLOYMENT)

    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"] == [
        {"name": "nginx", "image": "nginx", "ports": [{"containerPort": 8080}], "resources": {}}
    ]


def test_map_values_may_be_empty() -> None:
    assert decoded(CONFIGMAP)["data"] == {"empty": "", "k": "v"}


def test_a_named_target_port_is_a_string() -> None:
    assert decoded(SERVICE)["spec"]["ports"] == [
        {"name": "80-http", "protocol": "TCP", "port": 80, "targetPort": "http"}
    ]


def test_bytes_become_base64() -> None:
    assert decoded(SECRET)["data"] == {"k": "dg=="}


def test_embedded_structs_merge_into_their_parent() -> None:
    # Pod.spec(2).volumes(1) = {name(1), volumeSource(2).emptyDir(2) = {}}
    volume = field(1, b"scratch") + field(2, field(2, b""))
    pod = protobuf.decode(body("v1", "Pod", field(2, field(1, volume))))

    assert pod["spec"]["volumes"] == [{"name": "scratch", "emptyDir": {}}]


def test_a_volume_has_its_source_and_its_size() -> None:
    # PersistentVolume.spec(2) = {capacity(1), persistentVolumeSource(2).nfs(5) = {server(1), path(2)}, volumeMode(8)}
    capacity = field(1, b"storage") + field(2, field(1, b"1Gi"))
    source = field(5, field(1, b"files") + field(2, b"/data"))
    volume = body("v1", "PersistentVolume", field(2, field(1, capacity) + field(2, source) + field(8, b"Block")))

    assert protobuf.decode(volume)["spec"] == {
        "capacity": {"storage": "1Gi"}, "nfs": {"server": "files", "path": "/data"}, "volumeMode": "Block",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("api_version", "kind", "where", "number"),
    [
        pytest.param("policy/v1", "PodDisruptionBudget", ("spec", "minAvailable"), (2, 1), id="budget"),
        pytest.param("policy/v1", "PodDisruptionBudget", ("spec", "maxUnavailable"), (2, 3), id="budget of others"),
        pytest.param(
            "apps/v1",
            "DaemonSet",
            ("spec", "updateStrategy", "rollingUpdate", "maxUnavailable"),
            (2, 3, 2, 1),
            id="update of agents",
        ),
    ],
)
def test_a_limit_of_zero_is_meant(api_version: str, kind: str, where: tuple[str, ...], number: tuple[int, ...]) -> None:
    message = field(1, 0) + field(2, 0) + field(3, b"")  # IntOrString of type int
    for one in reversed(number):
        message = field(one, message)
    found: Any = protobuf.decode(body(api_version, kind, message))
    for name in where:
        found = found[name]

    assert found == 0


def test_times_take_kubernetes_two_formats() -> None:
    # Lease.spec(2).renewTime(4) is a MicroTime, metadata(1).creationTimestamp(8) a Time.
    moment = field(1, 1_700_000_000) + field(2, 5_000)
    message = field(1, field(8, moment)) + field(2, field(4, moment))
    lease = protobuf.decode(body("coordination.k8s.io/v1", "Lease", message))

    assert lease["metadata"]["creationTimestamp"] == "2023-11-14T22:13:20Z"
    assert lease["spec"]["renewTime"] == "2023-11-14T22:13:20.000005Z"


def test_negative_numbers_are_twos_complement() -> None:
    # DeleteOptions.gracePeriodSeconds(1)
    assert protobuf.decode(body("v1", "DeleteOptions", field(1, -1)))["gracePeriodSeconds"] == -1


def test_fields_of_newer_clients_are_skipped() -> None:
    message = field(1, field(1, b"shop")) + field(15, b"news") + varint(14 << 3 | 1) + b"8 bytes."

    assert protobuf.decode(body("v1", "Namespace", message))["metadata"] == {"name": "shop"}


def test_both_kinds_of_event_have_their_own_fields() -> None:
    core = protobuf.decode(body("v1", "Event", field(4, b"hello")))
    newer = protobuf.decode(body("events.k8s.io/v1", "Event", field(10, b"hello")))

    assert (core["message"], newer["note"]) == ("hello", "hello")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"{}", id="no magic bytes"),
        pytest.param(body("v1", "Namespace", field(1, b"\x0a\x7fshort")), id="a length beyond the end"),
        pytest.param(body("v1", "Namespace", b"\x0b"), id="an unknown wire type"),
        pytest.param(body("v1", "Namespace", b"\x08\x01"), id="a number for a message"),
        pytest.param(body("v1", "Gadget", b""), id="a kind without a table"),
        pytest.param(body("v1", "Namespace", b"\xff" * 12), id="an endless number"),
    ],
)
def test_broken_bodies_are_bad_requests(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        protobuf.decode(raw)


def test_every_type_that_the_tables_name_exists() -> None:
    table = protobuf._table()
    known = {*table, *protobuf._SPECIAL, "s", "i", "b"}

    assert {entry.type for fields in table.values() for entry in fields.values()} <= known
