"""The contract of `Ipset`: what a set takes, refuses and shows. Run on the fake and on the kernel."""

from __future__ import annotations

import errno

import pytest

from netemu.kernel.ipset import Add, Create, Del, Destroy, Entry, Flush, Ipset, Rename, Request, SetSpec, Swap
from netemu.model.errors import KernelBusy, KernelError, KernelExists, KernelNotFound

WEB = SetSpec("WEB", "hash:ip,port", comment=True)
OTHER = SetSpec("OTHER", "hash:ip,port", comment=True)
HOSTS = SetSpec("HOSTS", "hash:ip")
NETS = SetSpec("NETS", "hash:ip,port,net")
NETS6 = SetSpec("NETS6", "hash:ip,port,net", "inet6", maxelem=2)
PORTS = SetSpec("PORTS", "bitmap:port", ports=(30000, 32767))
SETS = (WEB, OTHER, HOSTS, NETS, NETS6, PORTS, SetSpec("PAIRS", "hash:ip,port,ip"))


def entry(text: str) -> Entry:
    return Entry.parse(text)


def filled(kind: Ipset) -> None:
    """All sets, with something in the first."""
    kind.apply(*(Create(spec) for spec in SETS), Add("WEB", entry("10.96.0.10,tcp:80")))


REFUSED = [
    pytest.param(Create(WEB, exist=False), KernelExists, id="a second set of one name"),
    pytest.param(Create(SetSpec("WEB", "hash:ip")), KernelExists, id="another type under a name"),
    pytest.param(Create(SetSpec("HOSTS", "hash:ip", maxelem=5)), KernelExists, id="another maxelem under a name"),
    pytest.param(Create(SetSpec("HOSTS", "hash:ip", comment=True)), KernelExists, id="comments for a set without"),
    pytest.param(Create(SetSpec("PORTS", "bitmap:port")), KernelExists, id="another range under a name"),
    pytest.param(Create(SetSpec("x" * 32, "hash:ip")), KernelError, id="a name of 32 characters"),
    pytest.param(Create(SetSpec("NEW", "hash:none")), KernelError, id="no such type"),
    pytest.param(Destroy("NONE", exist=False), KernelNotFound, id="destroy what is not there"),
    pytest.param(Flush("NONE"), KernelNotFound, id="flush what is not there"),
    pytest.param(Swap("NONE", "WEB"), KernelNotFound, id="swap what is not there"),
    pytest.param(Swap("WEB", "NONE"), KernelNotFound, id="swap with what is not there"),
    pytest.param(Swap("WEB", "HOSTS"), KernelError, id="swap unlike types"),
    pytest.param(Rename("WEB", "OTHER"), KernelExists, id="rename to a taken name"),
    pytest.param(Add("NONE", entry("10.0.0.1")), KernelNotFound, id="add to no set"),
    pytest.param(Add("WEB", entry("10.96.0.10,tcp:80"), exist=False), KernelExists, id="add what is there"),
    pytest.param(Del("WEB", entry("10.96.0.10,udp:80"), exist=False), KernelNotFound, id="delete what is not there"),
    pytest.param(Del("NONE", entry("10.0.0.1")), KernelNotFound, id="delete from no set"),
    pytest.param(Add("HOSTS", entry("fd00::1")), KernelError, id="IPv6 address into an IPv4 set"),
    pytest.param(Add("HOSTS", entry("0.0.0.0")), KernelError, id="the address of nobody"),
    pytest.param(Add("NETS6", entry("10.0.0.1,tcp:1,10.0.0.0/8")), KernelError, id="IPv4 address into an IPv6 set"),
    pytest.param(Add("WEB", entry("10.0.0.1")), KernelError, id="no port"),
    pytest.param(Add("PAIRS", entry("10.0.0.1,tcp:1")), KernelError, id="no second address"),
    pytest.param(Add("PORTS", entry("10.0.0.1")), KernelError, id="address into a set of ports"),
    pytest.param(Add("PORTS", entry("80")), KernelError, id="port out of range"),
    pytest.param(Add("NETS", entry("10.0.0.1,tcp:1,0.0.0.0/0")), KernelError, id="network of everybody"),
    pytest.param(Add("HOSTS", entry("10.0.0.1"), comment="no"), KernelError, id="comment where there are none"),
    pytest.param(Add("WEB", entry("10.0.0.1,tcp:1"), comment="x" * 256), KernelError, id="comment too long"),
]


def check_refusal(kind: Ipset, request: Request, error: type[KernelError]) -> None:
    """The request is refused in its own words and changes nothing."""
    filled(kind)
    before = [kind.get(spec.name) for spec in SETS]

    with pytest.raises(error, match=f"^{request}"):
        kind.apply(request)

    assert [kind.get(spec.name) for spec in SETS] == before


KEPT = [
    pytest.param("WEB", "10.96.0.10,udp:53", "10.96.0.10,udp:53", id="address and port"),
    pytest.param("HOSTS", "192.0.2.1", "192.0.2.1", id="address"),
    pytest.param("PAIRS", "10.0.0.1,sctp:80,10.0.0.1", "10.0.0.1,sctp:80,10.0.0.1", id="address, port, address"),
    pytest.param("NETS", "10.0.0.1,tcp:80,192.0.2.9/24", "10.0.0.1,tcp:80,192.0.2.0/24", id="host bits go"),
    pytest.param("NETS", "10.0.0.1,tcp:80,192.0.2.9/32", "10.0.0.1,tcp:80,192.0.2.9", id="network of one"),
    pytest.param("NETS6", "fd00:0:0::1,tcp:80,fd01::1/64", "fd00::1,tcp:80,fd01::/64", id="IPv6"),
    pytest.param("NETS6", "fd00::1,tcp:80,fd01::1/128", "fd00::1,tcp:80,fd01::1", id="IPv6 network of one"),
    pytest.param("PORTS", "30080", "30080", id="port"),
]


def check_kept(kind: Ipset, name: str, given: str, shown: str) -> None:
    """An entry is listed as the tool prints it, and can be deleted as it was given."""
    filled(kind)
    kind.apply(Add(name, entry(given)))
    assert shown in {str(each) for each in kind.get(name).entries}

    kind.apply(Del(name, entry(given), exist=False))
    assert shown not in {str(each) for each in kind.get(name).entries}


def check_made_as_asked(kind: Ipset) -> None:
    """A set tells how it was made."""
    filled(kind)

    assert [kind.get(spec.name).spec for spec in SETS] == list(SETS)
    assert sorted(kind.names()) == sorted(spec.name for spec in SETS)


def check_comments(kind: Ipset) -> None:
    """Comments are kept with their entries; adding again changes them."""
    filled(kind)
    kind.apply(Add("WEB", entry("10.0.0.1,tcp:1"), comment="shop/web:http"))
    assert kind.get("WEB").comments == {entry("10.0.0.1,tcp:1"): "shop/web:http"}

    kind.apply(Add("WEB", entry("10.0.0.1,tcp:1"), comment="shop/web:https"))
    assert kind.get("WEB").comments == {entry("10.0.0.1,tcp:1"): "shop/web:https"}


def check_exist(kind: Ipset) -> None:
    """With -exist, what is there already and what is gone already are no errors."""
    filled(kind)
    before = kind.get("WEB")
    kind.apply(
        Create(WEB), Add("WEB", entry("10.96.0.10,tcp:80")), Del("WEB", entry("10.0.0.9,tcp:1")), Destroy("NONE")
    )

    assert kind.get("WEB") == before


def check_swap(kind: Ipset) -> None:
    """Swapped sets exchange what is in them."""
    filled(kind)
    kind.apply(Add("OTHER", entry("10.0.0.1,tcp:1")), Swap("WEB", "OTHER"))

    assert {str(each) for each in kind.get("WEB").entries} == {"10.0.0.1,tcp:1"}
    assert {str(each) for each in kind.get("OTHER").entries} == {"10.96.0.10,tcp:80"}


def check_full(kind: Ipset) -> None:
    """A set takes no more than maxelem, and says so."""
    filled(kind)
    kind.apply(Add("NETS6", entry("fd00::1,tcp:1,fd00::1")), Add("NETS6", entry("fd00::1,tcp:2,fd00::1")))

    with pytest.raises(KernelError, match="full") as caught:
        kind.apply(Add("NETS6", entry("fd00::1,tcp:3,fd00::1")))

    assert caught.value.code == errno.ENOSPC


def check_rename_flush_destroy(kind: Ipset) -> None:
    """A renamed set keeps its entries, a flushed one has none, a destroyed one is gone."""
    filled(kind)
    kind.apply(Rename("WEB", "WEB2"))
    assert len(kind.get("WEB2").entries) == 1

    kind.apply(Flush("WEB2"))
    assert not kind.get("WEB2").entries

    kind.apply(Destroy("WEB2"))
    with pytest.raises(KernelNotFound, match="WEB2"):
        kind.get("WEB2")


def check_the_rest_is_done(kind: Ipset) -> None:
    """A refused request does not stop those behind it, and each refusal is told with its request."""
    filled(kind)
    wrong: list[Request] = [
        Add("NONE", entry("10.0.0.1")),
        Create(SetSpec("NEW", "hash:none")),
        Destroy("NOBODY", exist=False),
    ]

    refused = kind.attempt([*wrong, Add("HOSTS", entry("10.0.0.1"))])

    assert {str(request) for request, _ in refused} == {str(request) for request in wrong}
    assert kind.get("HOSTS").entries == {entry("10.0.0.1")}


def check_a_thousand(kind: Ipset) -> None:
    """More entries than fit one message are sent and listed."""
    filled(kind)
    wanted = {Entry(f"10.3.{number >> 8}.{number & 255}", "tcp", 80) for number in range(4000)}
    kind.apply(*(Add("OTHER", each) for each in wanted))

    assert kind.get("OTHER").entries == wanted


BEHAVIOUR = [
    check_made_as_asked, check_comments, check_exist, check_swap, check_full,
    check_rename_flush_destroy, check_the_rest_is_done, check_a_thousand,
]  # fmt: skip


def check_held(kind: Ipset) -> None:
    """A set that a rule looks into cannot go or change its name, but its content can; `WEB` is held by one rule."""
    assert kind.get("WEB").references == 1
    for request in (Destroy("WEB"), Rename("WEB", "NEW")):
        with pytest.raises(KernelBusy, match="in use"):
            kind.apply(request)

    kind.apply(Flush("WEB"), Swap("WEB", "OTHER"))
    assert kind.get("WEB").references == 1
