"""What the addresses of a running lab are called, asked now: from its configuration, its Pods and its API server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from netemu.lab.api import LabApi
from netemu.lab.config import LabConfig, load_config
from netemu.lab.network_plan import network_plan
from netemu.lab.paths import LabPaths
from netemu.model.errors import ApiError, UserError
from netemu.model.meta import decode
from netemu.model.objects import Service
from netemu.model.resources import SERVICES
from netemu.network.plan import first_address
from netemu.observe.names import CLIENT, NODE, POD, UNDERLAY, Names, Party, names_of
from netemu.runtime import sandboxes

_AGAIN: Final = 2.0
_OLD: Final = 10.0


class CurrentNames:
    """The names of a lab that goes on: asked for again where an address has none, every two seconds at most, and when
    they are ten seconds old, because an old address may have a new Service's node port.

    Whoever went away keeps their name until the address is somebody else's: packets may still be told.
    """

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self.now, self.problem = _ask(lab)
        """`problem` is why Services have no names, if they have none."""
        self._asked = time.monotonic()

    def refresh(self) -> None:
        """Ask now; of a lab that is gone nothing new can be learnt."""
        self._asked = time.monotonic()
        try:
            fresh, self.problem = _ask(self._lab)
        except UserError:
            return
        self.now = Names({**self.now.parties, **fresh.parties}, {**self.now.ports, **fresh.ports})

    def know(self, *addresses: str) -> Names:
        """Names in which these addresses are, if they are anybody's."""
        age = time.monotonic() - self._asked
        if age > _OLD or (age > _AGAIN and any(address not in self.now.parties for address in addresses)):
            self.refresh()
        return self.now


def address_names(lab: str) -> Names:
    """The names of a lab as it is now; without those of Services while its API server does not answer.

    Raises UserError where no such lab is.
    """
    return _ask(lab)[0]


def _ask(lab: str) -> tuple[Names, str]:
    config = load_config(lab)
    services, problem = list[Service](), ""
    try:
        services = [decode(item, Service) for item in LabApi(lab).list(SERVICES)[0]]
    except (ApiError, UserError) as error:
        problem = str(error)
    return names_of([*_machines(config), *_pods(lab)], services), problem


def _machines(config: LabConfig) -> Iterator[tuple[str, Party]]:
    for node in config.nodes:
        # What a node sends to its own Pods carries the address it has on their links.
        for address in (*node.addresses, *map(first_address, node.pod_cidrs)):
            yield address, Party(NODE, node.name)
    for client in config.clients:
        yield from ((address, Party(CLIENT, client.name)) for address in client.addresses)
    for network in (*config.node_cidrs, *network_plan(config).client_networks):
        yield first_address(network), Party(UNDERLAY, UNDERLAY)


def _pods(lab: str) -> Iterator[tuple[str, Party]]:
    for sandbox in sandboxes.load_all(LabPaths(lab).pods):
        pod = sandbox.config
        for address in pod.addresses if sandbox.ready else ():
            yield address, Party(POD, f"{pod.pod_namespace}/{pod.pod_name}", pod.node_name)
