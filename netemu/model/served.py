"""Which resources are served now: the built-in ones, and those that CustomResourceDefinitions bring and take away.

The one object to ask. An API server and whoever looks at everything (garbage collection, the end of namespaces) have
one each and keep it in step with the definitions; `generation` tells that something has changed, for those who work
something out of all resources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from netemu.model.resources import RESOURCES, Resource


class Served:
    """The resources of one API server, by path and by kind."""

    def __init__(self, builtin: Iterable[Resource] = RESOURCES) -> None:
        self._builtin = tuple(builtin)
        self._custom: dict[str, tuple[Resource, ...]] = {}
        self.generation = 0
        """Another one after every change."""
        self._index()

    def _index(self) -> None:
        every = (*self._builtin, *(resource for found in self._custom.values() for resource in found))
        # What is built in stands first in the answers, and is never displaced.
        self._by_path = {(r.group, r.version, r.plural): r for r in reversed(every)}
        self._by_kind = {(r.api_version, r.kind): r for r in reversed(every)}
        self._all = every
        self.generation += 1

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._all)

    @property
    def builtin(self) -> tuple[Resource, ...]:
        """Those that are always there."""
        return self._builtin

    def add_builtin(self, resources: Iterable[Resource]) -> None:
        """Serve more that is always there, such as reviews, which nobody stores."""
        self._builtin = (*self._builtin, *(r for r in resources if r not in self._builtin))
        self._index()

    def define(self, definition: str, resources: Sequence[Resource]) -> None:
        """The resources, one for each version, of the CustomResourceDefinition of that name; none ends them."""
        if resources:
            self._custom[definition] = tuple(resources)
        elif self._custom.pop(definition, None) is None:
            return
        self._index()

    def by_path(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource at `/apis/GROUP/VERSION/PLURAL` (group `""` for `/api/v1`)."""
        return self._by_path.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource that an object's `apiVersion` and `kind` name."""
        return self._by_kind.get((api_version, kind))

    def listable(self) -> list[Resource]:
        """What can be listed and watched, each resource in the first of its versions."""
        found: dict[str, Resource] = {}
        for resource in self._all:
            if "list" in resource.verbs and "watch" in resource.verbs:
                found.setdefault(str(resource), resource)
        return list(found.values())
