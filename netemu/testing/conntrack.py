"""Connections tracked without a kernel: the first packet of a flow decides where all others go.

The contract suite runs on this and on the kernel. Known differences: nothing times out, and source ports stay as they
are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from netemu.kernel.conntrack import Flow

Target = tuple[str, int]


class FakeConntrack:
    """See `kernel.conntrack.Conntrack`. `rules` say where new flows to a (protocol, address, port) are sent on to."""

    def __init__(self) -> None:
        self.rules: dict[tuple[str, str, int], Target] = {}
        self._flows: dict[tuple[str, Target, Target], Flow] = {}
        self._made = 0

    def send(self, protocol: str, source: Target, to: Target) -> Target:
        """A packet; returns where it arrives."""
        key = protocol, source, to
        if key not in self._flows:
            self._made += 1
            end = self.rules.get((protocol, *to), to)
            self._flows[key] = Flow(protocol, *source, *to, *end, handle=b"%d" % self._made)
        flow = self._flows[key]
        return flow.reply_source, flow.reply_port

    def flows(self, protocol: str = "udp", *, ipv6: bool = False) -> list[Flow]:
        """See Conntrack."""
        return [replace(f) for f in self._flows.values() if f.protocol == protocol and (":" in f.source) == ipv6]

    def delete(self, flows: Iterable[Flow], *, ipv6: bool = False) -> int:
        """See Conntrack."""
        handles = {flow.handle for flow in flows if (":" in flow.source) == ipv6}
        gone = [key for key, flow in self._flows.items() if flow.handle in handles]
        for key in gone:
            del self._flows[key]
        return len(gone)
