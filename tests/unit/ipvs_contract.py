"""The contract of `Ipvs`: what it takes, refuses and shows. Run on the fake and, where there is IPVS, on the kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from netemu.kernel.ipvs import (
    AddDestination,
    AddServer,
    DelDestination,
    DelServer,
    Destination,
    EditDestination,
    EditServer,
    Flush,
    Forwarding,
    Ipvs,
    Request,
    ServerFlag,
    ServerKey,
    SetTimeouts,
    Timeouts,
    VirtualServer,
)
from netemu.model.errors import KernelError, KernelExists, KernelNotFound

WEB = ServerKey("tcp", "10.96.0.10", 80)
DNS6 = ServerKey("udp", "fd00:10:96::a", 53)
SCTP = ServerKey("sctp", "10.96.0.10", 80)
MARK = ServerKey(fwmark=7)
MARK6 = ServerKey(fwmark=7, ipv6_mark=True)
NONE = ServerKey("udp", "10.96.0.10", 80)
SERVERS = [
    VirtualServer(WEB),
    VirtualServer(DNS6, "mh", persistence=10800, prefix=64, flags=ServerFlag.SCHED_2),
    VirtualServer(SCTP, "wlc", flags=ServerFlag.ONE_PACKET),
    VirtualServer(MARK, "sh", persistence=60, prefix=24, flags=ServerFlag.SCHED_1 | ServerFlag.SCHED_2),
    VirtualServer(MARK6, "lc"),
]
ONE, TWO = Destination("10.244.1.5", 8080), Destination("10.244.2.7", 8080)


def filled(kind: Ipvs) -> None:
    """All virtual servers, the first with two destinations."""
    kind.apply(*(AddServer(server) for server in SERVERS), AddDestination(WEB, ONE), AddDestination(WEB, TWO))


def everything(kind: Ipvs) -> list[object]:
    """All there is to see."""
    servers = sorted(kind.servers(), key=lambda server: server.key)
    return [(server, sorted(each.target for each in kind.destinations(server.key))) for server in servers]


FREE = Destination("10.244.3.9", 8080)
REFUSED = [
    pytest.param(AddServer(VirtualServer(WEB)), KernelExists, "there already", id="a second server of one name"),
    pytest.param(AddServer(VirtualServer(NONE, "fast")), KernelNotFound, "no such scheduler", id="unknown scheduler"),
    pytest.param(EditServer(VirtualServer(WEB, "fast")), KernelNotFound, "no such scheduler", id="edit to unknown"),
    pytest.param(EditServer(VirtualServer(NONE)), KernelNotFound, "no such virtual server", id="edit no server"),
    pytest.param(DelServer(NONE), KernelNotFound, "no such virtual server", id="delete no server"),
    pytest.param(DelServer(ServerKey(fwmark=9)), KernelNotFound, "no such virtual server", id="delete no mark"),
    pytest.param(AddDestination(NONE, FREE), KernelNotFound, "no such virtual server", id="add behind no server"),
    pytest.param(AddDestination(WEB, ONE), KernelExists, "there already", id="add a destination twice"),
    pytest.param(EditDestination(WEB, FREE), KernelNotFound, "no such destination", id="edit no destination"),
    pytest.param(DelDestination(WEB, FREE), KernelNotFound, "no such destination", id="delete no destination"),
    pytest.param(DelDestination(NONE, ONE), KernelNotFound, "no such virtual server", id="delete behind no server"),
    pytest.param(AddDestination(WEB, replace(FREE, weight=-1)), KernelError, "weight", id="negative weight"),
    pytest.param(AddDestination(WEB, replace(FREE, upper=1, lower=2)), KernelError, "threshold", id="thresholds"),
    pytest.param(AddDestination(WEB, Destination("fd00::5", 80)), KernelError, "Invalid", id="other family"),
    pytest.param(AddDestination(DNS6, ONE), KernelError, "Invalid", id="other family, the other way"),
    pytest.param(AddDestination(WEB, Destination("224.0.0.5", 80)), KernelError, "Invalid", id="multicast"),
    pytest.param(
        AddServer(VirtualServer(ServerKey("tcp", "fd00::1", 1), prefix=0)), KernelError, "Invalid", id="prefix"
    ),
]


def check_refusal(kind: Ipvs, request: Request, error: type[KernelError], words: str) -> None:
    """The request is refused in its own words and changes nothing."""
    filled(kind)
    before = everything(kind)

    with pytest.raises(error, match=words) as caught:
        kind.apply(request)

    assert caught.value.operation == str(request)
    assert everything(kind) == before


def check_shown_as_made(kind: Ipvs) -> None:
    """Virtual servers of every kind are listed as they were added."""
    filled(kind)

    assert sorted(kind.servers(), key=lambda server: server.key) == sorted(SERVERS, key=lambda server: server.key)


def check_destinations(kind: Ipvs) -> None:
    """Destinations are listed with all that was said about them, and without connections."""
    filled(kind)
    special = Destination("10.244.3.9", 0, weight=5, method=Forwarding.ROUTE, upper=10, lower=4)
    kind.apply(AddDestination(WEB, special), AddDestination(DNS6, Destination("fd00::9", 53)))

    assert sorted(kind.destinations(WEB), key=lambda each: each.address) == [ONE, TWO, special]
    assert kind.destinations(DNS6) == [Destination("fd00::9", 53)]
    assert {(each.active, each.inactive, each.persistent) for each in kind.destinations(WEB)} == {(0, 0, 0)}


def check_edits(kind: Ipvs) -> None:
    """Settings and weights change in place; destinations stay."""
    filled(kind)
    edited = VirtualServer(WEB, "wlc", persistence=600)
    kind.apply(EditServer(edited), EditDestination(WEB, replace(ONE, weight=0)))

    assert edited in kind.servers()
    assert {each.target: each.weight for each in kind.destinations(WEB)} == {ONE.target: 0, TWO.target: 1}


def check_persistence_ends(kind: Ipvs) -> None:
    """A virtual server can lose its persistence."""
    kind.apply(AddServer(VirtualServer(WEB, persistence=600)), EditServer(VirtualServer(WEB)))

    assert kind.servers() == [VirtualServer(WEB)]


def check_deletion(kind: Ipvs) -> None:
    """A virtual server goes with its destinations; one of the same name starts empty."""
    filled(kind)
    kind.apply(DelDestination(WEB, TWO))
    assert kind.destinations(WEB) == [ONE]

    kind.apply(DelServer(WEB))
    with pytest.raises(KernelNotFound, match="no such virtual server"):
        kind.destinations(WEB)

    kind.apply(AddServer(VirtualServer(WEB)))
    assert kind.destinations(WEB) == []


def check_flush(kind: Ipvs) -> None:
    """Nothing is left after a flush."""
    filled(kind)
    kind.apply(Flush())

    assert kind.servers() == []


def check_timeouts(kind: Ipvs) -> None:
    """Zero leaves a timeout as it was."""
    before = kind.timeouts()
    kind.apply(SetTimeouts(Timeouts(udp=17)))
    assert kind.timeouts() == structs.replace(before, udp=17)

    kind.apply(SetTimeouts(Timeouts(tcp=before.tcp + 1, udp=before.udp)))
    assert kind.timeouts() == structs.replace(before, tcp=before.tcp + 1)

    kind.apply(SetTimeouts(before))


def check_the_rest_is_done(kind: Ipvs) -> None:
    """A refused request does not stop those behind it, and each refusal is told with its request."""
    filled(kind)
    wrong: list[Request] = [DelServer(NONE), AddDestination(WEB, ONE)]

    refused = kind.attempt([wrong[0], AddDestination(WEB, FREE), wrong[1]])

    assert [request for request, _ in refused] == wrong
    assert FREE in kind.destinations(WEB)


def check_many(kind: Ipvs) -> None:
    """More than fits one message is sent and listed."""
    keys = [ServerKey("tcp", f"10.97.{number >> 8}.{number & 255}", 80) for number in range(700)]
    kind.apply(*(AddServer(VirtualServer(key)) for key in keys), *(AddDestination(key, ONE) for key in keys))
    kind.apply(*(AddDestination(keys[0], Destination(f"10.244.9.{number}", 80)) for number in range(200)))

    assert {server.key for server in kind.servers()} == set(keys)
    assert len(kind.destinations(keys[0])) == 201
    assert kind.destinations(keys[-1]) == [ONE]


BEHAVIOUR = [
    check_shown_as_made, check_destinations, check_edits, check_persistence_ends, check_deletion,
    check_flush, check_timeouts, check_the_rest_is_done, check_many,
]  # fmt: skip
