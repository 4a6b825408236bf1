"""Ingresses, IngressClasses and NetworkPolicies: what is refused, filled in, admitted and printed."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.apiserver.registry import Registry
from netemu.model.errors import Forbidden
from netemu.model.resources import INGRESSCLASSES, INGRESSES, NETWORKPOLICIES
from tests.unit.apiserver_kit import named, registry, store
from tests.unit.test_apiserver_tables import row
from tests.unit.test_apiserver_validation import (
    DNS_1035,
    PORT,
    SUBDOMAIN,
    VALID,
    case,
    changed,
    check,
    problems,
    update,
)

__all__ = ["registry", "store"]

PATH = "spec.rules[0].http.paths[0]"
BACKEND = f"{PATH}.backend"
WILDCARD = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', "
    r"regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
SERVICE = {"name": "web", "port": {"number": 80}}
FIRST_PATH = "spec__rules__0__http__paths__0"


def path(*errors: str, backend: Any = None, **fields: Any) -> Any:
    """A case of an Ingress with one path."""
    if backend is not None:
        fields["backend"] = backend
    return case("Ingress", *errors, **{f"{FIRST_PATH}__{name}": value for name, value in fields.items()})


@pytest.mark.parametrize(("kind", "fields", "errors"), [
    case("Ingress"),
    case("Ingress", "spec: Invalid value: []networking.IngressRule(nil): "
         "either `defaultBackend` or `rules` must be specified", spec={}),
    case("Ingress", spec={"defaultBackend": {"service": SERVICE}}),
    case("Ingress", spec__rules=[{"host": "*.example.com"}]),
    case("Ingress", f'spec.rules[0].host: Invalid value: "*": {WILDCARD}', spec__rules=[{"host": "*"}]),
    case("Ingress", 'spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address',
         spec__rules=[{"host": "10.0.0.1"}]),
    case("Ingress", "spec.rules[0].http.paths: Required value", spec__rules=[{"http": {"paths": []}}]),
    path(f"{PATH}.pathType: Required value: pathType must be specified", pathType=""),
    path(f'{PATH}.pathType: Unsupported value: "Glob": supported values: "Exact", "ImplementationSpecific", "Prefix"',
         pathType="Glob"),
    path(f'{PATH}.path: Invalid value: "a": must be an absolute path', path="a"),
    path(f'{PATH}.path: Invalid value: "": must be an absolute path', path="", pathType="Exact"),
    path(path="", pathType="ImplementationSpecific"),
    path(f'{PATH}.path: Invalid value: "/a//b/..": must not contain \'//\'',
         f'{PATH}.path: Invalid value: "/a//b/..": cannot end with \'/..\'', path="/a//b/.."),
    path(path="/a//b", pathType="ImplementationSpecific"),
    path(f'{BACKEND}: Invalid value: "": resource or service backend is required', backend={}),
    path(f'{BACKEND}: Invalid value: "": cannot set both resource and service backends',
         backend={"service": SERVICE, "resource": {"kind": "Bucket", "name": "b"}}),
    path(backend={"resource": {"apiGroup": "acme.io", "kind": "Bucket", "name": "b"}}),
    path(f"{BACKEND}.resource.name: Required value", backend={"resource": {"kind": "Bucket"}}),
    path(f"{BACKEND}.service.name: Required value", backend={"service": {"port": {"number": 80}}}),
    path(f'{BACKEND}.service.name: Invalid value: "1": {DNS_1035}',
         backend={"service": {"name": "1", "port": {"number": 80}}}),
    path(f"{BACKEND}: Required value: port name or number is required", backend={"service": {"name": "web"}}),
    path(f'{BACKEND}: Invalid value: "": cannot set both port name & port number',
         backend={"service": {"name": "web", "port": {"name": "http", "number": 80}}}),
    path(f"{BACKEND}.service.port.number: Invalid value: 70000: {PORT}",
         backend={"service": {"name": "web", "port": {"number": 70000}}}),
    path(f'{BACKEND}.service.port.name: Invalid value: "8": must contain at least one letter (a-z)',
         backend={"service": {"name": "web", "port": {"name": "8"}}}),
    case("Ingress", f'spec.tls[0].hosts[0]: Invalid value: "A": {SUBDOMAIN}',
         f'spec.tls[0].secretName: Invalid value: "B": {SUBDOMAIN}', spec__tls=[{"hosts": ["A"], "secretName": "B"}]),
    case("Ingress", f'spec.ingressClassName: Invalid value: "A": {SUBDOMAIN}', spec__ingressClassName="A"),
    case("Ingress", 'annotations.kubernetes.io/ingress.class: Invalid value: "a": '
         "must match `ingressClassName` when both are specified", spec__ingressClassName="b",
         metadata__annotations={"kubernetes.io/ingress.class": "a"}),
    case("Ingress", 'status.loadBalancer.ingress[0].ip: Invalid value: "x": '
         "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)", status__loadBalancer__ingress=[{"ip": "x"}]),
    case("Ingress", 'status.loadBalancer.ingress[0].hostname: Invalid value: "1.1.1.1": '
         "must be a DNS name, not an IP address", status__loadBalancer__ingress=[{"hostname": "1.1.1.1"}]),
    case("IngressClass", "spec.controller: Required value", spec={}),
    case("IngressClass", 'spec.controller: Invalid value: "nginx": '
         'must be a domain-prefixed path (such as "acme.io/foo")', spec__controller="nginx"),
    case("IngressClass", "spec.controller: Too long: may not be more than 250 bytes",
         spec__controller="acme.io/" + "x" * 250),
    case("IngressClass", spec__parameters={"kind": "Cloud", "name": "a"}),
    case("IngressClass", "spec.parameters.kind: Required value", spec__parameters={"name": "a"}),
    case("IngressClass", 'spec.parameters.scope: Unsupported value: "x": supported values: "Cluster", "Namespace"',
         spec__parameters={"kind": "Cloud", "name": "a", "scope": "x"}),
    case("IngressClass", "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
         spec__parameters={"kind": "Cloud", "name": "a", "scope": "Namespace"}),
    case("IngressClass", "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
         spec__parameters={"kind": "Cloud", "name": "a", "namespace": "b"}),
    case("NetworkPolicy"),
    case("NetworkPolicy", spec={}),
    case("NetworkPolicy", "spec.ingress[0].from[0]: Required value: must specify a peer",
         spec__ingress=[{"from": [{}]}]),
    case("NetworkPolicy", "spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer",
         spec__egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]),
    case("NetworkPolicy", "spec.egress[0].to[0].ipBlock.cidr: Required value",
         spec__egress=[{"to": [{"ipBlock": {}}]}]),
    case("NetworkPolicy", f'spec.egress[0].to[0].ipBlock.cidr: Invalid value: "10.0.0.0": {CIDR}',
         spec__egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]),
    case("NetworkPolicy", 'spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "10.0.0.0/8": '
         "must be a strict subset of `cidr`",
         'spec.egress[0].to[0].ipBlock.except[1]: Invalid value: "fd00::/64": must be a strict subset of `cidr`',
         spec__egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "fd00::/64"]}}]}]),
    case("NetworkPolicy", f"spec.ingress[0].ports[0].port: Invalid value: 0: {PORT}",
         spec__ingress__0__ports=[{"port": 0}]),
    case("NetworkPolicy", "spec.ingress[0].ports[0].endPort: Invalid value: 80: "
         "must be greater than or equal to `port`", spec__ingress__0__ports=[{"port": 80, "endPort": 79}]),
    case("NetworkPolicy", "spec.ingress[0].ports[0].endPort: Invalid value: 90: "
         "may not be specified when `port` is non-numeric", spec__ingress__0__ports=[{"port": "http", "endPort": 90}]),
    case("NetworkPolicy", "spec.ingress[0].ports[0].endPort: Invalid value: 90: "
         "may not be specified when `port` is not specified", spec__ingress__0__ports=[{"endPort": 90}]),
    case("NetworkPolicy", 'spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": '
         'supported values: "TCP", "UDP", "SCTP"', spec__ingress__0__ports=[{"protocol": "ICMP"}]),
    case("NetworkPolicy", 'spec.policyTypes[0]: Unsupported value: "Both": supported values: "Ingress", "Egress"',
         spec__policyTypes=["Both"]),
])  # fmt: skip
def test_what_is_refused(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    check(kind, fields, errors)


@pytest.mark.parametrize(("kind", "start", "fields", "errors"), [
    update("IngressClass", 'spec.controller: Invalid value: "acme.io/other": field is immutable',
           spec__controller="acme.io/other"),
    update("Ingress", spec__ingressClassName="b", metadata__annotations={"kubernetes.io/ingress.class": "a"}),
    update("NetworkPolicy", spec__podSelector={}),
])  # fmt: skip
def test_updates(kind: str, start: dict[str, Any], fields: dict[str, Any], errors: list[str]) -> None:
    old = changed(VALID[kind], **start)

    assert problems(kind, changed(old, **fields), old) == errors


async def test_a_network_policy_is_for_what_it_speaks_of(registry: Registry) -> None:
    inwards = await registry.create(NETWORKPOLICIES, {"metadata": {"name": "deny"}, "spec": {}}, "shop")
    both = await registry.create(NETWORKPOLICIES, VALID["NetworkPolicy"], "shop")

    assert inwards["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert both["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert both["spec"]["ingress"][0]["ports"] == [{"port": 5432, "protocol": "TCP"}]


async def test_parameters_of_a_class_are_the_clusters(registry: Registry) -> None:
    spec = {"controller": "acme.io/a", "parameters": {"kind": "Cloud", "name": "a"}}

    made = await registry.create(INGRESSCLASSES, {"metadata": {"name": "a"}, "spec": spec})

    assert made["spec"]["parameters"]["scope"] == "Cluster"


async def default_class(registry: Registry, name: str) -> None:
    marked = {"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}
    await registry.create(INGRESSCLASSES, named(VALID["IngressClass"], name, **marked))


async def test_an_ingress_without_a_class_gets_the_default_one(registry: Registry) -> None:
    await registry.create(INGRESSCLASSES, VALID["IngressClass"])
    without = await registry.create(INGRESSES, VALID["Ingress"], "shop")
    await default_class(registry, "inner")
    plain = await registry.create(INGRESSES, named(VALID["Ingress"], "plain"), "shop", manager="me")
    annotated = named(VALID["Ingress"], "old", annotations={"kubernetes.io/ingress.class": "outer"})
    old = await registry.create(INGRESSES, annotated, "shop")
    chosen = changed(named(VALID["Ingress"], "chosen"), spec__ingressClassName="outer")

    assert "ingressClassName" not in without["spec"]
    assert plain["spec"]["ingressClassName"] == "inner"
    assert "f:ingressClassName" not in plain["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
    assert "ingressClassName" not in old["spec"]
    assert (await registry.create(INGRESSES, chosen, "shop"))["spec"]["ingressClassName"] == "outer"


async def test_two_default_classes_are_one_too_many(registry: Registry) -> None:
    await default_class(registry, "one")
    await default_class(registry, "two")

    with pytest.raises(Forbidden, match="2 default IngressClasses were found, only 1 allowed"):
        await registry.create(INGRESSES, VALID["Ingress"], "shop")


async def test_an_ingress_has_a_status_of_its_own_and_a_generation(registry: Registry) -> None:
    early = changed(VALID["Ingress"], status__loadBalancer__ingress=[{"ip": "10.0.0.1"}])
    made = await registry.create(INGRESSES, early, "shop")
    address = {"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}]}}}
    told = await registry.patch(INGRESSES, "web", address, "shop", subresource="status")
    moved = await registry.patch(INGRESSES, "web", {"spec": {"ingressClassName": "a"}}, "shop")

    assert made["status"] == {"loadBalancer": {}}
    assert [obj["metadata"]["generation"] for obj in (made, told, moved)] == [1, 1, 2]
    assert moved["status"] == address["status"]


@pytest.mark.parametrize(("kind", "obj", "cells"), [
    ("Ingress", {"spec": {"rules": [{}]}}, ["<none>", "*", "", "80"]),
    ("Ingress", {"spec": {"rules": [{"host": h} for h in "abc"], "tls": [{}], "ingressClassName": "n"},
                 "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}, {"hostname": "x.io"}]}}},
     ["n", "a,b,c", "10.0.0.2,x.io", "80, 443"]),
    ("Ingress", {"spec": {"rules": [{"host": h} for h in "abcde"]}}, ["<none>", "a,b,c + 2 more...", "", "80"]),
    ("IngressClass", {"spec": {"controller": "acme.io/a"}}, ["acme.io/a", "<none>"]),
    ("IngressClass", {"spec": {"controller": "acme.io/a",
                               "parameters": {"apiGroup": "acme.io", "kind": "Cloud", "name": "a"}}},
     ["acme.io/a", "Cloud.acme.io/a"]),
    ("NetworkPolicy", {"spec": {"podSelector": {"matchLabels": {"app": "db"}}}}, ["app=db"]),
    ("IPAddress", {"spec": {"parentRef": {"resource": "services", "namespace": "shop", "name": "web"}}},
     ["services/shop/web"]),
    ("IPAddress", {"spec": {"parentRef": {"resource": "Gateways", "group": "acme.io", "name": "g"}}},
     ["gateways.acme.io/g"]),
    ("NetworkPolicy", {"spec": {"podSelector": {}}}, ["<none>"]),
])  # fmt: skip
def test_what_is_printed(kind: str, obj: dict[str, Any], cells: list[str]) -> None:
    assert list(row(kind, obj).values())[1:-1] == cells
