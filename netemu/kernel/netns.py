"""Named network namespaces, as `ip netns` keeps them: a bind mount of the namespace at /run/netns/NAME.

A namespace belongs to a thread, so it is made without a process: the calling thread unshares its own, the new one is
pinned by the bind mount, and the thread returns to where it was. `entered` works the same way: inside the block the
calling thread, and nobody else, is in the namespace; a socket opened there stays in it for ever.

A thread that cannot get back must not go on: it would open its next socket in the wrong network. Python cannot end
one thread of a pool, so the whole process ends, which every component of a lab survives by design.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from netemu.kernel import libc
from netemu.model.errors import KernelError, KernelExists, KernelNotFound, NetemuError

DIRECTORY: Final = "/run/netns"
_HERE: Final = "/proc/thread-self/ns/net"
_LOST: Final = 70  # EX_SOFTWARE

_log = logging.getLogger(__name__)


def path(name: str) -> str:
    """Where the namespace `name` is pinned; something that is a path already stays what it is."""
    return name if "/" in name else f"{DIRECTORY}/{name}"


def names() -> list[str]:
    """Every named namespace of the machine, sorted."""
    try:
        return sorted(os.listdir(DIRECTORY))
    except FileNotFoundError:
        return []


def exists(name: str) -> bool:
    """Whether `name` is a namespace; the empty file a crashed creation left behind is not one."""
    try:
        return os.stat(path(name)).st_dev != os.stat(DIRECTORY).st_dev  # nsfs is a file system of its own
    except OSError:
        return False


def create(name: str) -> None:
    """Make the namespace `name`, with nothing in it but a loopback link that is down.

    Raises KernelExists when there is one, KernelDenied without CAP_SYS_ADMIN.
    """
    _prepare_directory(name)
    where = path(name)
    try:
        os.close(os.open(where, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
    except FileExistsError:
        if exists(name):
            raise KernelError.of("create namespace", name, errno.EEXIST, f"namespace {name} exists already") from None
    except OSError as err:
        raise KernelError.of("create namespace", name, err.errno or 0) from err
    try:
        with _returning(name):
            libc.unshare(libc.CLONE_NEWNET)
            libc.mount(_HERE, where, "none", libc.MS_BIND)
    except KernelError as err:
        with suppress(OSError):
            os.unlink(where)
        raise KernelError.of("create namespace", name, err.code) from err


def ensure(name: str) -> bool:
    """Make the namespace unless it is there; whether it was made."""
    try:
        create(name)
    except KernelExists:
        return False
    return True


def delete(name: str) -> None:
    """Remove the name; the namespace ends with its last process and socket. Absent is success."""
    where = path(name)
    try:
        libc.umount(where, libc.MNT_DETACH)
    except KernelNotFound:
        return
    except KernelError as err:
        if err.code != errno.EINVAL:  # not a mount point, the rest of a creation that did not finish
            raise KernelError.of("delete namespace", name, err.code) from err
    with suppress(FileNotFoundError):
        os.unlink(where)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread is inside the namespace (a name or a path) meanwhile; "" means: stay where you are.

    Never await inside: another coroutine of the loop would run in the namespace. Never start a thread inside: it would
    begin, and stay, there. Raises KernelNotFound.
    """
    if not name:
        yield
        return
    with _returning(name):
        join(name)
        yield


def open_socket(name: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket of the namespace, as asyncio wants them: one that does not block. Raises KernelNotFound."""
    with entered(name):
        sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    return sock


def join(name: str) -> None:
    """The calling thread moves into the namespace for good."""
    try:
        fd = os.open(path(name), os.O_RDONLY)
    except OSError as err:
        raise KernelError.of("enter namespace", name, err.errno or 0, f"no network namespace {name}") from err
    try:
        libc.setns(fd, libc.CLONE_NEWNET, name)
    finally:
        os.close(fd)


@contextmanager
def _returning(name: str) -> Iterator[None]:
    home = os.open(_HERE, os.O_RDONLY)
    try:
        yield
    finally:
        try:
            libc.setns(home, libc.CLONE_NEWNET, name)
        except NetemuError:
            _log.critical("cannot leave namespace %s: the process ends rather than work in the wrong network", name)
            os._exit(_LOST)
        os.close(home)


def _prepare_directory(name: str) -> None:
    """A mount point that shares its mounts, as iproute2 has it, so that a deletion reaches every process."""
    if "/" in name or name in ("", ".", ".."):
        raise KernelError.of("create namespace", name, errno.EINVAL, f"{name!r} cannot be the name of a namespace")
    try:
        os.makedirs(DIRECTORY, 0o755, exist_ok=True)
        if not _share():
            _mount_directory()
    except (OSError, KernelError) as err:
        code = err.code if isinstance(err, KernelError) else err.errno or 0
        raise KernelError.of("create namespace", name, code) from err


def _mount_directory() -> None:
    # Two processes that both find no mount point would stack two, and every later mount would double: hence the lock.
    fd = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not _share():
            libc.mount(DIRECTORY, DIRECTORY, "none", libc.MS_BIND | libc.MS_REC)
            _share()
    finally:
        os.close(fd)


def _share() -> bool:
    """Whether it is a mount point now: only one can be made shared (a bind mount has its parent's device number)."""
    try:
        libc.mount("", DIRECTORY, "none", libc.MS_SHARED | libc.MS_REC)
    except KernelError as err:
        if err.code != errno.EINVAL:
            raise
        return False
    return True
