"""Single chains, rules and elements of nf_tables, read when somebody asks for them: what a look at one packet needs.

`NftNetlink.dump` reads whole tables; here the cost is that of what is asked for, however large the table is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from netemu.kernel import nft_data as data
from netemu.kernel import nft_decode as decode
from netemu.kernel import nft_elements
from netemu.kernel.nfnetlink import Nfnetlink, nested, text
from netemu.kernel.nft_decode_elements import FoundSet, elements
from netemu.kernel.nft_encode import FAMILIES, SUBSYSTEM
from netemu.model import nft
from netemu.model.errors import KernelError, KernelNotFound
from netemu.model.nft import DataType

_GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENT = 4, 7, 10, 13
_FAMILIES: Final = {**FAMILIES, "inet": 1}


class NftReader:
    """The nf_tables of the namespace `netns`. Calls block shortly."""

    def __init__(self, netns: str) -> None:
        self._link = Nfnetlink(netns)

    def close(self) -> None:
        """Give the socket back."""
        self._link.close()

    def chain(self, family: str, table: str, name: str) -> nft.Chain | None:
        """A chain; None where there is none, or none that has a name here (ingress, other families)."""
        if family not in _FAMILIES:
            return None
        try:
            (body,) = self._ask(_GET_CHAIN, family, text(1, table) + text(3, name))
            return decode.chain(body, table)
        except (KernelNotFound, IndexError):
            return None

    def rules(self, family: str, table: str, chain: str) -> list[nft.Rule]:
        """The rules of a chain, in order, with their handles; what is not known here is `Unknown`."""
        if family not in _FAMILIES:
            return []
        of = nft.Table(cast("nft.Family", "ip" if family == "inet" else family), table)
        lists = _Lists(self, family, table)
        try:
            bodies = self._ask(_GET_RULE, family, text(1, table) + text(2, chain), dump=True)
        except KernelNotFound:
            return []
        return [rule for body in bodies if (rule := decode.rule(body, of, lists))]

    def held(self, family: str, table: str, name: str) -> FoundSet:
        """How a set or map was made. Raises KernelNotFound."""
        (body,) = self._ask(_GET_SET, family, text(1, table) + text(2, name))
        found = decode.a_set(body, table)
        if found is None:
            raise KernelNotFound(f"find set {table} {name}")
        return found

    def contents(self, family: str, table: str, found: FoundSet) -> Sequence[nft.Element]:
        """All elements of a set or map."""
        return elements(found, self._ask(_GET_ELEMENT, family, text(1, table) + text(2, found.name), dump=True))

    def element(self, family: str, table: str, name: str, key: nft.Values) -> nft.Element | None:
        """The element of a named set or map that the key is, or is in; None where there is none."""
        found = self.held(family, table, name)
        if found.held is None:
            return None
        if "interval" in found.held.flags:
            return next((e for e in self.contents(family, table, found) if _covers(found.held, e, key)), None)
        wanted = nested(3, nft_elements.writer(found.held)(key))
        try:
            bodies = self._ask(_GET_ELEMENT, family, text(1, table) + text(2, name) + wanted)
        except KernelNotFound:
            return None
        return next(iter(elements(found, bodies)), None)

    def _ask(self, kind: int, family: str, body: bytes, *, dump: bool = False) -> list[bytes]:
        return self._link.ask(SUBSYSTEM << 8 | kind, _FAMILIES[family], body, dump=dump, operation="read nf_tables")


def _covers(held: nft_elements.HeldSet, element: nft.Element, key: nft.Values) -> bool:
    for kind, wanted, value in zip(held.type, element.key, key, strict=True):
        if wanted == value:
            continue
        if kind is DataType.INET_PROTO:
            return False
        (low, high), (number, _) = data.bounds(kind, wanted), data.bounds(kind, value)
        if not low <= number <= high:
            return False
    return True


class _Lists(Mapping[str, tuple[FoundSet, Sequence[nft.Element]]]):
    """Lists within rules, which are sets without a name of a person's; read when a rule refers to one."""

    def __init__(self, reader: NftReader, family: str, table: str) -> None:
        self._reader, self._family, self._table = reader, family, table
        self._known: dict[str, tuple[FoundSet, Sequence[nft.Element]]] = {}

    def __getitem__(self, name: str) -> tuple[FoundSet, Sequence[nft.Element]]:
        if name not in self._known:
            try:
                found = self._reader.held(self._family, self._table, name)
            except KernelError as error:
                raise KeyError(name) from error
            if not found.anonymous:
                raise KeyError(name)
            self._known[name] = found, self._reader.contents(self._family, self._table, found)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
