"""Keys in the store are upstream's, and tell whose they are."""

from __future__ import annotations

import pytest

from netemu.apiserver.keys import key_of, parts_of
from netemu.apiserver.kubernetes_service import MASTER_LEASES
from netemu.model.resources import (
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCES,
    SERVICES,
    Resource,
)

_WIDGETS = Resource("example.com", "v1", "Widget", "widgets")
_CLUSTER_WIDGETS = Resource("example.com", "v1", "Cluster", "clusters", False)


@pytest.mark.parametrize(
    ("resource", "namespace", "key"),
    [
        (PODS, "shop", "/registry/pods/shop/x"),
        (NAMESPACES, "", "/registry/namespaces/x"),
        (NODES, "", "/registry/minions/x"),
        (SERVICES, "shop", "/registry/services/specs/shop/x"),
        (ENDPOINTS, "shop", "/registry/services/endpoints/shop/x"),
        (EVENTS, "shop", "/registry/events/shop/x"),
        (DEPLOYMENTS, "shop", "/registry/deployments/shop/x"),
        (LEASES, "kube-system", "/registry/leases/kube-system/x"),
        (ENDPOINTSLICES, "shop", "/registry/endpointslices/shop/x"),
        (MASTER_LEASES, "", "/registry/masterleases/x"),
        (_WIDGETS, "shop", "/registry/example.com/widgets/shop/x"),
        (_CLUSTER_WIDGETS, "", "/registry/example.com/clusters/x"),
    ],
)
def test_an_object_is_stored_where_upstream_has_it(resource: Resource, namespace: str, key: str) -> None:
    assert key_of(resource, namespace, "x") == key
    assert parts_of(key) == ((resource.group, resource.plural), namespace, "x")


def test_no_two_resources_share_a_key() -> None:
    """Events of both groups are one stored resource, which only has keys under the older group."""
    kept = [resource for resource in RESOURCES if resource.group != "events.k8s.io"]
    keys = {key_of(resource, "shop" if resource.namespaced else "", "x") for resource in kept}

    assert len(keys) == len(kept)
    assert {parts_of(key)[0] for key in keys} == {(resource.group, resource.plural) for resource in kept}
