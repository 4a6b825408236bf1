"""Lists in pages: `limit` and `continue`.

A page and all that follow show one moment. The rest of a list is kept here, as references to shared objects, until it
is fetched, a few minutes pass, or newer lists push it out; its token then gets 410, and the client lists anew.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from netemu.apiserver.selection import Selection
from netemu.client.base import Obj, ObjectList
from netemu.model.errors import BadRequest, Expired

_KEPT = 64
_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ListResult(ObjectList):
    """A page. `continue_` is the token for the next one; `remaining` counts what is left, where upstream tells it."""

    continue_: str = ""
    remaining: int | None = None

    def with_items(self, items: list[Obj]) -> ListResult:
        """The same page of other shapes of its objects."""
        return replace(self, items=items)


class _Token(msgspec.Struct):
    id: int
    start: int


@dataclass(frozen=True, slots=True)
class _Rest:
    items: list[Obj]
    revision: str
    counted: bool
    until: float


class Pages:
    """The lists that somebody is in the middle of."""

    def __init__(self) -> None:
        self._lists: OrderedDict[int, _Rest] = OrderedDict()
        # Seeded by the clock, so that a token from before a restart is unknown instead of another list's.
        self._id = time.time_ns()

    def first(self, items: list[Obj], revision: str, limit: int, selection: Selection) -> ListResult:
        """The first page of a list."""
        if limit <= 0 or len(items) <= limit:
            return ListResult(items, revision)
        self._id += 1
        # As upstream, what remains is only told where nothing was filtered out.
        rest = _Rest(items, revision, not selection.narrowed, time.monotonic() + _SECONDS)
        self._lists[self._id] = rest
        while len(self._lists) > _KEPT:
            self._lists.popitem(last=False)
        return _page(rest, _Token(self._id, 0), limit)

    def next(self, token: str, limit: int) -> ListResult:
        """The page that a token stands for. Raises BadRequest, Expired."""
        place = _parse(token)
        rest = self._lists.get(place.id)
        if rest is None or rest.until < time.monotonic():
            self._lists.pop(place.id, None)
            raise Expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter."
            )
        return _page(rest, place, limit)


def _page(rest: _Rest, place: _Token, limit: int) -> ListResult:
    end = place.start + limit if limit > 0 else len(rest.items)
    items = rest.items[place.start : end]
    if end >= len(rest.items):
        return ListResult(items, rest.revision)
    token = base64.urlsafe_b64encode(msgspec.json.encode(_Token(place.id, end))).decode().rstrip("=")
    return ListResult(items, rest.revision, token, len(rest.items) - end if rest.counted else None)


def _parse(token: str) -> _Token:
    try:
        raw: Any = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        place = msgspec.json.decode(raw, type=_Token)
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from error
    if place.start < 0:
        raise BadRequest("continue key is not valid: negative start")
    return place
