"""Starting a command inside a sandbox that runs: in the namespaces of one of its processes, with its files.

As `sandbox.spawn` does it, a thread made for the purpose steps into the namespaces and starts the command with
posix_spawn; then it ends. The command is a child of this process, in a session of its own, so whoever started it can
wait for it and kill it with all it has started (`end_session`). With a terminal, opening it first makes it the one
that controls the session: interrupts and hang-ups then reach whom they should.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from msgspec import Struct

from netemu.kernel import libc
from netemu.kernel.pidfd import Process, start_time
from netemu.kernel.sandbox import find_command, on_own_thread
from netemu.model.errors import KernelError

_EVERYTHING = libc.CLONE_NEWNS | libc.CLONE_NEWUTS | libc.CLONE_NEWNET | libc.CLONE_NEWPID


class Stdio(Struct, frozen=True):
    """What a command has as its standard input and outputs: open descriptors, or -1 for /dev/null.

    With `tty`, a path such as /dev/pts/3, all three are that terminal.
    """

    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    tty: str = ""


def start_inside(process: Process, argv: Sequence[str], *, env: Mapping[str, str], cwd: str, stdio: Stdio) -> Process:
    """Start a command where `process` is. Blocks for a millisecond or two.

    Raises KernelNotFound when `process` has ended, or for a command that is not there; KernelError naming the step.
    """
    pid = on_own_thread("start inside", lambda: _start_here(process, argv, env, cwd, stdio))
    return Process(pid, start_time(pid))


def end_session(process: Process) -> None:
    """Kill a command that `start_inside` started and that nobody has waited for yet, with its process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _start_here(process: Process, argv: Sequence[str], env: Mapping[str, str], cwd: str, stdio: Stdio) -> int:
    fd = process.open()
    try:
        libc.unshare(libc.CLONE_FS)
        libc.setns(fd, _EVERYTHING, f"process {process.pid}")
    finally:
        os.close(fd)
    command = find_command(argv[0], env, cwd)
    try:
        os.chdir(cwd)
        return os.posix_spawn(
            command,
            list(argv),
            dict(env),
            file_actions=list(_actions(stdio)),
            setsid=True,
            setsigmask=(),
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT],
        )
    except OSError as err:
        where = f'chdir to cwd ("{cwd}")' if err.filename == cwd else f"start {argv[0]}"
        raise KernelError.of(where, "", err.errno or 0) from err


def _actions(stdio: Stdio) -> list[tuple[int, ...] | tuple[int, int, str, int, int]]:
    if stdio.tty:
        # Opened by the leader of a new session, it becomes the session's terminal.
        return [
            (os.POSIX_SPAWN_OPEN, 0, stdio.tty, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]
    given = enumerate((stdio.stdin, stdio.stdout, stdio.stderr))
    return [
        (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) if fd < 0 else (os.POSIX_SPAWN_DUP2, fd, number)
        for number, fd in given
    ]
