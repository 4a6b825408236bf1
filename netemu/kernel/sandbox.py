"""What a command in a Pod sees, and starting one there.

A sandbox is a view of the machine: the Pod's network namespace, its hostname, a copy-on-write copy of the machine's
own file system (so every tool of the machine is there, and nothing a Pod writes reaches it), and the files of the Pod
(resolv.conf, hosts, volumes) mounted over it. `spawn` starts a command in such a view, with process numbers of its
own: killing its first process ends everything inside.

How, without a launcher: namespaces and the root directory belong to a thread. A thread made for the purpose unshares
them, builds the view with mount(2), and starts the command with posix_spawn, which inherits the view; then the thread
ends, and the view lives on in the command alone. The mounts are private to it: nothing appears on the machine, and
the kernel frees all of it with the last process. Only /proc must be mounted from inside the new process numbers, so a
line of shell runs first and replaces itself by the command.

A process outlives its parent; (number, start time) names it for good, and `adopt` finds it again.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from msgspec import Struct, field

from netemu.kernel import libc
from netemu.kernel import netns as namespaces
from netemu.kernel.pidfd import Process, start_time
from netemu.model.errors import KernelError

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where the private tmpfs is mounted while a view is built. The view has a /tmp of its own, so nothing of the machine's
# is needed from there once the files of the Pod are open.
_SCRATCH: Final = "/tmp"
# Parts of the tree that a view has of its own, whatever the machine mounted there.
_OWN: Final = ("/proc", "/sys", "/dev", "/run", "/tmp")
# 0 is the shell's own name, replaced by the command's. A process must not start in a view without its own /proc.
_INIT: Final = 'mount -t proc -o nosuid,nodev,noexec proc /proc || exit 125; exec "$0" "$@"'

_log = logging.getLogger(__name__)
_warned = threading.Event()


class Sandbox(Struct, frozen=True):
    """A view: network namespace (name or path; "" for the caller's), hostname, and mounts.

    `mounts`: path inside to file or directory outside. A path that does not exist inside is made, in the copy only.
    Paths in `read_only` cannot be written through.
    """

    netns: str
    hostname: str
    mounts: Mapping[str, str] = field(default_factory=dict)
    domainname: str = ""
    read_only: frozenset[str] = frozenset()


def spawn(
    argv: Sequence[str],
    sandbox: Sandbox,
    *,
    env: Mapping[str, str],
    cwd: str = "/",
    stdin: int | None = None,
    stdout: int,
    stderr: int,
) -> Process:
    """Start a command in a view of its own, in a session of its own, reading from /dev/null if from nothing else.

    Blocks for some milliseconds. The command is found by the PATH of `env`. Raises KernelNotFound, as containerd
    words it, for a command that is not there; KernelError naming the step when the view cannot be built.
    """
    pid = on_own_thread("spawn", lambda: _spawn_here(argv, sandbox, env, cwd or "/", (stdin, stdout, stderr)))
    # Read from here: the thread shared the view, in which the command has mounted a /proc of its own by now.
    return Process(pid, start_time(pid))


def on_own_thread(name: str, start: Callable[[], int]) -> int:
    """The process that `start` begins on a thread that may step anywhere: it is never fit for anything else again.

    Raises what `start` raises.
    """
    started: list[int | BaseException] = []

    def work() -> None:
        try:
            started.append(start())
        except BaseException as err:
            started.append(err)

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()
    if isinstance(started[0], BaseException):
        raise started[0]
    return started[0]


def enter(sandbox: Sandbox, process: Process | None = None) -> None:
    """The current process, which must have one thread, steps into the view for good; then it may exec a command.

    With a `process` that runs in the sandbox its view is shared, files and processes too; the caller is then a fork
    of the current process, which waits for it and ends with its status. Raises KernelNotFound when it has ended.
    """
    if process is None:
        _leave_mounts()
        _name(sandbox)
        if sandbox.netns:
            namespaces.join(sandbox.netns)
        _build(sandbox, own_proc=False)
        return
    kinds = libc.CLONE_NEWNS | libc.CLONE_NEWUTS | libc.CLONE_NEWNET | libc.CLONE_NEWPID
    fd = process.open()
    try:
        libc.unshare(libc.CLONE_FS)
        libc.setns(fd, kinds, sandbox.netns)
    finally:
        os.close(fd)
    child = os.fork()
    if child:
        _forward(child)


def _forward(child: int) -> None:
    """Stand in for the child: pass terminating signals on, end as it ends."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: os.kill(child, got))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


def _spawn_here(
    argv: Sequence[str], sandbox: Sandbox, env: Mapping[str, str], cwd: str, streams: tuple[int | None, int, int]
) -> int:
    _leave_mounts()
    _name(sandbox)
    if sandbox.netns:
        namespaces.join(sandbox.netns)
    _build(sandbox, own_proc=True)
    command = find_command(argv[0], env, cwd)
    os.chdir(cwd)
    # From here on, children of this thread are numbered anew, the first one from 1.
    libc.unshare(libc.CLONE_NEWPID)
    stdin, stdout, stderr = streams
    nothing = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
    actions = [
        nothing if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]
    defaults = [signal.SIGPIPE, signal.SIGXFSZ]
    shell = ["sh", "-c", _INIT, command, *argv[1:]]
    try:
        return os.posix_spawn(
            "/bin/sh", shell, dict(env), file_actions=actions, setsid=True, setsigmask=(), setsigdef=defaults
        )
    except OSError as err:
        raise KernelError.of(f"start {argv[0]}", sandbox.netns, err.errno or 0) from err


def find_command(name: str, env: Mapping[str, str], cwd: str) -> str:
    """The file that a command's name means, here and now. Raises KernelNotFound, as containerd words it."""
    if "/" in name:
        path: str | None = os.path.join(cwd, name)
        path = path if path and os.access(path, os.X_OK) else None
    else:
        path = shutil.which(name, path=env.get("PATH", DEFAULT_PATH))
    if path is None:
        where = "no such file or directory" if "/" in name else "executable file not found in $PATH"
        raise KernelError.of(f"start {name}", "", errno.ENOENT, f'exec: "{name}": {where}')
    return path


def _leave_mounts() -> None:
    """The thread gets mounts and names of its own; what it mounts from here on is seen nowhere else."""
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWUTS)
    libc.mount("", "/", flags=libc.MS_REC | libc.MS_PRIVATE)


def _name(sandbox: Sandbox) -> None:
    socket.sethostname(sandbox.hostname)
    libc.setdomainname(sandbox.domainname or "(none)")


def _build(sandbox: Sandbox, *, own_proc: bool) -> None:
    """Make the view and make it the thread's root."""
    with ExitStack() as files:
        # Opened before the root changes: afterwards their paths mean something else.
        mounts = {**dict.fromkeys(code := _own_code()), **sandbox.mounts}
        sources = {inside: _source(outside or inside, files) for inside, outside in mounts.items()}
        libc.mount("netemu", _SCRATCH, "tmpfs", libc.MS_NODEV, "mode=0755")
        root = f"{_SCRATCH}/root"
        for name in ("root", "upper", "work", "run", "tmp"):
            os.mkdir(f"{_SCRATCH}/{name}")
        os.chmod(f"{_SCRATCH}/tmp", 0o1777)
        copied = _root(root)
        _mount_own(root, own_proc=own_proc)
        os.chdir(root)
        libc.pivot_root(".", ".")
        for inside in sorted(sources):
            _bind(sources[inside], inside, read_only=inside in sandbox.read_only or inside in code, copied=copied)
        # The former root lies on top of the new one, and is where we still stand.
        libc.umount(".", libc.MNT_DETACH)
        os.chdir("/")


def _own_code() -> list[str]:
    """Where this Python and netemu are, if that is in a part of the tree that views have their own of, such as /tmp."""
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    places = {checkout, sys.prefix, sys.base_prefix}
    hidden = [place for place in places if place.startswith(tuple(own + "/" for own in _OWN))]
    return [place for place in hidden if not any(place.startswith(other + "/") for other in hidden)]


def _source(path: str, files: ExitStack) -> int:
    try:
        fd = os.open(path, os.O_PATH)
    except OSError as err:
        raise KernelError.of(f"mount {path}", "", err.errno or 0) from err
    files.callback(os.close, fd)
    return fd


def _root(root: str) -> bool:
    """Lay the copy-on-write root; whether it is one. Without overlayfs the machine's own, read-only, stands in."""
    try:
        data = f"lowerdir=/,upperdir={_SCRATCH}/upper,workdir={_SCRATCH}/work"
        libc.mount("overlay", root, "overlay", 0, data)
        copied = True
    except KernelError as err:
        if not _warned.is_set():
            _warned.set()
            _log.warning("no overlayfs (%s): Pods see the machine's files read-only", err)
        libc.mount("/", root, flags=libc.MS_BIND)
        libc.mount("", root, flags=libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY)
        copied = False
    for target in _submounts():
        # overlayfs shows the lower file system without what is mounted below it.
        _show(target, root + target)
    return copied


def _show(source: str, target: str) -> None:
    """Bind one of the machine's other file systems, read-only; one that cannot be bound so is left out."""
    try:
        libc.mount(source, target, flags=libc.MS_BIND)
    except KernelError as err:
        _log.debug("%s is not in the view: %s", source, err)
        return
    try:
        libc.mount("", target, flags=libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY)
    except KernelError as err:
        _log.debug("%s is not in the view: %s", source, err)
        libc.umount(target, libc.MNT_DETACH)


def _submounts() -> Iterator[str]:
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            target = line.split(" ", 5)[4]
            if target == "/" or target.startswith(tuple(own + "/" for own in _OWN)) or target in _OWN:
                continue
            yield target.encode().decode("unicode_escape") if "\\" in target else target


def _mount_own(root: str, *, own_proc: bool) -> None:
    libc.mount("/proc", f"{root}/proc", flags=libc.MS_BIND | (0 if own_proc else libc.MS_REC))
    libc.mount("/dev", f"{root}/dev", flags=libc.MS_BIND | libc.MS_REC)
    # A sysfs mounted from inside the network namespace shows that namespace's links in /sys/class/net.
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC | libc.MS_RDONLY
    libc.mount("sysfs", f"{root}/sys", "sysfs", flags)
    libc.mount(f"{_SCRATCH}/run", f"{root}/run", flags=libc.MS_BIND)
    libc.mount(f"{_SCRATCH}/tmp", f"{root}/tmp", flags=libc.MS_BIND)


def _bind(source: int, inside: str, *, read_only: bool, copied: bool) -> None:
    try:
        _make_target(source, inside)
    except OSError as err:
        why = (
            os.strerror(err.errno or 0) if copied else "it does not exist, and this kernel has no overlayfs to make it"
        )
        raise KernelError.of(f"mount on {inside}", "", err.errno or 0, why) from err
    libc.mount(f"/proc/thread-self/fd/{source}", inside, flags=libc.MS_BIND | libc.MS_REC)
    if read_only:
        libc.mount("", inside, flags=libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY)


def _make_target(source: int, inside: str) -> None:
    if os.path.exists(inside):
        return
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.makedirs(inside)
        return
    os.makedirs(os.path.dirname(inside), exist_ok=True)
    # A link that leads nowhere, as /etc/resolv.conf often is: its place is taken by the file.
    if os.path.islink(inside):
        os.unlink(inside)
    os.close(os.open(inside, os.O_CREAT | os.O_WRONLY, 0o644))
