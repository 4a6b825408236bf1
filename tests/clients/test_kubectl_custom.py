"""kubectl on custom resources: `gates.yaml` is a definition of the size of those in the wild."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.apiserver import Kubectl, find_kubectl

DEFINITION = Path(__file__).with_name("gates.yaml")
CRD = "customresourcedefinition.apiextensions.k8s.io/gates.edge.example.com"
GATE = """
apiVersion: edge.example.com/v1
kind: Gate
metadata: {name: front, namespace: default}
spec:
  className: nginx
  listeners:
  - {name: web, port: 80, hostname: a.example.com}
  - {name: tls, port: 443, protocol: HTTPS}
  routes:
  - {path: /, backend: {name: shop, port: http}}
  parameters: {anything: {goes: 1}}
"""


@pytest.fixture
async def gates(kubectl: Kubectl, tmp_path: Path) -> Kubectl:
    """kubectl where gates are defined."""
    (tmp_path / "gate.yaml").write_text(GATE)
    await kubectl("apply", "-f", str(DEFINITION))
    await kubectl("wait", "--for=condition=Established", "--timeout=10s", CRD)
    return kubectl


@pytest.mark.parametrize("minor", [27, 32, 33])
async def test_a_kind_is_defined_used_and_gone_again(gates: Kubectl, tmp_path: Path, minor: int) -> None:
    kubectl, file = gates.as_program(find_kubectl(minor)), str(tmp_path / "gate.yaml")

    assert (await kubectl("get", "crd")).rows[1][0] == "gates.edge.example.com"
    assert (await kubectl("api-resources", "--api-group=edge.example.com")).rows[1:] == [
        ["gates", "gt", "edge.example.com/v1", "true", "Gate"]
    ]
    assert (await kubectl("apply", "-f", file)).out == "gate.edge.example.com/front created\n"
    assert [row[:3] for row in (await kubectl("get", "gt")).rows] == [
        ["NAME", "CLASS", "PORT"],
        ["front", "nginx", "80"],
    ]
    assert "gate.edge.example.com/front" in (await kubectl("get", "all", "-o", "name")).out
    for form in ("plaintext", "plaintext-openapiv2"):
        told = (await kubectl("explain", "gate.spec.listeners", f"--output={form}")).out
        assert "Where the gate listens, by name." in " ".join(told.split())
        assert "protocol\t<string>" in told
    assert "Class Name:  nginx" in (await kubectl("describe", "gate", "front")).out
    assert (await kubectl("scale", "gate/front", "--replicas=3")).out == "gate.edge.example.com/front scaled\n"
    ready = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'
    await kubectl("patch", "gate", "front", "--subresource=status", "--type=merge", "-p", ready)
    await kubectl("wait", "--for=condition=Ready", "gate/front", "--timeout=5s")
    shown = await kubectl("get", "gate", "front", "-o", "jsonpath={.spec.replicas} {.metadata.generation}")
    assert shown.out == "3 2"
    assert "Gate goes away, use v1" in (await kubectl("get", "gates.v1beta1.edge.example.com")).err
    await kubectl("delete", "crd", "gates.edge.example.com", "--timeout=10s")
    gone = await kubectl.run("get", "gates")
    assert gone.code == 1
    assert "gates" in gone.err


async def test_apply_edit_and_patch_change_an_instance(gates: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    await gates("apply", "-f", str(file))
    version = await gates("get", "gate", "front", "-o", "jsonpath={.metadata.resourceVersion}")

    await gates("apply", "-f", str(file))
    again = await gates("get", "gate", "front", "-o", "jsonpath={.metadata.resourceVersion}")
    file.write_text(GATE.replace("nginx", "envoy"))
    diff = await gates.run("diff", "-f", str(file))
    changed = await gates("apply", "-f", str(file))
    edited = await gates("edit", "gate", "front", env={"EDITOR": "sed -i s/a.example.com/b.example.com/"})
    strategic = await gates.run("patch", "gate", "front", "-p", '{"spec":{"className":"x"}}')
    json = '[{"op":"add","path":"/spec/listeners/-","value":{"name":"more","port":81}}]'
    patched = await gates("patch", "gate", "front", "--type=json", "-p", json)
    found = await gates(
        "get", "gate", "front", "-o", "jsonpath={.spec.className} {.spec.listeners[*].name} {..hostname}"
    )

    assert version.out == again.out
    assert diff.code == 1
    assert "+  className: envoy" in diff.out
    assert changed.out == "gate.edge.example.com/front configured\n"
    assert edited.out == "gate.edge.example.com/front edited\n"
    assert strategic.code == 1
    assert "application/strategic-merge-patch+json is not supported" in strategic.err
    assert patched.out == "gate.edge.example.com/front patched\n"
    assert found.out == "envoy web tls more b.example.com"


async def test_what_the_schema_refuses_is_told_field_by_field(gates: Kubectl, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        GATE.replace("port: 80,", "port: 0, colour: red,")
        .replace("className: nginx", "timeout: soon")
        .replace("/,", "x,")
    )

    port = "spec.listeners[0].port"
    strict = await gates.run("apply", "-f", str(bad))
    lax = await gates.run("apply", "-f", str(bad), "--validate=false")
    bad.write_text(GATE.replace("className: nginx", "className: nginx\n  colour: red"))
    warned = await gates("apply", "-f", str(bad), "--validate=warn")

    assert strict.code == 1
    assert 'strict decoding error: unknown field "spec.listeners[0].colour"' in strict.err
    assert lax.err.splitlines() == [
        'The Gate "front" is invalid: ',
        f"* {port}: Invalid value: 0: {port} in body should be greater than or equal to 1",
        "* spec.routes[0].path: Invalid value: \"x\": spec.routes[0].path in body should match '^/'",
        '* spec.timeout: Invalid value: "soon": spec.timeout in body must be of type duration: "soon"',
        "* spec.className: Required value",
        "* <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; "
        "correct the existing errors to complete validation",
    ]
    assert 'Warning: unknown field "spec.colour"' in warned.err
    assert "colour" not in (await gates("get", "gate", "front", "-o", "jsonpath={.spec}")).out


async def test_rules_in_cel_hold(gates: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(GATE.replace("className: nginx", "className: nginx\n  tier: gold").replace("443", "80"))
    twice = await gates.run("apply", "-f", str(file))
    file.write_text(file.read_text().replace("port: 80, protocol", "port: 443, protocol"))
    made = await gates.run("apply", "-f", str(file))
    moved = await gates.run("patch", "gate", "front", "--type=merge", "-p", '{"spec":{"tier":"silver"}}')

    assert (twice.code, made.code, moved.code) == (1, 0, 1)
    assert 'spec.listeners: Invalid value: "array": ports must be unique' in twice.err
    assert 'spec.tier: Invalid value: "string": tier is immutable' in moved.err


async def test_server_side_apply_merges_by_the_schema(gates: Kubectl, tmp_path: Path) -> None:
    one, two = tmp_path / "gate.yaml", tmp_path / "two.yaml"
    two.write_text(GATE.replace("{name: web, port: 80, hostname: a.example.com}", "{name: two, port: 90}"))

    await gates("apply", "--server-side", "-f", str(one), "--field-manager=one")
    await gates("apply", "--server-side", "-f", str(two), "--field-manager=two")
    two.write_text(two.read_text().replace("port: 443", "port: 444"))
    conflict = await gates.run("apply", "--server-side", "-f", str(two), "--field-manager=two")

    names = await gates("get", "gate", "front", "-o", "jsonpath={.spec.listeners[*].name}")
    assert sorted(names.out.split()) == ["tls", "two", "web"]
    assert conflict.code == 1
    assert 'conflict with "one": .spec.listeners[name="tls"].port' in conflict.err


async def test_a_definition_that_is_wrong_is_refused_line_by_line(kubectl: Kubectl, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    rule = "x-kubernetes-validations: [{rule: not_a_function(self)}],"
    bad.write_text(DEFINITION.read_text().replace("maxLength: 63,", rule, 1))
    rules = await kubectl.run("apply", "-f", str(bad))
    bad.write_text(bad.read_text().replace("{type: integer, format: int32, minimum: 0", "{minimum: 0"))

    refused = await kubectl.run("apply", "-f", str(bad))

    path = "spec.versions[1].schema.openAPIV3Schema.properties[spec].properties"
    assert rules.code == 1
    assert f"{path}[className].x-kubernetes-validations[0].rule: Invalid value" in rules.err
    assert "undeclared reference to 'not_a_function'" in rules.err
    assert refused.code == 1
    assert f"{path}[replicas].type: Required value: must not be empty for specified object fields" in refused.err
