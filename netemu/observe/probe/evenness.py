"""Whether answers are spread evenly over servers, or less so than by chance. Pure.

Pearson's chi-square test against the uniform distribution: kube-proxy in iptables and nftables mode draws an endpoint
at random for each connection, each with the same probability, so counts differ from each other by chance. The statistic
says by how much they differ, and its p-value how often a fair draw would differ as much or more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

_FEWEST: Final = 5
"""Expected answers per server from which on the test means something (Cochran's rule of thumb)."""
_UNEVEN: Final = 0.001
_TOO_EVEN: Final = 0.999

EVEN: Final = "even"
UNEVEN: Final = "uneven"
ROTATION: Final = "rotation"
TOO_FEW: Final = "too few"


class Evenness(Struct, frozen=True):
    """The test's outcome: `even`, `uneven`, `rotation` (more even than chance makes it) or `too few` to tell."""

    servers: int
    statistic: float
    degrees: int
    p: float
    verdict: str
    words: str


def evenness(counts: Sequence[int], over: int = 0) -> Evenness | None:
    """How even these numbers of answers are; None where there is nothing to compare.

    `over`: how many servers there should be. Those that never answered count with 0.
    """
    counted = [*counts, *[0] * (over - len(counts))]
    total, servers = sum(counted), len(counted)
    if not total or servers < 2:
        return None
    expected = total / servers
    statistic = sum((count - expected) ** 2 for count in counted) / expected
    p = chi_square_p(statistic, servers - 1)
    verdict, words = _verdict(p, servers, expected)
    return Evenness(servers, round(statistic, 4), servers - 1, float(f"{p:.4g}"), verdict, words)


def _verdict(p: float, servers: int, expected: float) -> tuple[str, str]:
    if expected < _FEWEST:
        return TOO_FEW, f"too few answers to tell: {servers * _FEWEST} would do for {servers} servers"
    if p < _UNEVEN:
        return UNEVEN, f"uneven: a fair choice among {servers} servers comes out like this {_how_often(p)}"
    if p > _TOO_EVEN:
        return ROTATION, f"more even than chance: the {servers} servers seem to take turns, as with ipvs rr"
    return EVEN, f"even: nothing speaks against a fair choice among {servers} servers"


def _how_often(p: float) -> str:
    return f"once in {round(1 / p):,} times" if p > 1e-9 else "practically never"


def chi_square_p(statistic: float, degrees: int) -> float:
    """The probability that a chi-square variable with that many degrees of freedom is at least `statistic`.

    The regularised upper incomplete gamma function Q(degrees / 2, statistic / 2). At halves and whole numbers it is a
    finite sum: Q(a + 1, x) = Q(a, x) + x^a e^-x / Gamma(a + 1), from Q(1, x) = e^-x or Q(1/2, x) = erfc(sqrt x).
    """
    half = statistic / 2
    if half <= 0:
        return 1.0
    order = 0.5 if degrees % 2 else 1.0
    q = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    while order < degrees / 2:
        q += math.exp(order * math.log(half) - half - math.lgamma(order + 1))
        order += 1
    return min(q, 1.0)
