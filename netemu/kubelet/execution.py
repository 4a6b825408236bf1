"""A command on behalf of a client: its input and output over pipes or a terminal, its end as a `Status`.

The client's side is a `RemoteStreams`, whatever it speaks. The command ends with its client: when that one leaves, the
command's session is killed. When the command ends, what it has written is sent, and what it left behind that still
holds its output is not waited for. Upstream: `k8s.io/kubelet/pkg/cri/streaming/remotecommand`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from netemu.kernel.inside import Stdio, end_session
from netemu.kernel.pidfd import Process
from netemu.model.errors import NetemuError

_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams a client asked for."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False


class RemoteStreams(Protocol):
    """The client."""

    async def read_stdin(self) -> bytes:
        """What it sends; empty at the end."""
        ...

    def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """Columns and rows of its terminal, whenever they change."""
        ...

    async def write(self, stream: str, data: bytes) -> None:
        """Send output; `stream` is `stdout` or `stderr`. Raises ConnectionError."""
        ...

    async def gone(self) -> None:
        """Returns when it has left."""
        ...

    async def finish(self, status: Mapping[str, Any]) -> None:
        """Tell how it ended, and take leave."""
        ...


SUCCESS: dict[str, Any] = {"metadata": {}, "status": "Success"}


def exit_code(status: int | None) -> int:
    """As containers have it: a signal is 128 and its number; None, an end that nobody saw, is 255."""
    return 255 if status is None else status if status >= 0 else 128 - status


def exit_status(code: int | None) -> dict[str, Any]:
    """The Status of a command that ended; negative codes are signals, None an end that nobody saw."""
    if code == 0:
        return SUCCESS
    number = exit_code(code)
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {number}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(number)}]},
    }


@dataclass(frozen=True, slots=True)
class Session:
    """Who else hears of a command: of what it writes, by stream, and of its end, with its exit status."""

    written: Callable[[str, bytes], None]
    ended: Callable[[int | None], Awaitable[None]]


def failure(message: str) -> dict[str, Any]:
    """The Status of a command that could not be started."""
    text = f"Internal error occurred: {message}"
    return {"metadata": {}, "status": "Failure", "message": text, "reason": "InternalError", "code": 500}


async def execute(
    start: Callable[[Stdio], Awaitable[Process]],
    wanted: Wanted,
    client: RemoteStreams,
    session: Session | None = None,
) -> None:
    """Run a command to its end, or until its client leaves."""
    with _Ends(wanted) as ends:
        try:
            process = await start(ends.inside)
        except (NetemuError, OSError) as error:
            await client.finish(failure(f"error executing command in container: {error}"))
            return
        finally:
            ends.close_inside()
        waiting = asyncio.create_task(process.wait())
        try:
            left = await _attend(waiting, ends, wanted, client, session)
        finally:
            if not waiting.done():
                end_session(process)
                # To the end, whoever cancels: it must be reaped.
                await asyncio.shield(asyncio.wait([waiting]))
            if session is not None:
                await asyncio.shield(session.ended(waiting.result()))
    if not left:
        # Who is attached to a container hears of its exit code from the Pod's status.
        await client.finish(SUCCESS if session is not None else exit_status(waiting.result()))


async def _attend(
    waiting: asyncio.Task[int | None], ends: _Ends, wanted: Wanted, client: RemoteStreams, session: Session | None
) -> bool:
    """Carry the streams until the command ends; whether the client left before that."""
    leaving = asyncio.create_task(client.gone())
    into = [asyncio.create_task(_take_input(ends, client))] if wanted.stdin else []
    if wanted.tty:
        into.append(asyncio.create_task(_resize(ends, client)))
    out = [asyncio.create_task(_give_output(end, name, client, session)) for name, end in ends.outputs.items()]
    try:
        either: set[asyncio.Future[Any]] = {waiting, leaving}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            return True
        for end in ends.outputs.values():
            end.last_look()
        either = {leaving, asyncio.gather(*out)}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return leaving.done() and not all(task.done() for task in out)
    finally:
        tasks = [leaving, *into, *out]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _take_input(ends: _Ends, client: RemoteStreams) -> None:
    with contextlib.suppress(OSError):  # the command has closed its input
        while data := await client.read_stdin():
            await ends.write(data)
    ends.end_input()


async def _resize(ends: _Ends, client: RemoteStreams) -> None:
    async for columns, rows in client.sizes():
        ends.resize(columns, rows)


async def _give_output(end: Output, name: str, client: RemoteStreams, session: Session | None) -> None:
    try:
        while data := await end.read():
            if session is not None:
                session.written(name, data)
            await client.write(name, data)
    except ConnectionError:  # it has left, and `gone` tells
        return


async def write_all(fd: int, data: bytes) -> None:
    """Write to what does not block, and wait for as long as there is no room. Raises BrokenPipeError, OSError."""
    loop, rest = asyncio.get_running_loop(), memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_writer(fd, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_writer(fd)


class Output:
    """The reading end of a command's output."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ready = asyncio.Event()
        self._last = False
        os.set_blocking(fd, False)

    def last_look(self) -> None:
        """From now on nothing is waited for: `read` gives what is there, then the end."""
        self._last = True
        self._ready.set()

    async def read(self) -> bytes:
        """What has come; empty at the end."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self._fd, _PIECE)
            except BlockingIOError:
                if self._last:
                    return b""
            except OSError:  # a terminal that nobody has open any more
                return b""
            self._ready.clear()
            loop.add_reader(self._fd, self._ready.set)
            try:
                await self._ready.wait()
            finally:
                loop.remove_reader(self._fd)


class _Ends:
    """Both ends of a command's pipes, or of its terminal."""

    def __init__(self, wanted: Wanted) -> None:
        self._inside: list[int] = []
        self._outside: list[int] = []
        self.outputs: dict[str, Output] = {}
        self._input = self._terminal = -1
        try:
            self.inside = self._open_terminal() if wanted.tty else self._open_pipes(wanted)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> _Ends:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_inside()
        for fd in self._outside:
            os.close(fd)
        self._outside.clear()

    def _open_terminal(self) -> Stdio:
        ours, theirs = pty.openpty()
        self._outside.append(ours)
        self._inside.append(theirs)
        # Two descriptors of one terminal: one is waited on for reading, the other for writing.
        self._terminal = self._input = os.dup(ours)
        self._outside.append(self._input)
        os.set_blocking(self._input, False)
        self.outputs["stdout"] = Output(ours)
        return Stdio(tty=os.ttyname(theirs))

    def _open_pipes(self, wanted: Wanted) -> Stdio:
        stdin = stdout = stderr = -1
        if wanted.stdin:
            stdin, self._input = self._pipe()
            os.set_blocking(self._input, False)
        if wanted.stdout:
            read, stdout = self._pipe(reading=True)
            self.outputs["stdout"] = Output(read)
        if wanted.stderr:
            read, stderr = self._pipe(reading=True)
            self.outputs["stderr"] = Output(read)
        return Stdio(stdin, stdout, stderr)

    def _pipe(self, *, reading: bool = False) -> tuple[int, int]:
        """A pipe's reading and writing end; `reading` is whether the first is ours."""
        read, write = os.pipe()
        self._outside.append(read if reading else write)
        self._inside.append(write if reading else read)
        return read, write

    def close_inside(self) -> None:
        """The command has them now."""
        for fd in self._inside:
            os.close(fd)
        self._inside.clear()

    async def write(self, data: bytes) -> None:
        """To the command's input. Raises BrokenPipeError, OSError."""
        if self._input >= 0:
            await write_all(self._input, data)

    def end_input(self) -> None:
        """The client sends no more; a terminal stays open."""
        if self._input >= 0 and self._terminal < 0:
            self._outside.remove(self._input)
            os.close(self._input)
            self._input = -1

    def resize(self, columns: int, rows: int) -> None:
        """The client's window has another size."""
        if self._terminal >= 0:
            size = struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
