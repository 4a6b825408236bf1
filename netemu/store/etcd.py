"""The cluster store on etcd v3: for several API servers, and for members that may die.

Everything that `Store` promises is etcd's own: its revision is the store's, a write is a transaction that compares the
key's `mod_revision`, a watch begins at a revision, compaction forgets what was before. What is added here is what to do
when a member dies (`etcd_gateway`, `etcd_watch`) and how to learn about a write whose answer died with it:

The write is sent again, to another member. Its precondition makes that harmless: when the first attempt took place,
the second is refused. Then the history of the key tells whose write came first after the revision before it. Where two
writers ask for the very same, the same value or a deletion, both are told that it was done, which it was.

As upstream's API server does, this compacts: etcd by itself would keep every revision.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Self

from netemu.model.errors import ServiceUnavailable, UserError
from netemu.store.base import (
    Change,
    Compacted,
    KeyExists,
    KeyValue,
    OutcomeUnknown,
    RevisionMismatch,
    Snapshot,
    prefix_end,
)
from netemu.store.etcd_gateway import (
    PATIENCE,
    Done,
    Gateway,
    GatewayError,
    LeaseAnswer,
    MaybeDone,
    Pair,
    RangeAnswer,
    TxnAnswer,
)
from netemu.store.etcd_watch import EVERYTHING, Feed

log = logging.getLogger(__name__)

_PAGE = 1000
"""Keys per range request: bounds what a member holds in memory for one."""
_COMPACT_EVERY = 1000
_PAUSE_SECONDS = 0.1
_NEW = -1
"""As the demanded revision: the key must not exist."""


class EtcdStore:
    """Implements `Store`. Belongs to the event loop it was opened in."""

    def __init__(self, gateway: Gateway, revision: int, retention: int) -> None:
        self._gateway, self._retention = gateway, retention
        self._seen = self._compacted = revision
        self._compacting: asyncio.Task[None] | None = None
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls,
        endpoints: Sequence[str],
        *,
        tls: ssl.SSLContext | None = None,
        namespace: str = "",
        retention: int = 10_000,
    ) -> Self:
        """Connect to a cluster by its members' client URLs, of which some may be down; the first is asked first.

        `tls` checks the members and has the client's certificate; `namespace` is the network namespace from which they
        are reached; `retention` is how many revisions of history are kept. Raises UserError when no member answers.
        """
        gateway = Gateway(endpoints, tls, namespace)
        try:
            newest = await gateway.call("kv/range", _ANYTHING, RangeAnswer)
        except BaseException as error:
            await gateway.close()
            if isinstance(error, ServiceUnavailable | GatewayError):
                raise UserError(f"store {', '.join(endpoints)}: {error}") from error
            raise
        return cls(gateway, newest.header.revision, retention)

    @property
    def shared(self) -> bool:
        """See Store."""
        return True

    async def newest(self) -> int:
        """See Store. A majority of the members is asked."""
        return (await self._range(_ANYTHING)).header.revision

    async def get(self, key: str) -> KeyValue | None:
        """See Store."""
        answer = await self._range({"key": _b64(key)})
        return _key_value(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> Snapshot:
        """See Store."""
        while True:
            try:
                return await self._pages(prefix)
            except GatewayError as error:
                if not error.compacted:
                    raise
                log.info("a list of %s was overtaken by a compaction; again", prefix)

    async def _pages(self, prefix: str) -> Snapshot:
        """All pages as of the revision of the first."""
        wanted = {"key": _b64(prefix), "range_end": _b64(prefix_end(prefix)), "limit": str(_PAGE)}
        answer = await self._range(wanted)
        revision, items = answer.header.revision, [_key_value(pair) for pair in answer.kvs]
        while answer.more:
            following = _b64(items[-1].key + "\0")
            answer = await self._range({**wanted, "key": following, "revision": str(revision)})
            items += [_key_value(pair) for pair in answer.kvs]
        return Snapshot(items, revision)

    async def create(self, key: str, value: bytes) -> int:
        """See Store."""
        return await self._write(key, value, _NEW)

    async def update(self, key: str, value: bytes, revision: int = 0) -> int:
        """See Store."""
        return await self._write_over(key, value, revision)

    async def delete(self, key: str, revision: int = 0) -> int:
        """See Store."""
        return await self._write_over(key, None, revision)

    async def put_for(self, key: str, value: bytes, seconds: int) -> None:
        """Put a key that goes by itself after so many seconds, at least, unless it is put again: it has a lease."""
        self._check()
        lease = await self._gateway.call("lease/grant", {"TTL": str(seconds)}, LeaseAnswer)
        await self._gateway.call("kv/put", {"key": _b64(key), "value": _b64(value), "lease": str(lease.id)}, Done)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Sequence[Change], None]:
        """See Store. Raises Compacted also for an `after` of the future: the cluster was restored to an older state."""
        newest, after = await self.newest(), max(after, _EMPTY)
        if after > newest:
            raise Compacted(newest)
        history: list[Change] | None = []
        if after == newest:
            yield []
            history = None
        feed = Feed(self._gateway, self.newest, self._closing, after)
        async with aclosing(feed.changes()) as batches:
            async for batch in batches:
                fresh = [change for change in batch if change.key.startswith(prefix)]
                if history is None:
                    if fresh:
                        yield fresh
                    continue
                history += fresh
                if feed.seen >= newest:
                    yield history
                    history = None
        if history is not None:
            raise _closed()

    async def compact(self, revision: int) -> None:
        """See Store."""
        self._check()
        revision = min(revision, await self.newest())
        try:
            await self._gateway.call("kv/compaction", {"revision": str(revision)}, Done)
        except GatewayError as error:
            if not error.compacted:  # by another API server
                raise
        self._compacted = max(self._compacted, revision)

    async def close(self) -> None:
        """See Store."""
        if self._closing.done():
            return
        self._closing.set_result(None)
        if self._compacting:
            await asyncio.wait([self._compacting])
        await self._gateway.close()

    def _check(self) -> None:
        if self._closing.done():
            raise _closed()

    async def _range(self, wanted: dict[str, Any]) -> RangeAnswer:
        self._check()
        answer = await self._gateway.call("kv/range", wanted, RangeAnswer)
        self._seen = max(self._seen, answer.header.revision)
        return answer

    async def _write_over(self, key: str, value: bytes | None, revision: int) -> int:
        """Replace or remove a key wherever it is, which to etcd is: where it was found a moment ago."""
        if revision:
            return await self._write(key, value, revision)
        while True:
            found = await self._range({"key": _b64(key)})
            if not found.kvs:
                raise RevisionMismatch(key, 0, found.header.revision)
            try:
                return await self._write(key, value, found.kvs[0].mod_revision)
            except RevisionMismatch:
                continue

    async def _write(self, key: str, value: bytes | None, revision: int) -> int:
        self._check()
        before = self._seen if revision == _NEW else revision
        answer, repeated = await self._transact(_transaction(key, value, max(revision, 0)))
        newest = answer.header.revision
        self._seen = max(self._seen, newest)
        if answer.succeeded:
            self._compact_sometimes(newest)
            return newest
        if repeated and (written := await self._written(key, value, before)):
            return written
        if revision == _NEW:
            raise KeyExists(key)
        found = answer.responses[0].response_range
        raise RevisionMismatch(key, found.kvs[0].mod_revision if found and found.kvs else 0, newest)

    async def _transact(self, transaction: dict[str, Any]) -> tuple[TxnAnswer, bool]:
        """A transaction's answer, and whether it had to be sent more than once."""
        loop = asyncio.get_running_loop()
        deadline, lost = loop.time() + PATIENCE, ""
        while True:
            try:
                return await self._gateway.call("kv/txn", transaction, TxnAnswer, repeatable=False), bool(lost)
            except MaybeDone as error:
                lost = str(error)
                if loop.time() >= deadline:
                    raise OutcomeUnknown(f"no member of etcd tells what became of a write: {lost}") from error
                await asyncio.sleep(_PAUSE_SECONDS)
            except ServiceUnavailable as error:
                if lost:
                    raise OutcomeUnknown(f"no member of etcd tells what became of a write: {lost}") from error
                raise
            except GatewayError as error:
                if error.full:
                    raise ServiceUnavailable(f"the store cannot serve this: {error}") from error
                raise

    async def _written(self, key: str, value: bytes | None, before: int) -> int:
        """The revision at which the key first became `value` after a revision, 0 if it did not."""
        try:
            async with aclosing(self.watch(key, before)) as batches:
                history = await anext(batches)
        except Compacted as error:
            raise OutcomeUnknown(f"what became of a write to {key} is compacted away") from error
        return next((change.revision for change in history if change.key == key and change.value == value), 0)

    def _compact_sometimes(self, revision: int) -> None:
        if revision - self._compacted < self._retention + _COMPACT_EVERY:
            return
        # Taken as done, so that the writes in between do not begin another.
        self._compacted = revision - self._retention
        self._compacting = asyncio.create_task(self._compact_quietly(self._compacted), name="etcd compaction")

    async def _compact_quietly(self, revision: int) -> None:
        try:
            await self.compact(revision)
        except (ServiceUnavailable, GatewayError) as error:
            log.warning("automatic compaction: %s", error)


_EMPTY = 1
"""The revision of a cluster that nobody has written to; there is no change of that revision to wait for."""


def _b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


_ANYTHING = {"key": EVERYTHING, "range_end": EVERYTHING, "limit": "1", "keys_only": True}
"""The cheapest range request: what it finds does not matter, its header tells the newest revision."""


def _key_value(pair: Pair) -> KeyValue:
    return KeyValue(pair.key.decode(), pair.value, pair.mod_revision)


def _transaction(key: str, value: bytes | None, revision: int) -> dict[str, Any]:
    """Put or delete a key that is at a revision (0: not there); else tell where it is."""
    name = _b64(key)
    write = (
        {"request_delete_range": {"key": name}}
        if value is None
        else {"request_put": {"key": name, "value": _b64(value)}}
    )
    return {
        "compare": [{"key": name, "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}],
        "success": [write],
        "failure": [{"request_range": {"key": name}}],
    }


def _closed() -> ServiceUnavailable:
    return ServiceUnavailable("the store is closed")
