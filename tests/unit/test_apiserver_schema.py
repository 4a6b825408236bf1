"""The OpenAPI data: unknown fields, wrong types, merge rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netemu.apiserver.schema.kinds import Schema
from netemu.client.base import Obj
from netemu.model import resources as r
from netemu.model.errors import BadRequest


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema.load()


@pytest.mark.parametrize("resource", r.RESOURCES, ids=str)
def test_every_served_resource_has_a_definition(schema: Schema, resource: r.Resource) -> None:
    definition = schema.definition(resource)

    assert {"group": resource.group, "kind": resource.kind, "version": resource.version} in definition[
        "x-kubernetes-group-version-kind"
    ]


def test_a_kind_that_is_not_built_in_has_no_definition(schema: Schema) -> None:
    gadget = r.Resource("example.com", "v1", "Gadget", "gadgets")

    assert schema.definition(gadget) == {}
    assert schema.unknown_fields(gadget, {"spec": {"anything": 1}}) == []


def test_references_are_followed_to_the_last_definition(schema: Schema) -> None:
    names = schema.reachable(["io.k8s.api.apps.v1.Deployment"])

    assert "io.k8s.api.core.v1.HTTPGetAction" in names
    assert "io.k8s.api.core.v1.Service" not in names


@pytest.mark.parametrize(
    ("resource", "obj", "fields"),
    [
        pytest.param(r.SERVICES, {"spec": {"selectorr": {}}}, ["spec.selectorr"], id="misspelt"),
        pytest.param(r.SERVICES, {"status": {}, "x": 1, "y": 2}, ["x", "y"], id="at the root, in document order"),
        pytest.param(
            r.PODS, {"spec": {"containers": [{}, {"foo": 1}]}}, ["spec.containers[1].foo"], id="inside a list"
        ),
        pytest.param(
            r.DEPLOYMENTS,
            {"spec": {"template": {"spec": {"volumes": [{"configMap": {"nam": ""}}]}}}},
            ["spec.template.spec.volumes[0].configMap.nam"],
            id="deep",
        ),
        pytest.param(r.CONFIGMAPS, {"data": {"anything.at.all": "x"}}, [], id="keys of a map are no fields"),
        pytest.param(r.PODS, {"metadata": {"labels": {"a/b": "c"}}}, [], id="labels are no fields"),
        pytest.param(
            r.PODS,
            {"metadata": {"managedFields": [{"fieldsV1": {"f:x": {}}}]}},
            [],
            id="free-form JSON is not looked into",
        ),
        pytest.param(r.SERVICES, {"spec": {"Selector": {}}}, ["spec.Selector"], id="capitals matter"),
    ],
)
def test_unknown_fields_are_named_with_their_path(
    schema: Schema, resource: r.Resource, obj: Obj, fields: list[str]
) -> None:
    assert schema.unknown_fields(resource, obj) == [f'unknown field "{field}"' for field in fields]


def _container(**fields: Any) -> Obj:
    return {"spec": {"containers": [fields]}}


@pytest.mark.parametrize(
    ("resource", "obj", "text"),
    [
        pytest.param(
            r.DEPLOYMENTS,
            {"spec": {"replicas": "3"}},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            id="text for a number",
        ),
        pytest.param(
            r.SERVICES,
            {"spec": {"ports": [{"port": 80.5}]}},
            "json: cannot unmarshal number 80.5 into Go struct field ServicePort.spec.ports.port of type int32",
            id="fraction for an integer",
        ),
        pytest.param(
            r.SERVICES,
            {"spec": {"ports": [{"port": 3000000000}]}},
            "json: cannot unmarshal number 3000000000 into Go struct field ServicePort.spec.ports.port of type int32",
            id="number too large",
        ),
        pytest.param(
            r.SERVICES,
            {"spec": {"ports": {}}},
            "json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort",
            id="map for a list",
        ),
        pytest.param(
            r.PODS,
            {"metadata": {"labels": {"a": 1}}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels.a of type string",
            id="number for a label",
        ),
        pytest.param(
            r.LEASES,
            {"spec": {"leaseDurationSeconds": {}}},
            "json: cannot unmarshal object into Go struct field LeaseSpec.spec.leaseDurationSeconds of type int32",
            id="map for a number",
        ),
        pytest.param(
            r.LEASES,
            {"spec": {"renewTime": "2026-13-01T00:00:00Z"}},
            'parsing time "2026-13-01T00:00:00Z" as "2006-01-02T15:04:05Z07:00": '
            'cannot parse "2026-13-01T00:00:00Z" as "2006"',
            id="a month that does not exist",
        ),
        pytest.param(
            r.PODS,
            {"spec": []},
            "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
            id="list for a struct",
        ),
        pytest.param(
            r.PODS,
            {"spec": {"hostNetwork": "yes"}},
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
            id="text for a boolean",
        ),
        pytest.param(
            r.PODS,
            _container(resources={"limits": {"cpu": "lots"}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            id="no quantity",
        ),
        pytest.param(r.SECRETS, {"data": {"a": "not base64!"}}, "illegal base64 data at input byte 3", id="no base64"),
        pytest.param(
            r.LEASES,
            {"spec": {"renewTime": "yesterday"}},
            'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"',
            id="no time",
        ),
        pytest.param(
            r.SERVICES,
            {"spec": {"ports": [{"targetPort": True}]}},
            "json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.targetPort "
            "of type intstr.IntOrString",
            id="boolean for a port",
        ),
    ],
)
def test_a_wrong_type_is_refused_as_gos_decoder_does(schema: Schema, resource: r.Resource, obj: Obj, text: str) -> None:
    assert schema.type_errors(resource, obj) == [text]


@pytest.mark.parametrize(
    ("resource", "obj"),
    [
        pytest.param(r.DEPLOYMENTS, {"spec": {"replicas": None, "template": None}}, id="null is absent"),
        pytest.param(
            r.SERVICES, {"spec": {"ports": [{"targetPort": 80}, {"targetPort": "http"}]}}, id="number or name"
        ),
        pytest.param(r.PODS, _container(resources={"limits": {"cpu": 2, "memory": "1.5Gi"}}), id="quantities"),
        pytest.param(r.PODS, _container(resources={"limits": {"cpu": "1e3", "memory": "-.5k"}}), id="odd quantities"),
        pytest.param(r.LEASES, {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}, id="microseconds"),
        pytest.param(r.SECRETS, {"data": {"a": "aGVsbG8="}}, id="base64"),
        pytest.param(r.PODS, {"spec": {"unknown": [1, {}]}}, id="unknown fields have no type"),
    ],
)
def test_right_types_pass(schema: Schema, resource: r.Resource, obj: Obj) -> None:
    assert schema.type_errors(resource, obj) == []


values = st.none() | st.booleans() | st.integers() | st.floats(-2, 2) | st.sampled_from(["a", "1Gi", "YQ=="])
ports = st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "port", "targetPort", "nodePort", "x"), values))
service_specs = st.fixed_dictionaries(
    {},
    optional={
        "ports": values | st.lists(values | ports, max_size=2),
        "selector": values | st.dictionaries(st.sampled_from("ab"), values, max_size=2),
        "clusterIPs": values | st.lists(values, max_size=2),
        "allocateLoadBalancerNodePorts": values,
    },
)


@given(service_specs)
@settings(max_examples=200, deadline=None)
def test_what_cannot_be_decoded_has_a_text_that_says_why(schema: Schema, spec: Obj) -> None:
    texts = schema.type_errors(r.SERVICES, {"spec": spec})
    try:
        schema.decoded(r.SERVICES, {"spec": copy.deepcopy(spec)})
        refused = ""
    except BadRequest as error:
        refused = error.message

    assert bool(texts) == bool(refused)
    assert not texts or refused.endswith(texts[0])


@pytest.mark.parametrize(
    ("resource", "given", "kept"),
    [
        pytest.param(
            r.SERVICES, {"spec": {"selector": None, "ports": [None]}}, {"spec": {"ports": [{"port": 0}]}},
            id="null is an absent field, and an empty element of a list",
        ),
        pytest.param(
            r.CONFIGMAPS, {"metadata": {"labels": {"a": None}, "finalizers": [None]}},
            {"metadata": {"labels": {"a": ""}, "finalizers": [""]}}, id="null is the empty text",
        ),
        pytest.param(
            r.PODS,
            {"metadata": {"labels": {}, "finalizers": []},
             "spec": {"containers": [], "nodeSelector": {}, "volumes": [{"name": "v", "emptyDir": {}}],
                      "tolerations": [], "securityContext": {"sysctls": []}}},
            {"metadata": {},
             "spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {}}},
            id="empty lists and maps go unless they must be there; an empty struct stays",
        ),
        pytest.param(
            r.ENDPOINTSLICES,
            {"addressType": "IPv4", "endpoints": [{"addresses": [], "deprecatedTopology": {}}], "ports": []},
            {"addressType": "IPv4", "endpoints": [{"addresses": []}], "ports": []},
            id="no ports is not the same as none named",
        ),
        pytest.param(
            r.PODS, {"status": {"conditions": [{}], "x": 1}, "y": {}},
            {"status": {"conditions": [{"type": "", "status": ""}]}},
            id="unknown fields go, texts without omitempty are there",
        ),
        pytest.param(
            r.NODES, {"status": {"capacity": {"cpu": 2, "x": "1e999999999999", "y": "1e-99", "z": None}}},
            {"status": {"capacity": {"cpu": "2", "x": "9223372036854775807", "y": "1n", "z": "0"}}}, id="quantities",
        ),
        pytest.param(
            r.LEASES,
            {"spec": {"renewTime": "2026-01-02T03:04:05+01:00", "acquireTime": "0001-01-01T00:00:00Z"}},
            {"spec": {"renewTime": "2026-01-02T02:04:05.000000Z"}}, id="micro times",
        ),
        pytest.param(
            r.PODS, {"metadata": {"creationTimestamp": "2026-01-02T03:04:05.5Z"}},
            {"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}}, id="times",
        ),
    ],
)  # fmt: skip
def test_values_are_kept_as_go_encodes_what_it_has_decoded(
    schema: Schema, resource: r.Resource, given: Obj, kept: Obj
) -> None:
    assert schema.decoded(resource, given) == kept
    assert schema.decoded(resource, copy.deepcopy(kept)) == kept


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (("spec", "containers"), ("merge", "name")),
        (("spec", "containers", "ports"), ("merge", "containerPort")),
        (("spec", "containers", "volumeMounts"), ("merge", "mountPath")),
        (("spec", "volumes"), ("merge,retainKeys", "name")),
        (("spec", "tolerations"), ("", "")),
        (("spec", "containers", "args"), ("", "")),
        (("metadata", "finalizers"), ("merge", "")),
        (("status", "conditions"), ("merge", "type")),
        (("spec", "nothing", "here"), ("", "")),
    ],
)
def test_merge_rules_of_lists(schema: Schema, path: tuple[str, ...], rule: tuple[str, str]) -> None:
    shape = schema.root(r.PODS)
    for name in path:
        shape = schema.field(shape.items if shape and shape.items else shape, name)

    assert ((shape.patch_strategy, shape.patch_merge_key) if shape else ("", "")) == rule
