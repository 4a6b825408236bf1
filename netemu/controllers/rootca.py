"""The ConfigMap `kube-root-ca.crt` in every namespace: by whom the API server's certificate is signed.

Source: `pkg/controller/certificates/rootcacertpublisher`.
"""

from __future__ import annotations

from collections.abc import Sequence

from netemu.controllers.actions import Action, Actions, Create, Patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model.objects import ConfigMap, Namespace
from netemu.model.resources import CONFIGMAPS, NAMESPACES

NAME = "kube-root-ca.crt"
_WHY = {
    "kubernetes.io/description": "The authority that signed the API server's certificate, for clients in the cluster."
}


def reconcile(namespace: Namespace, found: ConfigMap | None, root_ca: str) -> Actions:
    """Make it, or put back what somebody has changed, where the namespace is to stay."""
    if namespace.deleting:
        return []
    data = {"ca.crt": root_ca}
    if found is None:
        metadata = {"name": NAME, "namespace": namespace.name, "annotations": _WHY}
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        return [Create(CONFIGMAPS, obj, namespace.name)]
    if found.data != data:
        extra = dict.fromkeys(found.data or {})
        return [Patch(CONFIGMAPS, NAME, {"data": {**extra, **data}}, namespace.name)]
    return []


class RootCAPublisher:
    """Watches Namespaces, and ConfigMaps of that name."""

    name = "root-ca-certificate-publisher-controller"
    needs = (NAMESPACES, CONFIGMAPS)

    def __init__(self, cache: Cache, root_ca: str) -> None:
        self._root_ca = root_ca
        self._namespaces = cache.of(NAMESPACES, Namespace)
        self._config_maps = cache.of(CONFIGMAPS, ConfigMap)

    def watch(self, queue: Queue) -> None:
        """New namespaces, and those whose ConfigMap was changed or deleted."""

        def of_config_map(old: ConfigMap | None, new: ConfigMap | None) -> None:
            changed = old or new
            if changed is not None and changed.name == NAME:
                queue.mark(changed.namespace)

        self._namespaces.on_change(lambda _, new: queue.mark(new.name) if new else None)
        self._config_maps.on_change(of_config_map)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        namespace = self._namespaces.get(key)
        if namespace is None:
            return ()
        return reconcile(namespace, self._config_maps.get(f"{key}/{NAME}"), self._root_ca)
