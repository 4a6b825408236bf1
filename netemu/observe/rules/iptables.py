"""iptables rules as `iptables-save -c` prints them: where they lead, which Service they are about, in words. Pure.

A chain of one Service port (KUBE-SVC-, -SVL-, -EXT-, -FW-, and -XLB-, which releases before 1.24 had) is known by the
hash in its name; that of an endpoint (KUBE-SEP-) by the chain that leads to it, whatever comments there are, since a
large cluster's rules have none. Where no Service of the API accounts for the hash, comments tell who it was for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from netemu.model.hosts import endpoint_text
from netemu.model.lists import listed
from netemu.observe.rules.iptables_saved import Options, Saved, options_of, parse_counted
from netemu.observe.rules.walk import Chain, Line, chains_of, share_text, shares
from netemu.observe.rules.words import (
    NO_ENDPOINTS,
    NO_LOCAL_ENDPOINTS,
    NOT_ADMITTED,
    Words,
    from_outside,
    means_of_set,
    refused_port,
    sent_to_port,
)

_PER_PORT: Final = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-XLB-", "KUBE-FW-", "KUBE-SEP-")
_COMMENTED: Final = re.compile(r"(?:^|[ ])([a-z0-9][-a-z0-9.]*/[a-z0-9][-a-z0-9.]*(?::[a-z0-9][-a-z0-9]*)?)(?= |$)")
_PRIORITY: Final = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_BUILT_IN: Final = {
    "PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}  # fmt: skip
_ANYTHING: Final = "whatever comes here"


def chains_of_iptables(
    text: str, words: Words, *, sets: frozenset[str] = frozenset(), prefix: str = ""
) -> dict[tuple[str, str], Chain]:
    """What a node holds by `iptables-save -c`. `sets` are the ipsets that rules may look up; `prefix` tells the tables
    of one kind of iptables from those of the other."""
    tables, policies = parse_counted(text)
    found: list[Chain] = []
    for table, chains in tables.items():
        reader = _Table(table, chains, words, sets)
        for name in chains:
            hook = _BUILT_IN.get(name, "")
            # Table nat changes sources behind everything else, and destinations before the rest.
            priority = 100 if table == "nat" and hook in ("input", "postrouting") else _PRIORITY.get(table, 0)
            policy, kube = policies.get((table, name), ""), name.startswith("KUBE-")
            found.append(Chain(f"{prefix}{table}", name, reader.lines(name), hook, priority, policy, kube))
    return chains_of(found)


class _Table:
    """One table: its rules with what the chains around them tell."""

    def __init__(self, name: str, chains: Mapping[str, list[Saved]], words: Words, sets: frozenset[str]) -> None:
        self.name, self.words, self.sets = name, words, sets
        self.rules = {chain: [(rule, options_of(rule.text)) for rule in rules] for chain, rules in chains.items()}
        self.targets = {
            chain: target for chain, rules in self.rules.items() for _, options in rules
            if (target := options.more.get("--to-destination", ""))
        }  # fmt: skip
        self.owners = self._owners()

    def _owners(self) -> dict[str, tuple[str, bool]]:
        """The Service port of each chain of one, and whether the API has it."""
        owners: dict[str, tuple[str, bool]] = {}
        for chain in self.rules:
            if port := self.words.port_of_chain(chain):
                owners[chain] = port, True
        for chain in [*owners]:
            for _, options in self.rules[chain]:
                if options.chain.startswith(_PER_PORT):
                    owners.setdefault(options.chain, owners[chain])
        for chain, rules in self.rules.items():
            if chain.startswith(_PER_PORT) and chain not in owners:
                claims = [claim for _, options in rules if (claim := commented_port(options.comment))]
                owners[chain] = claims[0] if claims else chain, False
        return owners

    def lines(self, chain: str) -> tuple[Line, ...]:
        rules = self.rules[chain]
        spread = [options.chain.startswith("KUBE-SEP-") and "--rcheck" not in options.matches for _, options in rules]
        chances = shares([
            float(options.matches["--probability"]) if "--probability" in options.matches else None
            for (_, options), counts in zip(rules, spread, strict=True) if counts
        ])  # fmt: skip
        parts = iter(chances)
        return tuple(
            self._line(chain, rule, options, next(parts) if counts else 0.0)
            for (rule, options), counts in zip(rules, spread, strict=True)
        )

    def _line(self, chain: str, rule: Saved, options: Options, part: float) -> Line:
        port, known = self._port(chain, options)
        named = options.matches.get("--match-set", "").removeprefix("! ").split(" ")[0]
        leads = [f"ipset {named}"] if named in self.sets else []
        leads += [options.chain] if options.chain in self.rules else []
        return Line(
            rule.text,
            self._sentence(chain, options, port, part),
            rule.packets,
            rule.bytes,
            leads=tuple(leads),
            ports=(port,) if port and known else (),
            owner="" if known else port,
            takes=_taken(chain, options),
            targets=(target,) if (target := options.more.get("--to-destination", "")) else (),
        )

    def _port(self, chain: str, options: Options) -> tuple[str, bool]:
        """The Service port a rule is about, and whether the API has it."""
        if chain in self.owners:
            return self.owners[chain]
        if not chain.startswith("KUBE-"):
            return "", True
        if options.chain in self.owners:
            return self.owners[options.chain]
        claim = commented_port(options.comment)
        return claim, not claim or self.words.knows(claim)

    # --- in words

    def _sentence(self, chain: str, options: Options, port: str, part: float) -> str:
        about = _about(options, self.words)
        if options.target == "KUBE-MARK-MASQ":
            return f"marks for masquerade {_marked(chain, options, about, self.words)}"
        if options.chain.startswith("KUBE-SEP-"):
            return self._to_endpoint(options, part)
        if options.chain.startswith(_PER_PORT):
            return _to_port(options, port, about)
        if options.target == "DNAT":
            remember = ", and remembers the client" if "--set" in options.matches else ""
            return f"changes the destination to {self.words.endpoint(options.more['--to-destination'])}{remember}"
        if options.target in ("REJECT", "DROP"):
            return _refusal(options, port, about)
        if options.chain and (asks := _ASKS.get((self.name, options.chain))):
            return f"asks {asks}" if about == _ANYTHING else f"of {about}, asks {asks}"
        if options.target == "ACCEPT" and self.name == "nat":
            return f"leaves {about} to what comes behind table nat"
        return _FIXED.get(_key(chain, options)) or _plain(options, about)

    def _to_endpoint(self, options: Options, part: float) -> str:
        endpoint = self.words.endpoint(self.targets.get(options.chain, "an endpoint that is not there"))
        if "--rcheck" in options.matches:
            seconds = options.matches.get("--seconds", "?")
            return f"sends a client that was sent to {endpoint} within the last {seconds} s there again"
        return f"sends {share_text(part)} to {endpoint}"


def _taken(chain: str, options: Options) -> str:
    """The place of a Service that a rule of a chain of all Services is about."""
    number, to = options.matches.get("--dport", ""), options.matches.get("-d", "")
    if chain not in _OF_ALL or not number or options.target == "ACCEPT":
        return ""
    address = to.removesuffix("/32").removesuffix("/128")
    return f"{endpoint_text(address, int(number))}/{options.protocol}" if number.isdigit() else ""


_OF_ALL: Final = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES")


def commented_port(comment: str) -> str:
    """The Service port that kube-proxy's comment names: `shop/web:http cluster IP`; "" where it names none."""
    found = _COMMENTED.search(comment)
    return found[1] if found else ""


_CHAIN_KINDS: Final = {"KUBE-FW-": "firewall", "KUBE-EXT": "external", "KUBE-XLB": "external", "KUBE-SVL": "local"}


def _to_port(options: Options, port: str, about: str) -> str:
    """To a chain of a Service port that is not an endpoint's."""
    if options.comment.endswith("loadbalancer IP") and "-d" not in options.matches:
        return f"admits {about}"
    return sent_to_port(_CHAIN_KINDS.get(options.chain[:8], "any"), port, about)


def _about(options: Options, words: Words) -> str:
    """What a rule matches, in words."""
    matches = options.matches
    parts: list[str] = []
    to = _destination(options, words)
    for option, (positive, negative) in _SAID.items():
        value = matches.get(option, "")
        if option == "--dst-type" and value == "LOCAL" and "node port" in to:
            continue  # said by that already
        if value:
            if value.startswith("! "):
                parts.append(negative.format(value[2:]))
            else:
                parts.append(positive.format(_NAMED.get((option, value), value)))
    if value := matches.get("--match-set", ""):
        parts.append(_in_set(value))
    parts.append(to)
    if not any(parts) and options.protocol:
        parts.append(f"is {options.protocol}")
    told = listed(part for part in parts if part)
    return f"what {told}" if told else _ANYTHING


_SAID: Final = {
    "-s": ("comes from {}", "does not come from {}"),
    "-i": ("comes in by {}", "does not come in by {}"),
    "-o": ("leaves by {}", "does not leave by {}"),
    "--src-type": ("comes from an address {}", "does not come from an address {}"),
    "--dst-type": ("goes to an address {}", "does not go to an address {}"),
    "--ctstate": ("{}", "conntrack does not call {}"),
    "--mark": ("is marked {}", "is not marked {}"),
    "--physdev-is-in": ("comes in through a bridge", "does not come in through a bridge"),
}
"""Matches by option: as they are, and negated."""
_NAMED: Final = {
    ("--src-type", "LOCAL"): "of this node",
    ("--dst-type", "LOCAL"): "of this node",
    ("--ctstate", "NEW"): "begins a connection",
    ("--ctstate", "RELATED,ESTABLISHED"): "belongs to a known connection",
    ("--ctstate", "INVALID"): "belongs to no connection that conntrack can make out",
    ("--mark", "0x4000/0x4000"): "for masquerade",
}


def _destination(options: Options, words: Words) -> str:
    to, number = options.matches.get("-d", ""), options.matches.get("--dport", "")
    if number and options.comment.endswith("health check node port"):
        return f"goes to health check node port {number}"
    address = to.removesuffix("/32").removesuffix("/128")
    if number.isdigit() and options.protocol and (not to or address != to):
        return f"goes to {words.place(options.protocol, address, int(number))[0]}"
    if not to and not number:
        return ""
    verb = "does not go to" if to.startswith("! ") else "goes to"
    return f"{verb} {' port '.join(part for part in (to.removeprefix('! '), number) if part)}"


def _in_set(value: str) -> str:
    name = value.removeprefix("! ").split(" ")[0]
    means = means_of_set(name)[0]
    return f"is {'not ' if value.startswith('! ') else ''}in ipset {name}" + (f" ({means})" if means else "")


def _marked(chain: str, options: Options, about: str, words: Words) -> str:
    source, interface = options.matches.get("-s", ""), options.matches.get("-i", "")
    if source.startswith("! ") and "--match-set" not in options.matches:
        return f"what comes from outside the Pod network ({source[2:]})"
    if interface.startswith("! "):
        return f"what does not come from a Pod (by {interface[2:]})"
    if chain.startswith("KUBE-SEP-"):
        return f"what {words.who(source.split('/')[0])} sends to itself"
    return "what this node itself sends" if options.matches.get("--src-type") == "LOCAL" else from_outside(about)


def _refusal(options: Options, port: str, about: str) -> str:
    verb = "refuses" if options.target == "REJECT" else "drops"
    if "has no endpoints" in options.comment:
        return refused_port(verb, port, about, NO_ENDPOINTS)
    if "has no local endpoints" in options.comment:
        return refused_port(verb, port, about, NO_LOCAL_ENDPOINTS)
    if "traffic not accepted by" in options.comment:
        return refused_port(verb, port, about, NOT_ADMITTED)
    return f"{verb} {about}"


def _key(chain: str, options: Options) -> tuple[str, str]:
    return chain, " ".join(filter(None, (options.target, *map(options.matches.get, ("--mark", "--match-set")))))


_ASKS: Final = {
    ("nat", "KUBE-SERVICES"): "whether it goes to a Service",
    ("nat", "KUBE-NODEPORTS"): "whether it goes to a node port",
    ("nat", "KUBE-NODE-PORT"): "whether it goes to a node port",
    ("nat", "KUBE-LOAD-BALANCER"): "whether its source must change",
    ("nat", "KUBE-POSTROUTING"): "whether it is marked for masquerade",
    ("filter", "KUBE-SERVICES"): "whether it goes to a cluster IP without endpoints",
    ("filter", "KUBE-EXTERNAL-SERVICES"): "whether it goes to an external address or node port without endpoints",
    ("filter", "KUBE-NODEPORTS"): "whether it is a load balancer's health check",
    ("filter", "KUBE-NODE-PORT"): "whether it is a load balancer's health check",
    ("filter", "KUBE-FORWARD"): "whether kube-proxy has it forwarded",
    ("filter", "KUBE-FIREWALL"): "whether a stranger means the loopback of this node",
    ("filter", "KUBE-PROXY-FIREWALL"): "whether source ranges keep it out",
    ("filter", "KUBE-SOURCE-RANGES-FIREWALL"): "whether its source is in the ranges",
    ("filter", "KUBE-IPVS-FILTER"): "whether it goes to a port that no Service has",
    ("filter", "KUBE-IPVS-OUT-FILTER"): "whether source ranges keep this node out",
}  # fmt: skip
"""What a chain of kube-proxy's is for, by the table and its name."""

_FIXED: Final[dict[tuple[str, str], str]] = {
    ("KUBE-MARK-MASQ", "MARK"): "sets the mark that means: masquerade on leaving",
    ("KUBE-POSTROUTING", "RETURN ! 0x4000/0x4000"): "leaves alone what is not marked for masquerade",
    ("KUBE-POSTROUTING", "MARK"): "takes the mark off",
    ("KUBE-POSTROUTING", "MASQUERADE"): "masquerades: the source becomes this node's address",
}


def _plain(options: Options, about: str) -> str:
    """A rule of anybody's."""
    said = {
        "": f"counts {about}, and does nothing",
        "ACCEPT": f"lets {about} through",
        "RETURN": f"leaves this chain with {about}",
        "MASQUERADE": f"masquerades {about}: the source becomes this node's address",
        "MARK": f"marks {about} ({options.more.get('--set-xmark', '')})",
        "LOG": f"logs {about}",
        "NFLOG": f"logs {about}",
        "CT": f"keeps {about} out of conntrack" if "--notrack" in options.more else f"sets conntrack up for {about}",
        "NOTRACK": f"keeps {about} out of conntrack",
        "SNAT": f"changes the source of {about} to {options.more.get('--to-source', '')}",
        "REDIRECT": f"sends {about} to this node itself",
        "TCPMSS": f"limits the segment size of {about}",
        "TRACE": f"traces {about}",
    }.get(options.target)
    return said or f"hands {about} to {options.target}"
