"""Admission: what is refused of a write because of who asks for it, after the rules have found nothing wrong.

Each plugin sees the object as it would be stored, with what it replaces, and the user whose request the current task
serves. Callers inside the process are trusted and are asked nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace

from netemu.apiserver.auth.authentication import User
from netemu.apiserver.rules import Rules
from netemu.client.base import Obj
from netemu.model.errors import FieldError
from netemu.model.resources import Resource

REQUESTER: ContextVar[User | None] = ContextVar("requester", default=None)
"""Whose request the current task serves; None inside of the process."""

Plugin = Callable[[User, Resource, Obj, Obj | None], None]
"""Called with requester, resource, the new object and the old one (None: it is created). Raises Forbidden."""


class Admission:
    """The plugins of one API server. `begin` before the first request."""

    def __init__(self) -> None:
        self._plugins: tuple[Plugin, ...] = ()

    def begin(self, *plugins: Plugin) -> None:
        """What to ask; plugins decide by a registry, which comes after the rules that it belongs to."""
        self._plugins = plugins

    def around(self, rules: Rules) -> Rules:
        """Those rules, and then the plugins, whose refusals are Forbidden."""

        def validate(resource: Resource, obj: Obj, old: Obj | None) -> Sequence[FieldError]:
            errors = rules.validate(resource, obj, old)
            if not errors and (user := REQUESTER.get()) is not None:
                for admit in self._plugins:
                    admit(user, resource, obj, old)
            return errors

        return replace(rules, validate=validate)
