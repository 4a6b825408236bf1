"""Commands on behalf of a client: real processes of this machine, and a client in memory."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from netemu.kernel.inside import Stdio
from netemu.kernel.pidfd import Process, start_time
from netemu.kubelet.backlog import Backlog
from netemu.kubelet.execution import Session, Wanted, execute, exit_status
from netemu.model.errors import KernelError

ALL = Wanted(stdin=True, stdout=True, stderr=True)


class Client:
    """See execution.RemoteStreams."""

    def __init__(self, stdin: bytes = b"", *, sends_more: bool = False) -> None:
        self.said = {"stdout": b"", "stderr": b""}
        self.status: Mapping[str, Any] | None = None
        self.left, self.heard = asyncio.Event(), asyncio.Event()
        self._stdin, self._sends_more = [stdin] if stdin else [], sends_more

    async def read_stdin(self) -> bytes:
        if self._stdin:
            return self._stdin.pop()
        if self._sends_more:
            await asyncio.Event().wait()
        return b""

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        yield 101, 33
        await asyncio.Event().wait()

    async def write(self, stream: str, data: bytes) -> None:
        self.said[stream] += data
        self.heard.set()

    async def gone(self) -> None:
        await self.left.wait()

    async def finish(self, status: Mapping[str, Any]) -> None:
        self.status = status


class Starter:
    """Starts a shell's script."""

    def __init__(self, script: str) -> None:
        self._script = script
        self.process: Process | None = None

    async def __call__(self, stdio: Stdio) -> Process:
        fds = [stdio.stdin, stdio.stdout, stdio.stderr]
        child = subprocess.Popen(  # noqa: ASYNC220 - a shell starts at once
            ["sh", "-c", self._script],
            stdin=fds[0] if fds[0] >= 0 else subprocess.DEVNULL,
            stdout=fds[1] if fds[1] >= 0 else subprocess.DEVNULL,
            stderr=fds[2] if fds[2] >= 0 else subprocess.DEVNULL,
            start_new_session=True,
        )
        child.returncode = 0  # whoever waits for the Process reaps it
        self.process = Process(child.pid, start_time(child.pid))
        return self.process


async def run(script: str, client: Client, wanted: Wanted = ALL) -> Client:
    async with asyncio.timeout(20):
        await execute(Starter(script), wanted, client)
    return client


async def test_input_outputs_and_exit_code() -> None:
    client = await run("cat; echo bad >&2; exit 3", Client(b"given"))

    assert client.said == {"stdout": b"given", "stderr": b"bad\n"}
    assert client.status == exit_status(3)


async def test_much_output_arrives_whole() -> None:
    client = await run("head -c 3000000 /dev/zero", Client())

    assert len(client.said["stdout"]) == 3_000_000


async def test_a_command_need_not_read_its_input() -> None:
    client = await run("exit 0", Client(b"x" * 1_000_000, sends_more=True))

    assert client.status == {"metadata": {}, "status": "Success"}


async def test_what_a_command_leaves_behind_is_not_waited_for() -> None:
    client = await run("sleep 5 & echo done", Client())

    assert client.said["stdout"] == b"done\n"


async def test_a_client_that_leaves_takes_its_command_along() -> None:
    client, start = Client(sends_more=True), Starter("echo up; sleep 1000 & sleep 1000")
    running = asyncio.create_task(execute(start, ALL, client))
    await client.heard.wait()
    client.left.set()
    await asyncio.wait_for(running, 20)

    assert start.process is not None
    group = start.process.pid
    assert [line for line in await of_group(group) if not line.startswith("Z")] == []
    assert client.status is None


async def of_group(group: int) -> list[str]:
    """The states of the processes of a process group."""
    listing = await asyncio.create_subprocess_exec("ps", "-eo", "stat=,pgid=", stdout=asyncio.subprocess.PIPE)
    out, _ = await listing.communicate()
    return [line for line in out.decode().splitlines() if line.split()[1] == str(group)]


async def test_a_command_that_cannot_start_is_told() -> None:
    async def start(_: Stdio) -> Process:
        raise KernelError("start x", detail="no such thing")

    client = Client()
    await execute(start, ALL, client)

    assert client.status is not None
    assert (client.status["reason"], client.status["code"]) == ("InternalError", 500)
    assert client.said == {"stdout": b"", "stderr": b""}


@pytest.mark.parametrize(("code", "shown"), [(1, "1"), (255, "255"), (-9, "137"), (None, "255")])
def test_exit_codes_in_a_status(code: int | None, shown: str) -> None:
    assert exit_status(code)["details"]["causes"] == [{"reason": "ExitCode", "message": shown}]


async def test_a_backlog_ends_after_what_was_put() -> None:
    backlog = Backlog()
    for piece in (b"a", b"", b"b"):
        await backlog.put(piece)
    await backlog.end()
    await backlog.put(b"late")

    assert [await backlog.get() for _ in range(3)] == [b"a", b"b", b""]


async def test_a_session_hears_of_output_and_end() -> None:
    heard: list[object] = []

    async def ended(code: int | None) -> None:
        heard.append(code)

    client = Client()
    session = Session(lambda stream, data: heard.append((stream, data)), ended)
    await execute(Starter("echo hi; exit 3"), ALL, client, session)

    assert heard == [("stdout", b"hi\n"), 3]
    assert client.status == exit_status(0)
