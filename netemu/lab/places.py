"""What a person means by the places of a capture: POD, node/NAME, client/NAME or underlay, each with :LINK, or a LINK.

A link's name alone is looked for on nodes and in the underlay: there Pods' links have names of their own, and it is
enough to have seen one in `ip link`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from netemu.kernel import netns as namespaces
from netemu.kernel.netlink import Netlink
from netemu.lab.config import load_config
from netemu.lab.network_plan import network_plan
from netemu.lab.targets import find_target, pods_by_link
from netemu.model.errors import UserError
from netemu.model.lists import first_of
from netemu.model.suggest import instead
from netemu.network import names, plan
from netemu.observe.capture.stream import Place
from netemu.observe.names import UNDERLAY

_POD_LINK = re.compile(r"veth[0-9a-f]{8}")


def find_places(lab: str, texts: Iterable[str], namespace: str = "default") -> list[Place]:
    """Each place once. Raises UserError naming what is there instead."""
    found = dict.fromkeys(_find(lab, text, namespace) for text in texts)
    whole = {place.netns for place in found if not place.link}
    return [place for place in found if not (place.link and place.netns in whole)]


def describer(lab: str) -> Callable[[Place, str], str]:
    """Says where a link of a place leads."""
    underlay = {link: netns for netns, link in network_plan(load_config(lab)).ports.items()}
    pods: dict[str, str] = {}

    def describe(place: Place, link: str) -> str:
        if place.netns == names.underlay_netns(lab):
            return _underlay_link(link, underlay, lab)
        if _POD_LINK.fullmatch(link) and link not in pods:
            pods.update((name, pod.name) for name, pod in pods_by_link(lab).items())
        return f"to Pod {pods[link]}" if link in pods else ""

    return describe


def _underlay_link(link: str, machines: Mapping[str, str], lab: str) -> str:
    switches = {plan.NODE_BRIDGE: "the switch of the nodes", plan.CLIENT_BRIDGE: "the switch of the clients"}
    machine = machines.get(link, "").removeprefix(f"{lab}.").replace(".", "/", 1)
    return switches.get(link) or (f"to {machine}" if machine else "")


def _find(lab: str, text: str, namespace: str) -> Place:
    name, _, link = text.partition(":")
    try:
        place = _place(lab, name, namespace)
    except UserError as error:
        if "/" not in text and (alone := _named_link(lab, text, str(error))):
            return alone
        raise
    if link:
        known = _links(place.netns)
        if link not in known:
            raise UserError(f"{place.name}: no link {link!r}; {instead(link, sorted(known), 'links here')}")
    return Place(place.name, place.netns, link)


def _place(lab: str, name: str, namespace: str) -> Place:
    if name == UNDERLAY:
        return Place(UNDERLAY, names.underlay_netns(lab))
    target = find_target(lab, name, namespace)
    return Place(target.name, target.netns)


def _named_link(lab: str, link: str, why: str) -> Place | None:
    """The one place that has a link of that name; None if none has. Raises UserError where several have."""
    there = [place for place in _machines(lab) if link in _links(place.netns)]
    if len(there) > 1:
        said = [f"{place.name}:{link}" for place in there]
        raise UserError(f"{why}; links of that name are {first_of(said)}")
    return Place(there[0].name, there[0].netns, link) if there else None


def _machines(lab: str) -> Iterator[Place]:
    yield Place(UNDERLAY, names.underlay_netns(lab))
    for node in load_config(lab).nodes:
        yield Place(f"node/{node.name}", names.node_netns(lab, node.name))


def _links(netns: str) -> set[str]:
    if not namespaces.exists(netns):
        return set()
    with Netlink(netns) as netlink:
        return {link.name for link in netlink.links()}
