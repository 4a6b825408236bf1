"""The rules of a node as the kernel has them, in the order in which a packet meets them, each with a sentence. Pure.

Theory of operation: whatever the proxy's mode, what the kernel holds is read (`observe/rules/iptables.py`,
`rules_nftables.py`, `rules_ipvs.py`) into one form: chains of lines. A line is a rule, but also an element of a set or
map, a virtual server or its real server: a chain "set KUBE-CLUSTER-IP" holds the members that a rule looks up. Each
line says which chains it leads to, so that a walk from the kernel's hooks meets every line in the order of a packet:
what comes in goes through prerouting, then input or forward, then postrouting; what the node itself sends through
output, then postrouting.

Each line also says which Service ports it is about, by comments, hashes in names of chains, and addresses. Nothing of
`netemu.proxy` is used: sentences are made from the kernel's own text and the names of API objects, so that they hold
for the rules of a real kube-proxy and for those somebody has changed by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final

from msgspec import Struct, field

STAGES: Final = ("prerouting", "input", "forward", "output", "postrouting")


OLDER: Final = "legacy "
"""What the names of x_tables' tables begin with where there are iptables rules over nf_tables, too."""


class Line(Struct, frozen=True):
    """A rule, an element of a set or map, a virtual server or a real server.

    `packets` and `bytes` are None where the kernel counts nothing. `leads` names the chains it may hand a packet to;
    `ports` the Service ports it is about, as NAMESPACE/NAME:PORT (without `:PORT` where it has no name).
    """

    text: str
    sentence: str = ""
    packets: int | None = None
    bytes: int | None = None
    handle: int = 0
    """nftables' number of the rule."""
    leads: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    owner: str = ""
    """What it claims to be about, by a name or an address, though no Service of the API has it."""
    takes: str = ""
    """The place of a Service whose packets it decides about: `10.96.0.10:53/udp`, `:30080/tcp` for a node port."""
    targets: tuple[str, ...] = ()
    """The endpoints it translates to: `10.244.1.2:8080`."""


class Chain(Struct, frozen=True):
    """Lines in order. With a hook, the kernel itself enters it there, chains of one hook by ascending priority."""

    table: str
    name: str
    lines: tuple[Line, ...] = ()
    hook: str = ""
    priority: int = 0
    policy: str = ""
    kube: bool = True
    """Whether it is kube-proxy's own, by its name."""


class NodeRules(Struct, frozen=True):
    """All chains of one IP family of a node, by table and name. `mode` is the one whose rules were found."""

    family: str
    """`ip` or `ip6`."""
    mode: str
    chains: Mapping[tuple[str, str], Chain] = field(default_factory=dict)

    def line(self, table: str, chain: str, number: int) -> Line | None:
        """The rule of that number, counted from 1, as a trace of iptables names it."""
        lines = found.lines if (found := self.chains.get((table, chain))) else ()
        return lines[number - 1] if 0 < number <= len(lines) else None

    def with_handle(self, table: str, chain: str, handle: int) -> Line | None:
        """The rule of that handle, as a trace of nftables names it."""
        found = self.chains.get((table, chain))
        return next((line for line in found.lines if line.handle == handle), None) if found else None


class Met(Struct, frozen=True):
    """A line where a packet meets it: in which chain, as which of its lines (from 1), how many chains deep."""

    stage: str
    """The hook by which the kernel came here."""
    table: str
    chain: str
    number: int
    depth: int
    line: Line
    seen: bool = False
    """Whether the chains it leads to have been met before, so that they are not told again."""


def chains_of(chains: Iterable[Chain]) -> dict[tuple[str, str], Chain]:
    """By table and name."""
    return {(chain.table, chain.name): chain for chain in chains}


def hooks(rules: NodeRules) -> list[Chain]:
    """The chains that the kernel enters, in a packet's order."""
    entered = (chain for chain in rules.chains.values() if chain.hook)
    return sorted(entered, key=lambda chain: (STAGES.index(chain.hook), chain.priority))


def walk(rules: NodeRules, wanted: Callable[[Chain, Line], bool]) -> list[Met]:
    """The wanted lines in the order a packet meets them, each chain's once."""
    met: list[Met] = []
    entered: set[tuple[str, str]] = set()
    told_before: set[tuple[str, str]] = set()

    def enter(chain: Chain, depth: int, stage: str) -> None:
        for number, line in enumerate(chain.lines, 1):
            if not wanted(chain, line):
                continue
            ahead = [(chain.table, name) for name in line.leads if (chain.table, name) in rules.chains]
            told = bool(ahead) and told_before.issuperset(ahead)
            met.append(Met(stage, chain.table, chain.name, number, depth, line, told))
            told_before.add((chain.table, chain.name))
            for key in ahead:
                if key not in entered:
                    entered.add(key)
                    enter(rules.chains[key], depth + 1, stage)

    for chain in hooks(rules):
        enter(chain, 0, chain.hook)
    return met


def of_service(rules: NodeRules, service: str) -> list[Met]:
    """What a packet to a Service meets. `service` is NAMESPACE/NAME, or NAMESPACE/NAME:PORT for one port of it.

    Beside the lines about it: those that lead to one, and, where packets are translated, what masquerades them.
    """

    def about(line: Line) -> bool:
        return any(_is(port, service) for port in line.ports)

    carries = _carriers(rules, about)
    translates = any(line.targets and about(line) for chain in rules.chains.values() for line in chain.lines)
    helpers = _HELPERS if translates else _HELPERS - _MASQUERADE

    def wanted(chain: Chain, line: Line) -> bool:
        return carries(chain.table, line) or (not line.ports and not line.owner and _helps(chain, line, helpers))

    return walk(rules, wanted)


def _helps(chain: Chain, line: Line, helpers: Set[str]) -> bool:
    """Whether a line carries out what others ask for: it is in one of these chains, or leads to one."""
    return chain.name in helpers or any(name in helpers for name in line.leads)


_MASQUERADE: Final = frozenset({"KUBE-MARK-MASQ", "KUBE-POSTROUTING", "masquerading"})
_HELPERS: Final = _MASQUERADE | {"reject-chain"}


def _carriers(rules: NodeRules, about: Callable[[Line], bool]) -> Callable[[str, Line], bool]:
    """Whether a line is about something, or leads to a chain with such a line, however far."""
    known: dict[tuple[str, str], bool] = {}

    def chain_carries(table: str, name: str) -> bool:
        key = (table, name)
        if key not in known:
            known[key] = False  # a loop carries nothing by itself
            chain = rules.chains.get(key)
            known[key] = chain is not None and any(line_carries(table, line) for line in chain.lines)
        return known[key]

    def line_carries(table: str, line: Line) -> bool:
        return about(line) or any(chain_carries(table, name) for name in line.leads)

    return line_carries


def _is(port: str, service: str) -> bool:
    return port == service or port.rpartition(":")[0] == service


def targets_from(rules: NodeRules, table: str, line: Line) -> set[str]:
    """The endpoints that a line translates to, itself or by what it leads to."""
    found, seen, ahead = set(line.targets), set[str](), list(line.leads)
    while ahead:
        name = ahead.pop()
        if name in seen or (chain := rules.chains.get((table, name))) is None:
            continue
        seen.add(name)
        for each in chain.lines:
            found.update(each.targets)
            ahead.extend(each.leads)
    return found


def fixed(rules: NodeRules) -> list[Met]:
    """kube-proxy's rules that are there whatever Services exist, and the ways into them."""
    carries = _carriers(rules, lambda line: bool(line.ports or line.owner))

    def wanted(chain: Chain, line: Line) -> bool:
        if line.ports or line.owner:
            return False
        mine = chain.kube and not chain.hook
        return mine or any(name in own for name in line.leads) or (not mine and carries(chain.table, line))

    own = {name for (_, name), chain in rules.chains.items() if chain.kube}
    return walk(rules, wanted)


def others(rules: NodeRules) -> list[Met]:
    """Rules that are not kube-proxy's: they may keep packets from reaching its own."""
    own = {name for (_, name), chain in rules.chains.items() if chain.kube and not chain.hook}
    return walk(
        rules,
        lambda chain, line: not (chain.kube and not chain.hook) and not any(name in own for name in line.leads)
        and not (chain.kube and chain.hook and chain.table.endswith("kube-proxy")),
    )  # fmt: skip


def shares(probabilities: Sequence[float | None]) -> list[float]:
    """Of all packets that come to a chain of random choices, what part each rule takes; None takes the whole rest."""
    left, parts = 1.0, []
    for probability in probabilities:
        part = left if probability is None else left * probability
        parts.append(part)
        left -= part
    return parts


def share_text(part: float) -> str:
    """`a third of new connections`, `1 in 7 new connections`, `every new connection`."""
    if part > 0.995:
        return "every new connection"
    ways = round(1 / part) if part > 0.0005 else 0
    if not ways or abs(1 / ways - part) > 0.01:
        return f"{100 * part:.0f} % of new connections"
    words = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}
    return f"{words[ways]} of new connections" if ways in words else f"1 in {ways} new connections"
