"""The ServiceAccount `default` in every namespace (`pkg/controller/serviceaccount`)."""

from __future__ import annotations

from collections.abc import Sequence

from netemu.controllers.actions import Action, Actions, Create
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model.meta import KubeObject
from netemu.model.objects import Namespace
from netemu.model.resources import NAMESPACES, SERVICEACCOUNTS


def reconcile(namespace: Namespace, exists: bool) -> Actions:
    """Create the account where it is missing and the namespace is to stay."""
    if exists or namespace.deleting:
        return []
    obj = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace.name},
    }
    return [Create(SERVICEACCOUNTS, obj, namespace.name)]


class ServiceAccountController:
    """Watches Namespaces and deletions of ServiceAccounts."""

    name = "serviceaccount-controller"
    needs = (NAMESPACES, SERVICEACCOUNTS)

    def __init__(self, cache: Cache) -> None:
        self._namespaces = cache.of(NAMESPACES, Namespace)
        self._accounts = cache.of(SERVICEACCOUNTS, KubeObject)

    def watch(self, queue: Queue) -> None:
        """New namespaces, and those whose account was deleted."""

        def of_account(old: KubeObject | None, new: KubeObject | None) -> None:
            if old is not None and new is None:
                queue.mark(old.namespace)

        self._namespaces.on_change(lambda _, new: queue.mark(new.name) if new else None)
        self._accounts.on_change(of_account)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        namespace = self._namespaces.get(key)
        if namespace is None:
            return ()
        return reconcile(namespace, self._accounts.get(f"{key}/default") is not None)
