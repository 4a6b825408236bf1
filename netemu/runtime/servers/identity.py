"""Who answers: the words by which a test recognises which Pod a packet reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Identity:
    """The answering container."""

    pod: str
    namespace: str
    node: str
    hostname: str
    container: str = ""

    def about(self, client: tuple[str, int], port: int, protocol: str) -> dict[str, Any]:
        """The JSON every echo answer starts from: who was reached, on which port, and by whom."""
        return {
            "pod": self.pod,
            "namespace": self.namespace,
            "node": self.node,
            "client": client[0],
            "clientPort": client[1],
            "port": port,
            "protocol": protocol,
        }


def plain(address: str) -> str:
    """An IPv4 client of an IPv6 socket in its own notation."""
    return address.removeprefix("::ffff:")
