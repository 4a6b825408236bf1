"""EDNS options of a question (RFC 6891, 6.1.2): read, put in, taken out.

Three kinds are known to `rewrite edns0`: any option by its code, NSID (RFC 5001) and the client's subnet (RFC 7871).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass

from netemu.dns import names
from netemu.dns.wire import Edns, Query

NSID, SUBNET = 3, 8
ACTIONS = ("set", "append", "replace", "unset")
_SIZE = 4096
"""The reply size that is offered to another server when the client said none."""

Data = Callable[[Query], bytes]


@dataclass(frozen=True, slots=True)
class Edit:
    """What is done to one option: `append` keeps one that is there, `replace` needs one, `set` does either."""

    action: str
    code: int
    data: Data

    def applied(self, query: Query) -> Query | None:
        """The question with its option, None when there is nothing to do."""
        options = parse(query.edns.sent) if query.edns else []
        there = any(code == self.code for code, _ in options)
        if there if self.action == "append" else not there and self.action in ("replace", "unset"):
            return None
        options = [each for each in options if each[0] != self.code]
        if self.action != "unset":
            options.append((self.code, self.data(query)))
        edns = query.edns or Edns(_SIZE, False, 0, b"")
        return dataclasses.replace(query, edns=edns._replace(sent=build(options)))


def parse(options: bytes) -> list[tuple[int, bytes]]:
    """(code, data) of each option."""
    found, at = [], 0
    while at + 4 <= len(options):
        code, size = struct.unpack_from("!HH", options, at)
        found.append((code, options[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


def build(options: list[tuple[int, bytes]]) -> bytes:
    """Options as they are sent."""
    return b"".join([struct.pack("!HH", code, len(data)) + data for code, data in options])


def subnet(bits4: int, bits6: int) -> Data:
    """The client's network, so many bits of it."""

    def data(query: Query) -> bytes:
        address = ipaddress.ip_address(query.client[0].split("%")[0])
        bits = bits4 if address.version == 4 else bits6
        network = ipaddress.ip_network((address, bits), strict=False)
        octets = network.network_address.packed[: -(-bits // 8)]
        return struct.pack("!HBB", 1 if address.version == 4 else 2, bits, 0) + octets

    return data


VARIABLES: dict[str, Data] = {
    "{qname}": lambda query: names.text(query.lower).encode(),
    "{qtype}": lambda query: struct.pack("!H", query.type),
    "{client_ip}": lambda query: ipaddress.ip_address(query.client[0].split("%")[0]).packed,
    "{client_port}": lambda query: struct.pack("!H", query.client[1]),
    "{protocol}": lambda query: query.transport.encode(),
}


def literal(word: str) -> Data:
    """Data from a word: a variable, octets as `0x61626364`, or text. Raises ValueError."""
    if word.startswith("{") and word.endswith("}"):
        if word not in VARIABLES:
            raise ValueError(f"unknown variable {word}; expected {', '.join(VARIABLES)}")
        return VARIABLES[word]
    fixed = bytes.fromhex(word[2:]) if word.startswith("0x") else word.encode()
    return lambda _: fixed


def edit(words: list[str]) -> Edit:
    """`local ACTION CODE [DATA]`, `nsid ACTION` or `subnet ACTION [BITS4 BITS6]`. Raises ValueError."""
    kind, action, *rest = [*words, "", ""][: max(2, len(words))]
    if action not in ACTIONS:
        raise ValueError(f"edns0: unknown action {action!r}; expected local, nsid or subnet and {', '.join(ACTIONS)}")
    unset = action == "unset"
    match kind, rest:
        case "local", [code] if unset:
            return Edit(action, _code(code), literal(""))
        case "local", [code, data] if not unset:
            return Edit(action, _code(code), literal(data))
        case "nsid", []:
            return Edit(action, NSID, literal(""))
        case "subnet", [] if unset:
            return Edit(action, SUBNET, literal(""))
        case "subnet", [bits4, bits6] if not unset:
            return Edit(action, SUBNET, subnet(_bits(bits4, 32), _bits(bits6, 128)))
    raise ValueError("edns0: expected local ACTION CODE DATA, nsid ACTION, or subnet ACTION BITS4 BITS6")


def _code(word: str) -> int:
    number = int(word, 0)
    if not 0 <= number < 65536:
        raise ValueError(f"edns0: {word} is not an option code")
    return number


def _bits(word: str, most: int) -> int:
    if not word.isdecimal() or int(word) > most:
        raise ValueError(f"edns0: {word!r} is not a number of bits from 0 to {most}")
    return int(word)
