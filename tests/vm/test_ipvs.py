"""The contract of `Ipvs`, on the kernel; and packets, which IPVS spreads as the fake says it may."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from netemu.kernel import netns, sysctl
from netemu.kernel.ipvs import (
    AddDestination,
    AddServer,
    DelDestination,
    Destination,
    EditDestination,
    EditServer,
    Ipvs,
    IpvsNetlink,
    Request,
    ServerKey,
    VirtualServer,
)
from netemu.kernel.netlink import Netlink
from netemu.kernel.rtnetlink import AddAddress, AddDummy, AddRoute, AddVeth, SetLink
from netemu.model.errors import KernelError, KernelExists
from tests.unit.ipvs_contract import BEHAVIOUR, REFUSED, check_refusal

NODE, CLIENT = "t-vm-node", "t-vm-client"
VIP = ServerKey("tcp", "10.96.0.10", 80)


@pytest.fixture
def kernel() -> Iterator[IpvsNetlink]:
    netns.delete(NODE)
    netns.create(NODE)
    with Netlink(NODE) as netlink:
        # Without any route the kernel takes an address for a broadcast, and no destination can be one.
        netlink.apply(SetLink("lo", up=True))
    opened = IpvsNetlink(NODE)
    try:
        yield opened
    finally:
        opened.close()
        netns.delete(NODE)


@pytest.mark.parametrize(("request_", "error", "words"), REFUSED)
def test_refuses(kernel: IpvsNetlink, request_: Request, error: type[KernelError], words: str) -> None:
    check_refusal(kernel, request_, error, words)


@pytest.mark.parametrize("check", BEHAVIOUR)
def test_behaves(kernel: IpvsNetlink, check: Callable[[Ipvs], None]) -> None:
    check(kernel)


def test_schedulers_are_loaded_by_their_names_while_namespaces_go(kernel: IpvsNetlink) -> None:
    for number in range(5):
        netns.create(f"t-vm-{number}")
        going = IpvsNetlink(f"t-vm-{number}")
        going.apply(*(AddServer(VirtualServer(VIP._replace(port=port))) for port in range(1, 200)))
        going.close()
    for number in range(5):
        netns.delete(f"t-vm-{number}")
    names = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh", "fo"]
    made = [VirtualServer(VIP._replace(port=port), name) for port, name in enumerate(names, 1)]
    kernel.apply(*map(AddServer, made))

    assert sorted(kernel.servers(), key=lambda server: server.key.port) == made


def test_dummy_link_is_made_once(kernel: IpvsNetlink) -> None:
    with Netlink(NODE) as netlink:
        netlink.apply(AddDummy("kube-ipvs0"), AddAddress("kube-ipvs0", "10.96.0.10/32"))

        with pytest.raises(KernelExists, match="kube-ipvs0"):
            netlink.apply(AddDummy("kube-ipvs0"))
        (link,) = [link for link in netlink.links() if link.name == "kube-ipvs0"]

    assert (link.type, link.up) == ("dummy", False)


@pytest.fixture
def serving(kernel: IpvsNetlink) -> Iterator[IpvsNetlink]:
    """A node with the virtual server's address on kube-ipvs0 and two servers that say their names; a client beside."""
    netns.delete(CLIENT)
    netns.create(CLIENT)
    with Netlink(NODE) as node, Netlink(CLIENT) as client:
        node.apply(AddDummy("kube-ipvs0"), AddAddress("kube-ipvs0", f"{VIP.address}/32"))
        node.apply(AddVeth("veth0", "eth0", CLIENT), AddAddress("veth0", "192.0.2.1/24"))
        client.apply(SetLink("eth0", up=True), AddAddress("eth0", "192.0.2.9/24"), AddRoute("default", via="192.0.2.1"))
    kernel.apply(AddServer(VirtualServer(VIP)))
    targets = [Destination("192.0.2.1", 8001), Destination("192.0.2.1", 8002)]
    kernel.apply(*(AddDestination(VIP, each) for each in targets))
    try:
        with _server(8001), _server(8002):
            yield kernel
    finally:
        netns.delete(CLIENT)


@contextmanager
def _server(port: int) -> Iterator[None]:
    """Answers each connection with its port."""
    with netns.entered(NODE):
        listener = socket.create_server(("192.0.2.1", port))

    def work() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(str(port).encode())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def answers(count: int, key: ServerKey = VIP) -> Counter[str]:
    """Who answers the client's connections to the virtual server."""
    found: Counter[str] = Counter()
    for _ in range(count):
        with netns.entered(CLIENT):
            connection = socket.socket()
        connection.settimeout(60)
        with connection:
            connection.connect((key.address, key.port))
            found[connection.recv(16).decode()] += 1
    return found


def test_round_robin_takes_turns(serving: IpvsNetlink) -> None:
    assert answers(10) == {"8001": 5, "8002": 5}


def test_weight_zero_gets_no_new_connections(serving: IpvsNetlink) -> None:
    serving.apply(EditDestination(VIP, Destination("192.0.2.1", 8001, weight=0)))

    assert answers(4) == {"8002": 4}


def test_persistence_keeps_a_client_where_it_was(serving: IpvsNetlink) -> None:
    key = VIP._replace(port=81)
    serving.apply(AddServer(VirtualServer(key, persistence=300)))
    serving.apply(*(AddDestination(key, each) for each in serving.destinations(VIP)))

    found = answers(6, key)

    assert list(found.values()) == [6]


def test_without_weight_a_destination_loses_the_clients_it_kept_where_the_node_says_so(serving: IpvsNetlink) -> None:
    sysctl.write({"net.ipv4.vs.expire_quiescent_template": 1}, NODE)
    serving.apply(EditServer(VirtualServer(VIP, persistence=300)))
    (first,) = answers(1)
    serving.apply(EditDestination(VIP, Destination("192.0.2.1", int(first), weight=0)))

    assert first not in answers(3)


def test_without_destinations_the_client_is_refused(serving: IpvsNetlink) -> None:
    serving.apply(*(DelDestination(VIP, each) for each in serving.destinations(VIP)))

    with pytest.raises(ConnectionRefusedError):
        answers(1)


def test_connections_are_counted(serving: IpvsNetlink) -> None:
    answers(6)

    assert sum(each.active + each.inactive for each in serving.destinations(VIP)) == 6
