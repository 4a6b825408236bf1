"""What the registry needs of a cluster store, and nothing more.

A store maps keys (`/registry/pods/NAMESPACE/NAME`) to bytes. Every write that succeeds gets the next *revision*
of the whole store; a key remembers the revision of its last write. Writes may demand that a key is still at the
revision the writer has seen, which is all the concurrency control there is. The changes after a revision can be watched
until `compact` forgets them. These are etcd v3's notions (`mod_revision`, transactions that compare it, watch with
`prev_kv`, compaction), so that SQLite and etcd can stand in for each other.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from netemu.model.errors import NetemuError, ServiceUnavailable


class StoreError(NetemuError):
    """A write or a watch cannot be done as asked. A store that cannot write at all raises ServiceUnavailable."""


class KeyExists(StoreError):
    """`create` of a key that is there already."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} exists")


class RevisionMismatch(StoreError):
    """The key is not at the demanded revision; `found` is where it is, 0 for nowhere, `revision` the store's own."""

    def __init__(self, key: str, found: int, revision: int) -> None:
        self.found, self.revision = found, revision
        super().__init__(f"{key} is at revision {found}" if found else f"{key} does not exist")


class Compacted(StoreError):
    """The history after the wanted revision is gone; what follows `revision` is still there."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        super().__init__(f"history up to revision {revision} is gone")


class OutcomeUnknown(ServiceUnavailable):
    """A write was sent, and nobody could be found in time who knows whether it took place."""


class KeyValue(NamedTuple):
    """A key, its bytes, and the revision of the write that put them there."""

    key: str
    value: bytes
    revision: int


class Change(NamedTuple):
    """One write: `value` is None for a deletion, `previous` is None for a creation."""

    revision: int
    key: str
    value: bytes | None
    previous: bytes | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys under a prefix, in order, as they were together at `revision`."""

    items: list[KeyValue]
    revision: int


class Store(Protocol):
    """Keys, values, revisions. Every call may raise ServiceUnavailable: nothing was written then.

    A write that returned survives the death of the process. One that was cancelled, or that raised OutcomeUnknown, may
    or may not have happened.
    """

    @property
    def shared(self) -> bool:
        """Whether others write to it too; if not, a watch has told of every write before the write is answered."""
        ...

    async def newest(self) -> int:
        """The revision of the store: no write that anybody was told of before this call is later."""
        ...

    async def get(self, key: str) -> KeyValue | None:
        """The present value of a key."""
        ...

    async def list(self, prefix: str) -> Snapshot:
        """The present values of all keys that start with `prefix`."""
        ...

    async def create(self, key: str, value: bytes) -> int:
        """Put a new key; the revision of the write. Raises KeyExists."""
        ...

    async def update(self, key: str, value: bytes, revision: int = 0) -> int:
        """Replace the value of a key, if it is at `revision` (0: wherever it is). Raises RevisionMismatch."""
        ...

    async def delete(self, key: str, revision: int = 0) -> int:
        """Remove a key, if it is at `revision` (0: wherever it is). Raises RevisionMismatch."""
        ...

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Sequence[Change], None]:
        """All changes under `prefix` after a revision, past and future, in order, in batches. Raises Compacted.

        The first batch is the history up to now, and may be empty; later ones are not. Ends when the store closes.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget the history up to and including `revision`; present values stay."""
        ...

    async def close(self) -> None:
        """Finish what was asked and let go of all resources. Watches end."""
        ...


def prefix_end(prefix: str) -> str:
    """The first string after all those that start with `prefix` (not empty)."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
