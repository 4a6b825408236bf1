"""What the nodes of a running lab track: the entries of their conntrack tables, and events of these."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from netemu.kernel import netns as namespaces
from netemu.kernel import sysctl
from netemu.kernel.conntrack import ConntrackNetlink
from netemu.kernel.conntrack_events import ConntrackEvents, entries
from netemu.lab.config import load_config
from netemu.network.names import node_netns
from netemu.network.node import COUNTED
from netemu.observe.conntrack.flows import Held

_ROUND: Final = 0.2


def held_by(lab: str, nodes: Sequence[str]) -> list[Held]:
    """The entries of these nodes, of both families. Raises KernelNotFound for a node that went away."""
    families = (False, True) if load_config(lab).ipv6 else (False,)
    return [
        (node, entry) for node in nodes for ipv6 in families for entry in entries(node_netns(lab, node), ipv6=ipv6)
    ]  # fmt: skip


def forget(lab: str, held: Sequence[Held]) -> list[Held]:
    """Remove entries from their tables; those that were still there."""
    tables = {node: ConntrackNetlink(node_netns(lab, node)) for node, _ in held}
    return [(node, one) for node, one in held if tables[node].delete([one], ipv6=":" in one.original.source)]


def count_traffic(lab: str, nodes: Sequence[str]) -> None:
    """See that the nodes count packets and note times, as they do from the start where the kernel had conntrack then;
    connections that are older stay without."""
    for node in nodes:
        sysctl.write(COUNTED, node_netns(lab, node), optional=True)


class Followed:
    """Events of the tables of several nodes, as they happen."""

    def __init__(self, lab: str, nodes: Sequence[str]) -> None:
        self._netns = [node_netns(lab, node) for node in nodes]
        self._poll = select.poll()
        self._tables: dict[int, tuple[str, ConntrackEvents]] = {}
        self.lost = 0
        """How often there was no room for events."""
        try:
            for node, netns in zip(nodes, self._netns, strict=True):
                table = ConntrackEvents(netns)
                self._tables[table.fileno()] = node, table
                self._poll.register(table, select.POLLIN)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Followed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more."""
        for _, table in self._tables.values():
            table.close()

    def gone(self) -> bool:
        """Whether all nodes went away."""
        return not any(map(namespaces.exists, self._netns))

    def events(self, over: Callable[[], bool], reader: int) -> Iterator[list[Held]]:
        """Events, some at a time, until `over` or until nobody reads `reader` any more."""
        self._poll.register(reader, 0)
        while not over():
            found: list[Held] = []
            for descriptor, _ in self._poll.poll(1000 * _ROUND):
                if descriptor == reader:
                    return
                node, table = self._tables[descriptor]
                events, lost = table.read()
                self.lost += lost
                found += [(node, event) for event in events]
            yield found
