"""The rules of the API as the registry sees them, so that tests can hand it others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

from netemu.apiserver.schema.kinds import Schema
from netemu.client.base import Obj
from netemu.model.errors import FieldError
from netemu.model.resources import Resource


class Allocator(Protocol):
    """Service addresses and node ports."""

    def load(self, services: Iterable[Obj]) -> None:
        """Take what these Services have."""
        ...

    def use(self, cidrs: Iterable[Obj]) -> None:
        """Give addresses of these ServiceCIDRs from now on."""
        ...

    def allocate(
        self, obj: Obj, old: Obj | None, elsewhere: Set[tuple[str, str]] = frozenset()
    ) -> Sequence[FieldError]:
        """Fill in what a Service lacks, keeping what `old` has, and without the values that are taken `elsewhere`;
        nothing is taken when errors come back."""
        ...

    def release(self, obj: Obj) -> None:
        """Give back what a Service has."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """Pure functions over plain JSON."""

    apply_defaults: Callable[[Resource, Obj], None]
    """Fill in defaults, in place."""
    validate: Callable[[Resource, Obj, Obj | None], Sequence[FieldError]]
    """What is wrong with an object, seen together with what it replaces."""
    apply_patch: Callable[[Schema, Resource, Obj, Any, str], Obj]
    """The patched copy."""

    @staticmethod
    def upstream() -> Rules:
        """Those of Kubernetes."""
        from netemu.apiserver.defaults import apply_defaults
        from netemu.apiserver.merge.patch import apply_patch
        from netemu.apiserver.validation.objects import validate

        return Rules(apply_defaults, validate, apply_patch)
