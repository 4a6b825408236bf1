"""A table as `nft list table` prints it: order of elements, line breaks and indentation are the tool's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Final

import msgspec

from netemu.model.nft import (
    Chain,
    DataType,
    Element,
    Map,
    Rule,
    Ruleset,
    Set,
    Value,
    chain_lines,
    comment_text,
    set_lines,
)
from netemu.model.protocols import OF_NFT

_ON_A_LINE: Final = {DataType.IPV4_ADDR: 2, DataType.INET_SERVICE: 5, DataType.INET_PROTO: 5, DataType.MARK: 2}
_MORE: Final = ",\n\t\t\t     "

_HANDLE: Final = re.compile(r" # handle (\d+)$")


def split_handle(line: str) -> tuple[str, int]:
    """A line of `nft -a list`, and the handle that it ends with; 0 where it has none."""
    found = _HANDLE.search(line)
    return (line[: found.start()], int(found[1])) if found else (line, 0)


def lines_with_handles(listed: str) -> Iterator[tuple[str, int]]:
    """What has a handle in what `nft -a list` prints: rules, and the heads of blocks."""
    for line in listed.splitlines():
        text, handle = split_handle(line.strip())
        if handle:
            yield text, handle


def listing(ruleset: Ruleset) -> str:
    """The table's block. Sets first, then chains, in the kernel's order."""
    blocks = [_set_block(held, ruleset.elements_of(held.name)) for held in ruleset.sets]
    rules: dict[str, list[Rule]] = {}
    for rule in ruleset.rules:
        rules.setdefault(rule.chain, []).append(rule)
    blocks += [_chain_block(chain, rules.get(chain.name, [])) for chain in ruleset.chains]
    head = f"\t{comment_text(ruleset.table.comment)}\n" if ruleset.table.comment else ""
    return f"table {ruleset.table.id} {{\n{head}" + "\n".join(blocks) + "}\n"


def _set_block(held: Set | Map, elements: Sequence[Element]) -> str:
    lines = set_lines(held)
    if elements:
        ordered = sorted(elements, key=lambda element: [_order(part) for part in reversed(element.key)])
        texts = [_typed(held, element).text() for element in ordered]
        lines.append(f"elements = {{ {_wrapped(texts, _per_line(held))} }}")
    word = "map" if isinstance(held, Map) else "set"
    return f"\t{word} {held.name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


def _typed(held: Set | Map, element: Element) -> Element:
    """The element with marks and names of interfaces as the tool shows them."""
    key = tuple(_shown(kind, part) for kind, part in zip(held.type, element.key, strict=True))
    return element if key == element.key else msgspec.structs.replace(element, key=key)


def _shown(kind: DataType, value: Value) -> Value:
    if kind is DataType.MARK:
        return f"0x{int(value):08x}"
    return f'"{value}"' if kind is DataType.IFNAME else value


def _per_line(held: Set | Map) -> int:
    return _ON_A_LINE.get(held.type[0], 1) if len(held.type) == 1 else 1


def _wrapped(texts: Sequence[str], per_line: int) -> str:
    lines = [", ".join(texts[start : start + per_line]) for start in range(0, len(texts), per_line)]
    return _MORE.join(lines)


def _order(value: Value) -> tuple[int, str]:
    if isinstance(value, int):
        return value, ""
    if value in OF_NFT:
        return OF_NFT[value], ""
    try:
        return int(ip_address(value.split("/")[0].split("-")[0])), ""
    except ValueError:
        return 0, value


def _chain_block(chain: Chain, rules: Sequence[Rule]) -> str:
    lines = [*chain_lines(chain), *(rule.text() for rule in rules)]
    return f"\tchain {chain.name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"
