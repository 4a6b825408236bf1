"""Names of the lab in filter expressions. Pure.

libpcap knows addresses; a host name it looks up with this machine's resolver, which knows nothing of the lab. So names
become addresses before it sees them: after `host`, `src` and `dst` every word that is no address is a name of the
lab or a mistake; elsewhere, as in `host shop/web-1 or shop/web-2`, a word with a slash is, if the lab has that name.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from netemu.model.errors import UserError
from netemu.observe.names import CLIENT, NODE, POD, SERVICE, UNDERLAY, Names

ALLOWED: Final = "POD, NAMESPACE/POD, service/[NAMESPACE/]NAME, node/NAME, client/NAME and underlay"
_KINDS: Final = {
    "pod": POD, "po": POD, "service": SERVICE, "svc": SERVICE, "node": NODE, "no": NODE, "client": CLIENT,
}  # fmt: skip
_WORD: Final = re.compile(r"(?<![\w.:/\[-])[A-Za-z0-9][\w.-]*(?:/[\w.-]+)*(?![\w.:-])")
_BETWEEN_TERMS: Final = re.compile(r"\b(?:and|or|not)\b|&&|\|\||[()!]")
_OF_HOSTS: Final = ("host", "src", "dst")
_AFTER_DIRECTION: Final = frozenset({"host", "net", "port", "portrange", "and", "or"})
"""What may stand after `src` and `dst` and is no name."""
_OF_LINKS: Final = frozenset({"ether", "link", "wlan"})


def with_addresses(expression: str, names: Names, namespace: str) -> str:
    """The expression with addresses in place of names: `host shop/web-1` becomes `host (10.244.1.5)`.

    Names without a namespace are looked for in `namespace`. After `ip` and `ip6` only addresses of that family: libpcap
    refuses the others there. Raises UserError for a name that the lab does not have.
    """

    def addresses(word: re.Match[str]) -> str:
        qualifiers = _BETWEEN_TERMS.split(expression[: word.start()])[-1].split()
        asked = bool(qualifiers) and qualifiers[-1] in _OF_HOSTS and not _OF_LINKS & {*qualifiers}
        if (not asked and "/" not in word[0]) or (asked and not _may_be_name(word[0])):
            return word[0]
        found = next(filter(None, map(names.addresses, _spellings(word[0], namespace))), [])
        if asked and not found:
            raise UserError(f"filter {expression!r}: the lab has no {word[0]!r}; names are {ALLOWED}")
        if "ip" in qualifiers or "ip6" in qualifiers:
            found = [address for address in found if (":" in address) == ("ip6" in qualifiers)]
            if asked and not found:
                raise UserError(f"filter {expression!r}: {word[0]!r} has no address of that family")
        return f"({' or '.join(found)})" if found else word[0]

    return _WORD.sub(addresses, expression)


def _may_be_name(word: str) -> bool:
    if word in _AFTER_DIRECTION:
        return False
    try:
        ipaddress.ip_network(word, strict=False)
    except ValueError:
        return True
    return False


def _spellings(word: str, namespace: str) -> list[str]:
    """What the lab may call it, as `Party` writes names; a Pod before a Service."""
    first, slash, rest = word.partition("/")
    if not slash:
        return [word] if word == UNDERLAY else [f"{namespace}/{word}", f"{SERVICE}/{namespace}/{word}"]
    kind, inside = _KINDS.get(first, ""), rest if "/" in rest else f"{namespace}/{rest}"
    match kind:
        case "node" | "client":
            return [f"{kind}/{rest}"]
        case "pod":
            return [inside]
        case "service":
            return [f"{SERVICE}/{inside}"]
        case _:
            return [word, f"{SERVICE}/{word}"]
