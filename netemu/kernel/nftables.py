"""nf_tables of one namespace, over netlink and without a tool.

Theory of operation: a transaction is one batch: the kernel builds the next generation of the rule set beside the one
in force and switches, or leaves everything as it is and says which message it refused. The cost of a change is the
size of the change: nothing is read first (the `nft` tool reads the whole rule set before each command), except the
types of a set that elements are put into and that this object has not made itself.

What the kernel itself spends, measured on Linux 6.18, and what follows for those who make rules:
- any new rule with a verdict, a lookup or a translation, and any element with a verdict, makes it walk everything that
  base chains reach: some 0.2 ms per hundred chains. Elements without a verdict are free of that;
- a transaction ends with a walk over all chains, 0.07 ms per thousand;
- a list within a rule is a set, and sets are looked for one after the other: 5,000 of them cost a second to load, and a
  named set is found at once only if it was made before them;
- time grows faster than a transaction's size: a long load goes best in pieces of some 5,000 messages (a chain, a rule
  or a list is one each), as long as nothing leads to the chains yet.

Whoever wants to know whether somebody else changed something compares generations: every transaction in the
namespace, ours or not, makes the number one larger.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from netemu.kernel import nft_decode as decode
from netemu.kernel.nfnetlink import Nfnetlink, text
from netemu.kernel.nft_decode_elements import elements
from netemu.kernel.nft_elements import HeldSet
from netemu.kernel.nft_encode import FAMILIES, SUBSYSTEM, Batch
from netemu.model import nft
from netemu.model.errors import KernelError, KernelNotFound

_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENT, _GET_GENERATION = 1, 4, 7, 10, 13, 16
_DUMP_ATTEMPTS = 20
_T = TypeVar("_T")


class Nft(Protocol):
    """One node's nf_tables. Implemented by `NftNetlink` and by `netemu.testing.nftables.FakeNft`."""

    async def run(self, transaction: nft.Transaction, *, generation: int | None = None) -> None:
        """Apply all of it or nothing. Raises KernelError: `code` is the kernel's errno, `operation` the first line
        that was refused. With a generation, ERESTART when somebody else changed anything since."""
        ...

    async def dump(self, table: nft.Table) -> nft.Ruleset | None:
        """What a table holds; None where there is no such table."""
        ...

    async def generation(self) -> int:
        """A number that grows with every transaction in the namespace, whoever ran it."""
        ...

    def close(self) -> None:
        """Give sockets back; it may be used again."""
        ...


class NftNetlink:
    """The kernel's nf_tables in the namespace `netns` ("" for the calling thread's). Implements Nft."""

    def __init__(self, netns: str = "") -> None:
        self.netns = netns
        self._link: Nfnetlink | None = None
        self._lock = threading.Lock()
        self._sets: dict[str, dict[str, HeldSet]] = {}

    def close(self) -> None:
        """Give the socket back."""
        with self._lock:
            if self._link:
                self._link.close()
            self._link = None

    async def run(self, transaction: nft.Transaction, *, generation: int | None = None) -> None:
        """See Nft."""
        await self._in_thread(lambda link: self._run(link, transaction, generation))

    async def dump(self, table: nft.Table) -> nft.Ruleset | None:
        """See Nft."""
        return await self._in_thread(lambda link: self._dump(link, table))

    async def generation(self) -> int:
        """See Nft."""
        return await self._in_thread(_generation)

    async def _in_thread(self, work: Callable[[Nfnetlink], _T]) -> _T:
        return await asyncio.to_thread(self._locked, work)

    def _locked(self, work: Callable[[Nfnetlink], _T]) -> _T:
        with self._lock:
            if self._link is None:
                self._link = Nfnetlink(self.netns)
            return work(self._link)

    def _run(self, link: Nfnetlink, transaction: nft.Transaction, generation: int | None) -> None:
        table = transaction.table
        known = self._sets.setdefault(table.id, {})

        def set_of(name: str) -> HeldSet:
            if name not in known:
                known[name] = _one_set(link, table, name)
            return known[name]

        try:
            batch = Batch(table, set_of)
            batch.add_all(transaction.operations)
            self._send(link, transaction, batch, generation)
        except KernelError:
            known.clear()  # somebody else may have made the sets anew
            raise
        _remember(known, transaction, batch.sets)

    def _send(self, link: Nfnetlink, transaction: nft.Transaction, batch: Batch, generation: int | None) -> None:
        refusals = link.batch(SUBSYSTEM, batch.messages, generation)
        if not refusals:
            return
        first = min(refusals, key=lambda refusal: refusal.sequence)
        if not 0 < first.sequence <= len(batch.messages):
            raise KernelError.of("nf_tables transaction", self.netns, first.code, first.detail)
        operation = transaction.operations[batch.owner(first.sequence, first.offset)]
        what = nft.operation_text(transaction.table, operation)
        raise KernelError.of(what, self.netns, first.code, first.detail)

    def _dump(self, link: Nfnetlink, table: nft.Table) -> nft.Ruleset | None:
        """The parts are asked for one after the other: they belong together if no transaction came between."""
        for _ in range(_DUMP_ATTEMPTS):
            before = _generation(link)
            try:
                found = _Reading(link, table).ruleset()
            except KernelNotFound:
                found = None
            if before == _generation(link):
                return found
        operation = f"list table {table.id}"
        raise KernelError.of(operation, self.netns, errno.EINTR, "the rules change faster than they can be read")


class _Reading:
    """One table, read part by part."""

    def __init__(self, link: Nfnetlink, table: nft.Table) -> None:
        self._link, self._table = link, table
        self._family, self._name = FAMILIES[table.family], text(1, table.name)
        self._operation = f"list table {table.id}"

    def ruleset(self) -> nft.Ruleset:
        """Everything. Raises KernelNotFound where there is no such table."""
        kind = SUBSYSTEM << 8 | _GET_TABLE
        (found,) = self._link.ask(kind, self._family, self._name, operation=self._operation)
        of = self._table.name
        chains = [chain for body in self._all(_GET_CHAIN) if (chain := decode.chain(body, of))]
        sets = [one for body in self._all(_GET_SET) if (one := decode.a_set(body, of))]
        contents = {one.name: elements(one, self._all(_GET_ELEMENT, text(2, one.name))) for one in sets}
        anonymous = {one.name: (one, contents[one.name]) for one in sets if one.anonymous}
        named = [one for one in sets if not one.anonymous and one.held]
        rules = [rule for body in self._all(_GET_RULE) if (rule := decode.rule(body, self._table, anonymous))]
        return nft.Ruleset(
            table=decode.table(found, self._table.family),
            chains=tuple(chains),
            rules=tuple(rules),
            sets=tuple(one.held for one in named if one.held),
            elements=tuple(element for one in named for element in contents[one.name]),
        )

    def _all(self, kind: int, more: bytes = b"") -> list[bytes]:
        asked, body = SUBSYSTEM << 8 | kind, self._name + more
        return self._link.ask(asked, self._family, body, dump=True, operation=self._operation)


def _generation(link: Nfnetlink) -> int:
    (answer,) = link.ask(SUBSYSTEM << 8 | _GET_GENERATION, 0, b"", operation="read generation")
    return decode.generation(answer)


def _one_set(link: Nfnetlink, table: nft.Table, name: str) -> HeldSet:
    operation = f"find set {table.id} {name}"
    body = text(1, table.name) + text(2, name)
    (answer,) = link.ask(SUBSYSTEM << 8 | _GET_SET, FAMILIES[table.family], body, operation=operation)
    found = decode.a_set(answer, table.name)
    if found is None or found.held is None:
        raise KernelError.of(operation, "", errno.EINVAL, "a set of types that are unknown here")
    return found.held


def _remember(known: dict[str, HeldSet], transaction: nft.Transaction, made: dict[str, HeldSet]) -> None:
    known.update(made)
    for operation in transaction.operations:
        if isinstance(operation, nft.Delete | nft.Destroy):
            if isinstance(operation.object, nft.Table):
                known.clear()
            elif isinstance(operation.object, nft.Set | nft.Map):
                known.pop(operation.object.name, None)
