"""What a cause is, of a packet that did not come to whom it should have."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from netemu.observe.reasons import Reason


class WhyNot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The cause."""

    reason: Reason
    place: str
    """Where the packet's way and the right one part."""
    text: str
    remedy: str = ""

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"why not: {self.text}"
        yield f"   where: {self.place}"
        if self.remedy:
            yield f"  remedy: {self.remedy}"
