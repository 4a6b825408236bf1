"""What Pods ask for and nodes have: cpu in millicores, memory in bytes, everything else as a count
(`k8s.io/apimachinery/pkg/api/resource`, `pkg/api/v1/resource/helpers.go`)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from math import ceil
from typing import Any

from netemu.model.pods import Container, Pod

Amounts = Mapping[str, int]

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "E": Decimal(10**18), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip


@lru_cache(maxsize=4096)
def quantity(text: str, scale: int = 1) -> int:
    """A quantity such as `250m`, `1.5Gi` or `2e3` times `scale`, rounded up. Raises ValueError."""
    text = text.strip()
    number = text.rstrip("numkKMGTPEi")
    suffix = text[len(number) :]
    if suffix == "E" and not number:
        raise ValueError(f"{text!r} is no quantity")
    try:
        return ceil(Decimal(number) * _SUFFIXES[suffix] * scale)
    except (InvalidOperation, KeyError) as error:
        raise ValueError(f"{text!r} is no quantity") from error


def amounts(raw: Mapping[str, Any] | None) -> dict[str, int]:
    """A resource list in whole units. What cannot be read counts as nothing: the API server has validated it."""
    found: dict[str, int] = {}
    for name, text in (raw or {}).items():
        try:
            found[name] = quantity(str(text), 1000 if name == "cpu" else 1)
        except ValueError:
            continue
    return found


def requests(pod: Pod) -> dict[str, int]:
    """What the Pod reserves: its containers and sidecars together, or the largest init container if that is more."""
    spec = pod.spec
    running: dict[str, int] = {}
    for container in spec.containers:
        _add(running, _of(container))
    peak: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    for container in spec.init_containers:
        wanted = _of(container)
        if container.restart_policy == "Always":
            _add(running, wanted)
            _add(sidecars, wanted)
            wanted = {}
        start = {name: wanted.get(name, 0) + sidecars.get(name, 0) for name in {**wanted, **sidecars}}
        peak = {name: max(peak.get(name, 0), start.get(name, 0)) for name in {**peak, **start}}
    return {name: max(running.get(name, 0), peak.get(name, 0)) for name in {**running, **peak}}


def _of(container: Container) -> dict[str, int]:
    return amounts((container.resources or {}).get("requests"))


def _add(total: dict[str, int], more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount
