"""What is wrong with a CustomResourceDefinition."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.apiserver.defaults import apply_defaults
from netemu.apiserver.validation.objects import validate
from netemu.model.resources import CUSTOMRESOURCEDEFINITIONS
from tests.unit.custom_kit import definition, version

TEXT = {"type": "string"}
SCHEMA = "spec.validation.openAPIV3Schema.properties[spec]"


def told(crd: dict[str, Any]) -> list[str]:
    """The errors of a definition, defaulted."""
    apply_defaults(CUSTOMRESOURCEDEFINITIONS, crd)
    return [str(error) for error in validate(CUSTOMRESOURCEDEFINITIONS, crd)]


def of_spec(schema: dict[str, Any]) -> list[str]:
    """The errors of a schema of spec, without where it is."""
    return [text.replace(SCHEMA, "", 1) for text in told(definition("widgets", "Widget", version(spec=schema)))]


def test_a_sound_definition_has_nothing_wrong() -> None:
    assert told(definition(shortNames=["wd"], categories=["all"])) == []


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"group": "example"}, 'spec.group: Invalid value: "example": should be a domain with at least one dot'),
        ({"scope": "Global"}, 'spec.scope: Unsupported value: "Global": supported values: "Cluster", "Namespaced"'),
        ({"preserveUnknownFields": True}, "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set "
         "x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"),
        ({"conversion": {"strategy": "Webhook"}}, 'spec.conversion.strategy: Invalid value: "Webhook": no webhook is '
         "asked here to convert objects: must be None, which changes nothing but apiVersion"),
        ({"names": {"plural": "widgets", "kind": "Widget", "listKind": "Widget"}},
         'spec.names.listKind: Invalid value: "Widget": kind and listKind may not be the same'),
        ({"names": {"plural": "widgets", "kind": "my kind"}}, "may have mixed case, but should otherwise match"),
    ],
)  # fmt: skip
def test_a_spec_that_is_wrong(change: dict[str, Any], wrong: str) -> None:
    crd = definition()
    crd["spec"] |= change

    assert any(wrong in text for text in told(crd))


def test_the_name_is_plural_and_group() -> None:
    crd = definition()
    crd["metadata"]["name"] = "gadgets.example.com"

    assert told(crd) == [
        'metadata.name: Invalid value: "gadgets.example.com": must be spec.names.plural+"."+spec.group'
    ]


@pytest.mark.parametrize(
    ("versions", "wrong"),
    [
        ([version("v1"), version("v2")], "must have exactly one version marked as storage version"),
        ([version("v1", storage=False)], "must have exactly one version marked as storage version"),
        ([version("v1"), version("v1", storage=False)], "must contain unique version names"),
        ([version("1")], "a DNS-1035 label must consist of lower case alphanumeric characters"),
        ([version(schema={})], "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"),
        ([version(deprecationWarning="gone")], "can only be set for deprecated versions"),
    ],
)
def test_versions_that_are_wrong(versions: list[Any], wrong: str) -> None:
    assert any(wrong in text for text in told(definition("widgets", "Widget", *versions)))


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({}, ".type: Required value: must not be empty for specified object fields"),
        ({"type": "thing"}, '.type: Unsupported value: "thing": supported values: "array", "boolean", "integer", '
         '"number", "object", "string"'),
        ({"type": "array"}, ".items: Required value: must be specified"),
        ({"type": "array", "items": {}}, ".items.type: Required value: must not be empty for specified array items"),
        ({**TEXT, "pattern": "("}, '.pattern: Invalid value: "(": must be a valid regular expression, but isn\'t: '
         "missing ), unterminated subpattern at position 0"),
        ({**TEXT, "anyOf": [{"type": "string"}]}, ".anyOf[0].type: Forbidden: must be empty to be structural"),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": TEXT},
         ".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"),
        ({"type": "array", "items": TEXT, "uniqueItems": True},
         ".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": False},
         ".x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"),
        ({"type": "array", "items": {"type": "object", "properties": {"a": TEXT}}, "x-kubernetes-list-type": "map",
          "x-kubernetes-list-map-keys": ["a"]},
         ".items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must "
         "have a default or be a required property"),
        ({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"},
         ".items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with "
         "x-kubernetes-list-type=set"),
        ({**TEXT, "default": 1}, '.default: Invalid value: "integer":  in body must be of type string: "integer"'),
        ({"type": "object", "default": {"a": 1}}, '.default: Invalid value: {"a":1}: must not have unknown fields'),
        ({**TEXT, "not": {"x-kubernetes-validations": [{"rule": "self != ''"}]}},
         ".not.x-kubernetes-validations: Forbidden: must be empty to be structural"),
    ],
)  # fmt: skip
def test_a_schema_that_is_wrong(schema: dict[str, Any], wrong: str) -> None:
    assert of_spec(schema) == [wrong]


def test_alternatives_may_say_integer_or_string_in_one_place() -> None:
    both = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}

    assert of_spec({"type": "object", "properties": {"port": both}}) == []


def test_alternatives_only_narrow_what_is_declared() -> None:
    path = "spec.validation.openAPIV3Schema"
    schema = {"type": "object", "properties": {"spec": {"type": "object"}}, "anyOf": [{"properties": {"other": {}}}]}

    crd = definition("widgets", "Widget", version(schema={"openAPIV3Schema": schema}, subresources={}))

    where = f"{path}.anyOf[0].properties[other]"
    assert told(crd) == [f"{path}.properties[other]: Required value: because it is defined in {where}"]


def test_what_versions_say_differently_is_told_of_each() -> None:
    crd = definition("widgets", "Widget", version("v1"), version("v2", {"type": "array"}, storage=False))

    path = "spec.versions[1].schema.openAPIV3Schema.properties[spec].items"
    assert told(crd) == [f"{path}: Required value: must be specified"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"additionalPrinterColumns": [{"name": "X", "type": "text", "jsonPath": ".spec"}]},
         'spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of '
         "boolean,date,integer,number,string"),
        ({"additionalPrinterColumns": [{"name": "X", "type": "string", "jsonPath": "spec"}]},
         'spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec": must be a simple json path '
         "starting with ."),
        ({"subresources": {"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": ".status.n"}}},
         'spec.subresources.scale.specReplicasPath: Invalid value: ".status.n": should be a json path under .spec'),
        ({"selectableFields": [{"jsonPath": ".spec.ports"}]}, 'spec.selectableFields[0].jsonPath: Invalid value: '
         '".spec.ports": must point to a field of type string, boolean or integer. Enum string fields and strings with '
         "formats are allowed."),
        ({"selectableFields": [{"jsonPath": ".spec.none"}]}, 'spec.selectableFields[0].jsonPath: Invalid value: '
         '".spec.none": is an invalid path: does not refer to a valid field'),
    ],
)  # fmt: skip
def test_columns_and_subresources_that_are_wrong(fields: dict[str, Any], wrong: str) -> None:
    assert told(definition("widgets", "Widget", version(**fields))) == [wrong]


@pytest.mark.parametrize(
    ("annotation", "wrong"),
    [
        (None, "Required value: protected groups must have approval annotation"),
        ("yes", "with either a URL or a reason starting with"),
        ("https://example.com/pull/1", None),
        ("unapproved, experimental", None),
    ],
)
def test_groups_of_kubernetes_own_need_approval(annotation: str | None, wrong: str | None) -> None:
    crd = definition(group="gate.k8s.io")
    if annotation:
        crd["metadata"]["annotations"] = {"api-approved.kubernetes.io": annotation}

    found = told(crd)

    assert len(found) == bool(wrong)
    assert all((wrong or "") in text for text in found)
