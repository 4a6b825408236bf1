"""nf_tables without a kernel: takes transactions, refuses what the kernel refuses, lists as the `nft` tool does.

A transaction is applied to a copy that takes the place of the original when every operation went well. What the kernel
checks is checked at the same moment: references when an operation names something, loops and the hooks that a
statement may be reached from at the end, over everything that base chains reach. One contract suite runs on this and on
the kernel. `netemu.testing.nft_packets` walks packets through what is held here.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from netemu.kernel import nft_data as data
from netemu.kernel import nft_expressions as expressions
from netemu.kernel.nft_encode import Batch
from netemu.model import nft
from netemu.model.errors import KernelError
from netemu.model.nft_listing import listing

HeldSet = nft.Set | nft.Map
_JUMP_STACK = 16
_NAME_MAX = 255
_T = TypeVar("_T")


@dataclass
class Held:
    """One table. `uses` counts who refers to a chain or set, keyed by ("chain" or "set", name)."""

    table: nft.Table
    chains: dict[str, nft.Chain] = field(default_factory=dict)
    rules: dict[str, tuple[nft.Rule, ...]] = field(default_factory=dict)
    sets: dict[str, HeldSet] = field(default_factory=dict)
    elements: dict[str, dict[nft.Values, nft.Element]] = field(default_factory=dict)
    uses: dict[tuple[str, str], int] = field(default_factory=dict)
    handle: int = 0

    def copy(self) -> Held:
        """Another one, of which everything but a set's elements can be changed; see `_Change.elements_of`."""
        return Held(
            self.table, dict(self.chains), dict(self.rules), dict(self.sets), dict(self.elements), dict(self.uses),
            self.handle,
        )  # fmt: skip

    def ruleset(self) -> nft.Ruleset:
        """As a dump tells it."""
        return nft.Ruleset(
            self.table,
            tuple(self.chains.values()),
            tuple(rule for chain in self.chains for rule in self.rules[chain]),
            tuple(self.sets.values()),
            tuple(element for name in self.sets for element in self.elements[name].values()),
        )


@dataclass
class FakeNft:
    """Implements `netemu.kernel.nftables.Nft`. `runs` keeps every transaction that was applied."""

    tables: dict[str, Held] = field(default_factory=dict)
    runs: list[nft.Transaction] = field(default_factory=list)
    fail_next: int = 0
    """Refuse the next transaction with this errno."""
    changes: int = 1

    async def run(self, transaction: nft.Transaction, *, generation: int | None = None) -> None:
        """See Nft. Raises KernelError."""
        if self.fail_next:
            code, self.fail_next = self.fail_next, 0
            raise KernelError.of("nf_tables transaction", "fake", code)
        if generation is not None and generation != self.changes:
            raise KernelError.of("nf_tables transaction", "fake", errno.ERESTART)
        self._apply(transaction)
        self.runs.append(transaction)

    async def dump(self, table: nft.Table) -> nft.Ruleset | None:
        """See Nft."""
        held = self.tables.get(table.id)
        return held.ruleset() if held else None

    def close(self) -> None:
        """See Nft."""

    async def generation(self) -> int:
        """See Nft."""
        return self.changes

    def rulesets(self) -> list[nft.Ruleset]:
        """Everything that is held, for `netemu.testing.nft_packets.Node`."""
        return [held.ruleset() for held in self.tables.values()]

    def listing(self) -> str:
        """What `nft list ruleset` would print."""
        return "".join(listing(held.ruleset()) for held in self.tables.values())

    def _apply(self, transaction: nft.Transaction) -> None:
        before = self.tables.get(transaction.table.id)
        known = before.sets if before else {}
        Batch(transaction.table, lambda name: known.get(name) or _no_set(name)).add_all(transaction.operations)
        after = _Change(transaction.table, before).run(transaction.operations)
        self.tables = {key: held for key, held in self.tables.items() if key != transaction.table.id}
        if after:
            self.tables[transaction.table.id] = after
        self.changes += 1


def _no_set(name: str) -> NoReturn:
    raise KernelError.of(f"find set {name}", "fake", errno.ENOENT)


class _Refused(Exception):
    """An operation cannot be applied, and the errno that says why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Change:
    """A transaction under way on one table."""

    def __init__(self, table: nft.Table, before: Held | None) -> None:
        self._table = table
        self._before = before
        self._start()

    def _start(self) -> None:
        self._held = self._before.copy() if self._before else None
        self._own: set[str] = set()
        self._reach_changed = False

    def run(self, operations: tuple[nft.Operation, ...]) -> Held | None:
        """The table after it; None where it is gone. Raises KernelError."""
        for operation in operations:
            self._attempt(operation, self._operation)
        if self._reach_changed and self._held and _fault(self._held):
            self._start()  # as the kernel: once more from the start, to find who is to blame
            for operation in operations:
                self._attempt(operation, self._operation_checked)
        return self._held

    def _attempt(self, operation: nft.Operation, apply: Callable[[nft.Operation], None]) -> None:
        try:
            apply(operation)
        except _Refused as refused:
            what = nft.operation_text(self._table, operation)
            raise KernelError.of(what, "fake", refused.code) from refused

    def _operation_checked(self, operation: nft.Operation) -> None:
        self._operation(operation)
        if self._held and (code := _fault(self._held)):
            raise _Refused(code)

    @property
    def held(self) -> Held:
        """The table, which must be there."""
        if self._held is None:
            raise _Refused(errno.ENOENT)
        return self._held

    def _operation(self, operation: nft.Operation) -> None:
        held = operation.object
        match operation:
            case nft.Add() | nft.Create():
                self._add(held, exclusive=isinstance(operation, nft.Create))
            case nft.Insert():
                self._put_rule(operation.object, before=True)
            case nft.Replace():
                self._replace(operation.object)
            case nft.Flush():
                self._flush(held)
            case nft.Delete():
                self._delete(held)
            case nft.Destroy():
                self._destroy(held)

    def _add(self, held: nft.Object, *, exclusive: bool) -> None:
        match held:
            case nft.Table():
                if self._held is None:
                    self._held = Held(held)
                elif exclusive:
                    raise _Refused(errno.EEXIST)
            case nft.Rule():
                self._put_rule(held, before=False)
            case nft.Chain():
                self._add_chain(held, exclusive=exclusive)
            case nft.Set() | nft.Map():
                self._add_set(held, exclusive=exclusive)
            case nft.Element():
                self._add_element(held, exclusive=exclusive)

    def _add_chain(self, chain: nft.Chain, *, exclusive: bool) -> None:
        held = self.held
        _check_name(chain.name)
        if chain.name not in held.chains:
            held.chains[chain.name] = chain
            held.rules[chain.name] = ()
            return
        old = held.chains[chain.name]
        same = (old.type, old.hook, old.priority) == (chain.type, chain.hook, chain.priority)
        if exclusive:
            raise _Refused(errno.EEXIST)
        if chain.hook and not same:
            raise _Refused(errno.EOPNOTSUPP)
        if chain.hook and chain.policy != old.policy:
            held.chains[chain.name] = nft.Chain(old.name, old.type, old.hook, old.priority, chain.policy, old.comment)

    def _add_set(self, made: HeldSet, *, exclusive: bool) -> None:
        held = self.held
        _check_name(made.name)
        old = held.sets.get(made.name)
        if old is None:
            held.sets[made.name] = made
            held.elements[made.name] = {}
            self._own.add(made.name)
        elif exclusive or _shape(old) != _shape(made):
            raise _Refused(errno.EEXIST)

    def _elements_of(self, name: str) -> dict[nft.Values, nft.Element]:
        """The elements of a set, which can be changed."""
        held = self.held
        if name not in held.sets:
            raise _Refused(errno.ENOENT)
        if name not in self._own:
            held.elements[name] = dict(held.elements[name])
            self._own.add(name)
        return held.elements[name]

    def _add_element(self, element: nft.Element, *, exclusive: bool) -> None:
        there = self._elements_of(element.set)
        of = self.held.sets[element.set]
        if (element.data is not None) != isinstance(of, nft.Map):
            raise _Refused(errno.EINVAL)
        if isinstance(of, nft.Map) and isinstance(element.data, nft.Verdict) != (of.data == (nft.DataType.VERDICT,)):
            raise _Refused(errno.EINVAL)
        if isinstance(element.data, nft.Verdict):
            self._check_target(element.data)
        key = _canonical(of, element.key)
        if key in there:
            if exclusive or there[key].data != element.data:
                raise _Refused(errno.EEXIST)
            return
        if of.size and len(there) >= of.size:
            raise _Refused(errno.ENFILE)
        _check_overlap(of, there, key)
        timeout = 0 if element.timeout == of.timeout else element.timeout
        there[key] = nft.Element(element.set, key, element.data, element.comment, timeout)
        if isinstance(element.data, nft.Verdict):
            self._use([("chain", element.data.chain)], 1)

    def _check_target(self, verdict: nft.Verdict) -> None:
        if not verdict.chain:
            return
        chain = self.held.chains.get(verdict.chain)
        if chain is None:
            raise _Refused(errno.ENOENT)
        if chain.hook:
            raise _Refused(errno.EOPNOTSUPP)

    def _put_rule(self, rule: nft.Rule, *, before: bool) -> None:
        rules = self._rules(rule.chain)
        at = 0 if before else len(rules)
        if rule.position:
            at = _index(rules, rule.position) + (not before)
        self.held.rules[rule.chain] = (*rules[:at], self._made(rule), *rules[at:])

    def _replace(self, rule: nft.Rule) -> None:
        rules = self._rules(rule.chain)
        at = _index(rules, rule.handle)
        made = self._made(rule)
        self._use(references(rules[at]), -1)
        self.held.rules[rule.chain] = (*rules[:at], made, *rules[at + 1 :])

    def _made(self, rule: nft.Rule) -> nft.Rule:
        for expression in rule.expressions:
            self._check(expression)
        self._use(references(rule), 1)
        self.held.handle += 1
        return nft.Rule(rule.chain, rule.expressions, rule.comment, self.held.handle)

    def _check(self, expression: nft.Expression) -> None:
        for verdict in _verdicts(expression):
            self._check_target(verdict)
        match expression:
            case nft.Lookup() | nft.Update():
                of = self._set(expression.set)
                wrong = False
                if isinstance(expression, nft.Update) and not of.flags & {"dynamic", "timeout"}:
                    raise _Refused(errno.EOPNOTSUPP)
            case nft.Vmap() | nft.DnatMap() if expression.map:
                of = self._set(expression.map)
                wrong = not isinstance(of, nft.Map)
            case _:
                return
        size = sum(data.words(data.SIZES[kind]) for kind in expressions.key_types(expression.key))
        if wrong or size < data.key_size(of.type):
            raise _Refused(errno.EINVAL)

    def _set(self, name: str) -> HeldSet:
        if name not in self.held.sets:
            raise _Refused(errno.ENOENT)
        return self.held.sets[name]

    def _rules(self, chain: str) -> tuple[nft.Rule, ...]:
        if chain not in self.held.chains:
            raise _Refused(errno.ENOENT)
        return self.held.rules[chain]

    def _use(self, names: list[tuple[str, str]], by: int) -> None:
        for name in names:
            self.held.uses[name] = self.held.uses.get(name, 0) + by
        self._reach_changed = self._reach_changed or by > 0

    def _flush(self, what: nft.Object) -> None:
        match what:
            case nft.Chain():
                self._use([name for rule in self._rules(what.name) for name in references(rule)], -1)
                self.held.rules[what.name] = ()
            case nft.Set() | nft.Map():
                self._forget_elements(what.name)
            case _:
                for chain in self.held.chains.values():
                    self._flush(chain)

    def _forget_elements(self, name: str) -> None:
        there = self._elements_of(name)
        for element in there.values():
            self._use(_element_references(element), -1)
        there.clear()

    def _delete(self, what: nft.Object) -> None:
        held = self.held
        match what:
            case nft.Table():
                self._held = None
            case nft.Chain():
                if held.uses.get(("chain", what.name), 0) > sum(
                    name == ("chain", what.name) for rule in self._rules(what.name) for name in references(rule)
                ):
                    raise _Refused(errno.EBUSY)
                self._flush(what)
                del held.chains[what.name], held.rules[what.name]
            case nft.Rule():
                rules = self._rules(what.chain)
                at = _index(rules, what.handle)
                self._use(references(rules[at]), -1)
                held.rules[what.chain] = (*rules[:at], *rules[at + 1 :])
            case nft.Set() | nft.Map():
                if held.uses.get(("set", self._set(what.name).name), 0):
                    raise _Refused(errno.EBUSY)
                self._forget_elements(what.name)
                del held.sets[what.name], held.elements[what.name]
            case nft.Element():
                there = self._elements_of(what.set)
                key = _canonical(held.sets[what.set], what.key)
                if key not in there:
                    raise _Refused(errno.ENOENT)
                self._use(_element_references(there.pop(key)), -1)

    def _destroy(self, what: nft.Object) -> None:
        try:
            self._delete(what)
        except _Refused as refused:
            if refused.code != errno.ENOENT:
                raise


def _check_name(name: str) -> None:
    if len(name) > _NAME_MAX:
        raise _Refused(errno.ERANGE)


def _shape(held: HeldSet) -> tuple[object, ...]:
    values = held.data if isinstance(held, nft.Map) else ()
    return held.type, values, held.flags, held.size, held.timeout


def _canonical(of: HeldSet, key: nft.Values) -> nft.Values:
    """The key as a dump tells it: what is the same to the kernel is the same here."""
    if "interval" not in of.flags:
        return data.decode_key(of.type, data.encode_key(of.type, key))
    return tuple(
        data.span_text(kind, *data.bounds(kind, part)) if kind is not nft.DataType.INET_PROTO else part
        for kind, part in zip(of.type, key, strict=True)
    )


def _check_overlap(of: HeldSet, there: dict[nft.Values, nft.Element], key: nft.Values) -> None:
    if "interval" not in of.flags or len(of.type) > 1:
        return
    low, high = data.bounds(of.type[0], key[0])
    for (other,) in there:
        first, last = data.bounds(of.type[0], other)
        if low <= last and first <= high:
            raise _Refused(errno.EEXIST)


def _index(rules: tuple[nft.Rule, ...], handle: int) -> int:
    for index, rule in enumerate(rules):
        if rule.handle == handle:
            return index
    raise _Refused(errno.ENOENT)


def _verdicts(expression: nft.Expression) -> list[nft.Verdict]:
    if isinstance(expression, nft.Verdict):
        return [expression]
    return [verdict for _, verdict in expression.entries] if isinstance(expression, nft.Vmap) else []


def references(rule: nft.Rule) -> list[tuple[str, str]]:
    """What a rule refers to: ("chain", name) and ("set", name)."""
    found: list[tuple[str, str]] = []
    for expression in rule.expressions:
        found += [("chain", verdict.chain) for verdict in _verdicts(expression) if verdict.chain]
        match expression:
            case nft.Lookup() | nft.Update():
                found.append(("set", expression.set))
            case nft.Vmap() | nft.DnatMap() if expression.map:
                found.append(("set", expression.map))
    return found


def _element_references(element: nft.Element) -> list[tuple[str, str]]:
    return [("chain", element.data.chain)] if isinstance(element.data, nft.Verdict) and element.data.chain else []


def _fault(held: Held) -> int:
    """The errno for what the kernel finds when it walks everything that base chains reach; 0 where all is well."""
    try:
        for chain in held.chains.values():
            if chain.hook:
                _walk(held, chain, chain.name, 0, {})
    except _Refused as refused:
        return refused.code
    return 0


def _walk(held: Held, base: nft.Chain, name: str, depth: int, done: dict[str, int]) -> None:
    """Loops show as too deep a nesting; a chain already walked as deep as this need not be walked again."""
    if depth == _JUMP_STACK:
        raise _Refused(errno.EMLINK)
    if done.get(name, -1) >= depth:
        return
    for rule in held.rules[name]:
        for expression in rule.expressions:
            _check_hook(base, expression)
            for target in _targets(held, expression):
                _walk(held, base, target, depth + 1, done)
    done[name] = depth


def _targets(held: Held, expression: nft.Expression) -> Iterator[str]:
    for verdict in _verdicts(expression):
        if verdict.chain:
            yield verdict.chain
    if isinstance(expression, nft.Vmap) and expression.map:
        for element in held.elements[expression.map].values():
            if isinstance(element.data, nft.Verdict) and element.data.chain:
                yield element.data.chain


def _check_hook(base: nft.Chain, expression: nft.Expression) -> None:
    match expression:
        case nft.Dnat() | nft.DnatMap():
            allowed = base.type == "nat" and base.hook in ("prerouting", "output")
        case nft.Masquerade():
            allowed = base.type == "nat" and base.hook == "postrouting"
        case nft.Reject():
            allowed = base.hook in ("input", "forward", "output", "prerouting")
        case _:
            return
    if not allowed:
        raise _Refused(errno.EOPNOTSUPP)
