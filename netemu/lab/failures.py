"""What a check, a claim or a change of a lab says when it does not hold."""

from __future__ import annotations

from netemu.model.errors import NetemuError
from netemu.observe.probe.result import ProbeResult
from netemu.observe.probe.timeline import Timeline
from netemu.observe.resolve.dig import Lookup


class Failed(NetemuError):
    """A claim that does not hold; the text is what was seen. With what was found out in full, where something was."""

    def __init__(self, seen: str, found: ProbeResult | Lookup | None = None, timeline: Timeline | None = None) -> None:
        super().__init__(seen)
        self.found, self.timeline = found, timeline


def expect(holds: bool, seen: str, found: ProbeResult | Lookup | None = None) -> None:
    """Raise Failed unless it holds."""
    if not holds:
        raise Failed(seen, found)
