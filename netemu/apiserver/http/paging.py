"""Lists in pages: `limit` and `continue`.

A page and all that follow show one moment. A token says which, and after which key to go on, as upstream's does
(`apiserver/pkg/storage/continue.go`): every API server of the cluster understands it, and it leads to nothing but what
its request asks for. The rest of a list is kept here for a few minutes, as references to shared objects; where it is
not, because another server made the first page, the list is made once more from the history (`Cacher.as_of`). Where
that is too short the answer is 410, with a token that goes on with what there is now.
"""

from __future__ import annotations

import base64
import binascii
import time
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, replace

import msgspec

from netemu.apiserver.selection import Selection
from netemu.client.base import Obj, ObjectList
from netemu.model.errors import BadRequest, Expired
from netemu.model.resources import Resource

_KEPT = 64
_SECONDS = 300.0
_VERSION = "meta.k8s.io/v1"
_NOW = -1
"""In the place of a revision: whatever there is, consistent or not."""

Key = tuple[str, str]
"""Namespace and name; lists are in their order."""


@dataclass(frozen=True, slots=True)
class ListResult(ObjectList):
    """A page. `continue_` is the token for the next one; `remaining` counts what is left, where upstream tells it."""

    continue_: str = ""
    remaining: int | None = None

    def with_items(self, items: list[Obj]) -> ListResult:
        """The same page of other shapes of its objects."""
        return replace(self, items=items)


class _Token(msgspec.Struct):
    """As it is written; `start` is the last key of the page before and a NUL."""

    v: str
    rv: int
    start: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list goes on: at a revision, None for whatever there is now, after a key."""

    revision: int | None
    after: Key

    @staticmethod
    def parse(token: str) -> Place:
        """Raises BadRequest."""
        try:
            read = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=_Token)
        except (ValueError, binascii.Error, msgspec.DecodeError) as error:
            raise BadRequest(f"continue key is not valid: {error}") from error
        if read.v != _VERSION or (read.rv <= 0 and read.rv != _NOW) or not read.start:
            raise BadRequest(f"continue key is not valid: not a place of a list of {_VERSION}")
        namespace, _, name = read.start.removesuffix("\0").rpartition("/")
        return Place(None if read.rv == _NOW else read.rv, (namespace, name))

    def token(self) -> str:
        """What `parse` reads."""
        read = _Token(
            _VERSION, _NOW if self.revision is None else self.revision, "/".join(filter(None, self.after)) + "\0"
        )
        return base64.urlsafe_b64encode(msgspec.json.encode(read)).decode().rstrip("=")

    def expired(self) -> Expired:
        """Why this list cannot go on, and how it can all the same."""
        return Expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list "
            "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
            "the results. With that token the list is not of one moment: what was created, changed or deleted since "
            "its first page may show.",
            continue_=replace(self, revision=None).token(),
        )


def page(items: list[Obj], revision: str, limit: int, selection: Selection, after: Key = ("", "")) -> ListResult:
    """`limit` of a list's items (0: all), from those after a key."""
    begin = bisect_right(items, after, key=key_of) if any(after) else 0
    end = begin + limit if limit > 0 else len(items)
    if end >= len(items):
        return ListResult(items[begin:] if begin else items, revision)
    # As upstream, what remains is only told where nothing was filtered out.
    remaining = None if selection.narrowed else len(items) - end
    return ListResult(items[begin:end], revision, Place(int(revision), key_of(items[end - 1])).token(), remaining)


def key_of(obj: Obj) -> Key:
    """What lists are ordered by."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Pages:
    """The lists that somebody is in the middle of, by what they are of and when."""

    def __init__(self) -> None:
        self._lists: OrderedDict[tuple[Resource, Selection, int], tuple[float, list[Obj]]] = OrderedDict()

    def keep(self, resource: Resource, selection: Selection, revision: int, items: list[Obj]) -> None:
        """Remember a whole list."""
        self._lists[resource, selection, revision] = time.monotonic() + _SECONDS, items
        while len(self._lists) > _KEPT:
            self._lists.popitem(last=False)

    def kept(self, resource: Resource, selection: Selection, revision: int) -> list[Obj] | None:
        """The whole list, if it is still here."""
        until, items = self._lists.get((resource, selection, revision), (0.0, None))
        return items if until > time.monotonic() else None
