"""Many measurements at the same time and the descriptors that they need."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator

import pytest

from netemu.cli.root import need_root_everywhere
from netemu.model.errors import KernelError
from netemu.observe.matrix import measure as measuring
from netemu.observe.matrix.measure import Ask, measure
from netemu.observe.matrix.table import Measured
from netemu.observe.predict import Outcome


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]  # so that there is no gap
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in held:
            os.close(each)


async def test_what_many_nodes_refuse_has_no_more_sockets_than_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    open_now, most = 0, 0

    async def one(ask: Ask, patience: float) -> Measured:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        open_now -= 1
        return Measured(Outcome.REFUSED)

    monkeypatch.setattr(measuring, "_one", one)
    monkeypatch.setattr(measuring, "_WAITING", 4)
    asks = [Ask("t", "127.0.0.1", 1, "TCP", (Outcome.REFUSED,), refused_by=f"node-{n % 30}") for n in range(90)]

    assert len(await measure(asks)) == 90
    assert most == 4


@pytest.mark.usefixtures("no_descriptor_left")
async def test_where_no_socket_can_be_had_nothing_is_said_of_the_network() -> None:
    with pytest.raises(KernelError, match="open a socket: Too many open files"):
        await measure([Ask("", "127.0.0.1", 1, "TCP", (Outcome.REFUSED,))] * 3)


def test_what_looks_everywhere_may_open_as_many_files_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    try:
        need_root_everywhere()

        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
