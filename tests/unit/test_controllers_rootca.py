"""kube-root-ca.crt in every namespace."""

from __future__ import annotations

from netemu.controllers import rootca
from netemu.controllers.actions import Create, Patch
from netemu.model.meta import decode
from netemu.model.objects import ConfigMap, Namespace
from netemu.model.resources import CONFIGMAPS

SHOP = decode({"metadata": {"name": "shop"}}, Namespace)
LEAVING = decode({"metadata": {"name": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, Namespace)


def config_map(**data: str) -> ConfigMap:
    return decode({"metadata": {"name": rootca.NAME, "namespace": "shop"}, "data": data}, ConfigMap)


def test_a_namespace_without_it_gets_it() -> None:
    (action,) = rootca.reconcile(SHOP, None, "PEM")

    assert isinstance(action, Create)
    assert (action.namespace, action.obj["data"]) == ("shop", {"ca.crt": "PEM"})


def test_what_somebody_changed_is_put_back() -> None:
    assert rootca.reconcile(SHOP, config_map(**{"ca.crt": "other", "more": "x"}), "PEM") == [
        Patch(CONFIGMAPS, rootca.NAME, {"data": {"ca.crt": "PEM", "more": None}}, "shop")
    ]


def test_what_is_right_is_left() -> None:
    assert rootca.reconcile(SHOP, config_map(**{"ca.crt": "PEM"}), "PEM") == []


def test_a_namespace_that_goes_gets_nothing() -> None:
    assert rootca.reconcile(LEAVING, None, "PEM") == []
