"""Processes that outlive whoever started them: named by number and start time, awaited through a pidfd.

A number alone is reused; together with the time its process started (field 22 of /proc/PID/stat, in clock ticks since
boot) it names one process for good. A pidfd becomes readable when the process ends, whoever its parent is.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import struct
from contextlib import suppress
from typing import Final

from msgspec import Struct

from netemu.model.errors import KernelError

# _IOWR(0xFF, 11, struct pidfd_info of 64 bytes) and its mask bits, linux/pidfd.h; the exit code since Linux 6.15.
_PIDFD_GET_INFO: Final = 0xC040FF0B
_PIDFD_INFO_EXIT: Final = 0x8


def start_time(pid: int) -> int:
    """When the process started, in ticks since boot; 0 when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name, in parentheses, may hold anything; the fields after it do not.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


class Process(Struct, frozen=True):
    """A process of ours, alive or not. (`pid`, `started`) can be written down and adopted by a later netemu."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it runs; one that has ended and is not reaped yet does not."""
        try:
            fd = self.open()
        except KernelError:
            return False
        try:
            return not _ended(fd)
        finally:
            os.close(fd)

    def open(self) -> int:
        """A pidfd. Raises KernelNotFound when the process has ended and its number is free or someone else's."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError as err:
            raise KernelError.of("find process", str(self.pid), err.errno or 0) from err
        # Compared after opening: the number cannot change hands any more.
        if start_time(self.pid) != self.started:
            os.close(fd)
            raise KernelError.of("find process", str(self.pid), 3)
        return fd

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended is success."""
        with suppress(KernelError):
            fd = self.open()
            try:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, number)
            finally:
                os.close(fd)

    def kill(self) -> None:
        """SIGKILL; the first process of a sandbox takes all others inside with it."""
        self.signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM; the first process of a sandbox ignores it unless it handles it, as in every container."""
        self.signal(signal.SIGTERM)

    async def wait(self) -> int | None:
        """Wait for the end; the exit status, minus the number of the signal that killed it, or None.

        A child of this process is reaped. Of an adopted one the status is known on Linux 6.15 and later.
        """
        try:
            fd = self.open()
        except KernelError:
            return self._reap()
        try:
            await _readable(fd)
            status = self._reap()
            return status if status is not None else _exit_of(fd)
        finally:
            os.close(fd)

    def _reap(self) -> int | None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return None
        return os.waitstatus_to_exitcode(status) if pid else None


def adopt(pid: int, started: int) -> Process | None:
    """The process of an earlier run, when it still runs."""
    process = Process(pid, started)
    return process if process.alive else None


def _ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)


def _exit_of(fd: int) -> int | None:
    """What the kernel remembers of a process that somebody else has reaped."""
    info = bytearray(struct.pack("=Q56x", _PIDFD_INFO_EXIT))
    with suppress(OSError):
        fcntl.ioctl(fd, _PIDFD_GET_INFO, info)
        (mask,) = struct.unpack_from("=Q", info)
        if mask & _PIDFD_INFO_EXIT:
            return os.waitstatus_to_exitcode(struct.unpack_from("=i", info, 60)[0])
    return None
