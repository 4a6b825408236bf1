"""Looking objects up by something other than their name.

An `Index` follows an informer and keeps, per value that a function computes from an object, the objects that have it:
Pods by their controller's uid, Pods by label, Services by namespace. A lookup costs the size of its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from netemu.client.informer import Informer
from netemu.model.meta import KubeObject

K = TypeVar("K", bound=KubeObject)

_NOTHING: Mapping[str, KubeObject] = {}


class Index(Generic[K]):
    """Objects of one informer by the values that `values_of` gives for each."""

    def __init__(self, informer: Informer[K], values_of: Callable[[K], Iterable[str]]) -> None:
        self._values_of = values_of
        self._members: dict[str, dict[str, K]] = {}
        informer.on_change(self._change)

    def __getitem__(self, value: str) -> list[K]:
        """The objects that have `value`, in the order of their keys."""
        members = self._members.get(value)
        return [obj for _, obj in sorted(members.items())] if members else []

    def count(self, value: str) -> int:
        """How many objects have `value`."""
        return len(self._members.get(value, _NOTHING))

    def _change(self, old: K | None, new: K | None) -> None:
        before = set(self._values_of(old)) if old is not None else set()
        after = set(self._values_of(new)) if new is not None else set()
        if old is not None:
            for value in before - after:
                members = self._members[value]
                members.pop(old.key, None)
                if not members:
                    del self._members[value]
        if new is not None:
            for value in after:
                self._members.setdefault(value, {})[new.key] = new


def controller_uid(obj: KubeObject) -> str:
    """The uid of the owner that controls `obj`, or the empty string."""
    for owner in obj.metadata.owner_references:
        if owner.controller:
            return owner.uid
    return ""
