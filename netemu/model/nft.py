"""nftables as typed values: tables, chains, sets, rules, and the operations that change them.

Theory of operation: a backend compiles what it wants to these frozen objects; `netemu.kernel.nftables` sends them to a
kernel and `netemu.testing.nftables` holds them without one. Every object renders to the syntax of the `nft` tool, in
the spelling in which `nft list ruleset` prints it back, so a transaction's text is a script for `nft -f` and a dump of
the fake looks like the real one. Names of fields, types, hooks and statements are nftables' own (nft(8)).

Values in keys and elements: addresses, prefixes (`10.0.0.0/8`), ranges (`10.0.0.1-10.0.0.9`), protocols and interface
names are text, ports, marks and numbers are ints. A key is always a tuple: `("172.30.0.10", "tcp", 80)`.

What nothing here needs is left out: tables of family `inet`, flowtables, stateful objects, quotas.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from netemu.model.nft_expressions import (
    ACCEPT,
    DROP,
    RETURN,
    Counter,
    DataType,
    Dnat,
    DnatMap,
    Expression,
    Family,
    Field,
    Key,
    KeyPart,
    Limit,
    Lookup,
    MarkMatch,
    Masquerade,
    Match,
    Numgen,
    Reject,
    SetMark,
    Unknown,
    Update,
    Value,
    Values,
    Verdict,
    Vmap,
    addr_type,
    daddr,
    dport,
    goto,
    jump,
    key_text,
    saddr,
    value_text,
    values_text,
)

__all__ = [
    "ACCEPT",
    "DROP",
    "RETURN",
    "Add",
    "Chain",
    "Counter",
    "Create",
    "DataType",
    "Delete",
    "Destroy",
    "Dnat",
    "DnatMap",
    "Element",
    "Expression",
    "Family",
    "Field",
    "Flush",
    "Insert",
    "Key",
    "KeyPart",
    "Limit",
    "Lookup",
    "Map",
    "MarkMatch",
    "Masquerade",
    "Match",
    "Numgen",
    "Object",
    "Operation",
    "Reject",
    "Replace",
    "Rule",
    "Ruleset",
    "Set",
    "SetMark",
    "Table",
    "Transaction",
    "Unknown",
    "Update",
    "Value",
    "Values",
    "Verdict",
    "Vmap",
    "addr_type",
    "chain_lines",
    "comment_text",
    "daddr",
    "dport",
    "duration_text",
    "goto",
    "jump",
    "key_text",
    "operation_text",
    "priority_text",
    "saddr",
    "set_lines",
    "value_text",
    "values_text",
]
# --- objects ---------------------------------------------------------------------------------------------------------


class Table(msgspec.Struct, frozen=True, gc=False):
    """A table; everything else stands in one."""

    family: Family
    name: str
    comment: str = ""

    @property
    def id(self) -> str:
        """`ip kube-proxy`."""
        return f"{self.family} {self.name}"


class Chain(msgspec.Struct, frozen=True, gc=False):
    """A chain; with a hook, a base chain, which the kernel itself enters."""

    name: str
    type: Literal["", "filter", "nat", "route"] = ""
    hook: Literal["", "prerouting", "input", "forward", "output", "postrouting"] = ""
    priority: int = 0
    policy: Literal["accept", "drop"] = "accept"
    comment: str = ""


class Rule(msgspec.Struct, frozen=True, gc=False):
    """A rule of a chain. `handle` is the kernel's number for it: what Replace and Delete go by, 0 before it is there.

    `position` is the handle of another rule: Add puts this one behind it, Insert before it; 0: last and first.
    """

    chain: str
    expressions: tuple[Expression, ...]
    comment: str = ""
    handle: int = 0
    position: int = 0

    def text(self) -> str:
        """The rule without its chain, as it stands in a listing."""
        body = " ".join(expression.text() for expression in self.expressions)
        return f"{body} {comment_text(self.comment)}" if self.comment else body


class Set(msgspec.Struct, frozen=True, gc=False):
    """A named set. Flags are nftables': interval, timeout, dynamic, constant. `timeout` in seconds."""

    name: str
    type: tuple[DataType, ...]
    flags: frozenset[str] = frozenset()
    timeout: int = 0
    size: int = 0
    comment: str = ""


class Map(msgspec.Struct, frozen=True, gc=False):
    """A named map; `data` is `(VERDICT,)` for a verdict map."""

    name: str
    type: tuple[DataType, ...]
    data: tuple[DataType, ...] = (DataType.VERDICT,)
    flags: frozenset[str] = frozenset()
    timeout: int = 0
    size: int = 0
    comment: str = ""


class Element(msgspec.Struct, frozen=True, gc=False):
    """An element of a named set (no data) or map. `timeout` in seconds, 0: the set's own."""

    set: str
    key: Values
    data: Verdict | Values | None = None
    comment: str = ""
    timeout: int = 0

    def text(self) -> str:
        """As it stands between the braces of a listing."""
        words = [values_text(self.key)]
        words += [f"timeout {duration_text(self.timeout)}"] if self.timeout else []
        words += [comment_text(self.comment)] if self.comment else []
        if isinstance(self.data, Verdict):
            words += [":", self.data.text()]
        elif self.data is not None:
            words += [":", values_text(self.data)]
        return " ".join(words)


Object: TypeAlias = Table | Chain | Rule | Set | Map | Element


# --- operations ------------------------------------------------------------------------------------------------------


class Add(msgspec.Struct, frozen=True, gc=False):
    """Make it; what is there already stays as it is (rules: one more at the end)."""

    object: Object


class Create(msgspec.Struct, frozen=True, gc=False):
    """Make it; refused (EEXIST) where one of that name is there."""

    object: Table | Chain | Set | Map | Element


class Insert(msgspec.Struct, frozen=True, gc=False):
    """Put a rule at the beginning of its chain, or before `position`."""

    object: Rule


class Replace(msgspec.Struct, frozen=True, gc=False):
    """Put this rule in the place of the one with its handle."""

    object: Rule


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Remove it: a table with all it holds, a chain with its rules. Refused where it is not there (ENOENT) or used."""

    object: Object


class Destroy(msgspec.Struct, frozen=True, gc=False):
    """Remove it; absent is success. (A kernel older than 6.3 cannot, and neither can tools before 1.0.7.)"""

    object: Object


class Flush(msgspec.Struct, frozen=True, gc=False):
    """Remove all rules of a table or chain, all elements of a set or map."""

    object: Table | Chain | Set | Map


Operation: TypeAlias = Add | Create | Insert | Replace | Delete | Destroy | Flush


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """Operations on one table, in order; all of them take effect, or none."""

    table: Table
    operations: tuple[Operation, ...]

    def text(self) -> str:
        """The script that `nft -f` takes for it."""
        return "".join(f"{operation_text(self.table, operation)}\n" for operation in self.operations)


class Ruleset(msgspec.Struct, frozen=True, gc=False):
    """What a table holds: read from a kernel, or from a fake of one. Rules and chains in the kernel's order."""

    table: Table
    chains: tuple[Chain, ...] = ()
    rules: tuple[Rule, ...] = ()
    sets: tuple[Set | Map, ...] = ()
    elements: tuple[Element, ...] = ()

    def rules_of(self, chain: str) -> tuple[Rule, ...]:
        """The rules of one chain, in order."""
        return tuple(rule for rule in self.rules if rule.chain == chain)

    def elements_of(self, name: str) -> tuple[Element, ...]:
        """The elements of one set or map."""
        return tuple(element for element in self.elements if element.set == name)


# --- text ------------------------------------------------------------------------------------------------------------

_STANDARD_PRIORITIES: Final = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_ONLY_AT: Final = {"dstnat": "prerouting", "srcnat": "postrouting"}
_NEAR: Final = 10  # the tool names a standard priority when it is no further away than this


def comment_text(text: str) -> str:
    """`comment "TEXT"`."""
    return f'comment "{text}"'


def duration_text(seconds: int) -> str:
    """`1d2h3m4s`."""
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    return "".join(f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (secs, "s")) if n) or "0s"


def priority_text(hook: str, priority: int) -> str:
    """`dstnat`, `dstnat - 10`, `-110`: by name where one is near and meant for that hook."""
    for name, standard in _STANDARD_PRIORITIES.items():
        if abs(priority - standard) <= _NEAR and _ONLY_AT.get(name, hook) == hook:
            away = priority - standard
            return f"{name} {'+' if away > 0 else '-'} {abs(away)}" if away else name
    return str(priority)


def chain_lines(chain: Chain) -> list[str]:
    """What stands in a chain's block before its rules."""
    lines = [comment_text(chain.comment)] if chain.comment else []
    if chain.hook:
        priority = priority_text(chain.hook, chain.priority)
        lines.append(f"type {chain.type} hook {chain.hook} priority {priority}; policy {chain.policy};")
    return lines


def set_lines(held: Set | Map) -> list[str]:
    """What stands in the block of a set or map before its elements."""
    types = " . ".join(part.value for part in held.type)
    data = f" : {' . '.join(part.value for part in held.data)}" if isinstance(held, Map) else ""
    lines = [f"type {types}{data}"]
    lines += [f"size {held.size}"] if held.size else []
    flags = [flag for flag in ("constant", "interval", "timeout", "dynamic") if flag in held.flags]
    flags.sort(key=("constant", "dynamic", "interval", "timeout").index)
    lines += [f"flags {','.join(flags)}"] if flags else []
    lines += [f"timeout {duration_text(held.timeout)}"] if held.timeout else []
    lines += [comment_text(held.comment)] if held.comment else []
    return lines


def operation_text(table: Table, operation: Operation) -> str:
    """One line of a script for `nft -f`."""
    verb = type(operation).__name__.lower()
    held = operation.object
    match held:
        case Table():
            block = [comment_text(held.comment)] if held.comment else []
            return f"{verb} table {held.id}{_block(block, verb)}"
        case Chain():
            return f"{verb} chain {table.id} {held.name}{_block(chain_lines(held), verb)}"
        case Rule():
            return f"{verb} rule {table.id} {held.chain}{_rule_rest(verb, held)}"
        case Set() | Map():
            kind = "map" if isinstance(held, Map) else "set"
            return f"{verb} {kind} {table.id} {held.name}{_block(set_lines(held), verb)}"
        case Element():
            shown = values_text(held.key) if verb in ("delete", "destroy") else held.text()
            return f"{verb} element {table.id} {held.set} {{ {shown} }}"


def _rule_rest(verb: str, rule: Rule) -> str:
    if verb in ("delete", "destroy"):
        return f" handle {rule.handle}"
    where = rule.handle if verb == "replace" else rule.position
    return f"{f' handle {where}' if where else ''} {rule.text()}"


def _block(lines: list[str], verb: str) -> str:
    if not lines or verb not in ("add", "create"):
        return ""
    return f" {{ {' '.join(line if line.endswith(';') else f'{line};' for line in lines)} }}"
