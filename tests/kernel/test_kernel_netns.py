"""Named namespaces and their sysctls, as ip netns and the kernel see them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from netemu.kernel import netns, sysctl
from netemu.model.errors import KernelError, KernelExists, KernelNotFound

NAME = "t-kernel-one"


@pytest.fixture
def one() -> Iterator[str]:
    netns.create(NAME)
    yield NAME
    netns.delete(NAME)


def _current() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_ip_netns_lists_a_created_namespace(one: str) -> None:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout

    assert one in listed.split()
    assert one in netns.names()


def test_ip_netns_can_run_a_command_in_it(one: str) -> None:
    shown = subprocess.run(
        ["ip", "netns", "exec", one, "ip", "-br", "link"], capture_output=True, text=True, check=True
    )

    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["lo"]


def test_creating_one_twice_is_refused(one: str) -> None:
    with pytest.raises(KernelExists, match=one):
        netns.create(one)

    assert not netns.ensure(one)


def test_creating_one_leaves_the_thread_where_it_was() -> None:
    before = _current()

    netns.create(NAME)
    netns.delete(NAME)

    assert before == _current()


def test_deleting_one_twice_is_harmless(one: str) -> None:
    netns.delete(one)
    netns.delete(one)

    assert one not in netns.names()


def test_leftover_of_a_crashed_creation_is_replaced_and_deleted() -> None:
    netns.ensure(NAME)
    netns.delete(NAME)
    with open(netns.path(NAME), "x"):
        pass
    assert not netns.exists(NAME)

    assert netns.ensure(NAME)
    assert netns.exists(NAME)

    netns.delete(NAME)
    assert not os.path.exists(netns.path(NAME))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(KernelError, match="cannot be the name"):
        netns.create(name)


def test_mounts_do_not_pile_up(one: str) -> None:
    with open("/proc/self/mountinfo") as file:
        assert sum(line.split()[4] == netns.DIRECTORY for line in file) == 1


def test_only_the_calling_thread_enters(one: str) -> None:
    before = _current()
    with ThreadPoolExecutor(1) as other:
        other.submit(_current).result()  # a thread started inside would begin inside

        with netns.entered(one):
            inside, elsewhere = _current(), other.submit(_current).result()

    assert before != inside
    assert [before, before] == [elsewhere, _current()]


def test_nested_blocks_return_one_by_one(one: str) -> None:
    netns.create("t-kernel-two")
    try:
        with netns.entered(one):
            first = _current()
            with netns.entered("t-kernel-two"):
                assert first != _current()
            assert first == _current()
    finally:
        netns.delete("t-kernel-two")


def test_thread_returns_after_an_exception(one: str) -> None:
    before = _current()

    with pytest.raises(ZeroDivisionError), netns.entered(one):
        raise ZeroDivisionError

    assert before == _current()


def test_socket_stays_where_it_was_opened(one: str) -> None:
    with netns.entered(one):
        server = socket.create_server(("127.0.0.1", 0)) if _loopback_up() else socket.socket()

    with server, netns.entered(one), pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("192.0.2.1", 1))

    assert server.family is socket.AF_INET


def _loopback_up() -> bool:
    with open("/sys/class/net/lo/operstate") as file:
        return file.read().strip() == "up"


def test_entering_a_missing_namespace_names_it() -> None:
    with pytest.raises(KernelNotFound, match="t-kernel-none"), netns.entered("t-kernel-none"):
        pass


def test_process_that_cannot_leave_a_namespace_ends(one: str) -> None:
    code = (
        f"import os; from netemu.kernel import netns\nwith netns.entered({one!r}): os.seteuid(65534)\nprint('went on')"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (ended.returncode, ended.stdout) == (70, "")
    assert "wrong network" in ended.stderr


def test_without_root_creation_says_so() -> None:
    code = (
        "import os\nfrom netemu.kernel import netns\nfrom netemu.model.errors import KernelDenied\n"
        "os.seteuid(65534)\n"
        "try: netns.create('t-kernel-denied')\nexcept KernelDenied as err: print(err)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "t-kernel-denied" in ended.stdout


def test_sysctl_of_a_namespace_is_not_the_machines(one: str) -> None:
    before = sysctl.read("net.ipv4.ip_forward")
    wanted = "0" if before == "1" else "1"

    sysctl.write({"net.ipv4.ip_forward": wanted}, one)

    assert (wanted, before) == (sysctl.read("net.ipv4.ip_forward", one), sysctl.read("net.ipv4.ip_forward"))


def test_sysctl_value_of_two_numbers_is_written(one: str) -> None:
    sysctl.write({"net.ipv4.ping_group_range": "0 2147483647"}, one)

    assert sysctl.read("net.ipv4.ping_group_range", one).split() == ["0", "2147483647"]


def test_sysctl_of_the_machine_is_refused(one: str) -> None:
    with pytest.raises(KernelError, match="belongs to the machine"):
        sysctl.write({"kernel.pid_max": 1 << 15}, one)


def test_missing_sysctl_is_refused_unless_optional(one: str) -> None:
    sysctl.write({"net.ipv4.no_such_thing": 1}, one, optional=True)

    with pytest.raises(KernelNotFound, match="no_such_thing"):
        sysctl.write({"net.ipv4.no_such_thing": 1}, one)
