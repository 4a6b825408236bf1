"""Running a tool to its end, in a namespace: iptables-restore, conntrack, tc. Long-lived commands are `sandbox`'s.

A worker thread steps into the namespace for as long as it takes to start the child, and is back before it waits.
"""

from __future__ import annotations

import asyncio
import errno
import re
import resource
import subprocess
import threading
from collections.abc import Mapping, Sequence

from netemu.kernel import netns as namespaces
from netemu.kernel.pidfd import Process, adopt
from netemu.kernel.sandbox import Sandbox, enter, spawn
from netemu.model.errors import KernelError

__all__ = ["Process", "Sandbox", "adopt", "enter", "raise_open_files", "reason", "run", "run_sync", "spawn"]


def raise_open_files() -> None:
    """As many open files as may be: the usual soft limit of 1,024 is meant for one program, not for one that has
    sockets in every Pod and node."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def run(
    argv: Sequence[str],
    *,
    netns: str = "",
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> bytes:
    """The standard output of a tool that ends with status 0.

    Raises KernelNotFound naming a tool that is not installed, KernelError with the tool's name and its `reason` when it
    fails, KernelError when it takes longer than `timeout` seconds. A cancelled call kills it.
    """
    tool = _Tool(argv, netns, env)
    work = asyncio.get_running_loop().run_in_executor(None, tool.run, input, timeout)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        tool.stop()
        await asyncio.wait([work])
        work.exception()
        raise


def run_sync(
    argv: Sequence[str],
    *,
    netns: str = "",
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 30,
) -> bytes:
    """As `run`, for callers without a loop."""
    return _Tool(argv, netns, env).run(input, timeout)


_PLACE = re.compile(r"Error occurred at line: (\d+)")
_TOOL = re.compile(r"^ip6?tables\S* v\S+ \(\w+\): ")
"""It stands in front of the tool's complaint, and is told anyway."""


class _Tool:
    def __init__(self, argv: Sequence[str], netns: str, env: Mapping[str, str] | None) -> None:
        self._argv, self._netns, self._env = list(argv), netns, None if env is None else dict(env)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, input: bytes, timeout: float) -> bytes:
        with self._start() as child:
            try:
                out, err = child.communicate(input, timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                raise self._error(f"no end after {timeout:g} s; killed") from None
        if child.returncode != 0:
            raise self._error(_why(child.returncode, err))
        return out

    def stop(self) -> None:
        """Kill it, or see to it that it never starts."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        with self._lock, namespaces.entered(self._netns):
            if self._stopped:
                raise self._error("cancelled")
            try:
                self._child = subprocess.Popen(self._argv, stdin=pipe, stdout=pipe, stderr=pipe, env=self._env)
            except FileNotFoundError:
                raise self._error(f"{self._argv[0]} is not installed", errno.ENOENT) from None
            except OSError as err:
                raise self._error("", err.errno or 0) from err
            return self._child

    def _error(self, detail: str, code: int = 0) -> KernelError:
        return KernelError.of(f"run {self._argv[0]}", self._netns, code, detail)


def _why(status: int, stderr: bytes) -> str:
    ended = f"killed by signal {-status}" if status < 0 else f"status {status}"
    return f"{why} ({ended})" if (why := reason(stderr)) else ended


def reason(said: bytes) -> str:
    """The line with which a tool tells why it failed: the last one, but for a hint at its help.

    Tools of iptables tell the place in a line of its own; it is put behind.
    """
    lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
    match [line for line in lines if line and not line.startswith("Try `")]:
        case [*_, what, last] if place := _PLACE.fullmatch(last):
            return f"{_TOOL.sub('', what)}, line {place[1]}"
        case [*_, last]:
            return _TOOL.sub("", last)
    return ""
