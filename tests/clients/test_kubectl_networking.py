"""Ingresses, IngressClasses and NetworkPolicies as kubectl makes and shows them."""

from __future__ import annotations

import json
from typing import Any

from netemu.model.resources import INGRESSES
from tests.clients.apiserver import Kubectl, find_kubectl

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432, protocol: TCP}]}]
"""
CLASS = """
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: outer, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}
spec: {controller: acme.io/ingress}
"""
BUDGET = """
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db}
spec: {minAvailable: 1, selector: {matchLabels: {app: db}}}
"""
INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
"""


async def test_a_generated_ingress_keeps_its_rules(kubectl: Kubectl) -> None:
    rules = ("--rule=a.example/shop*=web:80,tls=cert", "--rule=b.example/=api:http")
    await kubectl("create", "ingress", "i", "--class=outer", "--default-backend=rest:8080", *rules)

    spec = (await kubectl.client.get(INGRESSES, "i", "default"))["spec"]

    assert spec["ingressClassName"] == "outer"
    assert spec["defaultBackend"] == {"service": {"name": "rest", "port": {"number": 8080}}}
    assert [rule["host"] for rule in spec["rules"]] == ["a.example", "b.example"]
    assert spec["rules"][0]["http"]["paths"] == [
        {"path": "/shop", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}
    ]
    assert spec["tls"] == [{"hosts": ["a.example"], "secretName": "cert"}]


async def test_get_and_describe_show_what_there_is(kubectl: Kubectl) -> None:
    applied = (await kubectl("apply", "-f", "-", stdin=f"{CLASS}---{POLICY}")).out
    again = (await kubectl("apply", "-f", "-", stdin=f"{CLASS}---{POLICY}")).out
    await kubectl("create", "ingress", "i", "--rule=a.example/=web:80")
    address = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}})
    await kubectl("patch", "ingress", "i", "--subresource=status", "--type=merge", "-p", address)

    assert "created" in applied
    assert "configured" not in again
    assert (await kubectl("get", "ing")).rows[1][:-1] == ["i", "outer", "a.example", "203.0.113.9", "80"]
    assert (await kubectl("get", "ingressclass")).rows[1][:-1] == ["outer", "acme.io/ingress", "<none>"]
    assert (await kubectl("get", "netpol")).rows[1][:-1] == ["only-web", "app=db"]
    assert "a.example" in (await kubectl("describe", "ingress", "i")).out
    assert "Controller:   acme.io/ingress" in (await kubectl("describe", "ingressclass", "outer")).out
    assert "To Port: 5432/TCP" in (await kubectl("describe", "netpol", "only-web")).out
    assert "podSelector" in (await kubectl("explain", "networkpolicy.spec")).out


async def test_the_old_way_to_name_a_class_is_taken_with_a_warning(kubectl: Kubectl) -> None:
    old = INGRESS.replace("{name: web}", "{name: web, annotations: {kubernetes.io/ingress.class: nginx}}")
    warning = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"

    for way in ((), ("--server-side",)):
        assert warning in (await kubectl("apply", *way, "-f", "-", stdin=old)).err
        await kubectl("delete", "ingress", "web")
    assert warning not in (await kubectl("apply", "-f", "-", stdin=INGRESS)).err


async def test_ingresses_are_pruned_with_what_they_were_applied_with(kubectl: Kubectl) -> None:
    generated = await kubectl("create", "ingress", "i", "--rule=a.example/=web:80", "--dry-run=client", "-o", "json")
    ingress = json.loads(generated.out)
    ingress["metadata"]["labels"] = {"app": "shop"}
    keep = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "keep", "labels": {"app": "shop"}}}
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [keep, ingress]})
    await kubectl("apply", "-f", "-", stdin=both)
    kinds = ("--prune-allowlist=core/v1/ConfigMap", "--prune-allowlist=networking.k8s.io/v1/Ingress")

    pruned = await kubectl("apply", "--prune", "-l", "app=shop", *kinds, "-f", "-", stdin=json.dumps(keep))

    assert pruned.out == "configmap/keep unchanged\ningress.networking.k8s.io/i pruned\n"


async def test_cluster_ips_and_their_networks_are_listed(kubectl: Kubectl) -> None:
    await kubectl("create", "service", "clusterip", "web", "--tcp=80", "--clusterip=10.96.0.9")

    addresses = [row[:-1] for row in (await kubectl("get", "ip")).rows]
    cidrs = [row[:-1] for row in (await kubectl("get", "servicecidrs")).rows]

    assert addresses[1:] == [["10.96.0.1", "services/default/kubernetes"], ["10.96.0.9", "services/default/web"]]
    assert cidrs[1:] == [["kubernetes", "10.96.0.0/16"]]
    assert "parentRef" in (await kubectl("explain", "ipaddress.spec")).out
    # kubectl knows both as v1 from 1.33 on; an older one describes only their betas.
    described = await kubectl.as_program(find_kubectl(33))("describe", "ipaddress/10.96.0.9", "servicecidr/kubernetes")
    assert "Name:       web" in described.out
    assert "10.96.0.0/16" in described.out


async def test_server_side_apply_owns_what_it_says_and_no_more(kubectl: Kubectl) -> None:
    every = "---".join((CLASS, POLICY, BUDGET, INGRESS))
    await kubectl("apply", "--server-side", "-f", "-", stdin=every)
    before = [obj["metadata"]["resourceVersion"] for obj in await listed(kubectl)]
    await kubectl("apply", "--server-side", "-f", "-", stdin=every)
    stricter = BUDGET.replace("minAvailable: 1", "minAvailable: 2")
    other = await kubectl.run("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=stricter)
    await kubectl("patch", "netpol", "only-web", "--type=merge", "-p", '{"spec": {"podSelector": null}}')

    after = await listed(kubectl)
    fields = {obj["kind"]: obj["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"] for obj in after}
    assert [obj["metadata"]["resourceVersion"] for obj in after][:2] == before[:2]
    assert 'conflict with "kubectl": .spec.minAvailable' in other.err
    assert fields["Ingress"] == {"f:defaultBackend": {"f:service": {"f:name": {}, "f:port": {}}}}
    assert fields["PodDisruptionBudget"] == {"f:minAvailable": {}, "f:selector": {}}
    assert next(obj for obj in after if obj["kind"] == "NetworkPolicy")["spec"]["podSelector"] == {}


async def listed(kubectl: Kubectl) -> list[Any]:
    what = "ingressclass/outer,pdb/db,ingress/web,netpol/only-web".replace(",", " ").split()
    items: list[Any] = json.loads((await kubectl("get", *what, "--show-managed-fields", "-o", "json")).out)["items"]
    return items
