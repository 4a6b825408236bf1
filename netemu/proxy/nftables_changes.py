"""From what a table holds and what it should hold to the operations between the two: pure.

Theory of operation: the kernel refuses to remove what is referred to, and to refer to what is not there. So one
transaction goes: empty chains that change or go, remove sets, add sets, add chains, fill chains, move map elements.
Chains that are gone are emptied at once but removed by a later transaction: before Linux 6.2 a chain could not be
removed together with the map element that led to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain as chained

from netemu.model import nft
from netemu.model.nft import Add, Delete, Element, Flush, Operation
from netemu.proxy.nftables import Line

ElementKey = tuple[str, nft.Values]
"""Set or map, and the element's key."""
Lines = tuple[Line, ...]
Owner = tuple[str, ...]
"""A PortKey, or () for the node itself."""


@dataclass(slots=True)
class Held:
    """What a table holds, as far as it is compared."""

    chains: dict[str, nft.Chain] = field(default_factory=dict)
    rules: dict[str, Lines] = field(default_factory=dict)
    sets: dict[str, nft.Set | nft.Map] = field(default_factory=dict)
    elements: dict[ElementKey, Element] = field(default_factory=dict)

    @staticmethod
    def of(ruleset: nft.Ruleset | None) -> Held:
        """From a dump; elements that the kernel itself adds to dynamic sets are left out."""
        held = Held()
        if ruleset is None:
            return held
        held.chains = {chain.name: chain for chain in ruleset.chains}
        held.sets = {s.name: s for s in ruleset.sets}
        lines: dict[str, list[Line]] = {}
        for rule in ruleset.rules:
            lines.setdefault(rule.chain, []).append((rule.expressions, rule.comment))
        held.rules = {name: tuple(lines.get(name, ())) for name in held.chains}
        dynamic = {name for name, s in held.sets.items() if "dynamic" in s.flags}
        held.elements = {(e.set, e.key): e for e in ruleset.elements if e.set not in dynamic}
        return held


@dataclass(slots=True)
class Change:
    """What differs. Chains that are there but differ are emptied and filled again in one go."""

    new: dict[str, tuple[nft.Chain, Lines]] = field(default_factory=dict)
    """Chains that are not there."""
    filled: dict[str, Lines] = field(default_factory=dict)
    """New content of chains that are there."""
    rehooked: dict[str, tuple[nft.Chain, Lines]] = field(default_factory=dict)
    """Base chains that are there, but elsewhere."""
    emptied: list[str] = field(default_factory=list)
    """Chains that are gone."""
    removed: list[str] = field(default_factory=list)
    """Chains that were emptied by an earlier transaction."""
    new_sets: list[nft.Set | nft.Map] = field(default_factory=list)
    gone_sets: list[nft.Set | nft.Map] = field(default_factory=list)
    elements: list[Element] = field(default_factory=list)
    gone_elements: list[Element] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)

    @property
    def written(self) -> int:
        """Chains with new content."""
        return len(self.new) + len(self.filled) + len(self.rehooked)

    def add_chain(self, wanted: nft.Chain, lines: Lines, held: Held, remade: Collection[str] = ()) -> None:
        """Note what a chain takes. `remade` sets are removed and added again, so what refers to them is, too."""
        there = held.chains.get(wanted.name)
        if there is None:
            self.new[wanted.name] = wanted, lines
        elif place_of(there) != place_of(wanted):
            self.rehooked[wanted.name] = wanted, lines
        elif held.rules.get(wanted.name) != lines or (remade and _refers(lines, remade)):
            self.filled[wanted.name] = lines

    def add_set(self, wanted: nft.Set | nft.Map, held: Held) -> None:
        """Note what a set takes."""
        there = held.sets.get(wanted.name)
        if there is not None and shape_of(there) != shape_of(wanted):
            self.gone_sets.append(there)
        elif there is not None:
            return
        self.new_sets.append(wanted)

    def add_elements(self, wanted: Mapping[ElementKey, Element], there: Mapping[ElementKey, Element]) -> None:
        """Note what two states of elements differ in."""
        self.gone_elements += [e for key, e in there.items() if wanted.get(key) != e]
        self.elements += [e for key, e in wanted.items() if there.get(key) != e]

    def take_element(self, wanted: Element, there: dict[ElementKey, Element]) -> None:
        """Note what an element takes, and take it off `there`: what is left there in the end is gone."""
        was = there.pop((wanted.set, wanted.key), None)
        if was != wanted:
            self.elements.append(wanted)
            self.gone_elements += [was] if was else []

    def portions(self, size: int) -> Iterator[Change]:
        """The same in steps, with no more than `size` chains emptied in each; in one step where it is small.

        What all Services share comes first, then chain by chain what it leads to, then what nothing leads to now.
        """
        sets_anew = {s.name for s in self.gone_sets} & {s.name for s in self.new_sets}
        if sets_anew or len(self.filled) + len(self.emptied) <= size:
            yield self
            return
        own = [name for name in self.filled if "/" in name]
        shared = {name: lines for name, lines in self.filled.items() if "/" not in name}
        yield replace(self, filled=shared, emptied=[], gone_sets=[])
        for start in range(0, len(own), size):
            yield Change(filled={name: self.filled[name] for name in own[start : start + size]})
        for start in range(0, len(self.emptied), size):
            yield Change(emptied=self.emptied[start : start + size])
        yield Change(gone_sets=self.gone_sets)

    def operations(self) -> tuple[Operation, ...]:
        """In an order that the kernel accepts."""
        return tuple(
            chained(
                (Flush(nft.Chain(n)) for n in chained(self.filled, self.rehooked, self.emptied)),
                (Delete(element) for element in sorted(self.gone_elements, key=_set_of)),
                (Delete(chain) for chain, _ in self.rehooked.values()),
                (Delete(s) for s in self.gone_sets),
                (Add(s) for s in self.new_sets),
                (Add(chain) for chain, _ in chained(self.new.values(), self.rehooked.values())),
                _rules((name, lines) for name, (_, lines) in chained(self.new.items(), self.rehooked.items())),
                _rules(self.filled.items()),
                (Add(element) for element in sorted(self.elements, key=_set_of)),
                (Delete(nft.Chain(name)) for name in self.removed),
            )
        )


def _rules(chains: Iterable[tuple[str, Lines]]) -> Iterator[Operation]:
    return (Add(nft.Rule(name, expressions, comment)) for name, lines in chains for expressions, comment in lines)


def _set_of(element: Element) -> str:
    """Elements of one set travel together."""
    return element.set


def _refers(lines: Lines, sets: Collection[str]) -> bool:
    return any(getattr(expression, "set", "") in sets for expressions, _ in lines for expression in expressions)


def place_of(chain: nft.Chain) -> tuple[object, ...]:
    """What decides when the kernel enters a chain."""
    return chain.type, chain.hook, chain.priority, chain.policy if chain.hook else ""


def shape_of(held: nft.Set | nft.Map) -> tuple[object, ...]:
    """What cannot be changed while it exists."""
    return held.type, held.data if isinstance(held, nft.Map) else None, held.flags, held.timeout, held.size


class Owners:
    """Who wants which element. Several may want the same.

    Of two Services with one external IP and port the first in order has it, and the next one gets it when that goes.
    What has no data, as an endpoint of two Services, stays as long as anybody wants it.
    """

    def __init__(self) -> None:
        self._of_maps: dict[ElementKey, dict[Owner, Element]] = {}
        self._of_sets: dict[Element, int] = {}

    def put(self, owner: Owner, elements: Iterable[Element]) -> list[Element]:
        """An owner wants these, too. Those whose key nobody has wanted so far."""
        first = []
        for element in elements:
            if element.data is None:
                wanted = self._of_sets[element] = self._of_sets.get(element, 0) + 1
            else:
                owners = self._of_maps.setdefault((element.set, element.key), {})
                owners[owner] = element
                wanted = len(owners)
            if wanted == 1:
                first.append(element)
        return first

    def drop(self, owner: Owner, elements: Iterable[Element]) -> None:
        """The opposite of `put`."""
        for element in elements:
            if element.data is None:
                self._of_sets[element] -= 1
                if not self._of_sets[element]:
                    del self._of_sets[element]
            else:
                owners = self._of_maps[element.set, element.key]
                owners.pop(owner, None)
                if not owners:
                    del self._of_maps[element.set, element.key]

    def exchange(
        self, before: Mapping[Owner, Iterable[Element]], after: Mapping[Owner, Iterable[Element]]
    ) -> tuple[dict[ElementKey, Element], dict[ElementKey, Element]]:
        """Owners want other elements than they did: what stands for all these keys then, and what stood."""
        concerned = list(chained(*before.values(), *after.values()))
        stood = self._standing(concerned)
        for owner, elements in before.items():
            self.drop(owner, elements)
        for owner, elements in after.items():
            self.put(owner, elements)
        return self._standing(concerned), stood

    def _standing(self, concerned: Iterable[Element]) -> dict[ElementKey, Element]:
        found = {}
        for element in concerned:
            key = element.set, element.key
            if element.data is None:
                found.update({key: element} if element in self._of_sets else {})
            elif owners := self._of_maps.get(key):
                found[key] = owners[min(owners)]
        return found
