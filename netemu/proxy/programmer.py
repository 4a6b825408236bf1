"""What a mode's programmer is to the sync loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from netemu.proxy.facts import NodeFacts
from netemu.proxy.services import PortKey
from netemu.proxy.tracker import Table


@dataclass(frozen=True, slots=True)
class Written:
    """What one sync did."""

    full: bool
    chains: int = 0
    """Chains, or what the mode has in their place, that were written."""
    rules: Mapping[str, int] = field(default_factory=dict)
    """Rules written, by table."""
    total: Mapping[str, int] = field(default_factory=dict)
    """Rules that exist, by table."""
    no_local: tuple[int, int] = (0, 0)
    """Ports whose internal / external Local policy finds no endpoint here."""
    again: float = 0.0
    """Another sync is needed so many seconds later, to finish what the kernel does not allow at once; 0: none."""


class Programmer(Protocol):
    """One mode's rules of one family in one namespace. Not reentrant: one call at a time."""

    async def program(self, table: Table, node: NodeFacts, touched: Iterable[PortKey] | None) -> Written:
        """Bring the kernel to `table`. `touched` names the ports that may differ; None: trust nothing.

        Idempotent. Raises KernelError; then the next call must be with None.
        """
        ...

    async def intact(self) -> bool:
        """Whether nobody has removed what was programmed, as far as that can be told cheaply."""
        ...

    async def flushed(self) -> bool:
        """Whether a removal that `intact` noticed is complete, so that programming again is not in vain."""
        ...

    async def cleanup(self) -> None:
        """Remove everything of ours. Absent is success. Foreign rules stay."""
        ...

    def close(self) -> None:
        """Give sockets back; rules stay."""
        ...
