"""Tables of nf_tables that are nobody's here, as `nft -a list table` prints them: what somebody else's rules do. Pure.

Such rules may say anything that nft can, so they are told by their verdict and, word for word, by what they match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from netemu.model.nft_listing import split_handle
from netemu.observe.rules.walk import STAGES, Chain, Line, chains_of

_TABLE: Final = re.compile(r"^table (\S+) (\S+) \{")
_CHAIN: Final = re.compile(r"^\tchain (\S+) \{")
_BASE: Final = re.compile(r"^type \S+ hook (\S+) (?:device \S+ )?priority ([^;]+);(?: policy (\w+);)?")
_COMMENT: Final = re.compile(r' comment "[^"]*"$')
_COUNTER: Final = re.compile(r"\s*\bcounter packets (\d+) bytes (\d+)")
_VERDICT: Final = re.compile(
    r"(?:^|\s)(accept|drop|return|reject(?: with .*)?|(?:jump|goto) \S+|masquerade.*|redirect.*|[ds]nat .*)$"
)
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_SAID: Final = {
    "accept": "lets {} through",
    "drop": "drops {}",
    "reject": "refuses {}",
    "return": "leaves this chain with {}",
    "masquerade": "masquerades {}: the source becomes this node's address",
    "redirect": "sends {} to this node itself",
}


def chains_of_listing(text: str) -> dict[tuple[str, str], Chain]:
    """The chains of the tables listed; a table's name begins with its family: `inet filter`."""
    return chains_of(_chains(text))


def _chains(text: str) -> Iterator[Chain]:
    table, chain, lines = "", "", list[str]()
    for line in text.splitlines():
        if found := _TABLE.match(line):
            table = f"{found[1]} {found[2]}"
        elif found := _CHAIN.match(line):
            chain, lines = found[1], []
        elif line == "\t}" and chain:
            yield _chain(table, chain, lines)
            chain = ""
        elif chain and line.startswith("\t\t"):
            lines.append(line.strip())


def _chain(table: str, name: str, texts: list[str]) -> Chain:
    texts = [text for text in texts if not text.startswith("comment ")]
    base = _BASE.match(texts[0]) if texts else None
    lines = tuple(_line(text) for text in (texts[1:] if base else texts))
    if base is None or base[1] not in STAGES:
        return Chain(table, name, lines, kube=False)
    return Chain(table, name, lines, base[1], _priority(base[2]), base[3] or "accept", kube=False)


def _priority(text: str) -> int:
    """`filter`, `dstnat - 10`, `-110`."""
    word, _, away = text.partition(" ")
    offset = int(away.replace(" ", "") or 0)
    return _PRIORITIES[word] + offset if word in _PRIORITIES else int(word)


def _line(text: str) -> Line:
    shown, handle = split_handle(text)
    counter = _COUNTER.search(shown)
    bare = _COUNTER.sub("", _COMMENT.sub("", shown)).strip()
    verdict = _VERDICT.search(bare)
    matched = bare[: verdict.start()].strip() if verdict else bare
    about = f"what matches `{matched}`" if matched else "whatever comes here"
    return Line(
        shown,
        _sentence(verdict[1], about) if verdict else f"does `{bare}`",
        int(counter[1]) if counter else None,
        int(counter[2]) if counter else None,
        handle,
        (verdict[1].split()[1],) if verdict and verdict[1].startswith(("jump", "goto")) else (),
    )


def _sentence(verdict: str, about: str) -> str:
    word, _, rest = verdict.partition(" ")
    if word in ("jump", "goto"):
        return f"hands {about} to {rest}"
    if word in ("dnat", "snat"):
        return f"changes the {'destination' if word == 'dnat' else 'source'} of {about}: {rest}"
    return _SAID[word].format(about)
