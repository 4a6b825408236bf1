"""Addresses for Pods out of their node's range, in the manner of CNI's host-local: round robin, so that an address
just given back is the last to be used again, and nobody's stale connection meets a new Pod.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from netemu.model.errors import KernelError


class Ipam:
    """The addresses of one range and who holds them; its network, broadcast and gateway addresses are nobody's."""

    def __init__(self, cidr: str, held: Mapping[str, str] | None = None) -> None:
        """`held`: address to owner, as the kernel's routes tell it after a restart."""
        self._network = ipaddress.ip_network(cidr)
        self._first = int(self._network.network_address) + 2
        self._last = int(self._network.broadcast_address) - 1
        self._owners = dict(held or {})
        self._addresses = {owner: address for address, owner in self._owners.items()}
        self._next = max((self._number(address) for address in self._within(self._owners)), default=self._first - 1) + 1

    def allocate(self, owner: str) -> str:
        """The owner's address: the one it has, else the next free one. Raises KernelError when none is left."""
        if owner in self._addresses:
            return self._addresses[owner]
        size = self._last - self._first + 1
        for step in range(max(size, 0)):
            candidate = self._first + (self._next - self._first + step) % size
            address = str(ipaddress.ip_address(candidate))
            if address not in self._owners:
                self._owners[address], self._addresses[owner] = owner, address
                self._next = candidate + 1
                return address
        raise KernelError(
            "allocate an address", detail=f"no addresses available in range {self._network}: all {size} in use"
        )

    def release(self, owner: str) -> None:
        """Give the owner's address back; having none is success."""
        address = self._addresses.pop(owner, None)
        if address is not None:
            del self._owners[address]

    def holds(self, owner: str) -> bool:
        """Whether the owner has an address."""
        return owner in self._addresses

    def owner(self, address: str) -> str:
        """Who holds an address, or ""."""
        return self._owners.get(address, "")

    def __len__(self) -> int:
        return len(self._owners)

    def _within(self, addresses: Iterable[str]) -> list[str]:
        return [address for address in addresses if self._first <= self._number(address) <= self._last]

    @staticmethod
    def _number(address: str) -> int:
        return int(ipaddress.ip_address(address))
