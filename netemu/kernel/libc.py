"""System calls that Python 3.11 has no function for: setns, unshare, mount, umount2, pivot_root, setdomainname.

Each raises `KernelError` with the errno the kernel gave. ctypes releases the interpreter lock during the call and keeps
errno per thread, so all of them may be used from worker threads; that matters, because namespaces belong to threads.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Final

from netemu.model.errors import KernelError

CLONE_FS: Final = 0x00000200
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_SHARED: Final = 0x100000

MNT_DETACH: Final = 0x2

# pivot_root has no wrapper in libc; the number is per architecture.
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "armv7l": 218, "i686": 217, "ppc64le": 203}


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int, where: str = "") -> None:
    """The calling thread joins the namespace behind `fd`; `kind` is one CLONE_NEW* (several for a pidfd)."""
    _check(_libc().setns(fd, kind), "setns", where)


def unshare(kinds: int) -> None:
    """The calling thread leaves the namespaces `kinds` for new ones of its own."""
    _check(_libc().unshare(kinds), "unshare", "")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    done = _libc().mount(
        os.fsencode(source), os.fsencode(target), os.fsencode(fstype), ctypes.c_ulong(flags), os.fsencode(data)
    )
    _check(done, f"mount {fstype or source} on {target}", "")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc().umount2(os.fsencode(target), flags), f"umount {target}", "")


def pivot_root(new: str, old: str) -> None:
    """The calling thread's mount namespace gets `new` as its root; the former one appears at `old`."""
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise KernelError("pivot_root", detail=f"number of the system call on {os.uname().machine} is not known")
    _check(_libc().syscall(ctypes.c_long(number), os.fsencode(new), os.fsencode(old)), f"pivot_root {new}", "")


def setdomainname(name: str) -> None:
    """The NIS domain name of the calling thread's UTS namespace, which `hostname -y` and uname show."""
    raw = name.encode()
    _check(_libc().setdomainname(raw, ctypes.c_size_t(len(raw))), f"setdomainname {name}", "")


def return_free_memory() -> None:
    """Give pages that nothing uses back to the kernel; glibc keeps what lies between others. Other libcs: nothing."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim:
        trim(ctypes.c_size_t(0))


def _check(done: int, operation: str, where: str) -> None:
    if done != 0:
        raise KernelError.of(operation, where, ctypes.get_errno())
