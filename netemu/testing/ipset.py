"""ipsets without a kernel, refusing what Linux refuses.

The contract suite runs on this and on the kernel. Rules that refer to a set keep it from being destroyed or renamed:
`rules` is the fake iptables' tables, whose `--match-set` count. Known differences: hash sizes do not grow, and the
order in which a full set refuses is the order of the requests.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from netemu.kernel import ipset
from netemu.kernel.ipset import Entry, IpSet, Request, SetSpec
from netemu.model.errors import KernelError


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class _Set:
    spec: SetSpec
    entries: dict[Entry, str] = field(default_factory=dict)


class FakeIpset:
    """See `kernel.ipset.Ipset`."""

    def __init__(self, rules: Mapping[str, Mapping[str, list[str]]] | None = None) -> None:
        self.rules = rules if rules is not None else {}
        self.requests: list[Request] = []
        """Everything asked of it, for tests of how much work was done."""
        self._sets: dict[str, _Set] = {}

    @property
    def sets(self) -> dict[str, tuple[str, set[str]]]:
        """By name: the type, and the entries as `ipset save` prints them; what the packet tracer reads."""
        return {name: (each.spec.type, {str(entry) for entry in each.entries}) for name, each in self._sets.items()}

    def names(self) -> list[str]:
        """See Ipset."""
        return list(self._sets)

    def get(self, name: str) -> IpSet:
        """See Ipset."""
        if name not in self._sets:
            raise ipset.refusal(f"list ipset {name}", "fake", 0, errno.ENOENT)
        found = self._sets[name]
        comments = {entry: said for entry, said in found.entries.items() if said}
        return IpSet(found.spec, frozenset(found.entries), comments, self._references(name))

    def attempt(self, requests: Iterable[Request]) -> list[tuple[Request, KernelError]]:
        """See Ipset."""
        refused: list[tuple[Request, KernelError]] = []
        for request in requests:
            self.requests.append(request)
            try:
                _HANDLERS[type(request)](self, request)
            except _Refused as error:
                refused.append((request, ipset.refusal(str(request), "fake", request.command, error.code)))
        return refused

    def apply(self, *requests: Request) -> None:
        """See Ipset."""
        for _, error in self.attempt(requests):
            raise error

    def close(self) -> None:
        """Nothing to give back."""

    def _references(self, name: str) -> int:
        wanted = f"--match-set {name} "
        return sum(wanted in rule for chains in self.rules.values() for rules in chains.values() for rule in rules)

    def _find(self, name: str, code: int = errno.ENOENT) -> _Set:
        if name not in self._sets:
            raise _Refused(code)
        return self._sets[name]

    def _create(self, request: ipset.Create) -> None:
        spec = request.spec
        if spec.type not in ipset.TYPES:
            raise _Refused(ipset.ERR_FIND_TYPE)
        if len(spec.name) > ipset.LONGEST_NAME:
            raise _Refused(errno.EINVAL)
        held = self._sets.get(spec.name)
        if held is None:
            self._sets[spec.name] = _Set(spec)
        elif not request.exist or not _same(held.spec, spec):
            raise _Refused(errno.EEXIST)

    def _destroy(self, request: ipset.Destroy) -> None:
        if request.exist and request.name not in self._sets:
            return
        self._find(request.name)
        if self._references(request.name):
            raise _Refused(ipset.ERR_BUSY)
        del self._sets[request.name]

    def _flush(self, request: ipset.Flush) -> None:
        self._find(request.name).entries.clear()

    def _rename(self, request: ipset.Rename) -> None:
        found = self._find(request.name)
        if self._references(request.name):
            raise _Refused(ipset.ERR_REFERENCED)
        if request.to in self._sets:
            raise _Refused(ipset.ERR_EXIST_SETNAME2)
        del self._sets[request.name]
        self._sets[request.to] = _Set(replace(found.spec, name=request.to), found.entries)

    def _swap(self, request: ipset.Swap) -> None:
        one, two = self._find(request.name), self._find(request.other, ipset.ERR_EXIST_SETNAME2)
        if one.spec.type != two.spec.type or one.spec.family != two.spec.family:
            raise _Refused(ipset.ERR_TYPE_MISMATCH)
        self._sets[request.name] = _Set(replace(two.spec, name=request.name), two.entries)
        self._sets[request.other] = _Set(replace(one.spec, name=request.other), one.entries)

    def _add(self, request: ipset.Add) -> None:
        found = self._find(request.name)
        spec, entry = found.spec, request.entry
        _check(spec, entry)
        if request.comment and not spec.comment:
            raise _Refused(ipset.ERR_COMMENT)
        if len(request.comment) > 255:
            raise _Refused(errno.EINVAL)
        if entry in found.entries:
            if not request.exist:
                raise _Refused(ipset.ERR_EXIST)
        elif not spec.bitmap and len(found.entries) >= spec.maxelem:
            raise _Refused(ipset.ERR_OF_TYPE)
        found.entries[entry] = request.comment

    def _del(self, request: ipset.Del) -> None:
        found = self._find(request.name)
        _check(found.spec, request.entry)
        if request.entry not in found.entries and not request.exist:
            raise _Refused(ipset.ERR_EXIST)
        found.entries.pop(request.entry, None)


_HANDLERS: dict[type[Any], Callable[[FakeIpset, Any], None]] = {
    ipset.Create: FakeIpset._create,
    ipset.Destroy: FakeIpset._destroy,
    ipset.Flush: FakeIpset._flush,
    ipset.Rename: FakeIpset._rename,
    ipset.Swap: FakeIpset._swap,
    ipset.Add: FakeIpset._add,
    ipset.Del: FakeIpset._del,
}


def _same(held: SetSpec, wanted: SetSpec) -> bool:
    """Whether -exist takes one for the other; the kernel does not look at the family."""
    return (held.type, held.maxelem, held.comment, held.ports) == (
        wanted.type, wanted.maxelem, wanted.comment, wanted.ports,
    )  # fmt: skip


def _check(spec: SetSpec, entry: Entry) -> None:
    """Whether an entry has the parts that the type wants, of the set's family."""
    parts = spec.type.partition(":")[2].split(",")
    if spec.bitmap:
        if entry.address:
            raise _Refused(errno.EINVAL)
        if not spec.ports[0] <= entry.port <= spec.ports[1]:
            raise _Refused(ipset.ERR_OF_TYPE)
        return
    wanted = ("ip" in parts, "port" in parts, len(parts) == 3)
    if (bool(entry.address), bool(entry.protocol), bool(entry.other)) != wanted:
        raise _Refused(errno.EINVAL)
    addresses = [part for part in (entry.address, entry.other) if part]
    if any((":" in address) != (spec.family == "inet6") for address in addresses):
        raise _Refused(errno.EINVAL)
    if spec.type == "hash:ip" and entry.address in ("0.0.0.0", "::"):
        raise _Refused(errno.EINVAL)
    if entry.other.endswith("/0"):
        raise _Refused(ipset.ERR_INVALID_CIDR)
    if "/" in entry.other and parts[-1] != "net":
        raise _Refused(errno.EINVAL)
