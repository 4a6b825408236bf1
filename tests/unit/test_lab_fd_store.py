"""The store of listening sockets: what a killed process leaves behind, and what its successor finds."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from netemu.lab.fd_client import KeptSockets
from netemu.lab.fd_store import FdStore
from netemu.runtime.cri import ContainerConfig, ContainerState, PortMapping, SandboxConfig
from netemu.runtime.emulated import EmulatedRuntime


class Keeper:
    """A supervisor's part, on the test's own loop. Agents come (`agent`) and are killed (`kill`)."""

    def __init__(self) -> None:
        self.store = FdStore()
        self._agents: list[tuple[KeptSockets, socket.socket]] = []

    def agent(self, *, listening: bool = True) -> KeptSockets:
        """A new agent, which inherits duplicates of what is kept. Without `listening` nobody reads what it sends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with os.fdopen(self.store.index()) as file:
            inherited = {name: os.dup(fd) for name, fd in json.load(file).items()}
        agent = KeptSockets(theirs, inherited)
        self._agents.append((agent, ours))
        if listening:
            self.listen(ours)
        return agent

    def listen(self, channel: socket.socket | None = None) -> None:
        """Read what the newest agent sends from now on."""
        ours = channel or self._agents[-1][1]
        asyncio.get_running_loop().add_reader(ours, self.store.receive, ours)

    def kill(self) -> None:
        """The newest agent dies; what it said last is heard afterwards."""
        agent, ours = self._agents.pop()
        asyncio.get_running_loop().remove_reader(ours)
        for name in agent.left:
            if (sock := agent.take(name)) is not None:
                sock.close()
        agent.close()
        assert not self.store.receive(ours)
        ours.close()

    def end(self) -> None:
        """Leave nothing open."""
        while self._agents:
            self.kill()
        self.store.forget(list(json.loads(self.names())))

    def names(self) -> str:
        """What is kept, as JSON."""
        with os.fdopen(self.store.index()) as file:
            return file.read()


@pytest.fixture
async def keeper() -> AsyncIterator[Keeper]:
    keeper = Keeper()
    yield keeper
    keeper.end()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


async def kept(keeper: Keeper, count: int) -> None:
    """Return once that many are kept."""
    async with asyncio.timeout(5):
        while len(keeper.store) != count:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0)


def connected(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def test_a_successor_serves_those_who_came_meanwhile(keeper: Keeper, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    keeper.agent().keep("web", listener)
    listener.close()
    keeper.kill()

    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    taken = keeper.agent().take("web")

    assert taken is not None
    taken.setblocking(True)
    accepted, address = taken.accept()
    assert address == client.getsockname()
    for sock in (accepted, client, taken):
        sock.close()


async def test_what_is_forgotten_is_closed_when_forget_returns(keeper: Keeper, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    agent = keeper.agent()
    agent.keep("web", listener)
    listener.close()
    await kept(keeper, 1)

    await agent.forget(["web", "never kept"])

    assert not connected(port)


async def test_a_socket_is_taken_once_and_stays_kept(keeper: Keeper, listener: socket.socket) -> None:
    keeper.agent().keep("web", listener)
    keeper.kill()
    agent = keeper.agent()

    first = agent.take("web")
    second = agent.take("web")

    assert first is not None
    assert second is None
    assert len(keeper.store) == 1
    first.close()


async def test_thousands_are_kept_by_a_keeper_who_is_slow(keeper: Keeper, listener: socket.socket) -> None:
    agent = keeper.agent(listening=False)
    names = [f"{'0' * 64}/tcp4/{number}" for number in range(900)]
    for name in names:
        agent.keep(name, listener)

    keeper.listen()
    await kept(keeper, len(names))
    await agent.forget(names[1:])

    assert list(json.loads(keeper.names())) == names[:1]


async def test_a_message_that_came_without_its_descriptor_is_no_harm(keeper: Keeper) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.send(b"keep web")

    assert keeper.store.receive(ours)
    assert len(keeper.store) == 0
    ours.close()
    theirs.close()


async def test_without_a_keeper_everything_goes_on(
    keeper: Keeper, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent = KeptSockets(theirs, {})
    ours.close()

    agent.keep("web", listener)
    agent.keep("web", listener)
    await agent.forget(["web"])

    assert [record.getMessage() for record in caplog.records] == [
        "no supervisor any more ([Errno 32] Broken pipe): listening sockets will end with this process"
    ]


WEB = ContainerConfig(
    name="web", image="shop/web", ports=tuple(PortMapping(container_port=18473, protocol=p) for p in ("TCP", "UDP"))
)


async def started(runtime: EmulatedRuntime, directory: Path, config: ContainerConfig = WEB) -> str:
    sandbox = SandboxConfig("u", "web", "shop", "n1", str(directory / "u"), "", "web", addresses=("127.0.0.1",))
    await runtime.run_pod_sandbox(sandbox)
    container = await runtime.create_container("u", config)
    await runtime.start_container(container)
    return container


async def test_an_emulated_container_answers_what_was_asked_while_it_had_no_runtime(
    keeper: Keeper, tmp_path: Path
) -> None:
    first = EmulatedRuntime("n1", tmp_path, store=keeper.agent())
    await started(first, tmp_path)
    await first.close()
    keeper.kill()
    by_tcp = socket.create_connection(("127.0.0.1", 18473), timeout=5)
    by_udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for client in (by_tcp, by_udp):
        client.setblocking(False)
    by_tcp.send(b"hello\n")
    by_udp.sendto(b"hello", ("127.0.0.1", 18473))

    second = EmulatedRuntime("n1", tmp_path, store=keeper.agent())
    await second.start()

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        answers = [await loop.sock_recv(client, 4096) for client in (by_tcp, by_udp)]
    assert all(b"web" in answer for answer in answers)
    await second.stop_pod_sandbox("u")
    assert len(keeper.store) == 0
    by_tcp.close()
    by_udp.close()


async def test_a_container_that_starts_again_finds_its_ports_free(keeper: Keeper, tmp_path: Path) -> None:
    runtime = EmulatedRuntime("n1", tmp_path, store=keeper.agent())
    before = await started(runtime, tmp_path)
    await runtime.stop_container(before, 1)

    after = await started(runtime, tmp_path, ContainerConfig("web", "shop/web", 1, ports=WEB.ports))

    status = await runtime.container_status(after)
    assert status is not None
    assert status.state is ContainerState.RUNNING
    await runtime.stop_pod_sandbox("u")


async def test_a_container_whose_port_is_taken_keeps_nothing(keeper: Keeper, tmp_path: Path) -> None:
    runtime = EmulatedRuntime("n1", tmp_path, store=keeper.agent())
    with socket.create_server(("127.0.0.1", 18473)):
        container = await started(runtime, tmp_path)

    status = await runtime.container_status(container)
    assert status is not None
    assert status.exit_code == 1
    assert len(keeper.store) == 0
